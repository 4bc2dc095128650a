from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AnalyzeRequest(_message.Message):
    __slots__ = ("image", "options")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    options: Options
    def __init__(self, image: _Optional[bytes] = ..., options: _Optional[_Union[Options, _Mapping]] = ...) -> None: ...

class Options(_message.Message):
    __slots__ = ("max_faces", "min_confidence", "attributes", "order", "coverage", "max_ms", "annotate")
    MAX_FACES_FIELD_NUMBER: _ClassVar[int]
    MIN_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    MAX_MS_FIELD_NUMBER: _ClassVar[int]
    ANNOTATE_FIELD_NUMBER: _ClassVar[int]
    max_faces: int
    min_confidence: float
    attributes: str
    order: str
    coverage: float
    max_ms: int
    annotate: str
    def __init__(self, max_faces: _Optional[int] = ..., min_confidence: _Optional[float] = ..., attributes: _Optional[str] = ..., order: _Optional[str] = ..., coverage: _Optional[float] = ..., max_ms: _Optional[int] = ..., annotate: _Optional[str] = ...) -> None: ...

class AnalyzeResponse(_message.Message):
    __slots__ = ("request_id", "image", "model", "faces", "truncated", "skipped", "hint", "timings_ms", "annotated_image")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FACES_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_MS_FIELD_NUMBER: _ClassVar[int]
    ANNOTATED_IMAGE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    image: ImageInfo
    model: ModelInfo
    faces: _containers.RepeatedCompositeFieldContainer[Face]
    truncated: bool
    skipped: int
    hint: Hint
    timings_ms: Timings
    annotated_image: bytes
    def __init__(self, request_id: _Optional[str] = ..., image: _Optional[_Union[ImageInfo, _Mapping]] = ..., model: _Optional[_Union[ModelInfo, _Mapping]] = ..., faces: _Optional[_Iterable[_Union[Face, _Mapping]]] = ..., truncated: _Optional[bool] = ..., skipped: _Optional[int] = ..., hint: _Optional[_Union[Hint, _Mapping]] = ..., timings_ms: _Optional[_Union[Timings, _Mapping]] = ..., annotated_image: _Optional[bytes] = ...) -> None: ...

class ImageInfo(_message.Message):
    __slots__ = ("width", "height", "rotated")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    ROTATED_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    rotated: int
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., rotated: _Optional[int] = ...) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("profile", "engine", "digest")
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    profile: str
    engine: str
    digest: str
    def __init__(self, profile: _Optional[str] = ..., engine: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class Face(_message.Message):
    __slots__ = ("id", "bbox", "confidence", "landmarks", "age", "gender", "quality", "status", "label", "message")
    ID_FIELD_NUMBER: _ClassVar[int]
    BBOX_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    LANDMARKS_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    GENDER_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    id: int
    bbox: _containers.RepeatedScalarFieldContainer[float]
    confidence: float
    landmarks: Landmarks
    age: Age
    gender: Gender
    quality: Quality
    status: str
    label: str
    message: Message
    def __init__(self, id: _Optional[int] = ..., bbox: _Optional[_Iterable[float]] = ..., confidence: _Optional[float] = ..., landmarks: _Optional[_Union[Landmarks, _Mapping]] = ..., age: _Optional[_Union[Age, _Mapping]] = ..., gender: _Optional[_Union[Gender, _Mapping]] = ..., quality: _Optional[_Union[Quality, _Mapping]] = ..., status: _Optional[str] = ..., label: _Optional[str] = ..., message: _Optional[_Union[Message, _Mapping]] = ...) -> None: ...

class Landmarks(_message.Message):
    __slots__ = ("right_eye", "left_eye", "nose", "mouth_right", "mouth_left")
    RIGHT_EYE_FIELD_NUMBER: _ClassVar[int]
    LEFT_EYE_FIELD_NUMBER: _ClassVar[int]
    NOSE_FIELD_NUMBER: _ClassVar[int]
    MOUTH_RIGHT_FIELD_NUMBER: _ClassVar[int]
    MOUTH_LEFT_FIELD_NUMBER: _ClassVar[int]
    right_eye: _containers.RepeatedScalarFieldContainer[float]
    left_eye: _containers.RepeatedScalarFieldContainer[float]
    nose: _containers.RepeatedScalarFieldContainer[float]
    mouth_right: _containers.RepeatedScalarFieldContainer[float]
    mouth_left: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, right_eye: _Optional[_Iterable[float]] = ..., left_eye: _Optional[_Iterable[float]] = ..., nose: _Optional[_Iterable[float]] = ..., mouth_right: _Optional[_Iterable[float]] = ..., mouth_left: _Optional[_Iterable[float]] = ...) -> None: ...

