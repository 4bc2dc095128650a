"""Measure what decision 47 quotes: how a network's crop changes its raw answers. python tools/measure_crops.py FOLDER.

Each variant replaces the crop of one profile's networks; gender is the likelier one and the age the plain mean, without
calibration, on the faces that calibration is fitted to (:mod:`dulian.evaluate`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from dulian.calibration import moments
from dulian.evaluate.answers import ask
from dulian.evaluate.dataset import read_dataset
from dulian.evaluate.evidence import FITTING_KINDS, collect, fit_to_learn_from
from dulian.factory import open_profile
from dulian.machine import effective_cores
from dulian.models.catalog import PROFILES
from dulian.models.rows import ModelRow, Profile, SquareCrop
from dulian.store import ModelStore

SHIFTS = (-0.05, 0.0, 0.04, 0.08)


def variants() -> Iterator[tuple[str, Profile]]:
    for down in SHIFTS:
        yield f"classic, down {down:+.2f}", with_rows("classic", crop=SquareCrop(margin=0.1, down=down, side=227))
    yield "classic, down +0.04, mirror", with_rows("classic", mirror=True)
    for mirror in (False, True):
        yield f"standard, mirror {mirror}", with_rows("standard", mirror=mirror)


def with_rows(name: str, **changed: object) -> Profile:
    profile = PROFILES[name]
    rows: tuple[ModelRow, ...] = tuple(replace(row, **changed) for row in profile.estimators)  # type: ignore[arg-type]
    return replace(profile, estimators=rows)


def main() -> None:
    folder = Path(sys.argv[1])
    pictures = [picture for picture in read_dataset(folder) if picture.kind in FITTING_KINDS]
    workers = effective_cores()
    for name, profile in variants():
        factory = open_profile(profile, ModelStore(), engine="onnxruntime", workers=workers)
        answers = ask(factory, folder, pictures, workers=workers, advance=lambda: None)
        evidence = collect(fit_to_learn_from([subject for answer in answers for subject in answer.subjects]))
        values = np.mean([moments(scores, 1.0)[0] for scores in evidence.age_scores.values()], axis=0)
        female = np.mean([*evidence.female.values()], axis=0)
        known, women = np.isfinite(evidence.genders), evidence.genders == 1
        right = (female >= 0.5) == women
        gap = right[known & women].mean() - right[known & ~women].mean()
        error = np.nanmean(np.abs(values - evidence.ages))
        print(f"{name}: gender {right[known].mean():.1%}, women - men {100 * gap:+.1f}, mean age error {error:.2f} y")


if __name__ == "__main__":
    main()
