"""Stand-ins at the seams dulian owns: real enough to drive everything above them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dulian.analyzer import Confidence, Detail
from dulian.calibration import AgeSource, AgeTable, Calibration, GenderTable
from dulian.faces import BoundingBox, Detection, Landmarks
from dulian.image import Image
from dulian.models import AgeScores, AttributeScores, DetectionOutcome
from dulian.models.rows import SquareCrop
from dulian.runtimes import Session, Tensor
from dulian.turning import TurnRules

CALIBRATION = Calibration(
    AgeTable(
        sources={"fake": AgeSource(weight=1.0, temperature=1.0)},
        knots=(0.0, 100.0),
        shifts=(0.0, 0.0),
        floor=3.0,
        slope=0.0,
        poor_below=0.0,
        poor_factor=1.0,
        coverages=(0.5, 0.9, 0.99),
        band_starts=(0.0,),
        quantiles=((0.7, 1.6, 2.6),),
    ),
    GenderTable(sources={"fake": 1.0}, young_factor=1.0, grown_up=25.0, decision=0.6),
)

DETAIL = Detail(reduced_side=640, face_px=60)
CONFIDENCE = Confidence(minimum=0.6, doubt=0.65)
TURNS = TurnRules(sure=0.85, retry=0.8)


def face_at(x: float, y: float, side: float, confidence: float = 0.9) -> Detection:
    """A frontal face with landmarks where they usually are."""

    def at(u: float, v: float) -> tuple[float, float]:
        return x + u * side, y + v * side

    points = Landmarks(at(0.3, 0.4), at(0.7, 0.4), at(0.5, 0.6), at(0.35, 0.8), at(0.65, 0.8))
    return Detection(BoundingBox(x, y, x + side, y + side), confidence, points)


class FakeDetector:
    """Finds what it was told; faces only in pictures of a given orientation if told so."""

    def __init__(self, *detections: Detection, only_wh: tuple[int, int] | None = None) -> None:
        self.detections = detections
        self.only_wh = only_wh
        self.thresholds: list[float] = []

    def detect(self, image: Image, *, min_confidence: float) -> DetectionOutcome:
        self.thresholds.append(min_confidence)
        if self.only_wh not in (None, (image.shape[1], image.shape[0])):
            return DetectionOutcome(())
        accepted = tuple(d for d in self.detections if d.confidence >= min_confidence)
        rejected = [d for d in self.detections if d.confidence < min_confidence]
        return DetectionOutcome(accepted, None if accepted else next(iter(rejected), None))


class FakeEstimator:
    """Tells the brightness of a crop as an age and its redness as a gender, so that mixed-up crops show."""

    name = "fake"
    provides = frozenset({"age", "gender"})
    crop = SquareCrop(margin=0.0, side=16)
    max_batch = 8

    def __init__(self) -> None:
        self.calls = 0

    def estimate(self, crops: Sequence[Image]) -> AttributeScores:
        self.calls += 1
        years = np.arange(0, 101, dtype=np.float64)
        ages = np.array([round(float(crop.mean()) / 255 * 100) for crop in crops])
        probabilities = np.eye(101, dtype=np.float32)[ages]
        female = np.array([float(crop[..., 2].mean()) / 255 for crop in crops])
        return AttributeScores(AgeScores(probabilities, years), female)


class FakeSession(Session):
    """Answers every tensor with the outputs it was given."""

    def __init__(self, **outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs
        self.seen: list[Tensor] = []

    def _run(self, tensor: Tensor) -> dict[str, Tensor]:
        self.seen.append(tensor)
        return dict(self.outputs)
