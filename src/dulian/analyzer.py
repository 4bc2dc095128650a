"""The heart: a picture goes in, a frozen result comes out. Detect, crop, estimate, judge.

Pure: no files, no environment, no wires. One analyzer belongs to one thread, as its sessions do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import floor
from typing import get_args

import numpy as np

from dulian.calibration import MAX_AGE, Calibration, check_coverage
from dulian.crops import Crops
from dulian.errors import MalformedInputError
from dulian.faces import (
    AgeEstimate,
    AnalysisResult,
    Attribute,
    BoundingBox,
    Detection,
    Face,
    FaceOrder,
    GenderEstimate,
    Hint,
    ImageInfo,
    Landmarks,
    Message,
    ModelInfo,
    Quality,
    Status,
    Timings,
)
from dulian.image import Image
from dulian.messages import REASONS, article_label, hint_message, reason_message
from dulian.models import AttributeEstimator, AttributeScores, Detector
from dulian.models.side import SideEstimator
from dulian.quality import MIN_SIZE_PX, QUALITY_CROP, assess
from dulian.turning import TurnRules, look_from_all_sides
from dulian.views import LARGE_PIXELS, LOOK_SIDE, Turn, look_sized, scaled, short_side, turned, turned_back, wh_of

ALL_ATTRIBUTES: frozenset[Attribute] = frozenset(get_args(Attribute))
MAX_FACES = 50
WARM_UP_SHAPE = (480, 640, 3)
WARM_UP_FACE = Detection(
    BoundingBox(100, 100, 300, 300), 1.0, Landmarks((150, 170), (250, 170), (200, 210), (160, 250), (240, 250))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyzeOptions:
    """What a caller may ask of one analysis; ``min_confidence`` None means the profile's own."""

    max_faces: int = MAX_FACES
    min_confidence: float | None = None
    attributes: frozenset[Attribute] = ALL_ATTRIBUTES
    order: FaceOrder = "size"
    coverage: float = 0.9

    def __post_init__(self) -> None:
        try:
            self._check()
        except TypeError as error:
            raise MalformedInputError(f"an option is of the wrong type: {error}") from error

    def _check(self) -> None:
        if not 1 <= self.max_faces <= MAX_FACES:
            raise MalformedInputError(f"max_faces {self.max_faces} is not between 1 and {MAX_FACES}")
        if self.min_confidence is not None and not 0 < self.min_confidence <= 1:
            raise MalformedInputError(f"min_confidence {self.min_confidence} is not above 0 and at most 1")
        if unknown := set(self.attributes) - ALL_ATTRIBUTES:
            raise MalformedInputError(f"unknown attribute {sorted(map(str, unknown))[0]!r}; choose from age, gender")
        if self.order not in get_args(FaceOrder):
            raise MalformedInputError(f"unknown order {self.order!r}; choose from {', '.join(get_args(FaceOrder))}")
        check_coverage(self.coverage)


DEFAULT_OPTIONS = AnalyzeOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """A profile's detection thresholds, each explained at :class:`dulian.models.rows.Profile`."""

    minimum: float
    doubt: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """What must remain of a picture, in pixels: of its longer side when decoded, of a face, of what is looked at."""

    reduced_side: int
    face_px: int
    look_side: int = LOOK_SIDE


@dataclass(frozen=True, slots=True, eq=False)
class FullPicture:
    """The picture behind a reduced one: its upright size, and how to get its pixels, reduced by one of the factors."""

    wh: tuple[int, int]
    load: Callable[[int], Image]
    reductions: Sequence[int] = (1,)


