from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from tests.fakes import CALIBRATION, CONFIDENCE, DETAIL, TURNS, FakeDetector, FakeEstimator, face_at

from dulian.analyzer import AnalyzeOptions, Analyzer, FullPicture
from dulian.calibration import Calibration
from dulian.errors import MalformedInputError
from dulian.faces import Detection, ModelInfo
from dulian.models import DetectionOutcome, Detector
from dulian.turning import TurnRules

WIDTH, HEIGHT = 400, 300


def make_analyzer(
    detector: Detector,
    estimator: FakeEstimator | None = None,
    *,
    calibration: Calibration = CALIBRATION,
    turns: TurnRules = TURNS,
) -> Analyzer:
    return Analyzer(
        detector,
        [estimator or FakeEstimator()],
        calibration,
        model=ModelInfo("fake", "none", "0"),
        confidence=CONFIDENCE,
        turns=turns,
        detail=DETAIL,
    )


def picture(*faces: tuple[Detection, tuple[int, int, int]]) -> np.ndarray:
    """A checkered picture (so that it is sharp) with plain coloured squares where faces are."""
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for face, colour in faces:
        x1, y1, x2, y2 = (round(edge) for edge in face.box)
        image[max(y1, 0) : y2, max(x1, 0) : x2] = colour
    return image


LEFT, MIDDLE, RIGHT = face_at(10, 50, 60, 0.70), face_at(120, 50, 100, 0.90), face_at(300, 50, 80, 0.95)
COLOURED = ((LEFT, (0, 0, 255)), (MIDDLE, (255, 0, 128)), (RIGHT, (255, 255, 204)))


def test_every_face_gets_the_answer_for_its_own_pixels() -> None:
    result = make_analyzer(FakeDetector(LEFT, MIDDLE, RIGHT)).analyze(
        picture(*COLOURED), AnalyzeOptions(order="left_to_right")
    )
    ages = [face.age.value for face in result.faces if face.age]
    females = [round(face.gender.female_probability, 3) for face in result.faces if face.gender]
    assert ages == [33, 50, 93]
    assert females == pytest.approx([1, 128 / 255, 204 / 255], abs=1e-3)
    assert [face.id for face in result.faces] == [0, 1, 2]


@pytest.mark.parametrize(
    ("order", "boxes"),
    [
        ("size", [MIDDLE, RIGHT, LEFT]),
        ("confidence", [RIGHT, MIDDLE, LEFT]),
        ("left_to_right", [LEFT, MIDDLE, RIGHT]),
    ],
)
def test_faces_come_in_the_order_asked_for(order: str, boxes: list[Detection]) -> None:
    options = AnalyzeOptions(order=order)  # type: ignore[arg-type]
    result = make_analyzer(FakeDetector(LEFT, MIDDLE, RIGHT)).analyze(picture(*COLOURED), options)
    assert [face.box for face in result.faces] == [found.box for found in boxes]


def test_order_by_quality_is_by_the_published_score() -> None:
    noise = np.random.default_rng(0).integers(60, 190, (HEIGHT, WIDTH, 3), np.uint8)
    noise[:, :230] = 128
    result = make_analyzer(FakeDetector(LEFT, MIDDLE, RIGHT)).analyze(noise, AnalyzeOptions(order="quality"))
    scores = [face.quality.score for face in result.faces]
    assert scores == sorted(scores, reverse=True)
    assert result.faces[0].box == RIGHT.box


def test_faces_beyond_the_limit_are_counted() -> None:
    result = make_analyzer(FakeDetector(LEFT, MIDDLE, RIGHT)).analyze(picture(), AnalyzeOptions(max_faces=1))
    assert len(result.faces) == 1
    assert result.truncated
    assert result.skipped == 2


def test_no_face_is_an_empty_answer_with_a_hint() -> None:
    result = make_analyzer(FakeDetector(face_at(10, 10, 50, 0.4))).analyze(picture())
    assert result.faces == ()
    assert result.hint is not None
    assert result.hint.message.code == "almost_a_face"
    assert result.hint.best_candidate is not None
    assert result.hint.best_candidate.confidence == 0.4
    nothing = make_analyzer(FakeDetector()).analyze(picture())
    assert nothing.hint is not None
    assert nothing.hint.message.code == "no_face"


def test_no_face_asks_no_estimator() -> None:
    estimator = FakeEstimator()
    make_analyzer(FakeDetector(), estimator).analyze(picture())
    assert estimator.calls == 0


