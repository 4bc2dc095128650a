"""Which side of a picture is up: where no sure face is found upright, it is looked at lying on a side and upside down.

Detectors find sideways faces too, with less confidence and landmarks in the wrong places, so it is confidence that
decides. Arrays and detections only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dulian.faces import Detection
from dulian.image import Image
from dulian.models import DetectionOutcome, Detector
from dulian.models.looks import ShrunkDetector, without_tiles
from dulian.models.rows import Glance
from dulian.views import LARGE_PIXELS, Turn, look_sized, turned

# Quarter turns tried, in this order, on a picture in which no sure face was found upright.
RETRY_TURNS: tuple[Turn, ...] = (90, 270, 180)
# How much more confident a turned look must be: turns 1 upright picture in 200 by mistake, on development photos.
TURN_MARGIN = 0.04
# A glimpse must show so much in a turned picture, and hardly less than upright, for a closer look: on development
# photos the same ones are turned as by looking closely from all sides.
GLIMPSE_CONFIDENCE = 0.3
GLIMPSE_MARGIN = 0.1
# Less than this in a shrunk upright picture, and no side of it shows a face that fills the frame.
FILLING_TRACE = 0.3
# From this many times a glimpse's side on, four of them cost less than three looks.
GLIMPSE_FROM = 1.25


Look = tuple[Image, DetectionOutcome, Turn]
"""A picture as it was seen, what was found in it, and how it was turned for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRules:
    """When a picture is turned.

    A face of confidence ``sure`` leaves it as it is; after a turn only faces of ``retry`` and more count. With the
    detector's ``glance`` a look of that size tells whether a turn is worth a closer one; without, all looks cost the
    same. Where no face is found upright, one of confidence ``filling`` that fills the frame may be found in a shrunk
    picture; with None there is no such look. A picture whose best face stays below ``lone`` has none.
    """

    sure: float
    retry: float
    glance: Glance | None = None
    filling: float | None = None
    lone: float = 0.0


def look_from_all_sides(detector: Detector, image: Image, threshold: float, rules: TurnRules) -> Look:
    """What is found upright, else after a turn; the picture as it was seen comes along.

    Of a large picture the turned ones are smaller, so that it is not copied three times, and seen without tiles.
    """
    best: Look = image, detector.detect(image, min_confidence=threshold), 0
    if best_confidence(best[1].detections) >= rules.sure:
        return best
    upright = look_sized(image) if image.shape[0] * image.shape[1] > LARGE_PIXELS else image
    plain = without_tiles(detector)
    # First: a face that fills the frame is often seen more clearly after a wrong turn.
    if not best[1].detections and (filled := look_at_filled_frame(plain, upright, threshold, rules)):
        return filled
    for turn in promising_turns(plain, upright, rules.glance):
        view = turned(upright, turn)
        outcome = plain.detect(view, min_confidence=threshold)
        certain = [found for found in outcome.detections if found.confidence >= rules.retry]
        if clearly_better(certain, best[1].detections):
            best = view, outcome, turn
    return reject_lone(best, rules.lone)


def look_at_filled_frame(detector: Detector, upright: Image, threshold: float, rules: TurnRules) -> Look | None:
    """A face that fills the frame, upright or after a turn, if there is one.

    Where a shrunk upright look shows no trace of it there are no others. All of them are small.
    """
    if rules.filling is None:
        return None
    shrunk = ShrunkDetector(detector)

    def look(turn: Turn) -> Look:
        view = turned(upright, turn)
        return view, shrunk.detect(view, min_confidence=min(threshold, FILLING_TRACE)), turn

    looks = [look(0)]
    if FILLING_TRACE <= best_confidence(looks[0][1].detections) < rules.sure:
        looks += map(look, RETRY_TURNS)
    view, outcome, turn = max(looks, key=lambda look: best_confidence(look[1].detections) - TURN_MARGIN * (look[2] > 0))
    least = max(threshold, rules.filling, rules.retry if turn else 0.0)
    faces = tuple(found for found in outcome.detections if found.confidence >= least)
    return (view, DetectionOutcome(faces), turn) if faces else None


def reject_lone(look: Look, lone: float) -> Look:
    """The look without its faces, if even the best of them is too doubtful to be the only reason to see any."""
    view, outcome, turn = look
    if not outcome.detections or best_confidence(outcome.detections) >= lone:
        return look
    return view, DetectionOutcome((), max(outcome.detections, key=lambda found: found.confidence)), turn


def promising_turns(detector: Detector, upright: Image, glance: Glance | None) -> Sequence[Turn]:
    """The turns after which a small look shows a face hardly less clearly than before."""
    if glance is None or max(upright.shape) < GLIMPSE_FROM * glance.side:
        return RETRY_TURNS
    small = look_sized(upright, glance.side)

    def glimpse(turn: Turn) -> float:
        least = GLIMPSE_CONFIDENCE - GLIMPSE_MARGIN  # what is less makes no difference
        return best_confidence(detector.detect(turned(small, turn), min_confidence=least).detections)

    enough = max(GLIMPSE_CONFIDENCE, glimpse(0) - GLIMPSE_MARGIN)
    return [turn for turn in RETRY_TURNS if glimpse(turn) >= enough]


def best_confidence(detections: Sequence[Detection]) -> float:
    """Of the surest face; 0 where there is none."""
    return max((found.confidence for found in detections), default=0.0)


def clearly_better(after: Sequence[Detection], before: Sequence[Detection]) -> bool:
    """Whether a turned look found a surer face, and as much to see in all."""
    if best_confidence(after) <= best_confidence(before) + TURN_MARGIN:
        return False
    return sum(found.confidence for found in after) > sum(found.confidence for found in before)
