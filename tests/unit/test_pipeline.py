from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from tests.fakes import CALIBRATION, CONFIDENCE, DETAIL, FakeDetector, FakeEstimator, face_at

from dulian.analyzer import AnalyzeOptions, Analyzer
from dulian.errors import ImageTruncatedError
from dulian.faces import ModelInfo
from dulian.image import ImageLimits
from dulian.pipeline import Pipeline


class Counting:
    """Makes analyzers and remembers how many."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> Analyzer:
        self.made += 1
        return Analyzer(
            FakeDetector(face_at(10, 10, 40)),
            [FakeEstimator()],
            CALIBRATION,
            model=ModelInfo("fake", "none", "0"),
            confidence=CONFIDENCE,
            detail=DETAIL,
        )


def png(shade: int = 90) -> bytes:
    return cv2.imencode(".png", np.full((60, 80, 3), shade, np.uint8))[1].tobytes()


def test_decoding_counts_in_the_timings() -> None:
    result, image = Pipeline(Counting(), limits=ImageLimits()).analyze(png())
    assert image().shape == (60, 80, 3)
    assert result.timings_ms.decode > 0
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
    estimators: list[FakeEstimator] = []

    class Remembering(Counting):
        def __call__(self) -> Analyzer:
            analyzer = super().__call__()
            estimators.append(analyzer._estimators[0])  # type: ignore[arg-type]
            return analyzer

    for warm, calls in ((False, 0), (True, 2)):
        pipeline = Pipeline(Remembering(), limits=ImageLimits(), warm=warm)
        pipeline.analyzer()
        pipeline.analyzer()
        assert estimators[-1].calls == calls


def test_a_bad_picture_makes_no_analyzer() -> None:
    counting = Counting()
    with pytest.raises(ImageTruncatedError):
        Pipeline(counting, limits=ImageLimits()).analyze(png()[:-20])
    assert counting.made == 0
