"""Cutting faces out of a picture: one crop per face and geometry, shared by all who want the same one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from dulian.faces import Detection
from dulian.geometry import aligned_template, similarity_transform, square_around
from dulian.image import Image, crop_rect, resize, to_grey
from dulian.models.rows import AlignedCrop, BareCrop, CropSpec, SquareCrop

# Aligned crops up to this side are halved from crops of twice the side.
HALF_OF_ANOTHER = 32


class Crops:
    """The crops of one picture's faces, each cut once; lives as long as the analysis of that picture.

    ``to_srgb`` converts the colours of what is cut.
    """

    def __init__(
        self,
        image: Image,
        detections: tuple[Detection, ...],
        *,
        to_srgb: Callable[[Image], Image] | None = None,
    ) -> None:
        self._image = image
        self._detections = detections
        self._to_srgb = to_srgb
        self._cut: dict[CropSpec, list[Image]] = {}

    def cut(self, spec: CropSpec) -> list[Image]:
        """One crop per detection, in order: ``(side, side, 3)`` BGR, or ``(side, side)`` if it is to be grey."""
        if spec not in self._cut:
            self._cut[spec] = self._make(spec)
        return self._cut[spec]

    def _make(self, spec: CropSpec) -> list[Image]:
        if isinstance(spec, AlignedCrop) and spec.side <= HALF_OF_ANOTHER:
            # Better averaged than warped straight, and one warp serves networks of both sizes.
            doubled = self.cut(replace(spec, side=2 * spec.side))
            return [resize(crop, (spec.side, spec.side)) for crop in doubled]
        if self._to_srgb is None:
            return [cut_face(self._image, detection, spec) for detection in self._detections]
        if isinstance(spec, SquareCrop) and spec.grey:
            return [to_grey(crop) for crop in self.cut(replace(spec, grey=False))]
        return [self._to_srgb(cut_face(self._image, detection, spec)) for detection in self._detections]


def cut_face(image: Image, detection: Detection, spec: CropSpec) -> Image:
    """Cut one face; the border is replicated where the crop leaves the picture."""
    if isinstance(spec, AlignedCrop) and detection.landmarks is not None:
        points = np.array(list(detection.landmarks), np.float64)
        target = aligned_template(spec.eye_distance, spec.eye_height, spec.side)
        return align(image, similarity_transform(points, target), spec.side)
    if isinstance(spec, BareCrop):
        bare = detection.box.clipped((image.shape[1], image.shape[0]))
        return crop_rect(image, bare, (spec.side, spec.side))
    if isinstance(spec, SquareCrop):
        square = square_around(detection.box, spec.margin, spec.down)
        return crop_rect(image, square, (spec.side, spec.side), grey=spec.grey)
    return crop_rect(image, square_around(detection.box, spec.fallback_margin), (spec.side, spec.side))


def align(image: Image, matrix: NDArray[np.float64], side: int) -> Image:
    """Warp by a ``(2, 3)`` similarity from picture to crop pixels, without aliasing when it shrinks.

    Bilinear warping reads four pixels per output pixel; below half size that skips pixels, so the
    face's region is first shrunk by a whole factor, each pixel the mean of those it stands for.
    """
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    if scale <= 0.5:
        image, matrix = _shrink_region(image, matrix, side, int(1 / scale))
    warped = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.uint8)


def _shrink_region(
    image: Image, matrix: NDArray[np.float64], side: int, factor: int
) -> tuple[Image, NDArray[np.float64]]:
    """The part of the picture under the crop, ``factor`` times smaller, with the matrix that fits it."""
    height, width = image.shape[:2]
    linear, shift = matrix[:, :2], matrix[:, 2]
    corners = (np.array([(0, 0), (side, 0), (0, side), (side, side)], np.float64) - shift) @ np.linalg.inv(linear).T
    margin = 2 * factor
    x1, y1 = np.clip(np.floor(corners.min(axis=0) - margin), 0, (width - 1, height - 1)).astype(int)
    x2, y2 = np.clip(np.ceil(corners.max(axis=0) + margin), (x1 + 1, y1 + 1), (width, height)).astype(int)
    region = image[y1:y2, x1:x2]
    factor = max(1, min(factor, *region.shape[:2]))  # absurd landmarks ask for millions
    # Whole multiples of the factor keep every averaged pixel exactly where the matrix expects it.
    missing_x, missing_y = -(x2 - x1) % factor, -(y2 - y1) % factor
    if missing_x or missing_y:
        region = np.asarray(cv2.copyMakeBorder(region, 0, missing_y, 0, missing_x, cv2.BORDER_REPLICATE), np.uint8)
    shrunk_wh = region.shape[1] // factor, region.shape[0] // factor
    shrunk = np.asarray(cv2.resize(region, shrunk_wh, interpolation=cv2.INTER_AREA), np.uint8)
    # Pixel centres: a point p of the picture lies at (p - origin + ½) / factor - ½ in the shrunk region.
    offset = shift + linear @ (np.array([x1, y1]) - 0.5 + factor / 2)
    return shrunk, np.column_stack([linear * factor, offset])
