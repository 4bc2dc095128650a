from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage
from tests.fakes import CALIBRATION, CONFIDENCE, DETAIL, TURNS, FakeDetector, FakeEstimator, face_at
from tests.pictures import exif, save, swapped_profile

from dulian.analyzer import AnalyzeOptions, Analyzer
from dulian.errors import ImageTruncatedError, InferenceError
from dulian.faces import AnalysisResult, ModelInfo
from dulian.image import Image, ImageLimits, decode_image
from dulian.models import DetectionOutcome
from dulian.pipeline import Pipeline


class Counting:
    """Makes analyzers of one name and remembers how many, and with which estimators."""

    def __init__(self, name: str = "fake", detector: FakeDetector | None = None) -> None:
        self.made = 0
        self.estimators: list[FakeEstimator] = []
        self._name = name
        self._detector = detector or FakeDetector(face_at(10, 10, 40))

    def __call__(self) -> Analyzer:
        self.made += 1
        self.estimators.append(FakeEstimator())
        return Analyzer(
            self._detector,
            [self.estimators[-1]],
            CALIBRATION,
            model=ModelInfo(self._name, "none", "0"),
            confidence=CONFIDENCE,
            turns=TURNS,
            detail=DETAIL,
        )


def png(shade: int = 90) -> bytes:
    return cv2.imencode(".png", np.full((60, 80, 3), shade, np.uint8))[1].tobytes()


def test_decoding_counts_in_the_timings() -> None:
    result, image = Pipeline(Counting(), limits=ImageLimits()).analyze(png())
    assert image().shape == (60, 80, 3)
    assert result.timings_ms.decode > result.timings_ms.sniff > 0
    assert result.timings_ms.total > result.timings_ms.decode


def test_every_thread_gets_an_analyzer_of_its_own_and_keeps_it() -> None:
    counting = Counting()
    pipeline = Pipeline(counting, limits=ImageLimits())
    for _ in range(3):
        pipeline.analyze(png())
    assert counting.made == 1
    with ThreadPoolExecutor(1) as pool:
        pool.submit(pipeline.analyze, png()).result()
        pool.submit(pipeline.analyze, png(), AnalyzeOptions(max_faces=1)).result()
    assert counting.made == 2


def test_warming_up_happens_before_the_first_picture_of_each_thread() -> None:
    for warm, calls in ((False, 0), (True, 2)):
        counting = Counting()
        pipeline = Pipeline(counting, limits=ImageLimits(), warm=warm)
        pipeline.analyzer()
        pipeline.analyzer()
        assert [estimator.calls for estimator in counting.estimators] == [calls]


def test_a_bad_picture_makes_no_analyzer() -> None:
    counting = Counting()
    with pytest.raises(ImageTruncatedError):
        Pipeline(counting, limits=ImageLimits()).analyze(png()[:-20])
    assert counting.made == 0


# ── the full-size picture ────────────────────────────────────────────────────────────────────────


