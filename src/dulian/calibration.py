"""From what the networks say to what is published: ages with an interval, genders with an honest probability.

The tables are data, fitted on labelled photos by ``dulian evaluate --fit`` and kept per profile in
``data/calibration``; this module only applies them, to all faces of a picture at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dulian.errors import MalformedInputError
from dulian.faces import AgeEstimate, Attribute, GenderEstimate, GenderValue
from dulian.models import AgeScores

Floats = NDArray[np.float64]

# The eight classes of the Adience benchmark, which the articles show as labels.
BUCKETS: tuple[tuple[int, int], ...] = ((0, 2), (4, 6), (8, 12), (15, 20), (25, 32), (38, 43), (48, 53), (60, 100))
BUCKET_LABELS = tuple(f"({low}-{high})" for low, high in BUCKETS)
# Ages from each of these on are nearer to the next bucket; in the middle of a gap the younger one has it.
BUCKET_ENDS = tuple((high + low) / 2 for (_, high), (low, _) in pairwise(BUCKETS))
MAX_AGE = 100.0
MIN_COVERAGE, MAX_COVERAGE = 0.5, 0.99
# A network's certainty is believed up to here; beyond, one of several could never be outvoted.
CERTAIN = 1 - 1e-4


@dataclass(frozen=True, slots=True)
class AgeSource:
    """How much one network has to say in the age, and how its distribution is sharpened (below 1) or spread."""

    weight: float
    temperature: float


@dataclass(frozen=True, slots=True)
class AgeTable:
    """How networks' ages become one age with an interval.

    The weighted mixture of the networks' distributions gives a mean and a standard deviation in years. The mean is
    corrected by ``shifts``, linear between ``knots``. The interval is that value ``± quantile · scale``, with
    ``scale = sqrt(deviation² + (floor + slope · value)²)``: split-conformal prediction with a normalised residual
    (Lei et al., JASA 2018), its quantiles taken apart for each band of values (``band_starts``) and each coverage. In
    pictures whose quality score is below ``poor_below`` it is ``poor_factor`` times as wide.
    """

    sources: Mapping[str, AgeSource]
    knots: tuple[float, ...]
    shifts: tuple[float, ...]
    floor: float
    slope: float
    poor_below: float
    poor_factor: float
    coverages: tuple[float, ...]
    band_starts: tuple[float, ...]
    quantiles: tuple[tuple[float, ...], ...]

    def estimate(
        self, scores: Mapping[str, AgeScores], qualities: Sequence[float], coverage: float
    ) -> list[AgeEstimate]:
        """One age per face; ``qualities`` are the faces' quality scores.

        Raises:
            MalformedInputError: ``coverage`` is outside [0.5, 0.99].
        """
        check_coverage(coverage)
        mean, deviation = self.mixture(scores)
        values = self.corrected(mean)
        scales = self.scales(values, deviation, np.array(qualities))
        bands = self.bands(values)
        found = []
        for value, scale, band in zip(values.tolist(), scales.tolist(), bands.tolist(), strict=True):
            half = float(np.interp(coverage, self.coverages, self.quantiles[band])) * scale
            bucket = nearest_bucket(value)
            found.append(
                AgeEstimate(
                    value=value,
                    low=max(0.0, value - half),
                    high=min(MAX_AGE, value + half),
                    coverage=coverage,
                    bucket=BUCKET_LABELS[bucket],
                    bucket_probability=self._share_in_bucket(bucket, value, scale, band),
                )
            )
        return found

    def mixture(self, scores: Mapping[str, AgeScores]) -> tuple[Floats, Floats]:
        """Mean and standard deviation, in years, of each face's mixture of distributions."""
        parts = [(source.weight, *moments(scores[name], source.temperature)) for name, source in self.sources.items()]
        mean = sum((weight * mean for weight, mean, _ in parts), np.zeros(()))
        variance = sum((weight * (own + (its - mean) ** 2) for weight, its, own in parts), np.zeros(()))
        return mean, np.sqrt(np.maximum(variance, 0.0))

    def corrected(self, mean: Floats) -> Floats:
        """The published values of mixture means; the correction never swaps two faces' order."""
        return np.clip(mean + np.interp(mean, self.knots, self.shifts), 0.0, MAX_AGE)

    def scales(self, values: Floats, deviation: Floats, qualities: Floats) -> Floats:
        """By how many years one quantile widens each interval."""
        scales: Floats = np.hypot(deviation, self.floor + self.slope * values)
        return np.where(qualities < self.poor_below, self.poor_factor, 1.0) * scales

    def bands(self, values: Floats) -> NDArray[np.intp]:
        """The row of ``quantiles`` that is meant for each value."""
        return np.searchsorted(self.band_starts, values, side="right") - 1

    def _share_in_bucket(self, bucket: int, value: float, scale: float, band: int) -> float:
        """How often the true age is nearest to that bucket, by the residuals that the quantiles tell of."""
        ends = (-np.inf, *BUCKET_ENDS, np.inf)
        distances = np.array([0.0, *self.quantiles[band], 1.5 * self.quantiles[band][-1]])
        shares = np.array([0.0, *self.coverages, 1.0])

        def share_below(age: float) -> float:
            within = float(np.interp(abs(age - value) / scale, distances, shares)) if np.isfinite(age) else 1.0
            return 0.5 + 0.5 * float(np.sign(age - value)) * within

        return share_below(ends[bucket + 1]) - share_below(ends[bucket])


