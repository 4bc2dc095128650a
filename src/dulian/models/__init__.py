"""Models: what a network means. They know faces, crops and catalog rows; a session does the arithmetic.

A detector finds faces in a picture, an estimator reads attributes off crops. Neither knows which
runtime it is given, and neither knows the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dulian.faces import Attribute, Detection
from dulian.models.rows import CropSpec

if TYPE_CHECKING:  # the catalog lives in this package and must be readable before OpenCV is loaded
    import numpy as np
    from numpy.typing import NDArray

    from dulian.image import Image


@dataclass(frozen=True, slots=True)
class DetectionOutcome:
    """Faces above the threshold, most confident first; when there is none, the best one below it."""

    detections: tuple[Detection, ...]
    best_rejected: Detection | None = None


@dataclass(frozen=True, slots=True)
class AgeScores:
    """Probabilities ``(N, K)`` of ``N`` faces over ``K`` classes that stand for ``years``, ``(K,)`` or ``(N, K)``.

    A network that answers in years and not in probabilities has one class, sure, of each face's own years.
    """

    probabilities: NDArray[np.float32]
    years: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AttributeScores:
    """Raw answers for ``N`` crops; an attribute that the network does not provide is None.

    ``female`` is ``(N,)``, the uncalibrated probability of that label.
    """

    age: AgeScores | None = None
    female: NDArray[np.float64] | None = None


class Detector(Protocol):
    """Finds faces."""

    def detect(self, image: Image, *, min_confidence: float) -> DetectionOutcome:
        """Look at a whole BGR picture; boxes in its pixels, not yet clipped to it."""
        ...


class AttributeEstimator(Protocol):
    """Reads attributes off face crops."""

    @property
    def name(self) -> str:
        """Of its network, as calibration tables know it."""
        ...

    @property
    def provides(self) -> frozenset[Attribute]:
        """The attributes this estimator answers."""
        ...

    @property
    def crop(self) -> CropSpec:
        """The crop it wants; estimators with equal specs share crops."""
        ...

    @property
    def max_batch(self) -> int:
        """How many crops its network sees at once; more of them take turns."""
        ...

    def estimate(self, crops: Sequence[Image]) -> AttributeScores:
        """Scores for one or more crops of :attr:`crop`'s side."""
        ...
