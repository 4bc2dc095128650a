"""Assembly: the only module that knows every concrete class."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any

import cv2

from dulian.analyzer import Analyzer, Confidence, Detail
from dulian.calibration import Calibration
from dulian.errors import UnknownNameError
from dulian.faces import Attribute, ModelInfo
from dulian.machine import give_back_memory
from dulian.models import AttributeEstimator, Detector
from dulian.models.classifier import Classifier
from dulian.models.looks import TILED_SIDE, TiledDetector
from dulian.models.res10_ssd import Res10Ssd
from dulian.models.rows import ModelRow, Profile
from dulian.models.side import SideEstimator
from dulian.models.yunet import YuNet
from dulian.runtimes import (
    Precision,
    Session,
    SessionFactory,
    Weights,
    choose_engine,
    find_runtime,
    load_runtime,
)
from dulian.store import ModelStore
from dulian.turning import TurnRules
from dulian.views import LOOK_SIDE

# Raise it when decoding, fitting, cropping or quality change an answer: it is part of the digest.
PREPROCESSING_VERSION = 6


@dataclass(frozen=True, slots=True)
class AnalyzerFactory:
    """A profile with its weights opened once; makes an analyzer for each thread that asks.

    ``solo_sessions`` are of the same weights, for the picture that has the machine to itself: its detector runs on all
    cores, and its estimators run side by side.
    """

    profile: Profile
    model: ModelInfo
    calibration: Calibration
    sessions: Mapping[str, SessionFactory]
    solo_sessions: Mapping[str, SessionFactory] | None = None
    tiles: bool = False

    def new_analyzer(self, wrap: Callable[[AttributeEstimator], AttributeEstimator] | None = None) -> Analyzer:
        """An analyzer that belongs to the calling thread; ``wrap`` puts something round each of its estimators."""
        estimators = [make_estimator(row, self.sessions[row.name].new_session()) for row in self.profile.estimators]
        return self._assemble(
            self.sessions[self.profile.detector.name], [*map(wrap, estimators)] if wrap else estimators
        )

    @property
    def new_solo_analyzer(self) -> Callable[[], Analyzer] | None:
        """Makes an analyzer that uses all cores; None where the others do so too."""
        return None if self.solo_sessions is None else partial(self._new_solo_analyzer, self.solo_sessions)

    def _new_solo_analyzer(self, sessions: Mapping[str, SessionFactory]) -> Analyzer:
        def make(row: ModelRow) -> AttributeEstimator:
            return make_estimator(row, sessions[row.name].new_session())

        *others, own = self.profile.estimators
        aside = [SideEstimator(partial(make, row)) for row in others]
        return self._assemble(sessions[self.profile.detector.name], [*aside, make(own)])

    def _assemble(self, detector: SessionFactory, estimators: Sequence[AttributeEstimator]) -> Analyzer:
        profile = self.profile
        found = make_detector(profile, detector.new_session())
        return Analyzer(
            TiledDetector(found, profile.nms_iou_threshold) if self.tiles else found,
            estimators,
            self.calibration,
            model=self.model,
            confidence=Confidence(minimum=profile.min_confidence, doubt=profile.doubt_confidence),
            turns=TurnRules(
                sure=profile.sure_confidence,
                retry=profile.retry_confidence,
                glance=profile.glance,
                filling=profile.filling_confidence,
                lone=profile.lone_confidence,
            ),
            detail=Detail(
                reduced_side=TILED_SIDE if self.tiles else profile.reduced_side,
                face_px=profile.detail_px,
                look_side=TILED_SIDE if self.tiles else LOOK_SIDE,
            ),
        )


def open_profile(
    profile: Profile,
    store: ModelStore,
    *,
    engine: str = "auto",
    threads: int = 1,
    workers: int = 1,
    solo_threads: int | None = None,
    precision: Precision = "f32",
    tiles: bool = False,
) -> AnalyzerFactory:
    """Verify and open all weights of a profile on one engine.

    With ``tiles`` large pictures are also looked at in parts, for faces too small in the whole.

    ``workers`` analyzers are expected to run at once, with ``threads`` threads each; ``solo_threads`` is what a picture
    may use while it is alone. Networks that then run on another number of threads are opened a second time.

    Raises:
        UnknownNameError: No such engine, or the engine cannot run this profile.
        WeightsError: Weights are missing or damaged.
    """
    table = load_calibration(profile)
    calibration = Calibration.from_dict(table)
    check_profile(profile, calibration)
    name = choose_engine(engine, precision)
    runtime_row = find_runtime(name)
    runtime = load_runtime(runtime_row)
    # OpenCV's pool serves the whole process; more of it than one worker's share only makes workers fight.
    cv2.setNumThreads(threads)
    opened: dict[str, SessionFactory] = {}
    solo: dict[str, SessionFactory] = {}
    digests = []
    for row in profile.rows:
        weights = _load(store, row, runtime_row.format, name)
        open_weights = partial(runtime.open_weights, weights, precision=precision)
        opened[row.name] = open_weights(threads=threads, workers=workers)
        if solo_threads is not None:
            share = solo_threads if row is profile.detector else max(1, solo_threads // len(profile.estimators))
            solo[row.name] = opened[row.name] if share == threads else open_weights(threads=share, workers=1)
        digests.append(weights.sha256)
    give_back_memory()
    model = ModelInfo(profile.name, name, _digest(profile, table, digests, precision, tiles))
    return AnalyzerFactory(profile, model, calibration, opened, solo or None, tiles)


def make_detector(profile: Profile, session: Session) -> Detector:
    """The detector that a profile's row describes, over a session of it."""
    row = profile.detector
    if row.family == "yunet":
        side = profile.detection_side or 640
        return YuNet(row, session, long_side=side, nms_iou_threshold=profile.nms_iou_threshold, glance=profile.glance)
    if row.family == "res10_ssd":
        return Res10Ssd(row, session, nms_iou_threshold=profile.nms_iou_threshold)
    raise UnknownNameError(f"{row.name} is no detector")


