"""The families over fake sessions: feeding and reading, without a network."""

from __future__ import annotations

import numpy as np
import pytest
from tests.fakes import FakeSession

from dulian.errors import InferenceError
from dulian.models.catalog import DLIB_GENDER, RES10_SSD, YUNET, all_rows
from dulian.models.classifier import MAX_BATCH, Classifier
from dulian.models.res10_ssd import Res10Ssd
from dulian.models.rows import ModelRow
from dulian.models.yunet import STRIDES, YuNet
from dulian.runtimes import Tensor

# What each network was trained with (the models' own deploy files and manifests), written out once more on purpose.
FEEDING = {
    "res10_ssd": ("bgr", (104.0, 177.0, 123.0), 1.0),
    "age_net": ("bgr", (78.4263377603, 87.7689143744, 114.895847746), 1.0),
    "gender_net": ("bgr", (78.4263377603, 87.7689143744, 114.895847746), 1.0),
    "yunet": ("bgr", (0.0, 0.0, 0.0), 1.0),
    "dlib_age": ("rgb", (122.782, 117.001, 104.298), 1 / 256),
    "dlib_gender": ("rgb", (122.782, 117.001, 104.298), 1 / 256),
}


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


def yunet_outputs(wh: tuple[int, int], cells: dict[tuple[int, int, int], float]) -> dict[str, Tensor]:
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
    scores = Classifier(DLIB_GENDER, session).estimate([np.zeros((32, 32, 3), np.uint8)] * 19)
    assert [len(tensor) for tensor in session.seen] == [MAX_BATCH, MAX_BATCH, 3]
    assert scores.female is not None
    assert scores.female.tolist() == [0.25] * 19


def test_a_classifier_turns_rgb_where_its_row_says_so() -> None:
    session = FakeSession(probabilities=np.float32([[0.5, 0.5]]))
    Classifier(DLIB_GENDER, session).estimate([np.full((32, 32, 3), (1, 2, 3), np.uint8)])
    expected = (np.float32([3, 2, 1]) - np.float32(DLIB_GENDER.mean)) / 256
    np.testing.assert_allclose(session.seen[0][0, :, 0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("broken", [[0.9, 0.9], [np.nan, 1.0], [0.0, 0.0]])
def test_answers_that_are_no_probabilities_are_our_error(broken: list[float]) -> None:
    with pytest.raises(InferenceError, match="dlib_gender"):
        Classifier(DLIB_GENDER, FakeSession(probabilities=np.float32([broken]))).estimate(
            [np.zeros((32, 32, 3), np.uint8)]
        )
