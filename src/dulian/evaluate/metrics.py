"""Figures with their uncertainty: shares and means with bootstrap intervals, calibration, risk against coverage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Truths = NDArray[np.bool_]

DRAWS = 1000
CALIBRATION_BINS = 15


@dataclass(frozen=True, slots=True)
class Figure:
    """A share or a mean with the interval in which it lies with 95 % confidence, and of how many things it tells."""

    value: float
    low: float
    high: float
    count: int

    def as_dict(self) -> dict[str, Any]:
        """As JSON spells it."""
        return {
            "value": round(self.value, 4),
            "low": round(self.low, 4),
            "high": round(self.high, 4),
            "n": self.count,
        }


def mean(values: Sequence[float] | Floats | Truths) -> Figure | None:
    """The mean of one value per face, its interval by bootstrap over faces; None of nothing."""
    return ratio(np.asarray(values, np.float64), np.ones(len(values)))


def ratio(parts: Floats, wholes: Floats) -> Figure | None:
    """The sum of parts over the sum of wholes, one of each per picture, its interval by bootstrap over pictures."""
    if not len(parts) or not wholes.sum():
        return None
    random = np.random.default_rng(1)
    sums = np.empty((DRAWS, 2))
    for draw in range(DRAWS):  # one after the other, so that memory does not grow with their number
        chosen = random.integers(0, len(parts), len(parts))
        sums[draw] = parts[chosen].sum(), wholes[chosen].sum()
    told = sums[sums[:, 1] > 0]
    low, high = np.percentile(told[:, 0] / told[:, 1], [2.5, 97.5])
    return Figure(float(parts.sum() / wholes.sum()), float(low), float(high), int(wholes.sum()))


def calibration_bins(sure: Floats, right: Truths) -> list[dict[str, float]]:
    """Mean probability, share of right answers and number of faces, of equal bins of probability that hold any."""
    bins = np.minimum((sure * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return [
        {
            "probability": round(float(sure[bins == number].mean()), 4),
            "right": round(float(right[bins == number].mean()), 4),
            "n": int((bins == number).sum()),
        }
        for number in np.unique(bins)
    ]


def calibration_error(sure: Floats, right: Truths) -> float:
    """Expected calibration error: by how much, averaged over faces, bins' probabilities and right answers differ."""
    bins = np.minimum((sure * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = [
        abs(float(sure[bins == number].mean() - right[bins == number].mean())) * float((bins == number).mean())
        for number in np.unique(bins)
    ]
    return float(sum(gaps))


def risk_coverage(sure: Floats, right: Truths) -> list[dict[str, float]]:
    """How often answers are right when only the surest are given, for every twentieth of faces answered."""
    order = np.argsort(-sure, kind="stable")
    twentieths = np.arange(1, 21)
    counts = -(-twentieths * len(sure) // 20)
    so_far = np.cumsum(right[order])
    return [
        {"answered": round(float(share), 2), "right": round(float(so_far[count - 1] / count), 4)}
        for share, count in zip(twentieths / 20, counts, strict=True)
        if count
    ]


def right_when_answering(sure: Floats, right: Truths, answered: float) -> Figure | None:
    """How often the surest share of answers is right."""
    order = np.argsort(-sure, kind="stable")[: int(np.ceil(answered * len(sure)))]
    return mean(right[order])
