"""YuNet: an anchor-free face detector with five landmarks, at the picture's own aspect.

Decoding follows OpenCV's FaceDetectorYN (modules/objdetect/src/face_detect.cpp), without its
class: the same formulas on any runtime's tensors.
"""

from __future__ import annotations

import numpy as np

from dulian.faces import BoundingBox, Detection, Landmarks
from dulian.geometry import Fit, FloatArray, nms
from dulian.image import Image, pad_to, resize, to_tensor
from dulian.models import DetectionOutcome
from dulian.models.rows import ModelRow
from dulian.runtimes import Session, Tensor

STRIDES = (8, 16, 32)
# OpenCV 4.14 answers with memory's leftovers where the coarsest grid is one cell wide or high.
MIN_INPUT_SIDE = 64
# The lowest score worth mentioning as "almost a face" when nothing passes the threshold.
HINT_FLOOR = 0.1
# More candidates than this are noise or an attack; the best ones are kept.
MAX_CANDIDATES = 2000


class YuNet:
    """Detector over one session of a YuNet network with symbolic height and width."""

    def __init__(self, row: ModelRow, session: Session, *, long_side: int, nms_iou_threshold: float) -> None:
        self._row = row
        self._session = session
        self._long_side = long_side
        self._nms_iou_threshold = nms_iou_threshold

    def detect(self, image: Image, *, min_confidence: float) -> DetectionOutcome:
        """See :class:`dulian.models.Detector`."""
        height, width = image.shape[:2]
        fit = Fit.long_side((width, height), self._long_side, multiple_of=max(STRIDES), at_least=MIN_INPUT_SIDE)
        boxes, points, scores = decode(self._session.run(self._preprocess(image, fit)), fit.input_wh)
        accepted = np.flatnonzero(scores >= min_confidence)
        if accepted.size == 0:
            best = int(scores.argmax())
            rejected = [best] if scores[best] >= HINT_FLOOR else []
            return DetectionOutcome((), next(iter(_to_detections(boxes, points, scores, rejected, fit)), None))
        accepted = accepted[np.argsort(-scores[accepted], kind="stable")][:MAX_CANDIDATES]
        kept = accepted[nms(boxes[accepted], scores[accepted], self._nms_iou_threshold)]
        return DetectionOutcome(tuple(_to_detections(boxes, points, scores, kept.tolist(), fit)))

    def _preprocess(self, image: Image, fit: Fit) -> Tensor:
        padded = pad_to(resize(image, fit.scaled_wh), fit.input_wh)
        return to_tensor([padded], colour_order=self._row.colour_order, mean=self._row.mean, scale=self._row.scale)


def decode(outputs: dict[str, Tensor], input_wh: tuple[int, int]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """All cells of the three grids as boxes ``(N, 4)`` xyxy, points ``(N, 5, 2)`` and scores ``(N,)``.

    Coordinates are pixels of the network's input. The score is ``sqrt(cls · obj)``.
    """
    boxes, points, scores = [], [], []
    for stride in STRIDES:
        cells = _cell_corners(input_wh, stride)
        box = outputs[f"bbox_{stride}"].reshape(-1, 4)
        centre = (cells + box[:, :2]) * stride
        half = np.exp(box[:, 2:]) * (stride / 2)
        boxes.append(np.concatenate([centre - half, centre + half], axis=1))
        points.append((cells[:, None] + outputs[f"kps_{stride}"].reshape(-1, 5, 2)) * stride)
        cls, obj = outputs[f"cls_{stride}"].reshape(-1), outputs[f"obj_{stride}"].reshape(-1)
        scores.append(np.sqrt(np.clip(cls, 0, 1) * np.clip(obj, 0, 1)))
    return np.concatenate(boxes), np.concatenate(points), np.concatenate(scores)


def _cell_corners(input_wh: tuple[int, int], stride: int) -> FloatArray:
    columns, rows = np.meshgrid(np.arange(input_wh[0] // stride), np.arange(input_wh[1] // stride))
    return np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float32)


def _to_detections(
    boxes: FloatArray, points: FloatArray, scores: FloatArray, indices: list[int], fit: Fit
) -> list[Detection]:
    return [
        Detection(
            box=BoundingBox(*fit.undo(boxes[i].reshape(2, 2)).ravel().tolist()),
            confidence=float(scores[i]),
            landmarks=Landmarks(*((x, y) for x, y in fit.undo(points[i]).tolist())),
        )
        for i in indices
    ]
