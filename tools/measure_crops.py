"""What decisions 47 and 48 quote of crops and networks: python tools/measure_crops.py FOLDER [PART OF A NAME].

Each variant feeds one profile's networks another way, or leaves some of them out. Its answers are raw: the likelier
gender by the mean of the networks that know it, and the plain mean of their ages, without calibration and with equal
weights, on the faces that calibration is fitted to (:mod:`dulian.evaluate`).
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
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
from dulian.models.networks import FACE_API_AGE, FACE_API_GENDER
from dulian.models.rows import Profile, SquareCrop
from dulian.store import ModelStore

FACE_API = {"face_api_age", "face_api_gender"}
ALL = {row.name for row in PROFILES["accurate"].estimators}


def variants() -> Iterator[tuple[str, Profile, Collection[str]]]:
    """A name, the profile to ask, and which of its networks count."""
    for down in (-0.05, 0.0, 0.04, 0.08):
        yield f"classic, down {down:+.2f}", *both("classic", crop=SquareCrop(margin=0.1, down=down, side=227))
    yield "classic, margin 0.05", *both("classic", crop=SquareCrop(margin=0.05, down=0.04, side=227))
    yield "classic, mirror", *both("classic", mirror=True)
    for mirror in (False, True):
        yield f"standard, mirror {mirror}", *both("standard", mirror=mirror)
    upright, square = FACE_API_AGE.crop, FACE_API_GENDER.crop
    for name, crop in (("upright", upright), ("square", square)):
        yield f"face-api, {name}", fed(PROFILES["accurate"], FACE_API, crop=crop), FACE_API
    yield "face-api, by 256", fed(PROFILES["accurate"], FACE_API, scale=1 / 256), FACE_API
    for name, crop in (("upright", upright), ("square", square)):
        yield f"accurate, face-api {name}", fed(PROFILES["accurate"], FACE_API, crop=crop), ALL
    for name, left_out in (("", ()), (" without FaceRes", {"faceres_deep"}), (" without face-api", FACE_API)):
        yield f"accurate{name}", PROFILES["accurate"], ALL - set(left_out)


def fed(profile: Profile, names: Collection[str], **values: object) -> Profile:
    """The profile with some of its networks fed another way."""
    rows = (replace(row, **values) if row.name in names else row for row in profile.estimators)  # type: ignore[arg-type]
    return replace(profile, estimators=tuple(rows))


def both(name: str, **values: object) -> tuple[Profile, Collection[str]]:
    names = {row.name for row in PROFILES[name].estimators}
    return fed(PROFILES[name], names, **values), names


def main() -> None:
    folder, wanted = Path(sys.argv[1]), " ".join(sys.argv[2:])
    pictures = [picture for picture in read_dataset(folder) if picture.kind in FITTING_KINDS]
    workers = effective_cores()
    for name, profile, counted in variants():
        if wanted not in name:
            continue
        factory = open_profile(profile, ModelStore(), engine="onnxruntime", workers=workers)
        answers = ask(factory, folder, pictures, workers=workers, advance=lambda: None)
        evidence = collect(fit_to_learn_from([subject for answer in answers for subject in answer.subjects]))
        ages = [moments(scores, 1.0)[0] for source, scores in evidence.age_scores.items() if source in counted]
        values = np.mean(ages, axis=0)
        female = np.mean([share for source, share in evidence.female.items() if source in counted], axis=0)
        known, women = np.isfinite(evidence.genders), evidence.genders == 1
        right = (female >= 0.5) == women
        gap = right[known & women].mean() - right[known & ~women].mean()
        error = np.nanmean(np.abs(values - evidence.ages))
        print(f"{name}: gender {right[known].mean():.1%}, women - men {100 * gap:+.1f}, mean age error {error:.2f} y")


if __name__ == "__main__":
    main()
