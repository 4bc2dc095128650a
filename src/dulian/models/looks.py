"""Other ways of looking at a picture: in tiles, for faces too small in the whole; shrunk, for one that fills the frame.

Each wraps a detector, is one itself, and belongs to the same thread. Boxes and landmarks stay in the picture's pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Final

import cv2
import numpy as np

from dulian.faces import BoundingBox, Detection, Landmarks
from dulian.geometry import FloatArray, nms
from dulian.image import Image, resize
from dulian.models import DetectionOutcome, Detector

# From this longer side on a picture is looked at in tiles: twice what the detectors see of a whole one.
TILED_FROM: Final = 1280
# A tile is as large as what the detectors see, so that nothing in it is shrunk.
TILE_SIDE: Final = 640
MAX_TILES: Final = 24
# The longer side that so many tiles of a 3 : 2 picture cover unshrunk; more pixels than that need not be decoded.
TILED_SIDE: Final = 3000
# The part of a tile that it shares with the next. A face smaller than that is whole in one of them.
TILE_OVERLAP: Final = 0.2
# A box that comes so close to a tile's edge, in parts of its side, may be of a face that is cut.
CUT_MARGIN: Final = 0.01

# How a shrunk picture is shown: with a mirrored border of this part of its longer side, in so many pixels in all. On
# development faces that fill the frame that finds more than grey or repeated borders, and than 160, 192 or 320 pixels.
SHRUNK_SIDE: Final = 256
SHRUNK_BORDER: Final = 0.3
# The least part of the picture's longer side that a face takes to be worth such a look.
FILLING_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class TiledDetector:
    """Looks at the whole of a large picture and at overlapping tiles of it, ``max_tiles`` at most.

    Of a picture too large for tiles of ``tile_side`` the tiles are larger, and the detector shrinks them.
    """

    whole: Detector
    nms_iou_threshold: float
    from_side: int = TILED_FROM
    tile_side: int = TILE_SIDE
    max_tiles: int = MAX_TILES

    def detect(self, image: Image, *, min_confidence: float) -> DetectionOutcome:
        """See :class:`dulian.models.Detector`."""
        outcome = self.whole.detect(image, min_confidence=min_confidence)
        if max(image.shape) < self.from_side:
            return outcome
        found, rejected = list(outcome.detections), [outcome.best_rejected]
        for tile in tiles_of((image.shape[1], image.shape[0]), self.tile_side, self.max_tiles):
            seen = self.whole.detect(tile.cut(image), min_confidence=min_confidence)
            found += tile.whole_faces(seen.detections)
            rejected += tile.whole_faces([seen.best_rejected] if seen.best_rejected else [])
        if found:
            return DetectionOutcome(tuple(_suppress(found, self.nms_iou_threshold)))
        almost = [candidate for candidate in rejected if candidate is not None]
        return DetectionOutcome((), max(almost, key=lambda candidate: candidate.confidence, default=None))


def without_tiles(detector: Detector) -> Detector:
    """The detector that looks at whole pictures only."""
    return detector.whole if isinstance(detector, TiledDetector) else detector


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of whole pixels in a picture of ``image_wh``."""

    x1: int
    y1: int
    x2: int
    y2: int
    image_wh: tuple[int, int]

    def cut(self, image: Image) -> Image:
        """Its pixels."""
        return np.ascontiguousarray(image[self.y1 : self.y2, self.x1 : self.x2])

    def whole_faces(self, detections: Iterable[Detection]) -> list[Detection]:
        """Faces seen in the tile, in pixels of the picture, without those that its edge may cut.

        The next tile sees a small one of them in full, and the look at the whole picture a large one.
        """
        moved = (_moved(detection, (self.x1, self.y1), 1.0) for detection in detections)
        return [detection for detection in moved if not self._cuts(detection.box)]

    def _cuts(self, box: BoundingBox) -> bool:
        margin = CUT_MARGIN * max(self.x2 - self.x1, self.y2 - self.y1)
        return (
            (self.x1 > 0 and box.x1 < self.x1 + margin)
            or (self.y1 > 0 and box.y1 < self.y1 + margin)
            or (self.x2 < self.image_wh[0] and box.x2 > self.x2 - margin)
            or (self.y2 < self.image_wh[1] and box.y2 > self.y2 - margin)
        )


