"""The wire contract as models, for /openapi.json alone: no answer is built or checked with them while serving.

A test holds real answers against them, so that what is documented is what is sent.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Point = Annotated[list[float], Field(min_length=2, max_length=2, description="x, y in pixels")]
Box = Annotated[
    list[float],
    Field(min_length=4, max_length=4, description="x1, y1, x2, y2 in pixels of the upright picture, inside it"),
]


class Wire(BaseModel):
    """Exactly these fields."""

    model_config = ConfigDict(extra="forbid")


class Landmarks(Wire):
    """Five points; left and right are the person's own."""

    right_eye: Point
    left_eye: Point
    nose: Point
    mouth_right: Point
    mouth_left: Point


class Message(Wire):
    """One sentence for people, in two languages, and the code that it stands for."""

    code: str
    en: str
    zh: str


class ImageInfo(Wire):
    """The picture as it was looked at, upright by its EXIF orientation."""

    width: int
    height: int
    rotated: Literal[0, 90, 180, 270] = Field(description="clockwise turn that found faces of a picture on its side")


class ModelInfo(Wire):
    """What answered."""

    profile: str
    engine: str
    digest: str = Field(description="changes with everything that shapes an answer")


class Age(Wire):
    """Perceived age, with an interval."""

    value: float = Field(description="perceived age in years")
    low: float
    high: float
    coverage: float = Field(description="probability with which [low, high] holds the true age")
    bucket: str
    bucket_probability: Share


class Gender(Wire):
    """Perceived gender, calibrated."""

    value: Literal["female", "male"] | None = Field(description="perceived gender; null when undecided")
    probability: Share
    female_probability: Share


class Pose(Wire):
    """Rough head pose in degrees."""

    yaw: float
    pitch: float
    roll: float


class Quality(Wire):
    """How much the picture lets one judge a face."""

    score: Share
    sharpness: float
    brightness: float
    size_px: int
    pose: Pose | None
    reasons: list[str]


class Face(Wire):
    """One face and what is known about it."""

    id: int
    bbox: Box
    confidence: Share
    landmarks: Landmarks | None = Field(description="null where the detector has none")
    age: Age | None
    gender: Gender | None
    quality: Quality
    status: Literal["ok", "uncertain", "low_quality"]
    label: str
    message: Message | None


class Candidate(Wire):
    """What came closest to a face."""

    bbox: Box
    confidence: float
    landmarks: Landmarks | None


class Hint(Wire):
    """Why there is no face, and what may help."""

    message: Message
    best_candidate: Candidate | None


class Timings(Wire):
    """Milliseconds."""

    decode: float
    detect: float
    attributes: float
    total: float


class AnalysisResult(Wire):
    """All faces of one picture."""

    request_id: str
    image: ImageInfo
    model: ModelInfo
    faces: list[Face]
    truncated: Literal[True] = Field(default=True, description="there when more faces were found than asked for")
    skipped: int = Field(default=0, description="how many more; there with truncated")
    hint: Hint | None = Field(default=None, description="there when no face was found")
    timings_ms: Timings
    annotated_image: str | None = Field(description="Base64 of a JPEG, with annotate=base64")


class Error(Wire):
    """What went wrong; the code is stable, the message is for people."""

    code: str
    message: str
    request_id: str


class ErrorAnswer(Wire):
    """Every failure, in one shape."""

    error: Error


class BatchAnswer(Wire):
    """One result or one error for each picture, in their order."""

    results: list[AnalysisResult | ErrorAnswer]


# ── shapes of the articles ───────────────────────────────────────────────────────────────────────

Corners = Annotated[list[int], Field(min_length=4, max_length=4, description="x1, y1, x2, y2 in pixels")]
CornerAndSize = Annotated[list[int], Field(min_length=4, max_length=4, description="x, y, width, height in pixels")]
ArticleGender = Annotated[Literal["Female", "Male"], Field(description="the likelier one, however unsure")]
AgeRange = Literal["0-2", "4-6", "8-12", "15-20", "25-32", "38-43", "48-53", "60-100"]
AgeRangeInBrackets = Literal["(0-2)", "(4-6)", "(8-12)", "(15-20)", "(25-32)", "(38-43)", "(48-53)", "(60-100)"]


class ArticleFace(Wire):
    """A face in the words of article 000."""

    bbox: Corners
    gender: ArticleGender = "Female"
    age: AgeRange = "25-32"
    confidence: Share


class ArticleFaces(Wire):
    """``format=faces``."""

    faces: list[ArticleFace]
    processing_time_ms: int
    annotated_image: str = Field(default="", description="Base64 of a JPEG; not there with annotate=none")


