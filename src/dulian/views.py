"""Views of a picture, smaller or turned, and how detections move between them. Arrays and boxes only."""

from __future__ import annotations

from typing import Literal

import numpy as np

from dulian.faces import BoundingBox, Detection, Landmarks
from dulian.geometry import turn_points
from dulian.image import Image, resize

Turn = Literal[0, 90, 180, 270]
"""Degrees clockwise."""

# From here on a picture is decoded at a reduced size (below, that costs less than the risk of doing it twice), and not
# turned in full.
LARGE_PIXELS = 3_000_000
# The longer side of the picture that a detector sees, at most.
LOOK_SIDE = 640


def look_sized(image: Image, side: int = LOOK_SIDE) -> Image:
    """The picture at the size in which detectors look at it at most, or with another longer side at most."""
    scale = min(1.0, side / max(image.shape))
    return resize(image, (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))))


def wh_of(image: Image) -> tuple[int, int]:
    """Width and height."""
    return image.shape[1], image.shape[0]


def short_side(detection: Detection) -> float:
    """The shorter side of a face's box, in pixels."""
    return min(detection.box.width, detection.box.height)


def turned(image: Image, turn: Turn) -> Image:
    """The picture turned clockwise; itself when it is not."""
    return image if turn == 0 else np.ascontiguousarray(np.rot90(image, -turn // 90))


def scaled(detection: Detection, scale: tuple[float, float]) -> Detection:
    """The detection in a picture that is ``scale`` times as wide and high."""
    if scale == (1.0, 1.0):
        return detection
    sx, sy = scale
    box, landmarks = detection.box, detection.landmarks
    return Detection(
        BoundingBox(box.x1 * sx, box.y1 * sy, box.x2 * sx, box.y2 * sy),
        detection.confidence,
        Landmarks(*((x * sx, y * sy) for x, y in landmarks)) if landmarks else None,
    )


def turned_back(detection: Detection, view_wh: tuple[int, int], turn: Turn) -> Detection:
    """The detection in the picture before it was turned; ``view_wh`` is its size after the turn."""
    if turn == 0:
        return detection
    corners = turn_points(np.array(list(detection.box), np.float32).reshape(2, 2), view_wh, turn)
    box = BoundingBox(*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())
    landmarks = None
    if detection.landmarks is not None:
        points = turn_points(np.array(list(detection.landmarks), np.float32), view_wh, turn)
        landmarks = Landmarks(*((x, y) for x, y in points.tolist()))
    return Detection(box, detection.confidence, landmarks)