@pytest.mark.parametrize("attributes", [set(), {"age"}, {"gender"}])
def test_only_what_was_asked_for_is_answered(attributes: set[str]) -> None:
    estimator = FakeEstimator()
    options = AnalyzeOptions(attributes=frozenset(attributes))  # type: ignore[arg-type]
    (face,) = make_analyzer(FakeDetector(RIGHT), estimator).analyze(picture(), options).faces
    assert (face.age is not None) == ("age" in attributes)
    assert (face.gender is not None) == ("gender" in attributes)
    assert estimator.calls == bool(attributes)


def test_boxes_are_clamped_to_the_picture() -> None:
    (face,) = make_analyzer(FakeDetector(face_at(-20, -10, 100))).analyze(picture()).faces
    assert tuple(face.box) == (0, 0, 80, 90)
    assert "cut_by_frame" in face.quality.reasons
    assert face.status == "low_quality"
    assert face.message is not None
    assert face.message.code == "cut_by_frame"


def test_an_undecided_gender_is_said_to_be_uncertain() -> None:
    noise = np.random.default_rng(0).integers(60, 190, (HEIGHT, WIDTH, 3), np.uint8)
    (face,) = make_analyzer(FakeDetector(RIGHT)).analyze(noise).faces
    assert face.gender is not None
    assert face.gender.value is None
    assert face.status == "uncertain"
    assert face.quality.reasons == ("low_confidence",)
    assert face.label.startswith("Unknown, ")


def test_an_incomplete_file_is_a_reason_for_every_face() -> None:
    result = make_analyzer(FakeDetector(MIDDLE, RIGHT)).analyze(picture(), incomplete=True)
    assert all(face.quality.reasons[0] == "incomplete" for face in result.faces)
    assert all(face.message and face.message.code == "incomplete" for face in result.faces)


@pytest.mark.parametrize("turn", [90, 270])
def test_a_picture_on_its_side_is_turned_and_boxes_stay_in_the_upright_frame(turn: int) -> None:
    lying = picture((MIDDLE, (0, 0, 255)))
    stored = np.ascontiguousarray(np.rot90(lying, turn // 90))
    result = make_analyzer(FakeDetector(MIDDLE, only_wh=(WIDTH, HEIGHT))).analyze(stored)
    assert (result.image.width, result.image.height) == (HEIGHT, WIDTH)
    # Both quarter turns give the picture its right shape; the first one tried is taken by this fake.
    assert result.image.rotated == 90
    (face,) = result.faces
    x1, y1, x2, y2 = (round(edge) for edge in face.box)
    if turn == 90:
        assert (stored[y1:y2, x1:x2] == (0, 0, 255)).all()
        assert face.landmarks is not None
        eye_x, eye_y = face.landmarks.right_eye
        assert x1 < eye_x < x2
        assert y1 < eye_y < y2


def test_a_sure_face_spares_the_other_looks() -> None:
    detector = FakeDetector(RIGHT)
    make_analyzer(detector).analyze(picture())
    assert detector.thresholds == [0.6]
    doubtful = FakeDetector(LEFT)
    make_analyzer(doubtful).analyze(picture())
    assert doubtful.thresholds == [0.6] * 4


def test_a_turned_picture_keeps_its_less_sure_faces() -> None:
    lying = np.ascontiguousarray(np.rot90(picture(*COLOURED)))
    result = make_analyzer(FakeDetector(LEFT, MIDDLE, RIGHT, only_wh=(WIDTH, HEIGHT))).analyze(lying)
    assert result.image.rotated == 90
    assert len(result.faces) == 3


def test_a_ghost_is_no_reason_to_turn_a_picture() -> None:
    lying = np.ascontiguousarray(np.rot90(picture(*COLOURED)))
    result = make_analyzer(FakeDetector(face_at(10, 50, 60, 0.79), only_wh=(WIDTH, HEIGHT))).analyze(lying)
    assert result.image.rotated == 0
    assert result.faces == ()


def test_a_doubtful_detection_is_said_to_be_uncertain() -> None:
    options = AnalyzeOptions(attributes=frozenset())
    noise = np.random.default_rng(0).integers(60, 190, (HEIGHT, WIDTH, 3), np.uint8)
    sure, doubtful = (
        make_analyzer(FakeDetector(face_at(120, 50, 100, confidence))).analyze(noise, options).faces[0]
        for confidence in (0.7, 0.64)
    )
    assert (sure.status, sure.quality.reasons) == ("ok", ())
    assert (doubtful.status, doubtful.quality.reasons) == ("uncertain", ("low_confidence",))


def test_what_lies_outside_the_picture_is_no_face() -> None:
    result = make_analyzer(FakeDetector(face_at(WIDTH + 5, 10, 50), RIGHT)).analyze(picture())
    assert len(result.faces) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_faces": 0},
        {"max_faces": 51},
        {"min_confidence": 0.0},
        {"min_confidence": 1.5},
        {"min_confidence": float("nan")},
        {"attributes": frozenset({"emotion"})},
        {"order": "beauty"},
        {"coverage": 0.3},
        {"coverage": float("nan")},
    ],
)
def test_senseless_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(MalformedInputError):
        AnalyzeOptions(**wrong)  # type: ignore[arg-type]


