"""Fit ``src/dulian/data/calibration/*.json`` on a folder of labelled faces: python tools/fit_calibration.py FOLDER.

The folder holds ``manifest.csv`` (file, age, gender, …) and ``images.csv`` (file, kind, …). Only faces that are the
subject of their picture are used: kinds ``face_crop`` (bordered, so that a detector can work) and ``face_context``.
Fitted are one temperature for the gender logit (least log loss), the probability below which gender is undecided,
and the quantiles of the normalised age residual. What two-fold cross-validation says of them is printed.
"""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dulian.calibration import expectation, temper
from dulian.crops import Crops
from dulian.faces import Detection
from dulian.factory import make_detector, make_estimator, open_profile
from dulian.image import decode_image
from dulian.models.catalog import PROFILES
from dulian.models.rows import Profile
from dulian.store import ModelStore

TABLES = Path(__file__).parent.parent / "src" / "dulian" / "data" / "calibration"
COVERAGES = [0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99]
# Years added to every spread: the value that makes 90 % intervals narrowest on the development photos.
SPREAD_FLOOR = 12.0
CHIP_BORDER = 60
# A gender is published where at least this share of equally sure answers is right.
MIN_GENDER_ACCURACY = 0.65


@dataclass(frozen=True)
class Sample:
    """One labelled face and what the networks said of it."""

    age: float | None
    female: bool | None
    value: float
    spread: float
    female_probability: float


def main() -> None:
    folder = Path(sys.argv[1])
    for profile in PROFILES.values():
        samples = measure(profile, folder)
        table = fit(samples)
        print(f"{profile.name}: {len(samples)} faces")
        report(samples)
        target = TABLES / f"{profile.name}.json"
        target.write_text(json.dumps(table, indent=1) + "\n")


def measure(profile: Profile, folder: Path) -> list[Sample]:
    factory = open_profile(profile, ModelStore(), engine="onnxruntime", threads=2)
    detector = make_detector(profile, factory.sessions[profile.detector.name].new_session())
    estimators = [make_estimator(row, factory.sessions[row.name].new_session()) for row in profile.estimators]
    kinds = {row["file"]: row["kind"] for row in csv.DictReader((folder / "images.csv").open())}
    samples = []
    for row in csv.DictReader((folder / "manifest.csv").open()):
        kind = kinds.get(row["file"])
        if kind not in ("face_crop", "face_context") or not (row["age"] or row["gender"]):
            continue
        image = decode_image((folder / row["file"]).read_bytes()).image
        if kind == "face_crop":
            image = cv2.copyMakeBorder(image, *[CHIP_BORDER] * 4, cv2.BORDER_REPLICATE)
        found = detector.detect(image, min_confidence=profile.min_confidence).detections
        if not found:
            continue
        centre = np.array(image.shape[1::-1]) / 2
        subject = min(found, key=lambda face: distance_from(centre, face))
        crops = Crops(image, (subject,))
        value = spread = female = 0.0
        for estimator in estimators:
            scores = estimator.estimate(crops.cut(estimator.crop))
            if scores.age is not None:
                value, spread = expectation(scores.age.probabilities[0].astype(np.float64), scores.age.years)
            if scores.female is not None:
                female = float(scores.female[0])
        age = float(row["age"]) if row["age"].isdigit() else None
        gender = {"female": True, "male": False}.get(row["gender"])
        samples.append(Sample(age, gender, value, spread, female))
    return samples


def distance_from(point: np.ndarray, face: Detection) -> float:
    box = face.box
    return float(np.hypot(*(np.array([box.x1 + box.x2, box.y1 + box.y2]) / 2 - point)))


def fit(samples: list[Sample]) -> dict[str, dict[str, object]]:
    temperature = fit_temperature(samples)
    residuals = normalised_residuals(samples)
    return {
        "age": {
            "faces": len(residuals),
            "spread_floor": SPREAD_FLOOR,
            "coverages": COVERAGES,
            "quantiles": [round(float(conformal_quantile(residuals, c)), 4) for c in COVERAGES],
        },
        "gender": {
            "faces": sum(sample.female is not None for sample in samples),
            "temperature": round(temperature, 3),
            "decision": fit_decision(samples, temperature),
        },
    }


