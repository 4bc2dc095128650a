"""From raw network probabilities to what is published: ages with an interval, genders with an honest probability.

The tables are data, fitted on labelled photos by ``tools/fit_calibration.py`` and kept per profile in
``data/calibration``; this module only applies them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dulian.errors import MalformedInputError
from dulian.faces import AgeEstimate, GenderEstimate, GenderValue

# The eight classes of the Adience benchmark, which the articles show as labels.
BUCKETS: tuple[tuple[int, int], ...] = ((0, 2), (4, 6), (8, 12), (15, 20), (25, 32), (38, 43), (48, 53), (60, 100))
BUCKET_LABELS = tuple(f"({low}-{high})" for low, high in BUCKETS)
MAX_AGE = 100.0
MIN_COVERAGE, MAX_COVERAGE = 0.5, 0.99


@dataclass(frozen=True, slots=True)
class Calibration:
    """One profile's tables.

    An interval is ``value ± quantile(coverage) · sqrt(spread² + spread_floor²)``, where ``spread`` is the
    standard deviation of the predicted distribution in years: split-conformal prediction with a
    normalised residual (Lei et al., JASA 2018). A gender logit is divided by ``gender_temperature``;
    below ``gender_decision`` the answer is "undecided".
    """

    coverages: tuple[float, ...]
    quantiles: tuple[float, ...]
    spread_floor: float
    gender_temperature: float
    gender_decision: float

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        """The table as its JSON file spells it."""
        return cls(
            coverages=tuple(data["age"]["coverages"]),
            quantiles=tuple(data["age"]["quantiles"]),
            spread_floor=data["age"]["spread_floor"],
            gender_temperature=data["gender"]["temperature"],
            gender_decision=data["gender"]["decision"],
        )

    def age(self, probabilities: NDArray[np.float64], years: NDArray[np.float64], coverage: float) -> AgeEstimate:
        """An age from a distribution ``(K,)`` over classes that stand for ``years (K,)``.

        Raises:
            MalformedInputError: ``coverage`` is outside [0.5, 0.99].
        """
        check_coverage(coverage)
        value, spread = expectation(probabilities, years)
        half = float(np.interp(coverage, self.coverages, self.quantiles)) * math.hypot(spread, self.spread_floor)
        bucket, share = choose_bucket(probabilities, years, value)
        return AgeEstimate(
            value=value,
            low=max(0.0, value - half),
            high=min(MAX_AGE, value + half),
            coverage=coverage,
            bucket=BUCKET_LABELS[bucket],
            bucket_probability=share,
        )

    def gender(self, female: float) -> GenderEstimate:
        """A gender from the raw probability of "female"."""
        probability = temper(female, self.gender_temperature)
        likelier = max(probability, 1 - probability)
        undecided = likelier < self.gender_decision
        side: GenderValue = "female" if probability >= 0.5 else "male"
        return GenderEstimate(value=None if undecided else side, probability=likelier, female_probability=probability)


def check_coverage(coverage: float) -> None:
    """Refuse a coverage that the tables do not reach.

    Raises:
        MalformedInputError: It is outside [0.5, 0.99].
    """
    if not MIN_COVERAGE <= coverage <= MAX_COVERAGE:
        raise MalformedInputError(f"coverage {coverage} is not between {MIN_COVERAGE} and {MAX_COVERAGE}")


def expectation(probabilities: NDArray[np.float64], years: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation, in years, of a distribution over ages."""
    total = float(probabilities.sum())
    mean = float(probabilities @ years) / total
    variance = float(probabilities @ (years - mean) ** 2) / total
    return mean, math.sqrt(max(variance, 0.0))


def temper(probability: float, temperature: float) -> float:
    """A probability whose logit is divided by ``temperature`` (Guo et al., ICML 2017)."""
    clipped = min(max(probability, 1e-7), 1 - 1e-7)
    logit = math.log(clipped / (1 - clipped)) / temperature
    return 1 / (1 + math.exp(-logit))


def choose_bucket(probabilities: NDArray[np.float64], years: NDArray[np.float64], value: float) -> tuple[int, float]:
    """The article bucket of an age, and the probability of it.

    A net with the eight buckets as classes answers with its own argmax; any other with the bucket
    nearest to ``value`` and the share of the distribution that lies nearest to it.
    """
    if len(years) == len(BUCKETS):
        best = int(probabilities.argmax())
        return best, float(probabilities[best])
    chosen = nearest_bucket(value)
    nearest = _nearest_buckets(tuple(years.tolist()))
    return chosen, min(1.0, float(probabilities[nearest == chosen].sum() / probabilities.sum()))


@cache
def _nearest_buckets(years: tuple[float, ...]) -> NDArray[np.int64]:
    return np.array([nearest_bucket(year) for year in years])


def nearest_bucket(age: float) -> int:
    """Index of the bucket whose range is nearest to an age; in the middle of a gap, the younger one."""
    distances = [max(low - age, age - high, 0.0) for low, high in BUCKETS]
    return distances.index(min(distances))
