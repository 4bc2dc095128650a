"""One profile on one set of labelled pictures: asked, judged, and, where wanted, fitted anew and cross-validated."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dulian import __version__
from dulian.evaluate.answers import Answer, Subject, ask
from dulian.evaluate.dataset import Picture
from dulian.evaluate.evidence import FITTING_KINDS, Evidence, collect, fit_to_learn_from
from dulian.evaluate.fitting import SMALL_FACES_PX, Splits, are_enough, by_source, by_tenths, cross_validate, fit
from dulian.evaluate.report import ADULT, describe, held_out
from dulian.factory import AnalyzerFactory, open_profile
from dulian.models.catalog import find_profile
from dulian.store import ModelStore

ARTICLE = "classic-article"

# Told what is going on, and how many pictures that are; gives a function to be called after each.
Progress = Callable[[str, int], Callable[[], None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done with a set of labelled pictures."""

    folder: Path
    pictures: Sequence[Picture]
    engine: str = "auto"
    workers: int = 1
    cross_validate: bool = False
    fit: bool = False


def evaluate(profile: str, store: ModelStore, plan: Plan, progress: Progress) -> dict[str, Any]:
    """The report on one profile, ready for JSON; with ``plan.fit`` it holds new calibration tables.

    Raises:
        MalformedInputError: Tables are to be fitted, and there are too few labelled faces.
        WeightsError: Weights are missing or damaged.
    """
    started = time.monotonic()
    row = find_profile(profile)
    factory = open_profile(row, store, engine=plan.engine, threads=1, workers=plan.workers)
    answers = _asked(factory, plan, plan.pictures, progress(profile, len(plan.pictures)))
    report: dict[str, Any] = {
        "dulian": __version__,
        "profile": profile,
        "engine": factory.model.engine,
        "digest": factory.model.digest,
        "data": _described(plan.pictures),
        **describe(answers),
        "networks": [
            {
                "name": network.name,
                "provides": sorted(network.provides),
                "licence_weights": network.licence_weights,
                "trained_on": network.trained_on,
                "origin": network.origin,
            }
            for network in row.rows
        ],
    }
    if plan.cross_validate or plan.fit:
        subjects = fit_to_learn_from([subject for answer in answers for subject in answer.subjects])
        report |= _fitted(factory, plan, subjects, progress)
    report["seconds"] = round(time.monotonic() - started, 1)
    return report


def _asked(
    factory: AnalyzerFactory,
    plan: Plan,
    pictures: Sequence[Picture],
    advance: Callable[[], None],
    shrinks: dict[str, float] | None = None,
) -> list[Answer]:
    return ask(factory, plan.folder, pictures, workers=plan.workers, advance=advance, shrinks=shrinks)


def _fitted(factory: AnalyzerFactory, plan: Plan, subjects: Sequence[Subject], progress: Progress) -> dict[str, Any]:
    profile = factory.profile.name
    article = profile == ARTICLE
    evidence = collect(subjects)
    small = None if article else _small(factory, plan, subjects, progress)
    found: dict[str, Any] = {}
    if plan.fit:
        found["calibration"] = fit(evidence, small, article=article)
    if plan.cross_validate:
        adults = np.array([(subject.person.youngest or 0) >= ADULT for subject in subjects])
        splits: dict[str, Splits] = {"by_tenths": by_tenths}
        if all(are_enough(evidence.some(training)) for training, _ in by_source(evidence)):
            splits["by_source"] = by_source
        advance = progress(f"{profile}: cross-validation", len(splits))
        found["held_out"] = {}
        for name, split in splits.items():
            judgement, decisions = cross_validate(evidence, split, small, article=article)
            found["held_out"][name] = held_out(evidence, judgement, decisions, adults)
            advance()
    return found


def _small(factory: AnalyzerFactory, plan: Plan, subjects: Sequence[Subject], progress: Progress) -> Evidence | None:
    """The same faces once more in pictures so small that they are a few dozen pixels wide; None where none is found."""
    widths = {s.picture.file: s.face.quality.size_px for s in subjects if s.face}
    pictures = [picture for picture in plan.pictures if picture.file in widths and picture.kind in FITTING_KINDS]
    found: list[Subject] = []
    for pixels in SMALL_FACES_PX:
        shrinks = {file: pixels / width for file, width in widths.items()}
        advance = progress(f"{factory.profile.name}: faces of {pixels} pixels", len(pictures))
        answers = _asked(factory, plan, pictures, advance, shrinks)
        found += fit_to_learn_from([subject for answer in answers for subject in answer.subjects])
    return collect(found) if found else None


def _described(pictures: Sequence[Picture]) -> dict[str, Any]:
    people = [person for picture in pictures for person in picture.people]
    sources: dict[str, int] = {}
    for picture in pictures:
        sources[picture.source] = sources.get(picture.source, 0) + 1
    return {
        "pictures": len(pictures),
        "boxes": sum(person.box is not None for person in people),
        "genders": sum(person.gender is not None for person in people),
        "ages": sum(person.age is not None for person in people),
        "sources": dict(sorted(sources.items())),
    }
