from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes import CALIBRATION

from dulian.calibration import BUCKETS, choose_bucket, expectation, nearest_bucket, temper
from dulian.errors import MalformedInputError

YEARS = np.arange(0, 81, dtype=np.float64)


def bell(mean: float, spread: float) -> np.ndarray:
    weights = np.exp(-((YEARS - mean) ** 2) / (2 * spread**2))
    return weights / weights.sum()


@given(st.floats(0, 80), st.floats(0.5, 20), st.floats(0.5, 0.99))
def test_an_interval_holds_its_value_and_widens_with_coverage(mean: float, spread: float, coverage: float) -> None:
    age = CALIBRATION.age(bell(mean, spread), YEARS, coverage)
    assert 0 <= age.low <= age.value <= age.high <= 100
    wider = CALIBRATION.age(bell(mean, spread), YEARS, 0.99)
    assert wider.low <= age.low
    assert wider.high >= age.high


def test_a_vaguer_distribution_gets_a_wider_interval() -> None:
    sure, vague = (CALIBRATION.age(bell(40, spread), YEARS, 0.9) for spread in (2, 12))
    assert vague.high - vague.low > sure.high - sure.low


@pytest.mark.parametrize("coverage", [0.4, 0.995, float("nan")])
def test_coverage_outside_the_table_is_refused(coverage: float) -> None:
    with pytest.raises(MalformedInputError):
        CALIBRATION.age(bell(40, 3), YEARS, coverage)


@given(st.floats(0, 1))
def test_gender_is_symmetric_and_undecided_in_the_middle(female: float) -> None:
    gender = CALIBRATION.gender(female)
    assert gender.probability == max(gender.female_probability, 1 - gender.female_probability)
    assert (gender.value is None) == (gender.probability < CALIBRATION.gender_decision)
    if gender.value is not None:
        assert gender.value == ("female" if gender.female_probability >= 0.5 else "male")


@given(st.floats(0, 1), st.floats(0.2, 5))
def test_temperature_keeps_the_side(probability: float, temperature: float) -> None:
    tempered = temper(probability, temperature)
    assert 0 <= tempered <= 1
    assert (tempered - 0.5) * (probability - 0.5) >= -1e-12


def test_expectation_of_a_certain_age() -> None:
    assert expectation(np.eye(81)[30], YEARS) == (30.0, 0.0)


@pytest.mark.parametrize(("age", "bucket"), [(0, 0), (3, 0), (3.4, 1), (22, 3), (23, 4), (35.6, 5), (99, 7), (120, 7)])
def test_nearest_bucket(age: float, bucket: int) -> None:
    assert nearest_bucket(age) == bucket


def test_every_bucket_is_nearest_to_itself() -> None:
    for index, (low, high) in enumerate(BUCKETS):
        assert nearest_bucket(low) == nearest_bucket(high) == index


def test_a_net_of_eight_buckets_answers_with_its_own_argmax() -> None:
    years = np.array([1, 5, 10, 17.5, 28.5, 40.5, 50.5, 70])
    probabilities = np.array([0.3, 0, 0, 0, 0, 0.25, 0.2, 0.25])
    assert choose_bucket(probabilities, years, 38.0) == (0, 0.3)


def test_other_nets_answer_with_the_bucket_nearest_to_their_value() -> None:
    bucket, share = choose_bucket(bell(28, 1), YEARS, 28.0)
    assert BUCKETS[bucket] == (25, 32)
    assert share > 0.95
