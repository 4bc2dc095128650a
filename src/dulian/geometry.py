"""Boxes, overlaps, fits and alignments: pure arithmetic on small arrays, no pictures.

Boxes are ``xyxy``: ``(N, 4) float32`` in pixels, the right and lower edge outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from dulian.faces import BoundingBox

FloatArray = NDArray[np.float32]

# The ArcFace template, 112 × 112: right eye, left eye, nose, right and left mouth corner
# (insightface, face_align.py). Only its proportions are used.
ARCFACE_TEMPLATE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)

_COMPLEX_PLANE = np.array([1, 1j])


def iou(a: FloatArray, b: FloatArray) -> FloatArray:
    """Intersection over union of every box of ``a`` (N, 4) with every box of ``b`` (M, 4): (N, M) in [0, 1]."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.clip(bottom_right - top_left, 0, None).prod(axis=2)
    union = _areas(a)[:, None] + _areas(b)[None, :] - overlap
    ratio: FloatArray = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return ratio


def nms(boxes_xyxy: FloatArray, scores: FloatArray, iou_threshold: float) -> NDArray[np.intp]:
    """Greedy non-maximum suppression: indices of the kept boxes, best first, ties in input order."""
    order = np.argsort(-scores, kind="stable")
    x1, y1, x2, y2 = boxes_xyxy[order].T
    areas = _areas(boxes_xyxy[order])
    left = np.arange(len(order))
    kept: list[int] = []
    while left.size:
        best, rest = left[0], left[1:]
        kept.append(int(order[best]))
        width = np.minimum(x2[best], x2[rest]) - np.maximum(x1[best], x1[rest])
        height = np.minimum(y2[best], y2[rest]) - np.maximum(y1[best], y1[rest])
        overlap = np.maximum(width, 0) * np.maximum(height, 0)
        left = rest[overlap <= iou_threshold * (areas[best] + areas[rest] - overlap)]
    return np.array(kept, np.intp)


def _areas(boxes_xyxy: FloatArray) -> FloatArray:
    sides = np.clip(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0, None)
    areas: FloatArray = sides.prod(axis=1)
    return areas


@dataclass(frozen=True, slots=True)
class Fit:
    """How a picture fits a network's input: scaled to ``scaled_wh``, then padded right and below to ``input_wh``."""

    image_wh: tuple[int, int]
    scaled_wh: tuple[int, int]
    input_wh: tuple[int, int]

    @classmethod
    def long_side(
        cls, image_wh: tuple[int, int], side: int, *, multiple_of: int, at_least: int, double_below: int = 0
    ) -> Fit:
        """Shrink to ``side`` along the longer side, keeping the aspect, and pad to multiples.

        The input is ``at_least`` that many pixels wide and high. A picture is never enlarged, but for one whose longer
        side is less than ``double_below``: it is made twice as large.
        """
        scale = 2.0 if max(image_wh) < double_below else min(1.0, side / max(image_wh))
        scaled = (max(1, round(image_wh[0] * scale)), max(1, round(image_wh[1] * scale)))
        padded = (
            max(at_least, _round_up(scaled[0], multiple_of)),
            max(at_least, _round_up(scaled[1], multiple_of)),
        )
        return cls(image_wh, scaled, padded)

    @classmethod
    def stretch(cls, image_wh: tuple[int, int], input_wh: tuple[int, int]) -> Fit:
        """Scale both sides separately to exactly the input."""
        return cls(image_wh, input_wh, input_wh)

    def apply(self, points: FloatArray) -> FloatArray:
        """Points ``(…, 2)`` of the picture as points of the network's input."""
        moved: FloatArray = points * self._ratio()
        return moved

    def undo(self, points: FloatArray) -> FloatArray:
        """Points ``(…, 2)`` of the network's input as points of the picture."""
        moved: FloatArray = points / self._ratio()
        return moved

    def _ratio(self) -> FloatArray:
        return np.array(
            [self.scaled_wh[0] / self.image_wh[0], self.scaled_wh[1] / self.image_wh[1]],
            np.float32,
        )


def _round_up(value: int, multiple_of: int) -> int:
    return -(-value // multiple_of) * multiple_of


def square_around(box: BoundingBox, margin: float, down: float = 0.0) -> BoundingBox:
    """The square round a box, its side the longer box side enlarged by ``margin`` of itself on each side.

    It is centred on the box, but for a shift downwards by ``down`` of its own side.
    """
    half = max(box.width, box.height) * (0.5 + margin)
    centre_x, centre_y = (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2 + 2 * half * down
    return BoundingBox(centre_x - half, centre_y - half, centre_x + half, centre_y + half)


@cache
def aligned_template(eye_distance: float, eye_height: float, side: int) -> NDArray[np.float64]:
    """The five template points ``(5, 2)`` in pixels of a square crop.

    ``eye_distance`` and ``eye_height`` are fractions of ``side``; the eyes are centred.
    """
    eyes = ARCFACE_TEMPLATE[:2]
    scale = eye_distance * side / float(np.linalg.norm(eyes[1] - eyes[0]))
    middle = eyes.mean(axis=0)
    points: NDArray[np.float64] = (ARCFACE_TEMPLATE - middle) * scale + np.array([side / 2, eye_height * side])
    points.flags.writeable = False  # shared by all who ask
    return points


def similarity_transform(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ``(2, 3)`` rotation, scale and shift that brings points ``(N, 2)`` closest to others, by least squares.

    Closed form without reflection (Umeyama 1991 reduces to this complex-number fit in the plane).
    Points that coincide, or that no turn brings together, give the identity's scale: the result can always be inverted.
    """
    from_, to = source @ _COMPLEX_PLANE, target @ _COMPLEX_PLANE
    centre = from_.sum() / len(from_)
    centred = from_ - centre
    spread = np.vdot(centred, centred).real
    # A complex factor turns and scales at once.
    factor = complex(np.vdot(centred, to) / spread) if spread else 0j
    if abs(factor) < 1e-6:
        factor = 1 + 0j
    shift = to.sum() / len(to) - factor * centre
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def turn_points(points: FloatArray, turned_wh: tuple[int, int], degrees: int) -> FloatArray:
    """Points ``(…, 2)`` of a picture that was turned clockwise, as points of the picture before the turn.

    ``turned_wh`` is the size after the turn; ``degrees`` is 0, 90, 180 or 270.
    """
    width, height = turned_wh
    x, y = points[..., 0], points[..., 1]
    before = {
        0: (x, y),
        90: (y, width - x),
        180: (width - x, height - y),
        270: (height - y, x),
    }[degrees]
    return np.stack(before, axis=-1).astype(np.float32)
