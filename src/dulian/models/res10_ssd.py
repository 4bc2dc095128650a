"""The articles' detector: a ResNet-10 SSD at 300 × 300, stretched, without landmarks.

The converted network ends with decoded boxes and class probabilities; OpenCV's own run of the Caffe
original ends with ``detection_out``, already suppressed. Both are read here.
"""

from __future__ import annotations

import numpy as np

from dulian.faces import BoundingBox, Detection
from dulian.geometry import Fit, FloatArray, nms
from dulian.image import Image, resize, to_tensor
from dulian.models import DetectionOutcome
from dulian.models.catalog import ModelRow
from dulian.runtimes import Session, Tensor

FACE_CLASS = 1
# deploy.prototxt: confidence_threshold and top_k of its DetectionOutput layer.
CANDIDATE_FLOOR = 0.01
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
        tensor = to_tensor(
            [resize(image, fit.input_wh)],
            colour_order=self._row.colour_order,
            mean=self._row.mean,
            scale=self._row.scale,
        )
        boxes, scores = self._postprocess(self._session.run(tensor))
        detections = [
            Detection(BoundingBox(*fit.undo(box.reshape(2, 2)).ravel().tolist()), float(score))
            for box, score in zip(boxes * np.array(self._input_wh * 2, np.float32), scores, strict=True)
        ]
        accepted = tuple(detection for detection in detections if detection.confidence >= min_confidence)
        almost = [detection for detection in detections[:1] if detection.confidence >= HINT_FLOOR]
        return DetectionOutcome(accepted, None if accepted else next(iter(almost), None))

    def _postprocess(self, outputs: dict[str, Tensor]) -> tuple[FloatArray, FloatArray]:
        """Relative boxes ``(N, 4)`` and scores ``(N,)``, suppressed, best first."""
        if "detection_out" in outputs:
            rows = outputs["detection_out"].reshape(-1, 7)
            rows = rows[(rows[:, 1] == FACE_CLASS) & (rows[:, 2] > CANDIDATE_FLOOR)]
            return rows[:, 3:7], rows[:, 2]
        boxes, scores = outputs["boxes"][0], outputs["scores"][0, :, FACE_CLASS]
        candidates = np.flatnonzero(scores > CANDIDATE_FLOOR)
        candidates = candidates[np.argsort(-scores[candidates], kind="stable")][:MAX_CANDIDATES]
        boxes, scores = boxes[candidates], scores[candidates]
        kept = nms(boxes, scores, self._nms_iou_threshold)
        return boxes[kept], scores[kept]
