"""From networks' scores to published ages and genders: single sources, several, bands of age and of quality."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.fakes import CALIBRATION

from dulian.calibration import BUCKETS, AgeSource, AgeTable, Calibration, GenderTable, log_odds, moments, nearest_bucket
from dulian.errors import MalformedInputError
from dulian.faces import AgeEstimate
from dulian.factory import load_calibration
from dulian.models import AgeScores
from dulian.models.catalog import PROFILES

YEARS = np.arange(0, 81, dtype=np.float64)
TABLES = {name: Calibration.from_dict(load_calibration(profile)) for name, profile in PROFILES.items()}
PLAIN = CALIBRATION.age
NOBODY_YOUNG = np.array([40.0])


def bell(mean: float, spread: float) -> AgeScores:
    weights = np.exp(-((YEARS - mean) ** 2) / (2 * spread**2))
    return AgeScores((weights / weights.sum())[None].astype(np.float32), YEARS)


def sure_of(*years: float) -> AgeScores:
    """What a network says that answers in years."""
    return AgeScores(np.ones((len(years), 1), np.float32), np.array(years)[:, None])


def one(scores: AgeScores, coverage: float = 0.9, *, table: AgeTable = PLAIN, quality: float = 1.0) -> AgeEstimate:
    return table.estimate({"fake": scores}, [quality], coverage)[0]


# ── ages ─────────────────────────────────────────────────────────────────────────────────────────


@given(st.floats(0, 80), st.floats(0.5, 20), st.floats(0.5, 0.99))
def test_an_interval_holds_its_value_and_widens_with_coverage(mean: float, spread: float, coverage: float) -> None:
    age = one(bell(mean, spread), coverage)
    assert 0 <= age.low <= age.value <= age.high <= 100
    wider = one(bell(mean, spread), 0.99)
    assert wider.low <= age.low
    assert wider.high >= age.high


def test_a_vaguer_distribution_gets_a_wider_interval() -> None:
    sure, vague = (one(bell(40, spread)) for spread in (2, 12))
    assert vague.high - vague.low > sure.high - sure.low


@pytest.mark.parametrize("coverage", [0.4, 0.995, float("nan")])
def test_coverage_outside_the_table_is_refused(coverage: float) -> None:
    with pytest.raises(MalformedInputError):
        one(bell(40, 3), coverage)


def test_several_networks_are_weighted_and_their_disagreement_counts_as_doubt() -> None:
    table = replace(PLAIN, sources={"a": AgeSource(0.25, 1.0), "b": AgeSource(0.75, 1.0)}, floor=1.0)
    agreeing = table.estimate({"a": sure_of(30), "b": sure_of(30)}, [1.0], 0.9)[0]
    apart = table.estimate({"a": sure_of(20), "b": sure_of(40)}, [1.0], 0.9)[0]
    assert (agreeing.value, apart.value) == (30, 35)
    # the deviation of 20 and 40 years, weighted 1 : 3, is 8.66
    assert apart.high - apart.value == pytest.approx(1.6 * np.hypot(np.sqrt(75), 1.0))
    assert agreeing.high - agreeing.value == pytest.approx(1.6)


def test_each_face_is_judged_by_its_own_row() -> None:
    together = PLAIN.estimate({"fake": sure_of(5, 70, 33)}, [1.0, 1.0, 1.0], 0.9)
    assert together == [one(sure_of(years)) for years in (5, 70, 33)]


def test_a_correction_is_linear_between_its_knots() -> None:
    table = replace(PLAIN, knots=(0.0, 20.0, 80.0), shifts=(1.0, -1.0, 5.0))
    assert [one(sure_of(years), table=table).value for years in (0, 10, 20, 50, 80)] == [1, 10, 19, 52, 85]


def test_bands_of_age_have_quantiles_of_their_own() -> None:
    table = replace(PLAIN, band_starts=(0.0, 13.0), quantiles=((0.1, 0.2, 0.3), (1.0, 2.0, 3.0)))
    child, adult = (one(sure_of(years), table=table) for years in (12.9, 13.0))
    assert child.high - child.value == pytest.approx(0.6)
    assert adult.high - adult.value == pytest.approx(6.0)


def test_poor_pictures_widen_the_interval_and_nothing_else() -> None:
    table = replace(PLAIN, poor_below=0.2, poor_factor=1.5)
    good, poor = (one(sure_of(50), table=table, quality=quality) for quality in (0.2, 0.19))
    assert poor.value == good.value
    assert poor.high - poor.value == pytest.approx(1.5 * (good.high - good.value))
    assert poor.bucket_probability < good.bucket_probability


def test_a_low_temperature_leaves_the_likeliest_class() -> None:
    shares = np.array([[0.2, 0.41, 0.39], [0.0, 1e-30, 0.0]], np.float32)
    mean, variance = moments(AgeScores(shares, np.array([1.0, 30.0, 70.0])), 0.01)
    assert mean == pytest.approx([30.0, 30.0], abs=0.3)
    assert variance[1] == 0


@pytest.mark.parametrize(("age", "bucket"), [(0, 0), (3, 0), (3.4, 1), (22, 3), (23, 4), (35.6, 5), (99, 7), (120, 7)])
def test_nearest_bucket(age: float, bucket: int) -> None:
    assert nearest_bucket(age) == bucket


def test_every_bucket_is_nearest_to_itself() -> None:
    for index, (low, high) in enumerate(BUCKETS):
        assert nearest_bucket(low) == nearest_bucket(high) == index


@given(st.floats(0, 100))
def test_the_probabilities_of_all_buckets_add_up(value: float) -> None:
    shares = [PLAIN._share_in_bucket(bucket, value, 4.0, 0) for bucket in range(len(BUCKETS))]
    assert sum(shares) == pytest.approx(1.0)
    assert min(shares) >= 0


def test_the_bucket_of_a_vague_age_is_less_probable() -> None:
    sure, vague = (one(bell(28, spread)) for spread in (1, 12))
    assert sure.bucket == vague.bucket == "(25-32)"
    assert sure.bucket_probability > 1.2 * vague.bucket_probability


# ── genders ──────────────────────────────────────────────────────────────────────────────────────


def shares(*values: float) -> dict[str, NDArray[np.float64]]:
    return {"fake": np.array(values)}


@given(st.floats(0, 1))
def test_gender_is_symmetric_and_undecided_in_the_middle(female: float) -> None:
    gender = CALIBRATION.gender.estimate(shares(female), NOBODY_YOUNG)[0]
    assert gender.probability == max(gender.female_probability, 1 - gender.female_probability)
    assert (gender.value is None) == (gender.probability < CALIBRATION.gender.decision)
    if gender.value is not None:
        assert gender.value == ("female" if gender.female_probability >= 0.5 else "male")


@given(st.floats(0, 1), st.floats(0.05, 5))
def test_weights_keep_the_side(probability: float, weight: float) -> None:
    table = replace(CALIBRATION.gender, sources={"fake": weight})
    judged = table.probabilities(shares(probability), NOBODY_YOUNG)[0]
    assert 0 <= judged <= 1
    assert (judged - 0.5) * (probability - 0.5) >= -1e-12


def test_networks_are_added_up_as_log_odds() -> None:
    table = GenderTable(sources={"a": 1.0, "b": 0.5}, young_factor=1.0, grown_up=25.0, decision=0.6)
    judged = table.probabilities({"a": np.array([0.8]), "b": np.array([0.2])}, NOBODY_YOUNG)
    assert judged == pytest.approx([1 / (1 + np.exp(-0.5 * np.log(4)))])


def test_the_same_face_tells_less_the_younger_it_is() -> None:
    table = replace(CALIBRATION.gender, young_factor=0.4)
    ages = np.array([0.0, 5.0, 15.0, 25.0, 60.0])
    judged = table.probabilities(shares(*[0.9] * 5), ages).tolist()
    assert judged[:4] == sorted(judged[:4])
    assert judged[0] < judged[1] < judged[2] < judged[3]
    assert judged[3] == judged[4] == pytest.approx(0.9)


def test_certainty_is_believed_only_so_far() -> None:
    assert np.isfinite(log_odds(np.array([0.0, 1.0]))).all()
    assert log_odds(np.array([1.0])) == -log_odds(np.array([0.0]))


# ── the tables that are shipped ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_shipped_tables_are_sane(table: Calibration) -> None:
    age = table.age
    corrected = np.array(age.knots) + np.array(age.shifts)
    assert (np.diff(corrected) > 0).all(), "a correction must not swap two faces"
    assert np.abs(age.shifts).max() < 5
    assert sum(source.weight for source in age.sources.values()) == pytest.approx(1.0, abs=1e-3)
    assert len(age.quantiles) == len(age.band_starts)
    assert age.band_starts[0] == 0
    for band in age.quantiles:
        assert len(band) == len(age.coverages)
        assert list(band) == sorted(band)
    assert age.poor_factor >= 1
    assert min(table.gender.sources.values()) > 0
    assert 0.5 <= table.gender.decision < 0.75
    assert 0 < table.gender.young_factor <= 1


@pytest.mark.parametrize("name", TABLES)
def test_shipped_tables_name_the_networks_of_their_profile(name: str) -> None:
    networks = PROFILES[name].estimators
    assert set(TABLES[name].age.sources) == {row.name for row in networks if "age" in row.provides}
    assert set(TABLES[name].gender.sources) == {row.name for row in networks if "gender" in row.provides}


def test_the_articles_way_is_left_as_it_is() -> None:
    table = TABLES["classic-article"]
    assert set(table.age.shifts) == {0.0}
    assert table.gender.young_factor == 1
    assert table.gender.decision == 0.5
    assert table.needed(frozenset({"gender"})) == {"gender"}


def test_how_sure_a_gender_is_depends_on_the_age() -> None:
    assert TABLES["standard"].needed(frozenset({"gender"})) == {"age", "gender"}
    assert TABLES["standard"].needed(frozenset({"age"})) == {"age"}
    assert TABLES["standard"].needed(frozenset()) == frozenset()
