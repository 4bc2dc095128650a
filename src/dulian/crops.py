"""Cutting faces out of a picture: one crop per face and geometry, shared by all who want the same one."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from dulian.faces import Detection
from dulian.geometry import aligned_template, similarity_transform, square_around
from dulian.image import Image, crop_rect, resize
from dulian.models.rows import AlignedCrop, CropSpec, SquareCrop


class Crops:
    """The crops of one picture's faces, each cut once; lives as long as the analysis of that picture."""

    def __init__(self, image: Image, detections: tuple[Detection, ...]) -> None:
        self._image = image
        self._detections = detections
        self._cut: dict[CropSpec, list[Image]] = {}

    def cut(self, spec: CropSpec) -> list[Image]:
        """One ``(side, side, 3)`` BGR crop per detection, in order."""
        if spec not in self._cut:
            self._cut[spec] = [cut_face(self._image, detection, spec) for detection in self._detections]
        return self._cut[spec]


def cut_face(image: Image, detection: Detection, spec: CropSpec) -> Image:
    """Cut one face; the border is replicated where the crop leaves the picture."""
    if isinstance(spec, AlignedCrop) and detection.landmarks is not None:
        points = np.array(list(detection.landmarks), np.float64)
        target = aligned_template(spec.eye_distance, spec.eye_height, spec.side)
        return align(image, similarity_transform(points, target), spec.side)
    margin = spec.margin if isinstance(spec, SquareCrop) else spec.fallback_margin
    return crop_rect(image, tuple(square_around(detection.box, margin)), (spec.side, spec.side))


def align(image: Image, matrix: NDArray[np.float64], side: int) -> Image:
    """Warp by a ``(2, 3)`` similarity from picture to crop pixels, without aliasing when it shrinks.

    Bilinear warping reads four pixels per output pixel; below half size that skips pixels, so the
    face's region is first shrunk by area averaging.
    """
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    if scale < 0.5:
        image, matrix = _shrink_region(image, matrix, side, scale)
    warped = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.uint8)


def _shrink_region(
    image: Image, matrix: NDArray[np.float64], side: int, scale: float
) -> tuple[Image, NDArray[np.float64]]:
    """The part of the picture under the crop, shrunk by about ``scale``, with the matrix that fits it."""
    height, width = image.shape[:2]
    linear, shift = matrix[:, :2], matrix[:, 2]
    corners = (np.array([(0, 0), (side, 0), (0, side), (side, side)], np.float64) - shift) @ np.linalg.inv(linear).T
    margin = 2 / scale
    x1, y1 = np.clip(np.floor(corners.min(axis=0) - margin), 0, (width - 1, height - 1)).astype(int)
    x2, y2 = np.clip(np.ceil(corners.max(axis=0) + margin), (x1 + 1, y1 + 1), (width, height)).astype(int)
    shrunk_wh = (max(1, round((x2 - x1) * scale)), max(1, round((y2 - y1) * scale)))
    ratio = np.array([shrunk_wh[0] / (x2 - x1), shrunk_wh[1] / (y2 - y1)])
    # Pixel centres: a point p of the picture lies at (p - origin + ½) · ratio - ½ in the shrunk region.
    unshrunk = linear / ratio
    offset = shift + linear @ (np.array([x1, y1]) - 0.5) + unshrunk @ np.array([0.5, 0.5])
    return resize(image[y1:y2, x1:x2], shrunk_wh), np.column_stack([unshrunk, offset])
