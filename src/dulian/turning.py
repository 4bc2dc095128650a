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
# From this many times a glimpse's side on, four of them cost less than three looks.
GLIMPSE_FROM = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRules:
    """When a picture is turned.

    A face of confidence ``sure`` leaves it as it is; after a turn only faces of ``retry`` and more count. With the
    detector's ``glance`` a look of that size tells whether a turn is worth a closer one; without, all looks cost the
    same.
    """

    sure: float
    retry: float
    glance: Glance | None = None


def look_from_all_sides(
    detector: Detector, image: Image, threshold: float, rules: TurnRules
) -> tuple[Image, DetectionOutcome, Turn]:
    """What is found upright, else after a turn; the picture as it was seen comes along.

    Of a large picture the turned ones are smaller, so that it is not copied three times.
    """
    best: tuple[Image, DetectionOutcome, Turn] = image, detector.detect(image, min_confidence=threshold), 0
    if best_confidence(best[1].detections) >= rules.sure:
        return best
    upright = look_sized(image) if image.shape[0] * image.shape[1] > LARGE_PIXELS else image
    for turn in promising_turns(detector, upright, rules.glance):
        view = turned(upright, turn)
        outcome = detector.detect(view, min_confidence=threshold)
        certain = [found for found in outcome.detections if found.confidence >= rules.retry]
        if clearly_better(certain, best[1].detections):
            best = view, outcome, turn
    return best


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
