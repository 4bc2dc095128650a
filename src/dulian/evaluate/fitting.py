"""Fits a profile's calibration tables to labelled faces, and says by cross-validation what they are worth on others.

Few numbers are fitted, each held near what one would assume without data: networks count alike, ages need no
correction. What is not fitted stands here as a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dulian.calibration import AgeSource, AgeTable, Calibration, GenderTable, log_odds, moments
from dulian.errors import MalformedInputError
from dulian.evaluate.evidence import Evidence, Floats, Indices, Judgement, judge
from dulian.faces import AgeEstimate

COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
KNOTS = (0.0, 6.0, 15.0, 28.0, 45.0, 65.0, 80.0)
BAND_STARTS = (0.0, 13.0, 30.0, 50.0)
# An interval's scale beside the networks' own deviation: years, and years per year of age.
FLOOR, SLOPE = 3.0, 0.1
TEMPERATURES = (1.0, 1.3, 1.6, 2.0)
YOUNG_FACTORS = tuple(round(0.05 * step, 2) for step in range(4, 21))
GROWN_UP = 25.0
# The strength, in faces, of what is assumed without data.
EQUAL_AGES, NO_SHIFT, EQUAL_GENDERS = 3.0, 16.0, 50.0
# Networks' log odds are about twice too sure.
USUAL_SHRINKAGE = 0.5
# A gender is published where at least this share of equally sure answers is right, and for about so many at least.
MIN_GENDER_ACCURACY = 0.7
MIN_ANSWERED = 0.87
# A band of ages or of quality needs so many faces.
MIN_FACES = 30
ENOUGH = MIN_FACES * len(BAND_STARTS)
# Faces of about 40 pixels have this quality score; intervals below it are fitted to pictures made smaller.
POOR_BELOW = 0.2
SMALL_FACES_PX = (36, 26)
# Errors below half a year do not count: labels are no better.
LABEL_NOISE = 0.5


def fit(evidence: Evidence, small: Evidence | None = None, *, article: bool = False) -> dict[str, Any]:
    """Tables, as the calibration's JSON file spells them; ``small`` are the same people in smaller pictures.

    With ``article`` the networks' likeliest answers stand as they are, and only the intervals are fitted.

    Raises:
        MalformedInputError: There are too few faces to learn from.
    """
    aged, gendered = np.flatnonzero(np.isfinite(evidence.ages)), np.flatnonzero(np.isfinite(evidence.genders))
    if not are_enough(evidence):
        raise MalformedInputError(
            f"{len(aged)} exact ages and {len(gendered)} genders are too few to fit anything: it takes {ENOUGH} of each"
        )
    age = _with_quantiles(_fit_values(evidence.some(aged), article), evidence.some(aged))
    if small is not None:
        age = replace(age, poor_factor=_poor_factor(age, small))
    everybody = age.corrected(age.mixture(evidence.age_scores)[0])
    gender = _fit_genders(evidence.some(gendered), everybody[gendered], article)
    return {
        "age": {
            "faces": len(aged),
            "sources": {
                name: {"weight": _round(source.weight), "temperature": source.temperature}
                for name, source in age.sources.items()
            },
            "knots": list(age.knots),
            "shifts": [round(shift, 2) for shift in age.shifts],
            "floor": age.floor,
            "slope": age.slope,
            "poor_below": age.poor_below,
            "poor_factor": age.poor_factor,
            "coverages": list(age.coverages),
            "band_starts": list(age.band_starts),
            "quantiles": [[_round(quantile) for quantile in band] for band in age.quantiles],
        },
        "gender": {
            "faces": len(gendered),
            "sources": {name: _round(weight) for name, weight in gender.sources.items()},
            "young_factor": gender.young_factor,
            "grown_up": gender.grown_up,
            "decision": gender.decision,
        },
    }


def are_enough(evidence: Evidence) -> bool:
    """Whether tables can be fitted to so many faces."""
    return bool(min(np.isfinite(evidence.ages).sum(), np.isfinite(evidence.genders).sum()) >= ENOUGH)


def _round(number: float) -> float:
    return round(float(number), 4)


# ── ages ─────────────────────────────────────────────────────────────────────────────────────────


def _fit_values(evidence: Evidence, article: bool) -> AgeTable:
    if article:
        # the likeliest class alone, however narrowly it leads
        sources = {name: AgeSource(1 / len(evidence.age_scores), 0.01) for name in evidence.age_scores}
        return _plain_table(sources, np.zeros(len(KNOTS)))
    return min(_fitted_values(evidence), key=lambda table: _mean_error(table, evidence))


def _fitted_values(evidence: Evidence) -> Iterator[AgeTable]:
    """One table for each temperature; a network that answers in years has none, and all others share one."""
    for temperature in TEMPERATURES:
        means = np.array([moments(scores, temperature)[0] for scores in evidence.age_scores.values()]).T
        weights = _robust_weights(means, evidence.ages)
        sources = {
            name: AgeSource(float(weight), temperature)
            for name, weight in zip(evidence.age_scores, weights, strict=True)
        }
        yield _plain_table(sources, _robust_shifts(means @ weights, evidence.ages))


def _plain_table(sources: Mapping[str, AgeSource], shifts: Floats) -> AgeTable:
    return AgeTable(
        sources=sources,
        knots=KNOTS,
        shifts=tuple(shifts.tolist()),
        floor=FLOOR,
        slope=SLOPE,
        poor_below=POOR_BELOW,
        poor_factor=1.0,
        coverages=COVERAGES,
        band_starts=BAND_STARTS,
        quantiles=(),
    )


def _mean_error(table: AgeTable, evidence: Evidence) -> float:
    return float(np.abs(table.corrected(table.mixture(evidence.age_scores)[0]) - evidence.ages).mean())


def _robust_weights(means: Floats, ages: Floats) -> Floats:
    """Weights that add up to 1 with the least absolute error, by reweighted least squares, held near equal ones."""
    count = means.shape[1]
    equal = np.full(count, 1 / count)
    weights = equal
    hold = EQUAL_AGES * float(np.var(ages))
    ones = np.ones((count, 1))
    for _ in range(30):
        pull = 1 / np.maximum(np.abs(ages - means @ weights), LABEL_NOISE)
        square = (means * pull[:, None]).T @ means + hold * np.eye(count)
        side = (means * pull[:, None]).T @ ages + hold * equal
        system = np.block([[square, ones], [ones.T, np.zeros((1, 1))]])
        weights = np.linalg.solve(system, np.append(side, 1.0))[:count]
    return weights


def _robust_shifts(means: Floats, ages: Floats) -> Floats:
    """A shift at each knot with the least absolute error, held near none."""
    share = np.array([np.interp(means, KNOTS, one) for one in np.eye(len(KNOTS))]).T
    shifts = np.zeros(len(KNOTS))
    for _ in range(60):
        pull = 1 / np.maximum(np.abs(ages - means - share @ shifts), LABEL_NOISE)
        square = (share * pull[:, None]).T @ share + NO_SHIFT * np.eye(len(KNOTS))
        shifts = np.linalg.solve(square, (share * pull[:, None]).T @ (ages - means))
    # never so much less than at the knot before that two faces' order would be swapped
    return np.maximum.accumulate(shifts + KNOTS) - KNOTS


def _with_quantiles(table: AgeTable, evidence: Evidence) -> AgeTable:
    """Each band's own quantiles, or everybody's where it has too few faces."""
    residuals, bands = _residuals(table, evidence)
    chosen = [residuals[bands == band] for band in range(len(BAND_STARTS))]
    return replace(table, quantiles=tuple(_quantiles(own if len(own) >= MIN_FACES else residuals) for own in chosen))


def _residuals(table: AgeTable, evidence: Evidence) -> tuple[Floats, Indices]:
    """Errors over the scale that good pictures have, and the band of each face."""
    mean, deviation = table.mixture(evidence.age_scores)
    values = table.corrected(mean)
    scales = table.scales(values, deviation, np.ones(len(evidence)))
    return np.abs(evidence.ages - values) / scales, table.bands(values)


def _poor_factor(table: AgeTable, small: Evidence) -> float:
    """How much wider intervals must be to hold as often in poor pictures."""
    poor = small.some(np.flatnonzero(np.isfinite(small.ages) & (small.qualities < POOR_BELOW)))
    if len(poor) < MIN_FACES:
        return 1.0
    residuals, bands = _residuals(table, poor)
    usual = np.array([band[COVERAGES.index(0.9)] for band in table.quantiles])
    return round(max(1.0, conformal_quantile(residuals / usual[bands], 0.9)), 2)


def _quantiles(residuals: Floats) -> tuple[float, ...]:
    return tuple(conformal_quantile(residuals, coverage) for coverage in COVERAGES)


def conformal_quantile(residuals: Floats, coverage: float) -> float:
    """The finite-sample quantile of split-conformal prediction (Lei et al., JASA 2018)."""
    rank = min(int(np.ceil((len(residuals) + 1) * coverage)), len(residuals))
    return float(np.sort(residuals)[rank - 1])


# ── genders ──────────────────────────────────────────────────────────────────────────────────────


def _fit_genders(evidence: Evidence, ages: Floats, article: bool) -> GenderTable:
    odds = np.array([log_odds(shares) for shares in evidence.female.values()]).T
    if article:
        equal = {name: 1 / len(evidence.female) for name in evidence.female}
        return GenderTable(sources=equal, young_factor=1.0, grown_up=GROWN_UP, decision=0.5)

    def fitted(young_factor: float) -> tuple[float, Floats]:
        grown = np.clip(ages / GROWN_UP, 0.0, 1.0)
        seen = odds * (young_factor + (1 - young_factor) * grown)[:, None]
        weights = _logistic_weights(seen, evidence.genders)
        return _log_loss(seen @ weights, evidence.genders), weights

    young_factor = min(YOUNG_FACTORS, key=lambda factor: fitted(factor)[0])
    weights = fitted(young_factor)[1]
    sources = dict(zip(evidence.female, weights.tolist(), strict=True))
    table = GenderTable(sources=sources, young_factor=young_factor, grown_up=GROWN_UP, decision=0.5)
    shares = table.probabilities(evidence.female, ages)
    return GenderTable(sources, young_factor, GROWN_UP, _decision(shares, evidence.genders))


def _logistic_weights(odds: Floats, genders: Floats) -> Floats:
    """Weights of log odds with the least log loss, held near equal ones; nothing is added.

    By Newton's method, its steps halved where they would lead away: they do when networks are far from the truth.
    """
    count = odds.shape[1]
    assumed = np.full(count, USUAL_SHRINKAGE / count) if count > 1 else np.array([USUAL_SHRINKAGE])
    hold = EQUAL_GENDERS if count > 1 else 1.0

    def loss(weights: Floats) -> float:
        return len(genders) * _log_loss(odds @ weights, genders) + hold / 2 * float(((weights - assumed) ** 2).sum())

    weights = assumed
    for _ in range(30):
        shares = 1 / (1 + np.exp(-odds @ weights))
        slope = odds.T @ (shares - genders) + hold * (weights - assumed)
        curvature = (odds * (shares * (1 - shares))[:, None]).T @ odds + hold * np.eye(count)
        step = np.linalg.solve(curvature, slope)
        while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-12:
            step = step / 2
        weights = weights - step
    return weights


def _log_loss(odds: Floats, genders: Floats) -> float:
    return float(np.logaddexp(0.0, np.where(genders == 1, -odds, odds)).mean())


def _decision(shares: Floats, genders: Floats) -> float:
    """Where the risk–coverage curve turns: from this probability on, answers about as sure are worth giving."""
    sure = np.maximum(shares, 1 - shares)
    right = (shares >= 0.5) == genders
    most = float(np.quantile(sure, 1 - MIN_ANSWERED))
    for threshold in np.arange(0.5, most, 0.01):
        near = (sure >= threshold) & (sure < threshold + 0.1)
        if near.sum() >= 20 and right[near].mean() >= MIN_GENDER_ACCURACY:
            return round(float(threshold), 2)
    return round(most, 2)


# ── what they are worth ──────────────────────────────────────────────────────────────────────────

Splits = Callable[[Evidence], Iterator[tuple[Indices, Indices]]]


def by_tenths(evidence: Evidence) -> Iterator[tuple[Indices, Indices]]:
    """Each tenth of the faces, with the other nine to learn from."""
    order = np.random.default_rng(0).permutation(len(evidence))
    for part in range(10):
        yield np.delete(order, np.s_[part::10]), order[part::10]


def by_source(evidence: Evidence) -> Iterator[tuple[Indices, Indices]]:
    """Each source of photos, with the others to learn from."""
    for source in np.unique(evidence.sources):
        theirs = evidence.sources == source
        yield np.flatnonzero(~theirs), np.flatnonzero(theirs)


def cross_validate(
    evidence: Evidence, splits: Splits, small: Evidence | None = None, *, article: bool = False
) -> tuple[Judgement, Floats]:
    """Each face judged by tables that were fitted without it, and the probability from which on those tables decide.

    Everything that is fitted is fitted anew for each part, temperatures and thresholds included.
    """
    ages: list[AgeEstimate | None] = [None] * len(evidence)
    female, decisions = np.full(len(evidence), np.nan), np.full(len(evidence), np.nan)
    for training, held_out in splits(evidence):
        others = None if small is None else small.some(np.flatnonzero(~np.isin(small.files, evidence.files[held_out])))
        calibration = Calibration.from_dict(fit(evidence.some(training), others, article=article))
        judged = judge(evidence.some(held_out), calibration)
        for index, age in zip(held_out.tolist(), judged.ages, strict=True):
            ages[index] = age
        female[held_out], decisions[held_out] = judged.female, calibration.gender.decision
    return Judgement(tuple(age for age in ages if age is not None), female), decisions