def tiles_of(image_wh: tuple[int, int], side: int, max_tiles: int) -> list[Tile]:
    """Overlapping squares that cover a picture, none where one of them would hold it whole.

    They are as small as ``max_tiles`` of them allow, and ``side`` at least; a narrower picture has narrower ones.
    """
    columns, rows = (_count(length, side) for length in image_wh)
    while columns * rows > max_tiles:
        side += max(1, side // 16)
        columns, rows = (_count(length, side) for length in image_wh)
    if columns * rows == 1:
        return []
    starts = [_starts(length, side, count) for length, count in zip(image_wh, (columns, rows), strict=True)]
    width, height = image_wh
    return [Tile(x, y, min(x + side, width), min(y + side, height), image_wh) for y, x in product(*reversed(starts))]


def _count(length: int, side: int) -> int:
    """How many tiles cover a length."""
    step = round(side * (1 - TILE_OVERLAP))
    return max(1, -(-(length - side) // step) + 1)


def _starts(length: int, side: int, count: int) -> list[int]:
    """Where they begin, evenly spaced from end to end."""
    return [round(index * max(0, length - side) / max(1, count - 1)) for index in range(count)]


def _suppress(detections: list[Detection], iou_threshold: float) -> list[Detection]:
    boxes: FloatArray = np.array([tuple(found.box) for found in detections], np.float32)
    scores: FloatArray = np.array([found.confidence for found in detections], np.float32)
    return [detections[index] for index in nms(boxes, scores, iou_threshold)]


@dataclass(frozen=True, slots=True)
class ShrunkDetector:
    """Looks at a picture as if from further away, for a face that fills the frame; others are not reported.

    Detectors know faces with something round them, and what is larger than their coarsest grid they miss. The look is
    a small one, whatever the picture's size.
    """

    detector: Detector

    def detect(self, image: Image, *, min_confidence: float) -> DetectionOutcome:
        """See :class:`dulian.models.Detector`."""
        longer = max(image.shape[:2])
        scale = min(1.0, SHRUNK_SIDE / (1 + 2 * SHRUNK_BORDER) / longer)
        small = resize(image, (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))))
        border = round(SHRUNK_BORDER * max(small.shape[:2]))
        framed = cv2.copyMakeBorder(small, border, border, border, border, cv2.BORDER_REFLECT)
        seen = self.detector.detect(np.asarray(framed, np.uint8), min_confidence=min_confidence)
        ratio = longer / max(small.shape[:2])
        moved = [_moved(found, (-border, -border), ratio) for found in seen.detections]
        return DetectionOutcome(tuple(found for found in moved if _fills(found.box, image)))


def _fills(box: BoundingBox, image: Image) -> bool:
    """Whether a box is large, and of the picture and not of its mirror image."""
    height, width = image.shape[:2]
    centre_x, centre_y = (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2
    inside = 0 <= centre_x <= width and 0 <= centre_y <= height
    return inside and max(box.width, box.height) >= FILLING_SHARE * float(max(width, height))


def _moved(detection: Detection, offset: tuple[int, int], scale: float) -> Detection:
    """The detection shifted by ``offset``, then enlarged by ``scale``."""
    dx, dy = offset

    def at(x: float, y: float) -> tuple[float, float]:
        return (x + dx) * scale, (y + dy) * scale

    box = BoundingBox(*at(detection.box.x1, detection.box.y1), *at(detection.box.x2, detection.box.y2))
    landmarks = Landmarks(*(at(x, y) for x, y in detection.landmarks)) if detection.landmarks else None
    return Detection(box, detection.confidence, landmarks)