class Analyzer:
    """One detector, its estimators and their calibration, for one thread."""

    def __init__(
        self,
        detector: Detector,
        estimators: Sequence[AttributeEstimator],
        calibration: Calibration,
        *,
        model: ModelInfo,
        confidence: Confidence,
        turns: TurnRules,
        detail: Detail,
    ) -> None:
        self._detector = detector
        self._estimators = tuple(estimators)
        self._calibration = calibration
        self._model = model
        self._confidence = confidence
        self._turns = turns
        self._detail = detail

    def warm_up(self) -> None:
        """Describe a face that is not there, alone and in full batches, so that the first picture is not the slowest.

        Each network is fed blank input through its own preprocessing, with its own mean.
        """
        blank = np.zeros(WARM_UP_SHAPE, np.uint8)
        self._detector.detect(blank, min_confidence=self._confidence.minimum)
        somebody = _Candidate(WARM_UP_FACE, WARM_UP_FACE)
        for count in sorted({1, *(estimator.max_batch for estimator in self._estimators)}):
            crops = Crops(blank, (WARM_UP_FACE,) * count)
            self._describe([somebody] * count, crops, wh_of(blank), wh_of(blank), DEFAULT_OPTIONS, False)

    def reduction_for(self, image_wh: tuple[int, int], available: Sequence[int]) -> int:
        """By how much a picture of that size may be reduced before it is analysed; 1 when that gains nothing."""
        if image_wh[0] * image_wh[1] < LARGE_PIXELS:
            return 1
        return max(factor for factor in available if factor == 1 or max(image_wh) >= factor * self._detail.reduced_side)

    def analyze(
        self,
        image: Image,
        options: AnalyzeOptions = DEFAULT_OPTIONS,
        *,
        incomplete: bool = False,
        full: FullPicture | None = None,
        to_srgb: Callable[[Image], Image] | None = None,
    ) -> AnalysisResult:
        """Analyse an upright ``(H, W, 3)`` BGR picture.

        ``incomplete`` says that the decoder had to fill part of it; ``full`` that ``image`` is a reduced
        one. Answers are always in pixels of the full one, which is loaded where a face needs its detail.
        ``to_srgb`` is for pictures in other colours: only what a network sees of them is converted.
        """
        started = time.perf_counter()
        threshold = self._confidence.minimum if options.min_confidence is None else options.min_confidence
        looked_at = image if to_srgb is None else to_srgb(look_sized(image, self._detail.look_side))
        # Whoever names a threshold wants every face above it.
        turns = self._turns if options.min_confidence is None else replace(self._turns, lone=0.0)
        view, outcome, turn = look_from_all_sides(self._detector, looked_at, threshold, turns)
        detected = time.perf_counter()
        image_wh = full.wh if full else wh_of(image)
        seen_wh = wh_of(view) if turn in (0, 180) else wh_of(view)[::-1]
        scale = image_wh[0] / seen_wh[0], image_wh[1] / seen_wh[1]
        upright = [scaled(turned_back(found, wh_of(view), turn), scale) for found in outcome.detections]
        candidates = [_Candidate(*pair) for pair in zip(outcome.detections, upright, strict=True)]
        visible = [candidate for candidate in candidates if candidate.upright.box.clipped(image_wh).area > 0]
        if looked_at is not image or seen_wh != wh_of(image):
            view, visible = _as_seen_in(turned(image, turn), view, visible)
        ranked = _rank(
            visible, Crops(view, _seen(visible), to_srgb=to_srgb), wh_of(view), image_wh, options.order, incomplete
        )
        chosen = ranked[: options.max_faces]
        loading_ms = 0.0
        if full is not None and _least_side(chosen) < self._detail.face_px:
            loading = time.perf_counter()
            view, chosen = self._in_more_detail(view, chosen, full, turn)
            loading_ms = (time.perf_counter() - loading) * 1000
        crops = Crops(view, _seen(chosen), to_srgb=to_srgb)
        faces = self._describe(chosen, crops, wh_of(view), image_wh, options, incomplete) if chosen else ()
        finished = time.perf_counter()
        return AnalysisResult(
            image=ImageInfo(*image_wh, turn),
            model=self._model,
            faces=faces,
            skipped=len(ranked) - len(chosen),
            hint=None if faces else _hint(outcome.best_rejected, scale, threshold, turns.lone, image_wh),
            timings_ms=Timings(
                decode=loading_ms,
                detect=(detected - started) * 1000,
                attributes=(finished - detected) * 1000 - loading_ms,
                total=(finished - started) * 1000,
            ),
        )

    def _in_more_detail(
        self, view: Image, chosen: Sequence[_Candidate], full: FullPicture, turn: Turn
    ) -> tuple[Image, list[_Candidate]]:
        """The picture no larger than its smallest face needs, turned as ``view`` is, and the faces as seen in it."""
        least = min(short_side(candidate.upright) for candidate in chosen)
        enough = [factor for factor in full.reductions if least / factor >= self._detail.face_px]
        return _as_seen_in(turned(full.load(max(enough, default=1)), turn), view, chosen)

    def _describe(
        self,
        chosen: Sequence[_Candidate],
        crops: Crops,
        view_wh: tuple[int, int],
        image_wh: tuple[int, int],
        options: AnalyzeOptions,
        incomplete: bool,
    ) -> tuple[Face, ...]:
        grey = crops.cut(QUALITY_CROP)
        qualities = [candidate.assess(crop, view_wh, incomplete) for candidate, crop in zip(chosen, grey, strict=True)]
        ages, genders = self._estimate(crops, [quality.score for quality in qualities], options)
        faces = []
        for index, candidate in enumerate(chosen):
            doubtful = candidate.seen.confidence < self._confidence.doubt
            quality = _add_doubt(qualities[index], genders[index], doubtful)
            faces.append(_make_face(index, candidate.upright, image_wh, ages[index], genders[index], quality))
        return tuple(faces)

    def _estimate(
        self, crops: Crops, qualities: Sequence[float], options: AnalyzeOptions
    ) -> tuple[Sequence[AgeEstimate | None], Sequence[GenderEstimate | None]]:
        scores = self._scores(crops, self._calibration.needed(options.attributes))
        nothing = [None] * len(qualities)
        ages: Sequence[AgeEstimate | None] = nothing
        genders: Sequence[GenderEstimate | None] = nothing
        ages_known = {name: found.age for name, found in scores.items() if found.age is not None}
        years = np.full(len(qualities), MAX_AGE)
        if ages_known:
            estimates = self._calibration.age.estimate(ages_known, qualities, options.coverage)
            years = np.array([estimate.value for estimate in estimates])
            ages = estimates if "age" in options.attributes else nothing
        if "gender" in options.attributes:
            female = {name: found.female for name, found in scores.items() if found.female is not None}
            genders = self._calibration.gender.estimate(female, years) if female else nothing
        return ages, genders

    def _scores(self, crops: Crops, needed: frozenset[Attribute]) -> dict[str, AttributeScores]:
        """What the networks that are needed say, by name."""
        asked = [estimator for estimator in self._estimators if estimator.provides & needed]
        begun = {
            estimator: estimator.begin(crops.cut(estimator.crop))
            for estimator in asked
            if isinstance(estimator, SideEstimator)
        }
        scores = {}
        for estimator in sorted(asked, key=lambda one: one in begun):  # what runs aside is waited for last
            aside = begun.get(estimator)  # type: ignore[call-overload]
            scores[estimator.name] = aside.result() if aside else estimator.estimate(crops.cut(estimator.crop))
        return scores


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A detection as it was seen (perhaps in a turned picture) and in the upright picture."""

    seen: Detection
    upright: Detection

    def assess(self, crop: Image, view_wh: tuple[int, int], incomplete: bool) -> Quality:
        """Judged as seen, but in the size it has in the full picture."""
        return assess(self.seen, crop, view_wh, size_px=round(short_side(self.upright)), incomplete=incomplete)


def _as_seen_in(other: Image, view: Image, candidates: Sequence[_Candidate]) -> tuple[Image, list[_Candidate]]:
    """Another size of a view, and the faces as seen in that one."""
    growth = other.shape[1] / view.shape[1], other.shape[0] / view.shape[0]
    return other, [replace(candidate, seen=scaled(candidate.seen, growth)) for candidate in candidates]


def _seen(candidates: Sequence[_Candidate]) -> tuple[Detection, ...]:
    return tuple(candidate.seen for candidate in candidates)


def _least_side(chosen: Sequence[_Candidate]) -> float:
    return min((short_side(candidate.seen) for candidate in chosen), default=np.inf)


def _rank(
    candidates: list[_Candidate],
    crops: Crops,
    view_wh: tuple[int, int],
    image_wh: tuple[int, int],
    order: FaceOrder,
    incomplete: bool,
) -> list[_Candidate]:
    """Candidates in the order asked for; ties keep the detector's order, most confident first."""
    if order == "confidence":
        return sorted(candidates, key=lambda candidate: -candidate.seen.confidence)
    if order == "left_to_right":
        return sorted(candidates, key=lambda candidate: candidate.upright.box.x1)
    if order == "quality":
        scores = {
            id(candidate): candidate.assess(crop, view_wh, incomplete).score
            for candidate, crop in zip(candidates, crops.cut(QUALITY_CROP), strict=True)
        }
        return sorted(candidates, key=lambda candidate: -scores[id(candidate)])
    return sorted(candidates, key=lambda candidate: -candidate.upright.box.clipped(image_wh).area)


