"""An estimator in a thread of its own: the same answers, always from the same thread, at the same time as others."""

from __future__ import annotations

import gc
import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from tests.fakes import CALIBRATION, CONFIDENCE, DETAIL, TURNS, FakeDetector, FakeEstimator, FakeSession, face_at

from dulian.analyzer import AnalyzeOptions, Analyzer
from dulian.calibration import AgeSource, Calibration
from dulian.errors import InferenceError
from dulian.faces import ModelInfo
from dulian.image import Image
from dulian.models import AttributeEstimator, AttributeScores
from dulian.models.classifier import Classifier
from dulian.models.networks import DLIB_GENDER
from dulian.models.side import SideEstimator

CROPS = [np.full((16, 16, 3), shade, np.uint8) for shade in (30, 120, 200)]
TIMEOUT_S = 10


class Gender(FakeEstimator):
    """Only half of what a FakeEstimator tells, and in which thread."""

    name = "gender"
    provides = frozenset({"gender"})

    def __init__(self) -> None:
        super().__init__()
        self.threads = [threading.get_ident()]

    def estimate(self, crops: Sequence[Image]) -> AttributeScores:
        self.threads.append(threading.get_ident())
        return AttributeScores(female=super().estimate(crops).female)


class Age(FakeEstimator):
    name = "age"
    provides = frozenset({"age"})

    def estimate(self, crops: Sequence[Image]) -> AttributeScores:
        return AttributeScores(age=super().estimate(crops).age)


def failing(message: str) -> AttributeEstimator:
    class Failing(Gender):
        def estimate(self, crops: Sequence[Image]) -> AttributeScores:
            if len(crops) > 1:
                raise InferenceError(message)
            return super().estimate(crops)

    return Failing()


def make_analyzer(*estimators: AttributeEstimator) -> Analyzer:
    return Analyzer(
        FakeDetector(face_at(10, 10, 40), face_at(60, 10, 30)),
        estimators,
        Calibration(
            replace(CALIBRATION.age, sources={"age": AgeSource(1.0, 1.0)}),
            replace(CALIBRATION.gender, sources={"gender": 1.0}),
        ),
        model=ModelInfo("fake", "none", "0"),
        confidence=CONFIDENCE,
        turns=TURNS,
        detail=DETAIL,
    )


def colourful() -> Image:
    return np.random.default_rng(3).integers(0, 255, (80, 120, 3), np.uint8)


def test_it_is_made_and_run_in_one_other_thread() -> None:
    made: list[Gender] = []
    side = SideEstimator(lambda: made.append(Gender()) or made[0])
    side.estimate(CROPS)
    side.begin(CROPS).result()
    side.estimate(CROPS)
    (inner,) = made
    assert len(inner.threads) == 4
    assert len(set(inner.threads)) == 1
    assert inner.threads[0] != threading.get_ident()


def test_a_session_of_its_own_thread_answers() -> None:
    """The guard of a session would refuse any other thread than the one that made it."""
    side = SideEstimator(lambda: Classifier(DLIB_GENDER, FakeSession(probabilities=np.float32([[0.25, 0.75]] * 2))))
    scores = side.estimate([np.zeros((32, 32, 3), np.uint8)])
    assert scores.female is not None
    assert scores.female.tolist() == [0.25]
    assert (side.provides, side.crop) == (DLIB_GENDER.provides, DLIB_GENDER.crop)


def test_what_is_begun_is_what_is_estimated() -> None:
    side, plain = SideEstimator(FakeEstimator), FakeEstimator()
    for scores in (side.begin(CROPS).result(), side.estimate(CROPS)):
        expected = plain.estimate(CROPS)
        assert scores.age is not None
        assert expected.age is not None
        np.testing.assert_array_equal(scores.age.probabilities, expected.age.probabilities)
        np.testing.assert_array_equal(scores.female, expected.female)


def test_errors_reach_who_asked_and_do_not_last() -> None:
    side = SideEstimator(lambda: failing("no answer"))
    with pytest.raises(InferenceError, match="no answer"):
        side.estimate(CROPS)
    begun = side.begin(CROPS)
    with pytest.raises(InferenceError, match="no answer"):
        begun.result()
    assert side.estimate(CROPS[:1]).female is not None


def test_what_cannot_be_made_is_said_at_once() -> None:
    def make() -> AttributeEstimator:
        raise InferenceError("no network")

    with pytest.raises(InferenceError, match="no network"):
        SideEstimator(make)


def test_the_thread_ends_with_the_estimator() -> None:
    before = set(threading.enumerate())
    side = SideEstimator(FakeEstimator)
    side.estimate(CROPS)
    (thread,) = set(threading.enumerate()) - before
    del side
    gc.collect()
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()


# ── in an analyzer ───────────────────────────────────────────────────────────────────────────────


def test_an_analyzer_answers_the_same_with_an_estimator_aside() -> None:
    plain = make_analyzer(Gender(), Age()).analyze(colourful())
    aside = make_analyzer(SideEstimator(Gender), Age()).analyze(colourful())
    assert len(plain.faces) == 2
    assert aside.faces == plain.faces
    assert all(face.age and face.gender for face in aside.faces)


@pytest.mark.parametrize("aside_first", [True, False])
def test_two_networks_read_the_same_faces_at_once(aside_first: bool) -> None:
    both = threading.Barrier(2)

    class Meeting(Gender):
        def estimate(self, crops: Sequence[Image]) -> AttributeScores:
            both.wait(TIMEOUT_S)
            return super().estimate(crops)

    class AlsoMeeting(Age):
        def estimate(self, crops: Sequence[Image]) -> AttributeScores:
            both.wait(TIMEOUT_S)
            return super().estimate(crops)

    estimators: list[AttributeEstimator] = [SideEstimator(Meeting), AlsoMeeting()]
    result = make_analyzer(*(estimators if aside_first else estimators[::-1])).analyze(colourful())
    assert all(face.age and face.gender for face in result.faces)


def test_an_estimator_aside_is_asked_only_for_what_is_wanted() -> None:
    made: list[Gender] = []
    analyzer = make_analyzer(SideEstimator(lambda: made.append(Gender()) or made[0]), Age())
    analyzer.analyze(colourful(), AnalyzeOptions(attributes=frozenset({"age"})))
    assert made[0].calls == 0
    analyzer.analyze(colourful(), AnalyzeOptions(attributes=frozenset({"gender"})))
    assert made[0].calls == 1


def test_an_error_aside_is_an_error_of_the_analysis() -> None:
    with pytest.raises(InferenceError, match="no answer"):
        make_analyzer(SideEstimator(lambda: failing("no answer")), Age()).analyze(colourful())


def test_an_estimator_aside_is_warmed_up_too() -> None:
    made: list[Gender] = []
    make_analyzer(SideEstimator(lambda: made.append(Gender()) or made[0]), Age()).warm_up()
    assert made[0].calls == 2
