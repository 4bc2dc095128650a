"""The families over fake sessions: feeding and reading, without a network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.fakes import FakeSession

from dulian.errors import InferenceError
from dulian.models.catalog import all_rows
from dulian.models.classifier import Classifier
from dulian.models.networks import DLIB_GENDER, RES10_SSD, YUNET
from dulian.models.res10_ssd import Res10Ssd
from dulian.models.rows import Glance, ModelRow
from dulian.models.yunet import STRIDES, YuNet, decode
from dulian.runtimes import Tensor

# What each network was trained with (the models' own deploy files and manifests), written out once more on purpose.
FEEDING = {
    "res10_ssd": ("bgr", (104.0, 177.0, 123.0), 1.0),
    "age_net": ("bgr", (78.4263377603, 87.7689143744, 114.895847746), 1.0),
    "gender_net": ("bgr", (78.4263377603, 87.7689143744, 114.895847746), 1.0),
    "yunet": ("bgr", (0.0, 0.0, 0.0), 1.0),
    "dlib_age": ("rgb", (122.782, 117.001, 104.298), 1 / 256),
    "dlib_gender": ("rgb", (122.782, 117.001, 104.298), 1 / 256),
    "face_api_age": ("rgb", (122.782, 117.001, 104.298), 1 / 255),
    "face_api_gender": ("rgb", (122.782, 117.001, 104.298), 1 / 255),
    "faceres_deep": ("bgr", (103.939, 116.779, 123.68), 1.0),
}
FEEDING["age_net_bare"], FEEDING["gender_net_bare"] = FEEDING["age_net"], FEEDING["gender_net"]


ONE_LOOK = replace(DLIB_GENDER, mirror=False)


@pytest.mark.parametrize("row", all_rows(), ids=lambda row: row.name)
def test_every_network_is_fed_as_it_was_trained(row: ModelRow) -> None:
    assert (row.colour_order, row.mean, row.scale) == FEEDING[row.name]


def ssd_outputs(*rows: tuple[float, float, float, float, float]) -> dict[str, Tensor]:
    boxes = np.float32([[row[:4] for row in rows]])
    scores = np.float32([[[1 - row[4], row[4]] for row in rows]])
    return {"boxes": boxes, "scores": scores}


def test_res10_stretches_subtracts_its_mean_and_suppresses() -> None:
    outputs = ssd_outputs((0.1, 0.1, 0.5, 0.5, 0.8), (0.1, 0.1, 0.5, 0.52, 0.9), (0.6, 0.6, 0.9, 0.9, 0.4))
    session = FakeSession(**outputs)
    detector = Res10Ssd(RES10_SSD, session, nms_iou_threshold=0.45)
    image = np.full((100, 200, 3), (104, 177, 123), np.uint8)
    (face,) = detector.detect(image, min_confidence=0.5).detections
    assert session.seen[0].shape == (1, 3, 300, 300)
    assert (session.seen[0] == 0).all()
    assert face.confidence == pytest.approx(0.9)
    assert tuple(face.box) == pytest.approx((20, 10, 100, 52))
    assert face.landmarks is None


def test_res10_tells_the_best_rejected_candidate() -> None:
    detector = Res10Ssd(RES10_SSD, FakeSession(**ssd_outputs((0.1, 0.1, 0.5, 0.5, 0.4))), nms_iou_threshold=0.45)
    outcome = detector.detect(np.zeros((10, 10, 3), np.uint8), min_confidence=0.5)
    assert outcome.detections == ()
    assert outcome.best_rejected is not None
    assert outcome.best_rejected.confidence == pytest.approx(0.4)


Cells = dict[tuple[int, int, int], float]


def yunet_outputs(wh: tuple[int, int], cells: Cells) -> dict[str, Tensor]:
    """Outputs that are silent but for ``{(stride, column, row): score}``; boxes are two cells wide and high."""
    outputs: dict[str, Tensor] = {}
    for stride in STRIDES:
        columns, rows = wh[0] // stride, wh[1] // stride
        count = columns * rows
        outputs[f"cls_{stride}"] = np.zeros((1, count, 1), np.float32)
        outputs[f"obj_{stride}"] = np.zeros((1, count, 1), np.float32)
        outputs[f"bbox_{stride}"] = np.tile(np.float32([0.5, 0.5, np.log(2), np.log(2)]), (1, count, 1))
        outputs[f"kps_{stride}"] = np.tile(np.float32([0, 0, 1, 0, 0.5, 0.5, 0, 1, 1, 1]), (1, count, 1))
        for (at, column, row), score in cells.items():
            if at == stride:
                outputs[f"cls_{stride}"][0, row * columns + column] = score
                outputs[f"obj_{stride}"][0, row * columns + column] = score
    return outputs


def test_yunet_decodes_cells_and_undoes_the_fit() -> None:
    session = FakeSession(**yunet_outputs((640, 320), {(16, 3, 5): 0.9, (16, 4, 5): 0.7, (32, 12, 6): 0.8}))
    detector = YuNet(YUNET, session, long_side=640, nms_iou_threshold=0.3)
    first, second = detector.detect(np.zeros((600, 1280, 3), np.uint8), min_confidence=0.6).detections
    assert session.seen[0].shape == (1, 3, 320, 640)
    assert first.confidence == pytest.approx(0.9)
    # Cell (3, 5) of stride 16, twice as large in the picture: centre (3.5, 5.5) · 16 · 2, side 2 · 16 · 2.
    assert tuple(first.box) == pytest.approx((112 - 32, 176 - 32, 112 + 32, 176 + 32))
    assert first.landmarks is not None
    assert first.landmarks.right_eye == pytest.approx((96, 160))
    assert first.landmarks.mouth_left == pytest.approx((128, 192))
    assert second.confidence == pytest.approx(0.8)


def test_a_classifier_cuts_crowds_into_batches() -> None:
    class Counting(FakeSession):
        def _run(self, tensor: Tensor) -> dict[str, Tensor]:
            super()._run(tensor)
            return {"probabilities": np.tile(np.float32([0.25, 0.75]), (len(tensor), 1))}

    session = Counting()
    scores = Classifier(ONE_LOOK, session).estimate([np.zeros((32, 32, 3), np.uint8)] * 19)
    assert [len(tensor) for tensor in session.seen] == [8, 8, 3]
    assert scores.female is not None
    assert scores.female.tolist() == [0.25] * 19


def test_a_classifier_turns_rgb_where_its_row_says_so() -> None:
    session = FakeSession(probabilities=np.float32([[0.5, 0.5]]))
    Classifier(ONE_LOOK, session).estimate([np.full((32, 32, 3), (1, 2, 3), np.uint8)])
    expected = (np.float32([3, 2, 1]) - np.float32(DLIB_GENDER.mean)) / 256
    np.testing.assert_allclose(session.seen[0][0, :, 0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("broken", [[0.9, 0.9], [np.nan, 1.0], [0.0, 0.0]])
def test_answers_that_are_no_probabilities_are_our_error(broken: list[float]) -> None:
    with pytest.raises(InferenceError, match="dlib_gender"):
        Classifier(ONE_LOOK, FakeSession(probabilities=np.float32([broken]))).estimate(
            [np.zeros((32, 32, 3), np.uint8)]
        )


class Brightness(FakeSession):
    """Answers with what it sees: the mean of each picture's left half, as a share."""

    def _run(self, tensor: Tensor) -> dict[str, Tensor]:
        super()._run(tensor)
        return {"said": tensor[..., : tensor.shape[-1] // 2].mean(axis=(1, 2, 3))[:, None] / 255}


SHARE = replace(
    ONE_LOOK, mean=(0.0, 0.0, 0.0), scale=1.0, gender_output="said", gender_labels=("female",), mirror=True, max_batch=4
)


def half_lit(share: float) -> np.ndarray:
    crop = np.zeros((32, 32, 3), np.uint8)
    crop[:, :16] = round(255 * share)
    return crop


@pytest.mark.parametrize(("max_batch", "runs"), [(4, [4, 2]), (1, [1, 1, 1, 1, 1, 1])])
def test_a_mirrored_look_is_averaged_with_the_straight_one(max_batch: int, runs: list[int]) -> None:
    session = Brightness()
    row = replace(SHARE, max_batch=max_batch)
    scores = Classifier(row, session).estimate([half_lit(0.2), half_lit(0.6), half_lit(1.0)])
    assert scores.female is not None
    assert scores.female == pytest.approx([0.1, 0.3, 0.5])
    assert [len(tensor) for tensor in session.seen] == runs


def test_a_single_probability_may_be_of_either_gender() -> None:
    said = Classifier(replace(SHARE, mirror=False), Brightness()).estimate([half_lit(0.2)]).female
    male = Classifier(replace(SHARE, mirror=False, gender_labels=("male",)), Brightness()).estimate([half_lit(0.2)])
    assert said == pytest.approx([0.2])
    assert male.female == pytest.approx([0.8])


@pytest.mark.parametrize("broken", [1.5, -0.1, np.nan])
def test_a_single_number_that_is_no_probability_is_our_error(broken: float) -> None:
    with pytest.raises(InferenceError, match="dlib_gender"):
        Classifier(replace(SHARE, mirror=False), FakeSession(said=np.float32([[broken]]))).estimate([half_lit(0)])


IN_YEARS = replace(SHARE, gender_output=None, gender_labels=(), age_output="said", mirror=False)


def test_an_age_in_years_is_sure_of_itself() -> None:
    ages = Classifier(IN_YEARS, FakeSession(said=np.float32([[31.5], [4.0]]))).estimate([half_lit(0)] * 2).age
    assert ages is not None
    assert (ages.probabilities * ages.years).sum(axis=1).tolist() == [31.5, 4.0]


def test_an_age_that_is_no_number_is_our_error() -> None:
    with pytest.raises(InferenceError, match="no number"):
        Classifier(IN_YEARS, FakeSession(said=np.float32([[np.nan]]))).estimate([half_lit(0)])


@pytest.mark.parametrize(("score", "told"), [(0.59, True), (0.11, True), (0.09, False)])
def test_yunet_tells_the_best_rejected_candidate(score: float, told: bool) -> None:
    session = FakeSession(**yunet_outputs((640, 320), {(16, 3, 5): score}))
    detector = YuNet(YUNET, session, long_side=640, nms_iou_threshold=0.3)
    outcome = detector.detect(np.zeros((320, 640, 3), np.uint8), min_confidence=0.6)
    assert outcome.detections == ()
    assert (outcome.best_rejected is not None) == told
    if outcome.best_rejected is not None:
        assert outcome.best_rejected.confidence == pytest.approx(score)


def scattered_outputs(wh: tuple[int, int], seed: int) -> dict[str, Tensor]:
    """Scores of all sizes everywhere, and boxes that overlap."""
    rng = np.random.default_rng(seed)
    outputs = yunet_outputs(wh, {})
    for stride in STRIDES:
        count = outputs[f"cls_{stride}"].shape[1]
        for name in ("cls", "obj"):
            outputs[f"{name}_{stride}"] = rng.uniform(-0.1, 1.1, (1, count, 1)).clip(0, 1).astype(np.float32) ** 2
        outputs[f"bbox_{stride}"] = rng.normal(0.5, 0.5, (1, count, 4)).astype(np.float32)
        outputs[f"kps_{stride}"] = rng.normal(0.5, 1, (1, count, 10)).astype(np.float32)
    return outputs


@pytest.mark.parametrize("floor", [0.05, 0.3, 0.7, 1.0, 1.1])
def test_cells_below_the_floor_are_left_out_and_the_others_stay_as_they_are(floor: float) -> None:
    outputs = scattered_outputs((320, 192), 1)
    everything = decode(outputs, (320, 192), 0.0)
    kept = everything[2] >= floor
    assert len(everything[2]) == 40 * 24 + 20 * 12 + 10 * 6
    assert kept.any() == (floor <= 1)
    for chosen, of_all in zip(decode(outputs, (320, 192), floor), everything, strict=True):
        np.testing.assert_array_equal(chosen, of_all[kept])


@pytest.mark.parametrize("seed", range(5))
def test_a_lower_threshold_adds_faces_and_changes_none(seed: int) -> None:
    session = FakeSession(**scattered_outputs((320, 192), seed))
    detector = YuNet(YUNET, session, long_side=320, nms_iou_threshold=0.3)
    found = {
        threshold: detector.detect(np.zeros((192, 320, 3), np.uint8), min_confidence=threshold).detections
        for threshold in (0.02, 0.1, 0.5, 0.8)
    }
    assert len(found[0.8]) < len(found[0.5]) < len(found[0.02])
    for threshold, faces in found.items():
        assert faces == tuple(face for face in found[0.02] if face.confidence >= threshold)


# ── a glance before a closer look ────────────────────────────────────────────────────────────────

GLANCE = Glance(side=320, from_side=512, face_px=20, sure_confidence=0.85, trace_confidence=0.15)
SMALL, CLOSE = (320, 256), (640, 480)
# The cells of stride 16 hold faces of 32 pixels, those of stride 8 faces of 16.
FACE, SMALL_FACE, ELSEWHERE = (16, 3, 5), (8, 6, 10), (16, 12, 9)


class Looks(FakeSession):
    """Answers a glance and a closer look each in its own way, and any other size with silence."""

    def __init__(self, small: Cells, close: Cells) -> None:
        super().__init__()
        self._cells = {SMALL: small, CLOSE: close}

    def _run(self, tensor: Tensor) -> dict[str, Tensor]:
        super()._run(tensor)
        wh = tensor.shape[3], tensor.shape[2]
        return yunet_outputs(wh, self._cells.get(wh, {}))

    @property
    def taken(self) -> list[tuple[int, int]]:
        return [(tensor.shape[3], tensor.shape[2]) for tensor in self.seen]


def glancing(session: Looks, glance: Glance | None = GLANCE, *, long_side: int = 640) -> YuNet:
    return YuNet(YUNET, session, long_side=long_side, nms_iou_threshold=0.3, glance=glance)


@pytest.mark.parametrize(
    "small",
    [
        {FACE: 0.86},
        {FACE: 0.9, ELSEWHERE: 0.61},
        {FACE: 0.9, ELSEWHERE: 0.14},
        {FACE: 0.9, (16, 4, 5): 0.5},  # a neighbour that suppression takes for the same face
    ],
)
def test_a_sure_glance_spares_the_closer_look(small: Cells) -> None:
    session = Looks(small, {})
    outcome = glancing(session).detect(np.zeros((960, 1280, 3), np.uint8), min_confidence=0.6)
    assert session.taken == [SMALL]
    assert [face.confidence for face in outcome.detections] == pytest.approx(
        [score for cell, score in small.items() if score > 0.6]
    )
    assert outcome.best_rejected is None


@pytest.mark.parametrize(
    "small",
    [
        {},
        {FACE: 0.59},
        {FACE: 0.84},
        {SMALL_FACE: 0.95},
        {FACE: 0.95, (8, 25, 20): 0.9},
        {FACE: 0.95, ELSEWHERE: 0.16},
        {FACE: 0.95, ELSEWHERE: 0.59},
    ],
)
def test_a_glance_that_leaves_anything_open_is_followed_by_a_closer_look(small: Cells) -> None:
    session = Looks(small, {ELSEWHERE: 0.7})
    (face,) = glancing(session).detect(np.zeros((960, 1280, 3), np.uint8), min_confidence=0.6).detections
    assert session.taken == [SMALL, CLOSE]
    assert face.confidence == pytest.approx(0.7)


def test_a_closer_look_that_finds_nobody_has_the_last_word() -> None:
    session = Looks({SMALL_FACE: 0.95}, {FACE: 0.3})
    outcome = glancing(session).detect(np.zeros((960, 1280, 3), np.uint8), min_confidence=0.6)
    assert outcome.detections == ()
    assert outcome.best_rejected is not None
    assert outcome.best_rejected.confidence == pytest.approx(0.3)


@pytest.mark.parametrize(("small", "scale"), [({FACE: 0.9}, 4), ({}, 2)])
def test_either_look_answers_in_pixels_of_the_picture(small: Cells, scale: int) -> None:
    session = Looks(small, {FACE: 0.9})
    (face,) = glancing(session).detect(np.zeros((960, 1280, 3), np.uint8), min_confidence=0.6).detections
    # Cell (3, 5) of stride 16: centre (3.5, 5.5) · 16, side 2 · 16.
    assert tuple(face.box) == pytest.approx([scale * edge for edge in (40, 72, 72, 104)])
    assert face.landmarks is not None
    assert face.landmarks.right_eye == pytest.approx((48 * scale, 80 * scale))
    assert face.landmarks.mouth_left == pytest.approx((64 * scale, 96 * scale))


@pytest.mark.parametrize(
    ("image_wh", "long_side", "taken"),
    [
        ((512, 384), 640, [(320, 256), (512, 384)]),
        ((384, 512), 640, [(256, 320), (384, 512)]),
        ((511, 384), 640, [(512, 384)]),
        ((2000, 1500), 480, [(480, 384)]),
        ((160, 120), 640, [(160, 128)]),
        ((159, 120), 640, [(320, 256)]),
        ((40, 30), 640, [(96, 64)]),
    ],
)
def test_only_what_would_be_looked_at_in_a_large_size_gets_a_glance(
    image_wh: tuple[int, int], long_side: int, taken: list[tuple[int, int]]
) -> None:
    session = Looks({}, {})
    glancing(session, long_side=long_side).detect(np.zeros((*image_wh[::-1], 3), np.uint8), min_confidence=0.6)
    assert session.taken == taken


def test_without_a_glance_there_is_the_closer_look_alone() -> None:
    session = Looks({FACE: 0.95}, {FACE: 0.9})
    glancing(session, None).detect(np.zeros((960, 1280, 3), np.uint8), min_confidence=0.6)
    assert session.taken == [CLOSE]


@pytest.mark.parametrize(
    ("min_confidence", "second", "taken"),
    [
        (0.6, 0.12, [SMALL]),
        (0.4, 0.12, [SMALL, CLOSE]),  # who asks for doubtful faces has fainter traces followed: a quarter of 0.4
        (0.4, 0.09, [SMALL]),
        (0.8, 0.14, [SMALL]),
        (0.8, 0.7, [SMALL, CLOSE]),
        (0.92, 0.0, [SMALL, CLOSE]),
    ],
)
def test_a_callers_threshold_decides_what_a_trace_is(
    min_confidence: float, second: float, taken: list[tuple[int, int]]
) -> None:
    session = Looks({FACE: 0.9, ELSEWHERE: second}, {})
    glancing(session).detect(np.zeros((960, 1280, 3), np.uint8), min_confidence=min_confidence)
    assert session.taken == taken


@pytest.mark.parametrize(
    ("changed", "taken"),
    [
        ({"face_px": 31}, [SMALL]),
        ({"face_px": 33}, [SMALL, CLOSE]),
        ({"sure_confidence": 0.91}, [SMALL, CLOSE]),
        ({"trace_confidence": 0.11}, [SMALL, CLOSE]),
        ({"from_side": 641}, [CLOSE]),
    ],
)
def test_a_glance_is_as_careful_as_its_row_says(changed: dict[str, float], taken: list[tuple[int, int]]) -> None:
    session = Looks({FACE: 0.9, ELSEWHERE: 0.12}, {})
    glancing(session, replace(GLANCE, **changed)).detect(np.zeros((960, 1280, 3), np.uint8), min_confidence=0.6)
    assert session.taken == taken