@dataclass(frozen=True, slots=True)
class GenderTable:
    """How networks' genders become one probability.

    The log odds of "female" are weighted and added. Faces tell less the younger they are, so the sum is multiplied by a
    factor that rises from ``young_factor`` at age 0 to 1 at ``grown_up``. Below ``decision`` the answer is "undecided".
    """

    sources: Mapping[str, float]
    young_factor: float
    grown_up: float
    decision: float

    def estimate(self, female: Mapping[str, Floats], ages: Floats) -> list[GenderEstimate]:
        """One gender per face, from each network's probability of "female" ``(N,)`` and the faces' ages ``(N,)``."""
        return [self._judged(share) for share in self.probabilities(female, ages).tolist()]

    def probabilities(self, female: Mapping[str, Floats], ages: Floats) -> Floats:
        """The calibrated probability of "female" for each face."""
        odds = sum((weight * log_odds(female[name]) for name, weight in self.sources.items()), np.zeros(()))
        grown = np.clip(ages / self.grown_up, 0.0, 1.0)
        return np.asarray(1 / (1 + np.exp(-odds * (self.young_factor + (1 - self.young_factor) * grown))))

    def _judged(self, share: float) -> GenderEstimate:
        likelier = max(share, 1 - share)
        side: GenderValue = "female" if share >= 0.5 else "male"
        value = side if likelier >= self.decision else None
        return GenderEstimate(value=value, probability=likelier, female_probability=share)


@dataclass(frozen=True, slots=True)
class Calibration:
    """One profile's tables."""

    age: AgeTable
    gender: GenderTable

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        """The tables as their JSON file spells them."""
        age, gender = data["age"], data["gender"]
        return cls(
            AgeTable(
                sources={name: AgeSource(**source) for name, source in age["sources"].items()},
                knots=tuple(age["knots"]),
                shifts=tuple(age["shifts"]),
                floor=age["floor"],
                slope=age["slope"],
                poor_below=age["poor_below"],
                poor_factor=age["poor_factor"],
                coverages=tuple(age["coverages"]),
                band_starts=tuple(age["band_starts"]),
                quantiles=tuple(map(tuple, age["quantiles"])),
            ),
            GenderTable(
                sources=dict(gender["sources"]),
                young_factor=gender["young_factor"],
                grown_up=gender["grown_up"],
                decision=gender["decision"],
            ),
        )

    def needed(self, asked: frozenset[Attribute]) -> frozenset[Attribute]:
        """What networks have to tell for what is asked: how sure a gender is depends on the age."""
        return asked | {"age"} if "gender" in asked and self.gender.young_factor != 1 else asked


def check_coverage(coverage: float) -> None:
    """Refuse a coverage that the tables do not reach.

    Raises:
        MalformedInputError: It is outside [0.5, 0.99].
    """
    if not MIN_COVERAGE <= coverage <= MAX_COVERAGE:
        raise MalformedInputError(f"coverage {coverage} is not between {MIN_COVERAGE} and {MAX_COVERAGE}")


def moments(scores: AgeScores, temperature: float) -> tuple[Floats, Floats]:
    """Mean and variance, in years, of each face's distribution, each probability raised to 1 / temperature."""
    shares = scores.probabilities.astype(np.float64)
    if temperature != 1 and shares.shape[1] > 1:
        # by the largest first: small numbers to a high power would all be 0
        shares = (shares / shares.max(axis=1, keepdims=True)) ** (1 / temperature)
    shares = shares / shares.sum(axis=1, keepdims=True)
    mean = (shares * scores.years).sum(axis=1)
    return mean, (shares * (scores.years - mean[:, None]) ** 2).sum(axis=1)


def log_odds(probability: Floats) -> Floats:
    """The logit, of a probability no nearer to 0 or 1 than is believed."""
    believed = np.clip(probability, 1 - CERTAIN, CERTAIN)
    return np.log(believed / (1 - believed))


def nearest_bucket(age: float) -> int:
    """Index of the bucket whose range is nearest to an age; in the middle of a gap, the younger one."""
    return int(np.searchsorted(BUCKET_ENDS, age, side="left"))