class Age(_message.Message):
    __slots__ = ("value", "low", "high", "coverage", "bucket", "bucket_probability")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    BUCKET_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    value: float
    low: float
    high: float
    coverage: float
    bucket: str
    bucket_probability: float
    def __init__(self, value: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., coverage: _Optional[float] = ..., bucket: _Optional[str] = ..., bucket_probability: _Optional[float] = ...) -> None: ...

class Gender(_message.Message):
    __slots__ = ("value", "probability", "female_probability")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    FEMALE_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    value: str
    probability: float
    female_probability: float
    def __init__(self, value: _Optional[str] = ..., probability: _Optional[float] = ..., female_probability: _Optional[float] = ...) -> None: ...

class Quality(_message.Message):
    __slots__ = ("score", "sharpness", "brightness", "size_px", "pose", "reasons")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SHARPNESS_FIELD_NUMBER: _ClassVar[int]
    BRIGHTNESS_FIELD_NUMBER: _ClassVar[int]
    SIZE_PX_FIELD_NUMBER: _ClassVar[int]
    POSE_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    score: float
    sharpness: float
    brightness: float
    size_px: int
    pose: Pose
    reasons: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, score: _Optional[float] = ..., sharpness: _Optional[float] = ..., brightness: _Optional[float] = ..., size_px: _Optional[int] = ..., pose: _Optional[_Union[Pose, _Mapping]] = ..., reasons: _Optional[_Iterable[str]] = ...) -> None: ...

class Pose(_message.Message):
    __slots__ = ("yaw", "pitch", "roll")
    YAW_FIELD_NUMBER: _ClassVar[int]
    PITCH_FIELD_NUMBER: _ClassVar[int]
    ROLL_FIELD_NUMBER: _ClassVar[int]
    yaw: float
    pitch: float
    roll: float
    def __init__(self, yaw: _Optional[float] = ..., pitch: _Optional[float] = ..., roll: _Optional[float] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("code", "en", "zh")
    CODE_FIELD_NUMBER: _ClassVar[int]
    EN_FIELD_NUMBER: _ClassVar[int]
    ZH_FIELD_NUMBER: _ClassVar[int]
    code: str
    en: str
    zh: str
    def __init__(self, code: _Optional[str] = ..., en: _Optional[str] = ..., zh: _Optional[str] = ...) -> None: ...

class Hint(_message.Message):
    __slots__ = ("message", "best_candidate")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    BEST_CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    message: Message
    best_candidate: Candidate
    def __init__(self, message: _Optional[_Union[Message, _Mapping]] = ..., best_candidate: _Optional[_Union[Candidate, _Mapping]] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("bbox", "confidence", "landmarks")
    BBOX_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    LANDMARKS_FIELD_NUMBER: _ClassVar[int]
    bbox: _containers.RepeatedScalarFieldContainer[float]
    confidence: float
    landmarks: Landmarks
    def __init__(self, bbox: _Optional[_Iterable[float]] = ..., confidence: _Optional[float] = ..., landmarks: _Optional[_Union[Landmarks, _Mapping]] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("decode", "detect", "attributes", "total")
    DECODE_FIELD_NUMBER: _ClassVar[int]
    DETECT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    decode: float
    detect: float
    attributes: float
    total: float
    def __init__(self, decode: _Optional[float] = ..., detect: _Optional[float] = ..., attributes: _Optional[float] = ..., total: _Optional[float] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("image", "id", "options")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    id: str
    options: Options
    def __init__(self, image: _Optional[bytes] = ..., id: _Optional[str] = ..., options: _Optional[_Union[Options, _Mapping]] = ...) -> None: ...

class FrameAnswer(_message.Message):
    __slots__ = ("id", "result", "error", "dropped")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    id: str
    result: AnalyzeResponse
    error: FrameError
    dropped: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., result: _Optional[_Union[AnalyzeResponse, _Mapping]] = ..., error: _Optional[_Union[FrameError, _Mapping]] = ..., dropped: _Optional[_Iterable[str]] = ...) -> None: ...

class FrameError(_message.Message):
    __slots__ = ("code", "message", "request_id", "retry_after_s")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    request_id: str
    retry_after_s: int
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., request_id: _Optional[str] = ..., retry_after_s: _Optional[int] = ...) -> None: ...
