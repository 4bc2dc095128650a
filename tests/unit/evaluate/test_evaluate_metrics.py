"""Figures against values computed by hand, intervals by bootstrap, calibration, risk against coverage."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dulian.evaluate.metrics import (
    Figure,
    calibration_bins,
    calibration_error,
    mean,
    ratio,
    right_when_answering,
    risk_coverage,
)

NOTHING = np.zeros(0)
NO_TRUTHS = np.zeros(0, bool)


def value_of(figure: Figure | None) -> float:
    assert figure is not None
    return figure.value


# ── shares and means ─────────────────────────────────────────────────────────────────────────────


def test_a_mean() -> None:
    figure = mean([1.0, 2.0, 6.0])
    assert figure is not None
    assert (figure.value, figure.count) == (3.0, 3)
    assert value_of(mean(np.array([True, True, False, True]))) == 0.75


def test_a_ratio_is_of_sums_and_counts_the_wholes() -> None:
    figure = ratio(np.array([1.0, 0.0, 4.0]), np.array([2.0, 0.0, 6.0]))
    assert figure is not None
    assert (figure.value, figure.count) == (5 / 8, 8)


def test_of_nothing_there_is_no_figure() -> None:
    assert mean([]) is None
    assert ratio(NOTHING, NOTHING) is None
    assert ratio(np.zeros(3), np.zeros(3)) is None


def test_one_value_is_its_own_interval() -> None:
    assert mean([4.0]) == Figure(4.0, 4.0, 4.0, 1)


def test_draws_in_which_nothing_is_whole_do_not_count() -> None:
    # half of all draws of two hold the first alone, or the second alone
    figure = ratio(np.array([1.0, 0.0]), np.array([1.0, 0.0]))
    assert figure == Figure(1.0, 1.0, 1.0, 1)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=40))
def test_an_interval_lies_within_the_values_and_is_reproducible(values: list[float]) -> None:
    figure = mean(values)
    assert figure is not None
    tiny = 1e-9
    assert min(values) - tiny <= figure.low <= figure.high <= max(values) + tiny
    assert figure == mean(values)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_the_interval_holds_the_value_and_is_as_wide_as_theory_says(share: float) -> None:
    count = 400
    figure = mean(np.arange(count) < share * count)
    assert figure is not None
    assert figure.low < figure.value < figure.high
    theory = 2 * 1.96 * np.sqrt(share * (1 - share) / count)
    assert figure.high - figure.low == pytest.approx(theory, rel=0.12)


def test_faces_of_one_picture_are_drawn_together() -> None:
    """Ten pictures of ten faces, in each all right or all wrong, tell no more than ten faces."""
    pictures = np.arange(10) < 5
    together, apart = ratio(10.0 * pictures, np.full(10, 10.0)), mean(np.repeat(pictures, 10))
    assert together is not None
    assert apart is not None
    assert together.value == apart.value == 0.5
    assert together.count == apart.count == 100
    assert together.high - together.low > 2.5 * (apart.high - apart.low)


def test_a_figure_as_json_spells_it() -> None:
    assert Figure(1 / 3, 0.25, 2 / 3, 7).as_dict() == {"value": 0.3333, "low": 0.25, "high": 0.6667, "n": 7}


# ── calibration ──────────────────────────────────────────────────────────────────────────────────


def test_bins_by_hand() -> None:
    sure = np.array([0.51, 0.53, 0.99, 1.0, 0.9])
    right = np.array([True, False, True, False, False])
    # the bins' edges are fifteenths: 7/15 – 8/15, 13/15 – 14/15, 14/15 – 1
    assert calibration_bins(sure, right) == [
        {"probability": 0.52, "right": 0.5, "n": 2},
        {"probability": 0.9, "right": 0.0, "n": 1},
        {"probability": 0.995, "right": 0.5, "n": 2},
    ]
    assert calibration_error(sure, right) == pytest.approx((2 * 0.02 + 1 * 0.9 + 2 * 0.495) / 5)


def test_probabilities_that_mean_what_they_say_have_no_error() -> None:
    sure = np.repeat([0.55, 0.75, 0.95], 100)
    right = np.concatenate([np.arange(100) < share for share in (55, 75, 95)])
    assert calibration_error(sure, right) == pytest.approx(0, abs=1e-12)
    rng = np.random.default_rng(3)
    drawn = rng.uniform(0.5, 1, 50_000)
    assert calibration_error(drawn, rng.random(50_000) < drawn) < 0.01


@pytest.mark.parametrize(("said", "true"), [(0.9, 0.6), (0.6, 0.9), (1.0, 0.5), (0.7, 0.7)])
def test_one_probability_for_all_is_off_by_its_distance_from_the_truth(said: float, true: float) -> None:
    right = np.arange(200) < true * 200
    assert calibration_error(np.full(200, said), right) == pytest.approx(abs(said - true))


# ── risk against coverage ────────────────────────────────────────────────────────────────────────


def test_the_surest_answers_come_first() -> None:
    sure = np.array([0.6, 0.9, 0.8, 0.7])
    right = np.array([False, True, True, False])
    curve = {row["answered"]: row["right"] for row in risk_coverage(sure, right)}
    assert curve[0.05] == curve[0.25] == curve[0.5] == 1.0
    assert curve[0.55] == curve[0.75] == 0.6667
    assert curve[0.8] == curve[1.0] == 0.5
    assert list(curve) == [round(step / 20, 2) for step in range(1, 21)]


@given(st.integers(1, 300))
def test_the_best_order_only_loses_by_answering_more(count: int) -> None:
    sure = np.linspace(1, 0.5, count)
    right = np.arange(count) < 0.7 * count
    shares = [row["right"] for row in risk_coverage(sure, right)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == round(right.mean(), 4)


@pytest.mark.parametrize("count", [20, 100, 180, 200, 220])
def test_a_twentieth_of_faces_is_not_one_face_more(count: int) -> None:
    """0.55 · 100 is a little more than 55 in floating point."""
    right = np.zeros(count, bool)
    right[: 11 * count // 20] = True
    curve = {row["answered"]: row["right"] for row in risk_coverage(np.linspace(1, 0.5, count), right)}
    assert curve[0.55] == 1.0
    assert curve[0.6] == round(11 / 12, 4)


def test_ties_keep_their_order() -> None:
    right = np.array([True, False, True, False])
    assert [row["right"] for row in risk_coverage(np.full(4, 0.8), right)][4::5] == [1.0, 0.5, 0.6667, 0.5]


def test_right_when_answering_by_hand() -> None:
    sure = np.array([0.6, 0.9, 0.8, 0.7])
    right = np.array([False, True, True, False])
    found = [right_when_answering(sure, right, answered) for answered in (0.25, 0.5, 0.6, 1.0)]
    assert [value_of(figure) for figure in found] == [1.0, 1.0, 2 / 3, 0.5]
    assert [figure.count for figure in found if figure] == [1, 2, ceil(2.4), 4]


def test_nothing_has_no_curve_and_no_error() -> None:
    assert calibration_bins(NOTHING, NO_TRUTHS) == []
    assert calibration_error(NOTHING, NO_TRUTHS) == 0.0
    assert risk_coverage(NOTHING, NO_TRUTHS) == []
    assert right_when_answering(NOTHING, NO_TRUTHS, 0.85) is None
