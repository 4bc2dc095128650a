from __future__ import annotations

import numpy as np
import pytest

from dulian.faces import BoundingBox, Detection
from dulian.image import Image
from dulian.models import DetectionOutcome
from dulian.models.rows import Glance
from dulian.turning import RETRY_TURNS, TurnRules, look_from_all_sides, promising_turns
from dulian.views import Turn

SIDE = 320
GLANCE = Glance(side=SIDE, from_side=512, face_px=48, sure_confidence=0.85, trace_confidence=0.15)
RULES = TurnRules(sure=0.9, retry=0.85, glance=GLANCE)


class Seeing:
    """Finds one face, surer or less sure by how the picture lies and whether it is small; a red corner tells."""

    def __init__(self, closely: dict[Turn, float], at_a_glimpse: dict[Turn, float]) -> None:
        self.confidences = {False: closely, True: at_a_glimpse}
        self.looks: list[tuple[bool, Turn]] = []

    def detect(self, image: Image, *, min_confidence: float) -> DetectionOutcome:
        small, turn = max(image.shape) <= SIDE, lies(image)
        self.looks.append((small, turn))
        confidence = self.confidences[small].get(turn, 0.0)
        found = Detection(BoundingBox(10, 10, 60, 60), confidence)
        return DetectionOutcome((found,)) if confidence >= min_confidence else DetectionOutcome((), found)

    @property
    def closer_looks(self) -> list[Turn]:
        return [turn for small, turn in self.looks if not small]


def lies(image: Image) -> Turn:
    corners: dict[Turn, tuple[int, int]] = {0: (5, 5), 90: (5, -5), 180: (-5, -5), 270: (-5, 5)}
    return next(turn for turn, at in corners.items() if image[at][2] > 200)


def picture(width: int = 640, height: int = 480) -> Image:
    image = np.zeros((height, width, 3), np.uint8)
    image[:60, :60] = (0, 0, 255)
    return image


def test_a_sure_face_spares_all_other_looks() -> None:
    detector = Seeing({0: 0.9, 90: 0.99}, {})
    _, outcome, turn = look_from_all_sides(detector, picture(), 0.6, RULES)
    assert (turn, outcome.detections[0].confidence, detector.looks) == (0, 0.9, [(False, 0)])


def test_only_promising_sides_are_looked_at_closely() -> None:
    detector = Seeing({0: 0.7, 90: 0.8, 270: 0.95}, {0: 0.5, 90: 0.39, 180: 0.2, 270: 0.41})
    view, outcome, turn = look_from_all_sides(detector, picture(), 0.6, RULES)
    assert (turn, outcome.detections[0].confidence, view.shape) == (270, 0.95, (640, 480, 3))
    assert detector.closer_looks == [0, 270]


def test_where_nobody_is_glimpsed_nothing_is_looked_at_again() -> None:
    detector = Seeing({90: 0.99}, dict.fromkeys((0, *RETRY_TURNS), 0.29))
    _, outcome, turn = look_from_all_sides(detector, picture(), 0.6, RULES)
    assert (turn, outcome.detections, detector.closer_looks) == (0, (), [0])


@pytest.mark.parametrize(("glance", "wh"), [(None, (640, 480)), (GLANCE, (399, 240))])
def test_where_a_glimpse_costs_as_much_there_is_none(glance: Glance | None, wh: tuple[int, int]) -> None:
    detector = Seeing({}, {})
    assert promising_turns(detector, picture(*wh), glance) == RETRY_TURNS
    assert not detector.looks


def test_a_glimpse_decides_nothing_but_where_to_look() -> None:
    detector = Seeing({0: 0.7, 90: 0.72}, {0: 0.1, 90: 0.99})
    _, outcome, turn = look_from_all_sides(detector, picture(), 0.6, RULES)
    assert (turn, outcome.detections[0].confidence, detector.closer_looks) == (0, 0.7, [0, 90])