def test_the_picture_is_not_written_to() -> None:
    image = picture(*COLOURED)
    image.flags.writeable = False
    make_analyzer(FakeDetector(LEFT, MIDDLE, RIGHT)).analyze(image)


def test_thread_names_do_not_matter_for_a_fake() -> None:
    results = []
    worker = threading.Thread(
        target=lambda: results.append(make_analyzer(FakeDetector(RIGHT)).analyze(picture()).faces)
    )
    worker.start()
    worker.join()
    assert results == [make_analyzer(FakeDetector(RIGHT)).analyze(picture()).faces]


# ── reduced pictures ─────────────────────────────────────────────────────────────────────────────


class Loading:
    """A larger picture, four times both ways if not told otherwise, that remembers whether it was asked for."""

    def __init__(self, image: np.ndarray, across: int = 4, down: int = 4) -> None:
        self.image = np.repeat(np.repeat(image, down, axis=0), across, axis=1)
        self.loads = 0
        self.factor: int | None = None

    def picture(self, *reductions: int) -> FullPicture:
        def load(factor: int) -> np.ndarray:
            self.loads += 1
            self.factor = factor
            return self.image[::factor, ::factor]

        return FullPicture((self.image.shape[1], self.image.shape[0]), load, reductions or (1,))


def test_large_faces_are_answered_from_the_reduced_picture() -> None:
    image = picture(*COLOURED)
    behind = Loading(image)
    result = make_analyzer(FakeDetector(MIDDLE, RIGHT)).analyze(image, full=behind.picture())
    assert behind.loads == 0
    assert result.timings_ms.decode == 0
    assert (result.image.width, result.image.height) == (4 * WIDTH, 4 * HEIGHT)
    assert [tuple(face.box) for face in result.faces] == [
        tuple(4 * edge for edge in found.box) for found in (MIDDLE, RIGHT)
    ]
    assert [face.quality.size_px for face in result.faces] == [400, 320]
    assert result.faces[0].landmarks is not None
    assert result.faces[0].landmarks.nose == (4 * 170, 4 * 110)


def test_small_faces_are_answered_from_the_full_picture() -> None:
    image = picture(*COLOURED)
    small = face_at(300, 50, 50)
    behind = Loading(picture((small, (0, 0, 255))))
    result = make_analyzer(FakeDetector(MIDDLE, small)).analyze(image, full=behind.picture())
    assert behind.loads == 1
    assert result.timings_ms.decode > 0
    ages = [face.age.value for face in result.faces if face.age]
    assert ages == [50, 33]  # the plain grey of the full picture, and the red that only it shows
    assert tuple(result.faces[1].box) == (1200, 200, 1400, 400)