def _make_face(
    index: int,
    detection: Detection,
    image_wh: tuple[int, int],
    age: AgeEstimate | None,
    gender: GenderEstimate | None,
    quality: Quality,
) -> Face:
    return Face(
        id=index,
        box=detection.box.clipped(image_wh),
        confidence=detection.confidence,
        landmarks=detection.landmarks,
        age=age,
        gender=gender,
        quality=quality,
        status=_status(quality.reasons),
        label=article_label(age, gender),
        message=_message(quality),
    )


def _add_doubt(quality: Quality, gender: GenderEstimate | None, doubtful: bool) -> Quality:
    """The networks' own doubt beside the picture's faults."""
    undecided = gender is not None and gender.value is None
    if not (undecided or doubtful):
        return quality
    return replace(quality, reasons=(*quality.reasons, "low_confidence"))


def _status(reasons: tuple[str, ...]) -> Status:
    if not reasons:
        return "ok"
    return "uncertain" if reasons == ("low_confidence",) else "low_quality"


def _message(quality: Quality) -> Message | None:
    for code in REASONS:
        if code in quality.reasons:
            return reason_message(code, size_px=quality.size_px, min_size_px=MIN_SIZE_PX)
    return None


def _hint(
    best_rejected: Detection | None,
    scale: tuple[float, float],
    threshold: float,
    lone: float,
    image_wh: tuple[int, int],
) -> Hint:
    if best_rejected is None:
        return Hint(hint_message("no_face"))
    score = floor(best_rejected.confidence * 100) / 100
    if best_rejected.confidence >= threshold:
        message = hint_message("lone_face", score=score, threshold=lone)
    else:
        message = hint_message("almost_a_face", score=score, threshold=threshold)
    candidate = scaled(best_rejected, scale)
    return Hint(message, replace(candidate, box=candidate.box.clipped(image_wh)))