def jpeg(wh: tuple[int, int], colour: tuple[int, int, int], **options: object) -> bytes:
    """A picture of one RGB colour but for a grey stripe at its left edge."""
    picture = PillowImage.new("RGB", wh, colour)
    picture.paste((128, 128, 128), (0, 0, wh[0] // 8, wh[1]))
    return save(picture, "JPEG", quality=95, **options)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("wh", [(300, 200), (2000, 1600)])
@pytest.mark.parametrize("profile", [False, True])
def test_the_picture_that_comes_along_is_the_full_one_in_srgb(
    wh: tuple[int, int], profile: bool, orientation: int
) -> None:
    options = {"icc_profile": swapped_profile()} if profile else {}
    data = jpeg(wh, (200, 60, 10), exif=exif(orientation), **options)
    result, load = Pipeline(Counting(), limits=ImageLimits()).analyze(data)
    image = load()
    assert (result.image.width, result.image.height) == image.shape[1::-1] == (wh if orientation == 1 else wh[::-1])
    np.testing.assert_array_equal(image, decode_image(data).image)
    rgb = image[-10, -10, ::-1]
    assert np.abs(rgb - np.array((10, 60, 200) if profile else (200, 60, 10))).max() < 12
    assert load() is image


@pytest.mark.parametrize(("wh", "side"), [((300, 200), 300), ((2000, 1600), 1000)])
@pytest.mark.parametrize("profile", [False, True])
def test_faces_are_read_in_srgb_whatever_the_size(wh: tuple[int, int], side: int, profile: bool) -> None:
    class Measuring(FakeDetector):
        def detect(self, image: Image, *, min_confidence: float) -> DetectionOutcome:
            sides.append(max(image.shape))
            return super().detect(image, min_confidence=min_confidence)

    sides: list[int] = []
    options = {"icc_profile": swapped_profile()} if profile else {}
    counting = Counting(detector=Measuring(face_at(160, 60, 80)))
    result, _ = Pipeline(counting, limits=ImageLimits()).analyze(jpeg(wh, (200, 60, 10), **options))
    (face,) = result.faces
    assert face.gender is not None
    # The fake takes redness for it; the profile exchanges red and blue.
    assert face.gender.female_probability == pytest.approx((10 if profile else 200) / 255, abs=0.05)
    assert sides == [min(side, 640) if profile else side]


def test_a_small_face_in_other_colours_is_converted_once() -> None:
    """The profile exchanges red and blue, so that converting twice would undo it."""
    counting = Counting(detector=FakeDetector(face_at(160, 60, 20)))
    data = jpeg((2000, 1600), (200, 60, 10), icc_profile=swapped_profile())
    result, _ = Pipeline(counting, limits=ImageLimits()).analyze(data)
    (face,) = result.faces
    assert face.gender is not None
    assert face.gender.female_probability == pytest.approx(10 / 255, abs=0.05)


# ── alone and in company ─────────────────────────────────────────────────────────────────────────

TIMEOUT_S = 10


class Gate(FakeDetector):
    """Finds its face only once the gate is opened, and tells how many are waiting there."""

    def __init__(self) -> None:
        super().__init__(face_at(10, 10, 40))
        self.arrived = threading.Semaphore(0)
        self.opened = threading.Event()

    def detect(self, image: Image, *, min_confidence: float) -> DetectionOutcome:
        self.arrived.release()
        assert self.opened.wait(TIMEOUT_S)
        return super().detect(image, min_confidence=min_confidence)


class Breaking(FakeDetector):
    def detect(self, image: Image, *, min_confidence: float) -> DetectionOutcome:
        raise InferenceError("the network failed")


def answered_by(result: AnalysisResult) -> str:
    return result.model.profile


def two_kinds(detector: FakeDetector | None = None, *, warm: bool = False) -> tuple[Pipeline, Counting, Counting]:
    shared, solo = Counting("shared", detector), Counting("solo", detector)
    return Pipeline(shared, limits=ImageLimits(), warm=warm, new_solo_analyzer=solo), shared, solo


def test_one_picture_after_the_other_is_alone() -> None:
    pipeline, shared, solo = two_kinds()
    answers = [answered_by(pipeline.analyze(png())[0]) for _ in range(2)]
    answers.append(answered_by(pipeline.analyze_image(np.zeros((60, 80, 3), np.uint8))))
    assert answers == ["solo"] * 3
    assert (shared.made, solo.made) == (0, 1)


@pytest.mark.parametrize("decoded", [False, True])
def test_pictures_that_find_company_share_the_machine(decoded: bool) -> None:
    gate = Gate()
    pipeline, shared, solo = two_kinds(gate)

    def analyze() -> str:
        image = np.zeros((60, 80, 3), np.uint8)
        return answered_by(pipeline.analyze_image(image) if decoded else pipeline.analyze(png())[0])

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(analyze)
        assert gate.arrived.acquire(timeout=TIMEOUT_S)
        others = [pool.submit(analyze) for _ in range(2)]
        assert all(gate.arrived.acquire(timeout=TIMEOUT_S) for _ in others)
        gate.opened.set()
        assert first.result() == "solo"
        assert [other.result() for other in others] == ["shared", "shared"]
    assert (shared.made, solo.made) == (2, 1)
    assert analyze() == "solo"


def test_who_is_left_over_is_not_alone_before_the_others_are_done() -> None:
    """Pictures that end do not make those still at work forgotten."""
    gate = Gate()
    pipeline, _, _ = two_kinds(gate)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(pipeline.analyze, png())
        assert gate.arrived.acquire(timeout=TIMEOUT_S)
        for _ in range(2):
            with pytest.raises(ImageTruncatedError):
                pipeline.analyze(png()[:-20])
        second = pool.submit(pipeline.analyze, png())
        assert gate.arrived.acquire(timeout=TIMEOUT_S)
        gate.opened.set()
        assert answered_by(first.result()[0]) == "solo"
        assert answered_by(second.result()[0]) == "shared"


def test_errors_leave_nobody_behind_in_the_count() -> None:
    pipeline, shared, solo = two_kinds(Breaking())
    for _ in range(3):
        with pytest.raises(ImageTruncatedError):
            pipeline.analyze(png()[:-20])
        with pytest.raises(InferenceError):
            pipeline.analyze(png())
        with pytest.raises(InferenceError):
            pipeline.analyze_image(np.zeros((60, 80, 3), np.uint8))
    assert (shared.made, solo.made) == (0, 1)


def test_preparing_makes_and_warms_both_kinds() -> None:
    pipeline, shared, solo = two_kinds(warm=True)
    pipeline.prepare()
    for counting in (shared, solo):
        assert [estimator.calls for estimator in counting.estimators] == [2]
    assert answered_by(pipeline.analyze(png())[0]) == "solo"
    assert (shared.made, solo.made) == (1, 1)


def test_without_solo_analyzers_there_is_one_for_all() -> None:
    gate = Gate()
    counting = Counting("shared", gate)
    pipeline = Pipeline(counting, limits=ImageLimits())
    pipeline.prepare()
    assert counting.made == 1
    assert pipeline.analyzer() is pipeline.analyzer(alone=True)
    gate.opened.set()
    assert answered_by(pipeline.analyze(png())[0]) == "shared"
    assert counting.made == 1
