"""The nouns of a result: frozen values, no behaviour beyond simple geometry of their own.

Coordinates are pixels of the upright full-size image, origin top left, x to the right, y down.
How these values are spelled in JSON is :mod:`dulian.serialize`'s business alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Point = tuple[float, float]
Attribute = Literal["age", "gender"]
GenderValue = Literal["female", "male"]
Status = Literal["ok", "uncertain", "low_quality"]
FaceOrder = Literal["size", "quality", "confidence", "left_to_right"]

LANDMARK_NAMES = ("right_eye", "left_eye", "nose", "mouth_right", "mouth_left")


@dataclass(frozen=True, slots=True)
class BoundingBox:
    """A rectangle by its corners; ``x2`` and ``y2`` lie outside, so that width is ``x2 - x1``."""

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def width(self) -> float:
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        return self.width * self.height

    def clipped(self, frame_wh: tuple[float, float]) -> BoundingBox:
        """The part inside a frame; of a box outside it, the nearest bit of the frame's edge."""
        width, height = frame_wh
        x1, x2 = (min(max(x, 0.0), width) for x in (self.x1, self.x2))
        y1, y2 = (min(max(y, 0.0), height) for y in (self.y1, self.y2))
        return BoundingBox(x1, y1, x2, y2)

    def __iter__(self) -> Iterator[float]:
        return iter((self.x1, self.y1, self.x2, self.y2))


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Five points; left and right are the person's own, so the right eye is usually on the left of the image."""

    right_eye: Point
    left_eye: Point
    nose: Point
    mouth_right: Point
    mouth_left: Point

    def __iter__(self) -> Iterator[Point]:
        return iter((self.right_eye, self.left_eye, self.nose, self.mouth_right, self.mouth_left))


@dataclass(frozen=True, slots=True)
class Detection:
    """A face that was found, before anything is known about it."""

    box: BoundingBox
    confidence: float
    landmarks: Landmarks | None = None


@dataclass(frozen=True, slots=True)
class AgeEstimate:
    """Perceived age in years: ``[low, high]`` holds the true one with probability ``coverage``."""

    value: float
    low: float
    high: float
    coverage: float
    bucket: str
    bucket_probability: float


@dataclass(frozen=True, slots=True)
class GenderEstimate:
    """Perceived gender; ``value`` is None when undecided, ``probability`` then belongs to the likelier one."""

    value: GenderValue | None
    probability: float
    female_probability: float


@dataclass(frozen=True, slots=True)
class Pose:
    """Rough head pose in degrees from five points; positive: yaw to the image's right, pitch up, roll clockwise."""

    yaw: float
    pitch: float
    roll: float


@dataclass(frozen=True, slots=True)
class Quality:
    """How much the picture lets one judge a face: scores in [0, 1], the shorter box side in pixels."""

    score: float
    sharpness: float
    brightness: float
    size_px: int
    pose: Pose | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """One sentence for people, in both languages, with the reason code it stands for."""

    code: str
    en: str
    zh: str


@dataclass(frozen=True, slots=True)
class Face:
    """A detection with attributes; an attribute that was not asked for is None."""

    id: int
    box: BoundingBox
    confidence: float
    landmarks: Landmarks | None
    age: AgeEstimate | None
    gender: GenderEstimate | None
    quality: Quality
    status: Status
    label: str
    message: Message | None = None


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Size of the upright image, and the clockwise turn that found the faces of a picture lying on its side."""

    width: int
    height: int
    rotated: Literal[0, 90, 180, 270] = 0


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What answered: ``digest`` changes with any weight, threshold or preprocessing step."""

    profile: str
    engine: str
    digest: str


@dataclass(frozen=True, slots=True)
class Hint:
    """Why a picture has no face: the best rejected candidate, if there was one, and a suggestion."""

    message: Message
    best_candidate: Detection | None = None


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds spent on one picture; ``decode`` is 0 when an array came in.

    ``sniff``, the judging of the file by its header, is part of ``decode``; it is not on the wire.
    """

    decode: float = 0.0
    detect: float = 0.0
    attributes: float = 0.0
    total: float = 0.0
    sniff: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class AnalysisResult:
    """The answer to one picture. Nobody in the picture is an empty ``faces``, never an exception."""

    image: ImageInfo
    model: ModelInfo
    faces: tuple[Face, ...] = ()
    timings_ms: Timings = Timings()
    skipped: int = 0
    hint: Hint | None = None
    request_id: str | None = None
    annotated_image: str | None = None

    @property
    def truncated(self) -> bool:
        """Whether more faces were found than ``faces`` may hold."""
        return self.skipped > 0

    def to_dict(self) -> dict[str, Any]:
        """The plain form of the wire contract; floats are rounded there, so it is what compares equal after a trip."""
        from dulian.serialize import to_dict

        return to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AnalysisResult:
        """The value that :meth:`to_dict` spelled."""
        from dulian.serialize import from_dict

        return from_dict(data)
