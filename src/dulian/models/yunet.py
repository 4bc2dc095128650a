"""YuNet: an anchor-free face detector with five landmarks, at the picture's own aspect.

Decoding follows OpenCV's FaceDetectorYN (modules/objdetect/src/face_detect.cpp), without its
class: the same formulas on any runtime's tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dulian.faces import BoundingBox, Detection, Landmarks
from dulian.geometry import Fit, FloatArray, nms
from dulian.image import Image, pad_to, resize, to_tensor
from dulian.models import DetectionOutcome
from dulian.models.rows import Glance, ModelRow
from dulian.runtimes import Session, Tensor

STRIDES = (8, 16, 32)
# OpenCV 4.14 answers with memory's leftovers where the coarsest grid is one cell wide or high.
MIN_INPUT_SIDE = 64
# In pictures smaller than this faces are too: enlarged, nearly all are found that are lost otherwise (decision 48).
DOUBLE_BELOW = 160
# The lowest score worth mentioning as "almost a face" when nothing passes the threshold.
HINT_FLOOR = 0.1
# More candidates than this are noise or an attack; the best ones are kept.
MAX_CANDIDATES = 2000


class YuNet:
    """Detector over one session of a YuNet network with symbolic height and width.

    With a ``glance`` a picture is first looked at in a smaller size, which costs a quarter, and with ``long_side`` only
    if that leaves anything open.
    """

    def __init__(
        self,
        row: ModelRow,
        session: Session,
        *,
        long_side: int,
        nms_iou_threshold: float,
        glance: Glance | None = None,
    ) -> None:
        self._row = row
        self._session = session
        self._long_side = long_side
        self._nms_iou_threshold = nms_iou_threshold
        self._glance = glance

    def detect(self, image: Image, *, min_confidence: float) -> DetectionOutcome:
        """See :class:`dulian.models.Detector`."""
        fit = _fit((image.shape[1], image.shape[0]), self._long_side)
        picture = resize(image, fit.scaled_wh)
        found = None
        if self._glance is not None and max(fit.scaled_wh) >= self._glance.from_side:
            found = self._see_at_a_glance(picture, fit, self._glance, min_confidence)
        if found is None:
            found = self._look(picture, fit, min(min_confidence, HINT_FLOOR))
        accepted = int((found.scores >= min_confidence).sum())
        return DetectionOutcome(
            tuple(found.detection(index) for index in range(accepted)),
            found.detection(0) if accepted == 0 and len(found.scores) else None,
        )

    def _see_at_a_glance(self, picture: Image, fit: Fit, glance: Glance, min_confidence: float) -> _Candidates | None:
        """What a small look finds, unless there may be more to find: nobody sure, a small face, a faint trace."""
        small_fit = _fit(fit.image_wh, glance.side)
        small = np.asarray(cv2.resize(picture, small_fit.scaled_wh, interpolation=cv2.INTER_LINEAR), np.uint8)
        # A caller who asks for doubtful faces wants even fainter traces followed.
        found = self._look(small, small_fit, min(glance.trace_confidence, min_confidence / 4))
        if not len(found.scores) or found.scores[0] < glance.sure_confidence or found.scores[-1] < min_confidence:
            return None
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        return found if sides.min() >= glance.face_px else None

    def _look(self, scaled: Image, fit: Fit, floor: float) -> _Candidates:
        """Everything scored ``floor`` and above in a picture that is scaled already, suppressed, best first."""
        row = self._row
        padded = pad_to(scaled, fit.input_wh)
        tensor = to_tensor([padded], colour_order=row.colour_order, mean=row.mean, scale=row.scale)
        boxes, points, scores = decode(self._session.run(tensor), fit.input_wh, floor)
        best = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
        kept = best[nms(boxes[best], scores[best], self._nms_iou_threshold)]
        return _Candidates(boxes[kept], points[kept], scores[kept], fit)


def _fit(image_wh: tuple[int, int], side: int) -> Fit:
    return Fit.long_side(image_wh, side, multiple_of=max(STRIDES), at_least=MIN_INPUT_SIDE, double_below=DOUBLE_BELOW)


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    """Boxes ``(N, 4)`` xyxy, points ``(N, 5, 2)`` and scores ``(N,)`` in pixels of the network's input, best first."""

    boxes: FloatArray
    points: FloatArray
    scores: FloatArray
    fit: Fit

    def detection(self, index: int) -> Detection:
        """One of them, in pixels of the picture."""
        corners = self.fit.undo(self.boxes[index].reshape(2, 2)).ravel().tolist()
        landmarks = self.fit.undo(self.points[index]).tolist()
        return Detection(BoundingBox(*corners), float(self.scores[index]), Landmarks(*((x, y) for x, y in landmarks)))


def decode(
    outputs: dict[str, Tensor], input_wh: tuple[int, int], floor: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The cells of the three grids scored ``floor`` and above: boxes ``(N, 4)`` xyxy, points ``(N, 5, 2)``, scores.

    Coordinates are pixels of the network's input. The score is ``sqrt(cls · obj)``.
    """
    boxes, points, scores = [], [], []
    for stride in STRIDES:
        product = outputs[f"cls_{stride}"].reshape(-1) * outputs[f"obj_{stride}"].reshape(-1)  # both within 0 and 1
        chosen = np.flatnonzero(product >= floor * floor)
        rows, columns = np.divmod(chosen, input_wh[0] // stride)
        cells = np.stack([columns, rows], axis=1).astype(np.float32)
        box = outputs[f"bbox_{stride}"].reshape(-1, 4)[chosen]
        centre = (cells + box[:, :2]) * stride
        half = np.exp(box[:, 2:]) * (stride / 2)
        boxes.append(np.concatenate([centre - half, centre + half], axis=1))
        points.append((cells[:, None] + outputs[f"kps_{stride}"].reshape(-1, 5, 2)[chosen]) * stride)
        scores.append(np.sqrt(product[chosen]))
    return np.concatenate(boxes), np.concatenate(points), np.concatenate(scores)