def make_estimator(row: ModelRow, session: Session) -> AttributeEstimator:
    """The estimator that a row describes, over a session of it."""
    if row.family == "classifier":
        return Classifier(row, session)
    raise UnknownNameError(f"{row.name} reads no attributes")


def check_profile(profile: Profile, calibration: Calibration) -> None:
    """Refuse a profile whose networks and calibration tables do not fit together.

    Raises:
        UnknownNameError: A table misses one of the networks, or names another; two networks bear one name.
    """
    names = [row.name for row in profile.rows]
    if len(set(names)) < len(names):
        raise UnknownNameError(f"profile {profile.name!r} has two networks of the same name")
    tables: tuple[tuple[Attribute, Collection[str]], ...] = (
        ("age", calibration.age.sources),
        ("gender", calibration.gender.sources),
    )
    for attribute, sources in tables:
        providers = {row.name for row in profile.estimators if attribute in row.provides}
        if providers and providers != set(sources):
            odd = ", ".join(sorted(providers ^ set(sources)))
            raise UnknownNameError(f"profile {profile.name!r}: the {attribute} table and the networks differ in {odd}")


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
    *("nms_iou_threshold", "filling_confidence", "lone_confidence"),
    *("detection_side", "glance", "reduced_side", "detail_px"),
)
_FEEDING = (
    *("colour_order", "mean", "scale", "crop", "mirror"),
    *("age_output", "age_years", "gender_output", "gender_labels"),
)


def _digest(
    profile: Profile, calibration: Mapping[str, Any], weights: list[str], precision: Precision, tiles: bool
) -> str:
    """Identity of everything that shapes an answer, the engine's rounding apart."""
    thresholds = [*(getattr(profile, name) for name in _THRESHOLDS), tiles]
    feeding = [[getattr(row, name) for name in _FEEDING] for row in profile.rows]
    parts = [repr(thresholds), repr(feeding), json.dumps(calibration, sort_keys=True), *weights, precision]
    return hashlib.sha256("\n".join([*parts, str(PREPROCESSING_VERSION)]).encode()).hexdigest()[:16]