def normalised_residuals(samples: list[Sample]) -> np.ndarray:
    return np.array([abs(s.age - s.value) / np.hypot(s.spread, SPREAD_FLOOR) for s in samples if s.age is not None])


def conformal_quantile(residuals: np.ndarray, coverage: float) -> float:
    """The finite-sample quantile of split-conformal prediction (Lei et al., JASA 2018)."""
    rank = min(int(np.ceil((len(residuals) + 1) * coverage)), len(residuals))
    return float(np.sort(residuals)[rank - 1])


def fit_temperature(samples: list[Sample]) -> float:
    labelled = [s for s in samples if s.female is not None]
    return float(min(np.arange(0.5, 5.0, 0.05), key=lambda t: log_loss(labelled, float(t))))


def log_loss(samples: list[Sample], temperature: float) -> float:
    right = [temper(s.female_probability if s.female else 1 - s.female_probability, temperature) for s in samples]
    return float(-np.log(right).mean())


def fit_decision(samples: list[Sample], temperature: float) -> float:
    """The lowest probability from which on answers about as sure are right often enough."""
    labelled = [s for s in samples if s.female is not None]
    sure = np.array([max(p, 1 - p) for s in labelled for p in [temper(s.female_probability, temperature)]])
    right = np.array([(s.female_probability >= 0.5) == s.female for s in labelled])
    for threshold in np.arange(0.5, 0.9, 0.01):
        near = (sure >= threshold) & (sure < threshold + 0.1)
        if near.sum() >= 20 and right[near].mean() >= MIN_GENDER_ACCURACY:
            return round(float(threshold), 2)
    return 0.9


def report(samples: list[Sample]) -> None:
    aged = [s for s in samples if s.age is not None]
    labelled = [s for s in samples if s.female is not None]
    right = np.array([(s.female_probability >= 0.5) == s.female for s in labelled])
    print(f"  gender {right.mean():.1%} of {len(labelled)}; MAE {np.mean([abs(s.age - s.value) for s in aged]):.2f} y")
    print("  cross-validated coverage and mean width at 0.9:", *cross_validate(aged))
    table = fit(samples)
    temperature, decision = float(table["gender"]["temperature"]), float(table["gender"]["decision"])  # type: ignore[arg-type]
    sure = np.array([max(p, 1 - p) for s in labelled for p in [temper(s.female_probability, temperature)]])
    decided = sure >= decision
    print(f"  temperature {temperature}; undecided below {decision}: {1 - decided.mean():.1%} of faces,", end=" ")
    print(f"right when decided {right[decided].mean():.1%}, when undecided {right[~decided].mean():.1%}")
    for low in np.arange(0.5, 1.0, 0.1):
        within = (sure >= low) & (sure < low + 0.1 + (low > 0.85))
        print(f"    sure {low:.1f}-{low + 0.1:.1f}: {within.sum():4d} faces, right {right[within].mean():.1%}")


def cross_validate(aged: list[Sample]) -> tuple[str, str]:
    order = np.random.default_rng(0).permutation(len(aged))
    hits, widths = [], []
    for test in (order[::2], order[1::2]):
        train = [aged[i] for i in set(order.tolist()) - set(test.tolist())]
        quantile = conformal_quantile(normalised_residuals(train), 0.9)
        for i in test:
            sample = aged[i]
            half = quantile * np.hypot(sample.spread, SPREAD_FLOOR)
            hits.append(abs(sample.age - sample.value) <= half)  # type: ignore[operator]
            widths.append(min(100, sample.value + half) - max(0, sample.value - half))
    return f"{np.mean(hits):.1%}", f"{np.mean(widths):.1f} y"


if __name__ == "__main__":
    main()
