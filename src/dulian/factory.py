"""Assembly: the only module that knows every concrete class."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import cv2

from dulian.analyzer import Analyzer, Confidence, Detail
from dulian.calibration import Calibration
from dulian.errors import UnknownNameError
from dulian.faces import ModelInfo
from dulian.models import AttributeEstimator, Detector
from dulian.models.classifier import Classifier
from dulian.models.res10_ssd import Res10Ssd
from dulian.models.rows import ModelRow, Profile
from dulian.models.yunet import YuNet
from dulian.runtimes import Precision, Session, SessionFactory, Weights, find_runtime, load_runtime
from dulian.store import ModelStore

# Raise it when decoding, fitting, cropping or quality change an answer: it is part of the digest.
PREPROCESSING_VERSION = 2


@dataclass(frozen=True, slots=True)
class AnalyzerFactory:
    """A profile with its weights opened once; makes an analyzer for each thread that asks."""

    profile: Profile
    model: ModelInfo
    calibration: Calibration
    sessions: Mapping[str, SessionFactory]

    def new_analyzer(self) -> Analyzer:
        """An analyzer that belongs to the calling thread."""
        profile = self.profile
        return Analyzer(
            make_detector(profile, self.sessions[profile.detector.name].new_session()),
            [make_estimator(row, self.sessions[row.name].new_session()) for row in profile.estimators],
            self.calibration,
            model=self.model,
            confidence=Confidence(
                minimum=profile.min_confidence,
                doubt=profile.doubt_confidence,
                retry=profile.retry_confidence,
                sure=profile.sure_confidence,
            ),
            detail=Detail(reduced_side=profile.reduced_side, face_px=profile.detail_px),
        )


def open_profile(
    profile: Profile,
    store: ModelStore,
    *,
    engine: str = "auto",
    threads: int = 1,
    workers: int = 1,
    precision: Precision = "f32",
) -> AnalyzerFactory:
    """Verify and open all weights of a profile on one engine.

    ``workers`` analyzers are expected to run at once, with ``threads`` threads each.

    Raises:
        UnknownNameError: No such engine, or the engine cannot run this profile.
        WeightsError: Weights are missing or damaged.
    """
    check_profile(profile)
    # OpenCV's pool serves the whole process; more of it than one worker's share only makes workers fight.
    cv2.setNumThreads(threads)
    engine_name, runtime_row = find_runtime(engine)
    runtime = load_runtime(runtime_row)
    opened: dict[str, SessionFactory] = {}
    digests = []
    for row in profile.rows:
        weights = _load(store, row, runtime_row.format, engine_name)
        digests.append(weights.sha256)
        opened[row.name] = runtime.open_weights(weights, threads=threads, workers=workers, precision=precision)
    calibration = load_calibration(profile)
    model = ModelInfo(profile.name, engine_name, _digest(profile, calibration, digests, precision))
    return AnalyzerFactory(profile, model, Calibration.from_dict(calibration), opened)


def make_detector(profile: Profile, session: Session) -> Detector:
    """The detector that a profile's row describes, over a session of it."""
    row = profile.detector
    if row.family == "yunet":
        side = profile.detection_side or 640
        return YuNet(row, session, long_side=side, nms_iou_threshold=profile.nms_iou_threshold)
    if row.family == "res10_ssd":
        return Res10Ssd(row, session, nms_iou_threshold=profile.nms_iou_threshold)
    raise UnknownNameError(f"{row.name} is no detector")


def make_estimator(row: ModelRow, session: Session) -> AttributeEstimator:
    """The estimator that a row describes, over a session of it."""
    if row.family == "classifier":
        return Classifier(row, session)
    raise UnknownNameError(f"{row.name} reads no attributes")


def check_profile(profile: Profile) -> None:
    """Refuse a profile in which two networks claim the same attribute.

    Raises:
        UnknownNameError: They do.
    """
    seen: set[str] = set()
    for row in profile.rows:
        if twice := seen & row.provides:
            raise UnknownNameError(f"profile {profile.name!r}: {min(twice)} is provided twice, again by {row.name}")
        seen |= row.provides


def load_calibration(profile: Profile) -> dict[str, Any]:
    """The profile's calibration table, as shipped with the package."""
    text = resources.files("dulian").joinpath("data", "calibration", f"{profile.name}.json").read_text("utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


def _load(store: ModelStore, row: ModelRow, weights_format: str, engine: str) -> Weights:
    if weights_format == "onnx":
        return store.load(row)
    if row.recipe != "caffe":
        raise UnknownNameError(f"engine {engine!r} runs Caffe originals, and {row.name} has none; use profile classic")
    return store.load_originals(row)


_THRESHOLDS = (
    *("min_confidence", "sure_confidence", "retry_confidence", "doubt_confidence"),
    *("nms_iou_threshold", "detection_side", "reduced_side", "detail_px"),
)
_FEEDING = ("colour_order", "mean", "scale", "crop", "age_output", "age_years", "gender_output", "gender_labels")


def _digest(profile: Profile, calibration: Mapping[str, Any], weights: list[str], precision: Precision) -> str:
    """Identity of everything that shapes an answer, the engine's rounding apart."""
    thresholds = [getattr(profile, name) for name in _THRESHOLDS]
    feeding = [[getattr(row, name) for name in _FEEDING] for row in profile.rows]
    parts = [repr(thresholds), repr(feeding), json.dumps(calibration, sort_keys=True), *weights, precision]
    return hashlib.sha256("\n".join([*parts, str(PREPROCESSING_VERSION)]).encode()).hexdigest()[:16]