class Prediction(Wire):
    """A face in the words of article 001."""

    bbox: Corners
    gender: ArticleGender = "Female"
    age: AgeRangeInBrackets = "(25-32)"
    confidence: Share


class ResourceUsage(Wire):
    """What the process used at its last look."""

    cpu_percent: float = Field(description="of one core")
    memory_mb: float | None = Field(description="resident; null where the system does not tell")
    timestamp: float = Field(description="seconds since 1970")


class Predictions(Wire):
    """The answer of article 001."""

    results: list[Prediction]
    output_image: str = Field(description="path of the drawn picture, good for a short time")
    resource_usage: ResourceUsage


class TimedResult(Wire):
    """A face in the words of article 002."""

    bbox: CornerAndSize
    gender: ArticleGender = "Female"
    age: AgeRange = "25-32"


class TimedResults(Wire):
    """The answer of article 002."""

    results: list[TimedResult]
    processing_time: str = Field(pattern=r"^[0-9]+\.[0-9]{2}s$")


class TextError(Wire):
    """A failure, as the articles' routes tell it."""

    error: str


# ── the other routes ─────────────────────────────────────────────────────────────────────────────


class Alive(Wire):
    """The process answers."""

    alive: Literal[True]


class Ready(Wire):
    """New work is welcome."""

    ready: Literal[True]


class Network(Wire):
    """One network: what it tells, its file, who may use it, where it comes from."""

    name: str
    provides: list[Literal["detection", "age", "gender"]]
    sha256: str
    licence_code: str
    licence_weights: str
    trained_on: str
    origin: str


class Models(Wire):
    """The profile that is served."""

    profile: str
    engine: str
    digest: str
    card: str = Field(description="path of the model card: how often each profile is right, and for whom")
    networks: list[Network]


class Limits(Wire):
    """What a request may bring, and what all of them together may hold."""

    body_bytes: int
    body_seconds: float
    multipart_parts: int
    batch_parts: int
    batch_answer_bytes: int
    multipart_part_head_bytes: int
    image_pixels: int
    image_side_px: int
    image_fancy_pixels: int = Field(description="for progressive, interlaced, transparent and AVIF pictures")
    faces: int
    deadline_ms: float
    queue: int
    bytes_in_flight: int
    kept_pictures: int = Field(description="drawn pictures that can be fetched at /images/")
    kept_bytes: int
    kept_seconds: float
    streams: int
    stream_frame_bytes: int
    stream_text_bytes: int
    stream_idle_seconds: float = Field(description="without a frame, or with answers unread")
    connections: int
    head_bytes: int
    headers: int
    head_seconds: float
    pipelined_requests: int = Field(description="waiting on one connection behind the one being answered")
    answer_seconds: float = Field(description="in which a client takes so many bytes of an answer, or is cut off")
    answer_bytes: int


class Queue(Wire):
    """Pictures that wait for a thread."""

    length: int
    limit: int


class InFlight(Wire):
    """Requests that wait for their answer, and the bytes of all bodies held."""

    requests: int
    bytes: int


class Streams(Wire):
    """Open streams."""

    open: int
    limit: int


class Latency(Wire):
    """Milliseconds; null when there was nothing to answer."""

    p50: float | None
    p99: float | None


class Memory(Wire):
    """Bytes; null where the system does not tell."""

    used_bytes: int | None
    limit_bytes: int | None


class Status(Wire):
    """How the service is doing."""

    ready: bool
    profile: str
    engine: str
    process: int = Field(description="number of the process that answers, from 0; all else here is told of it alone")
    processes: int
    workers: int = Field(description="threads of this process that analyse, each a picture at a time")
    busy: int
    queue: Queue
    in_flight: InFlight
    streams: Streams
    requests_total: int
    requests_per_s: float = Field(description="over the last minute")
    latency_ms: Latency = Field(description="from a complete body to its answer, over the last minute")
    cpu_percent: float = Field(description="of one core, over the last second")
    memory: Memory
    uptime_s: float


class StreamWishes(Wire):
    """A text message in front of a frame."""

    id: int | str | None = Field(default=None, description="comes back with the answer, else the frame's number does")
    options: dict[str, int | float | str | list[str]] = Field(
        default={}, description="as in the query of /v1/analyze, for this frame"
    )


class StreamResult(AnalysisResult):
    """The answer to a frame."""

    id: int | str


class RefusedFrame(Error):
    """Why a frame has no result."""

    retry_after_s: int = Field(default=1, ge=1, description="there when there was no room, no time, or no rate left")


class StreamError(Wire):
    """A frame that was refused."""

    id: int | str
    error: RefusedFrame


class StreamDropped(Wire):
    """Frames that newer ones have replaced before they were looked at."""

    dropped: list[int | str]
