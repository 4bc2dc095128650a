"""Labelled faces as arrays: what every network said of each, and what is true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dulian.calibration import Calibration
from dulian.errors import MalformedInputError
from dulian.evaluate.answers import Subject
from dulian.faces import AgeEstimate
from dulian.models import AgeScores

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

# Kinds of pictures whose face is surely the labelled one, large enough, and its label trusted.
FITTING_KINDS = ("face_crop", "face_context")


@dataclass(frozen=True, slots=True)
class Evidence:
    """``N`` faces: ages in years and genders (1 female, 0 male), NaN where not known, beside the networks' scores."""

    ages: Floats
    genders: Floats
    files: NDArray[np.str_]
    sources: NDArray[np.str_]
    qualities: Floats
    age_scores: Mapping[str, AgeScores]
    female: Mapping[str, Floats]

    def __len__(self) -> int:
        return len(self.ages)

    def some(self, chosen: Indices) -> Evidence:
        """The faces of these numbers."""
        return Evidence(
            self.ages[chosen],
            self.genders[chosen],
            self.files[chosen],
            self.sources[chosen],
            self.qualities[chosen],
            {name: _some(scores, chosen) for name, scores in self.age_scores.items()},
            {name: shares[chosen] for name, shares in self.female.items()},
        )


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a calibration makes of evidence: an age, and the probability of "female", for each of ``N`` faces."""

    ages: tuple[AgeEstimate, ...]
    female: Floats


def collect(subjects: Sequence[Subject]) -> Evidence:
    """The evidence of subjects that were found.

    Raises:
        MalformedInputError: There are none.
    """
    if not subjects:
        raise MalformedInputError(f"no labelled face was found in pictures of the kinds {', '.join(FITTING_KINDS)}")
    first = subjects[0].scores
    return Evidence(
        ages=np.array([np.nan if s.person.age is None else s.person.age for s in subjects], np.float64),
        genders=np.array([{"female": 1.0, "male": 0.0}.get(s.person.gender or "", np.nan) for s in subjects]),
        files=np.array([s.picture.file for s in subjects]),
        sources=np.array([s.picture.source for s in subjects]),
        qualities=np.array([s.face.quality.score if s.face else 0.0 for s in subjects]),
        age_scores={name: _joined([s.scores[name].age for s in subjects]) for name in first if first[name].age},
        female={
            name: np.concatenate([s.scores[name].female for s in subjects])
            for name in first
            if first[name].female is not None
        },
    )


def fit_to_learn_from(subjects: Sequence[Subject]) -> list[Subject]:
    """Those that were found, in pictures that show them large and alone."""
    return [s for s in subjects if s.face is not None and s.picture.kind in FITTING_KINDS]


def judge(evidence: Evidence, calibration: Calibration, coverage: float = 0.9) -> Judgement:
    """What is published for the evidence."""
    ages = calibration.age.estimate(evidence.age_scores, evidence.qualities.tolist(), coverage)
    values = np.array([age.value for age in ages])
    return Judgement(tuple(ages), calibration.gender.probabilities(evidence.female, values))


def _joined(parts: Sequence[AgeScores | None]) -> AgeScores:
    there = [part for part in parts if part is not None]
    years = there[0].years
    if years.ndim == 2:
        years = np.concatenate([part.years for part in there])
    return AgeScores(np.concatenate([part.probabilities for part in there]), years)


def _some(scores: AgeScores, chosen: Indices) -> AgeScores:
    return AgeScores(scores.probabilities[chosen], scores.years[chosen] if scores.years.ndim == 2 else scores.years)