@pytest.mark.parametrize(("side", "factor"), [(60, None), (59, 2), (30, 2), (29, 1), (10, 1)])
def test_a_picture_is_loaded_no_larger_than_its_smallest_face_needs(side: int, factor: int | None) -> None:
    image = picture(*COLOURED)
    behind = Loading(image)
    found = FakeDetector(MIDDLE, face_at(300, 50, side))
    result = make_analyzer(found).analyze(image, full=behind.picture(1, 2, 4, 8))
    assert behind.factor == factor
    assert tuple(result.faces[1].box) == (1200, 200, 1200 + 4 * side, 200 + 4 * side)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_turned_picture_is_loaded_turned(turn: int) -> None:
    upright = picture((face_at(300, 50, 50), (0, 0, 255)))
    stored = np.ascontiguousarray(np.rot90(upright, turn // 90))

    class OnlyUpright(FakeDetector):
        def detect(self, image: np.ndarray, *, min_confidence: float) -> DetectionOutcome:
            same = image.shape == upright.shape and (image == upright).all()
            return super().detect(image, min_confidence=min_confidence) if same else DetectionOutcome(())

    behind = Loading(stored, across=3, down=4)
    result = make_analyzer(OnlyUpright(face_at(300, 50, 50))).analyze(stored, full=behind.picture())
    assert behind.loads == 1
    assert result.image.rotated == turn
    (face,) = result.faces
    assert face.age is not None
    assert face.age.value < 42  # red is 33; a square round the stretched face takes in some of the grey, which is 50
    x1, y1, x2, y2 = (round(edge) for edge in face.box)
    assert (behind.image[y1:y2, x1:x2] == (0, 0, 255)).all()


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_large_picture_is_turned_in_a_smaller_size(turn: int) -> None:
    upright = np.repeat(np.repeat(picture((face_at(300, 50, 50), (0, 0, 255))), 6, axis=0), 6, axis=1)
    stored = np.ascontiguousarray(np.rot90(upright, turn // 90))
    looks: list[int] = []

    class Upright(FakeDetector):
        def detect(self, image: np.ndarray, *, min_confidence: float) -> DetectionOutcome:
            looks.append(max(image.shape))
            red = image.shape == (480, 640, 3) and (image[120, 520] == (0, 0, 255)).all()
            return super().detect(image, min_confidence=min_confidence) if red else DetectionOutcome(())

    result = make_analyzer(Upright(face_at(480, 80, 80))).analyze(stored)
    assert looks == [2400, 640, 640, 640]
    assert result.image.rotated == turn
    (face,) = result.faces
    assert face.quality.size_px == 300
    assert face.age is not None
    assert face.age.value == 33
    x1, y1, x2, y2 = (round(edge) for edge in face.box)
    assert (stored[y1:y2, x1:x2] == (0, 0, 255)).all()


def test_a_rejected_candidate_is_told_in_pixels_of_the_full_picture() -> None:
    image = picture()
    result = make_analyzer(FakeDetector(face_at(100, 100, 50, 0.4))).analyze(image, full=Loading(image).picture())
    assert result.hint is not None
    assert result.hint.best_candidate is not None
    assert tuple(result.hint.best_candidate.box) == (400, 400, 600, 600)


@pytest.mark.parametrize("turn", [90, 180, 270])
@pytest.mark.parametrize(("side", "factor"), [(59, 2), (30, 2), (29, 1)])
def test_a_turned_picture_is_loaded_turned_and_no_larger_than_needed(turn: int, side: int, factor: int) -> None:
    small = face_at(300, 50, side)
    upright = picture((MIDDLE, (255, 0, 128)), (small, (0, 0, 255)))
    stored = np.ascontiguousarray(np.rot90(upright, turn // 90))

    class OnlyUpright(FakeDetector):
        def detect(self, image: np.ndarray, *, min_confidence: float) -> DetectionOutcome:
            same = image.shape == upright.shape and (image == upright).all()
            return super().detect(image, min_confidence=min_confidence) if same else DetectionOutcome(())

    behind = Loading(stored)
    found = make_analyzer(OnlyUpright(MIDDLE, small)).analyze(stored, full=behind.picture(1, 2, 4, 8))
    assert (behind.loads, behind.factor) == (1, factor)
    assert found.image.rotated == turn
    assert [face.age.value for face in found.faces if face.age] == [50, 33]
    assert [face.quality.size_px for face in found.faces] == [400, 4 * side]
    for face, colour in zip(found.faces, ((255, 0, 128), (0, 0, 255)), strict=True):
        x1, y1, x2, y2 = (round(edge) for edge in face.box)
        assert (behind.image[y1:y2, x1:x2] == colour).all()


# ── pictures in other colours ────────────────────────────────────────────────────────────────────


class Exchange:
    """The way to sRGB of pictures whose red and blue are exchanged; remembers what it was given."""

    def __init__(self) -> None:
        self.sides: list[int] = []

    def __call__(self, image: np.ndarray) -> np.ndarray:
        self.sides.append(max(image.shape))
        return np.ascontiguousarray(image[..., ::-1])


class Seeing(FakeDetector):
    """Remembers the pictures that it was shown."""

    def __init__(self, *detections: Detection, only_wh: tuple[int, int] | None = None) -> None:
        super().__init__(*detections, only_wh=only_wh)
        self.seen: list[np.ndarray] = []

    def detect(self, image: np.ndarray, *, min_confidence: float) -> DetectionOutcome:
        self.seen.append(image)
        return super().detect(image, min_confidence=min_confidence)


def exchanged(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[..., ::-1])


def enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    return np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)


@pytest.mark.parametrize("order", ["size", "quality"])
def test_colours_are_converted_for_the_networks_alone(order: str) -> None:
    options = AnalyzeOptions(order=order)  # type: ignore[arg-type]
    plain, stored = picture(*COLOURED), exchanged(picture(*COLOURED))
    stored.flags.writeable = False
    eager, lazy = Seeing(LEFT, MIDDLE, RIGHT), Seeing(LEFT, MIDDLE, RIGHT)
    expected = make_analyzer(eager).analyze(plain, options)
    result = make_analyzer(lazy).analyze(stored, options, to_srgb=Exchange())
    assert result.faces == expected.faces
    np.testing.assert_array_equal(lazy.seen[0], eager.seen[0])
    np.testing.assert_array_equal(stored, exchanged(picture(*COLOURED)))


def test_order_by_quality_is_judged_in_srgb() -> None:
    """The eye, and so the measure of sharpness, hardly notices a fine pattern in blue, and well one in red."""
    left, right = face_at(40, 50, 80), face_at(240, 50, 80)
    noise = np.random.default_rng(0).integers(60, 190, (HEIGHT, WIDTH), np.uint8)
    stored = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    stored[:, :200, 0] = noise[:, :200]
    stored[:, 200:, 2] = noise[:, 200:]
    options = AnalyzeOptions(order="quality")
    for convert, best in ((None, right), (Exchange(), left)):
        result = make_analyzer(FakeDetector(left, right)).analyze(stored, options, to_srgb=convert)
        assert result.faces[0].box == best.box
        assert result.faces[0].quality.score > result.faces[1].quality.score


def test_only_what_a_network_sees_is_converted() -> None:
    """2000 x 1500 pixels are seen as 640 x 480, which the fake's faces are given in."""
    convert = Exchange()
    detector = Seeing(*(face_at(1.6 * x, 80, 96) for x in (120, 300)))
    stored = exchanged(enlarged(picture((face_at(120, 50, 60), (0, 0, 255))), 5))
    result = make_analyzer(detector).analyze(stored, to_srgb=convert)
    assert detector.seen[0].shape == (480, 640, 3)
    assert sorted(set(convert.sides)) == [16, 112, 640]  # the estimator's crop, that of quality, the look
    assert [tuple(face.box) for face in result.faces] == [
        pytest.approx((5 * x, 250, 5 * x + 300, 550)) for x in (120, 300)
    ]
    assert [face.age.value for face in result.faces if face.age] == [33, 50]
    assert [round(face.gender.female_probability, 2) for face in result.faces if face.gender] == [1, 0.5]


@pytest.mark.parametrize("turn", [90, 180, 270])
@pytest.mark.parametrize("reduced", [False, True])
def test_a_turned_picture_in_other_colours_is_read_in_its_own_place(turn: int, reduced: bool) -> None:
    small = face_at(300, 50, 50)
    upright = enlarged(picture((small, (0, 0, 255))), 3)
    stored = exchanged(np.rot90(upright, turn // 90))

    class OnlyUpright(FakeDetector):
        def detect(self, image: np.ndarray, *, min_confidence: float) -> DetectionOutcome:
            red = (slice(90, 150), slice(490, 550))  # well inside the face, at 640 x 480
            same = image.shape == (480, 640, 3) and (image[red] == (0, 0, 255)).all()
            return super().detect(image, min_confidence=min_confidence) if same else DetectionOutcome(())

    behind = Loading(stored)
    detector = OnlyUpright(face_at(480, 80, 80))
    full = behind.picture(1, 2, 4) if reduced else None
    result = make_analyzer(detector).analyze(stored, to_srgb=Exchange(), full=full)
    assert result.image.rotated == turn
    (face,) = result.faces
    assert face.age is not None
    assert face.age.value == 33
    x1, y1, x2, y2 = (round(edge) for edge in face.box)
    whole = behind.image if reduced else stored
    assert (result.image.width, result.image.height) == whole.shape[1::-1]
    assert (whole[y1:y2, x1:x2] == (255, 0, 0)).all()
    assert (x2 - x1) * (y2 - y1) == pytest.approx(150**2 * (16 if reduced else 1), rel=0.02)
    assert behind.loads == 0  # 150 pixels are enough


def test_a_small_face_in_other_colours_is_read_in_the_full_picture() -> None:
    small = face_at(300, 50, 50)
    behind = Loading(exchanged(picture((small, (0, 0, 255)))))
    detector = FakeDetector(small)
    result = make_analyzer(detector).analyze(exchanged(picture()), full=behind.picture(1, 2), to_srgb=Exchange())
    assert (behind.loads, behind.factor) == (1, 2)
    (face,) = result.faces
    assert tuple(face.box) == (1200, 200, 1400, 400)
    assert face.age is not None
    assert face.gender is not None
    assert face.age.value == 33
    assert face.gender.female_probability == pytest.approx(1, abs=1e-3)


def test_a_rejected_candidate_in_other_colours_is_told_in_pixels_of_the_picture() -> None:
    detector = FakeDetector(face_at(100, 100, 50, 0.4))
    result = make_analyzer(detector).analyze(np.zeros((960, 1280, 3), np.uint8), to_srgb=Exchange())
    assert result.hint is not None
    assert result.hint.best_candidate is not None
    assert tuple(result.hint.best_candidate.box) == pytest.approx((200, 200, 300, 300))


@pytest.mark.parametrize(
    ("wh", "available", "factor"),
    [
        ((1500, 1500), (1, 2, 4, 8), 1),
        ((2000, 1500), (1, 2, 4, 8), 2),
        ((4000, 3000), (1, 2, 4, 8), 4),
        ((3000, 4000), (1, 2, 4, 8), 4),
        ((8000, 5000), (1, 2, 4, 8), 8),
        ((4000, 3000), (1,), 1),
    ],
)
def test_pictures_are_reduced_as_far_as_detection_allows(
    wh: tuple[int, int], available: tuple[int, ...], factor: int
) -> None:
    assert make_analyzer(FakeDetector()).reduction_for(wh, available) == factor


@pytest.mark.parametrize(("max_batch", "calls"), [(1, 1), (8, 2)])
def test_networks_are_warmed_with_as_many_faces_as_they_will_see_at_once(max_batch: int, calls: int) -> None:
    estimator = FakeEstimator()
    estimator.max_batch = max_batch
    make_analyzer(FakeDetector(), estimator).warm_up()
    assert estimator.calls == calls


# ── lone faces, and what an answer depends on ────────────────────────────────────────────────────


def test_a_lone_doubtful_face_is_none_but_for_who_names_a_threshold() -> None:
    analyzer = make_analyzer(FakeDetector(LEFT), turns=replace(TURNS, lone=0.75))
    default = analyzer.analyze(picture())
    assert default.faces == ()
    assert default.hint is not None
    assert default.hint.best_candidate is not None
    assert default.hint.best_candidate.confidence == LEFT.confidence
    assert default.hint.message.code == "lone_face"
    assert "0.75" in default.hint.message.en
    nearly = make_analyzer(FakeDetector(face_at(10, 50, 60, 0.5)), turns=replace(TURNS, lone=0.75)).analyze(picture())
    assert nearly.hint is not None
    assert nearly.hint.message.code == "almost_a_face"
    assert "0.60" in nearly.hint.message.en
    named = analyzer.analyze(picture(), AnalyzeOptions(min_confidence=0.65))
    assert [face.confidence for face in named.faces] == [LEFT.confidence]


def test_a_doubtful_face_in_company_stays() -> None:
    analyzer = make_analyzer(FakeDetector(RIGHT, LEFT), turns=replace(TURNS, lone=0.75))
    assert len(analyzer.analyze(picture()).faces) == 2


def test_a_gender_is_the_same_whatever_else_is_asked() -> None:
    calibration = replace(CALIBRATION, gender=replace(CALIBRATION.gender, young_factor=0.2))
    dark = ((MIDDLE, (0, 0, 40)),)  # the fake takes it for a child of 5, hardly female
    analyzer = make_analyzer(FakeDetector(MIDDLE), calibration=calibration)
    both = analyzer.analyze(picture(*dark)).faces[0]
    alone = analyzer.analyze(picture(*dark), AnalyzeOptions(attributes=frozenset({"gender"}))).faces[0]
    assert alone.age is None
    assert alone.gender == both.gender
    grown = make_analyzer(FakeDetector(MIDDLE)).analyze(picture(*dark)).faces[0]
    assert both.gender is not None
    assert grown.gender is not None
    assert both.gender.probability < grown.gender.probability
