"""The articles' detector: a ResNet-10 SSD at 300 × 300, stretched, without landmarks.

The converted network ends with decoded boxes and class probabilities; OpenCV's own run of the Caffe
original ends with ``detection_out``, already suppressed. Both are read here.
"""

from __future__ import annotations

import cv2
import numpy as np

from dulian.faces import BoundingBox, Detection
from dulian.geometry import Fit, FloatArray, nms
from dulian.image import Image, to_tensor
from dulian.models import DetectionOutcome
from dulian.models.rows import ModelRow
from dulian.runtimes import Session, Tensor

FACE_CLASS = 1
# deploy.prototxt: top_k of its DetectionOutput layer.
MAX_CANDIDATES = 400
HINT_FLOOR = 0.1


class Res10Ssd:
    """Detector over one session of the converted network or of its Caffe original."""

    def __init__(self, row: ModelRow, session: Session, *, nms_iou_threshold: float) -> None:
        if row.input_wh is None:
            raise ValueError(f"{row.name} needs a fixed input size")
        self._row = row
        self._input_wh = row.input_wh
        self._session = session
        self._nms_iou_threshold = nms_iou_threshold

    def detect(self, image: Image, *, min_confidence: float) -> DetectionOutcome:
        """See :class:`dulian.models.Detector`."""
        fit = Fit.stretch((image.shape[1], image.shape[0]), self._input_wh)
        # Straight and linearly, as the network was trained: it finds more so than in averaged pixels.
        small = np.asarray(cv2.resize(image, fit.input_wh, interpolation=cv2.INTER_LINEAR), np.uint8)
        tensor = to_tensor(
            [small],
            colour_order=self._row.colour_order,
            mean=self._row.mean,
            scale=self._row.scale,
        )
        boxes, scores = self._postprocess(self._session.run(tensor))
        accepted = np.flatnonzero(scores >= min_confidence)
        if accepted.size == 0:
            best = int(scores.argmax()) if scores.size and scores.max() >= HINT_FLOOR else None
            return DetectionOutcome((), None if best is None else self._to_detection(boxes[best], scores[best], fit))
        # What lies below the threshold suppresses nothing above it, so it need not be looked at.
        accepted = accepted[np.argsort(-scores[accepted], kind="stable")][:MAX_CANDIDATES]
        kept = accepted[nms(boxes[accepted], scores[accepted], self._nms_iou_threshold)]
        return DetectionOutcome(tuple(self._to_detection(boxes[i], scores[i], fit) for i in kept.tolist()))

    def _to_detection(self, box: FloatArray, score: np.float32, fit: Fit) -> Detection:
        corners = box.reshape(2, 2) * np.array(self._input_wh, np.float32)
        return Detection(BoundingBox(*fit.undo(corners).ravel().tolist()), float(score))

    def _postprocess(self, outputs: dict[str, Tensor]) -> tuple[FloatArray, FloatArray]:
        """Relative boxes ``(N, 4)`` and scores ``(N,)``; OpenCV's own run has suppressed some already."""
        if "detection_out" in outputs:
            rows = outputs["detection_out"].reshape(-1, 7)
            rows = rows[rows[:, 1] == FACE_CLASS]
            return rows[:, 3:7], rows[:, 2]
        return outputs["boxes"][0], outputs["scores"][0, :, FACE_CLASS]
