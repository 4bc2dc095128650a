"""Results as plain dictionaries and back: the only place that spells the wire contract's field names.

Floats are rounded here and nowhere else, because a float32 0.9 otherwise ships as 0.8999999761581421.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dulian.errors import MalformedInputError
from dulian.faces import (
    LANDMARK_NAMES,
    AgeEstimate,
    AnalysisResult,
    BoundingBox,
    Detection,
    Face,
    GenderEstimate,
    Hint,
    ImageInfo,
    Landmarks,
    Message,
    ModelInfo,
    Pose,
    Quality,
    Timings,
)

PIXEL_DIGITS = 1
YEAR_DIGITS = 1
DEGREE_DIGITS = 1
SHARE_DIGITS = 4
MILLISECOND_DIGITS = 2


def to_dict(result: AnalysisResult) -> dict[str, Any]:
    """The wire form of a result: JSON types only, floats rounded, key order fixed."""
    data: dict[str, Any] = {
        "request_id": result.request_id,
        "image": {"width": result.image.width, "height": result.image.height, "rotated": result.image.rotated},
        "model": {"profile": result.model.profile, "engine": result.model.engine, "digest": result.model.digest},
        "faces": [_face_to_dict(face) for face in result.faces],
    }
    if result.truncated:
        data |= {"truncated": True, "skipped": result.skipped}
    if result.hint is not None:
        data["hint"] = _hint_to_dict(result.hint)
    timings = result.timings_ms
    data["timings_ms"] = {
        name: round(getattr(timings, name), MILLISECOND_DIGITS) for name in ("decode", "detect", "attributes", "total")
    }
    data["annotated_image"] = result.annotated_image
    return data


def from_dict(data: Mapping[str, Any]) -> AnalysisResult:
    """The result that :func:`to_dict` spelled; unknown fields are ignored.

    Raises:
        MalformedInputError: A field of the contract is missing or has another shape.
    """
    try:
        return _result_from_dict(data)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise MalformedInputError(f"this is no analysis result: {type(error).__name__} {error}") from error


def _result_from_dict(data: Mapping[str, Any]) -> AnalysisResult:
    return AnalysisResult(
        image=ImageInfo(**{key: data["image"][key] for key in ("width", "height", "rotated")}),
        model=ModelInfo(**{key: data["model"][key] for key in ("profile", "engine", "digest")}),
        faces=tuple(_face_from_dict(face) for face in data["faces"]),
        timings_ms=Timings(**{key: data["timings_ms"][key] for key in ("decode", "detect", "attributes", "total")}),
        skipped=data.get("skipped", 0),
        hint=_hint_from_dict(data["hint"]) if data.get("hint") else None,
        request_id=data["request_id"],
        annotated_image=data["annotated_image"],
    )


# ── tables ───────────────────────────────────────────────────────────────────────────────────────

FACE_COLUMNS = (
    *("face", "x1", "y1", "x2", "y2", "confidence"),
    *("age", "age_low", "age_high", "age_bucket"),
    *("gender", "gender_probability", "female_probability"),
    *("quality", "size_px", "status", "reasons", "label"),
)
"""A face as one row of a table."""


def face_row(face: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values of a face that :func:`to_dict` spelled, in the order of :data:`FACE_COLUMNS`."""
    age, gender, quality = face["age"] or {}, face["gender"] or {}, face["quality"]
    return (
        *(face["id"], *face["bbox"], face["confidence"]),
        *(age.get(key) for key in ("value", "low", "high", "bucket")),
        *(gender.get(key) for key in ("value", "probability", "female_probability")),
        *(quality["score"], quality["size_px"], face["status"], ",".join(quality["reasons"]), face["label"]),
    )


# ── one face ─────────────────────────────────────────────────────────────────────────────────────


def _face_to_dict(face: Face) -> dict[str, Any]:
    return {
        "id": face.id,
        "bbox": _box_to_list(face.box),
        "confidence": round(face.confidence, SHARE_DIGITS),
        "landmarks": _landmarks_to_dict(face.landmarks),
        "age": _age_to_dict(face.age),
        "gender": _gender_to_dict(face.gender),
        "quality": _quality_to_dict(face.quality),
        "status": face.status,
        "label": face.label,
        "message": _message_to_dict(face.message) if face.message else None,
    }


def _face_from_dict(data: Mapping[str, Any]) -> Face:
    return Face(
        id=data["id"],
        box=BoundingBox(*data["bbox"]),
        confidence=data["confidence"],
        landmarks=_landmarks_from_dict(data["landmarks"]),
        age=_age_from_dict(data["age"]),
        gender=_gender_from_dict(data["gender"]),
        quality=_quality_from_dict(data["quality"]),
        status=data["status"],
        label=data["label"],
        message=_message_from_dict(data["message"]) if data["message"] else None,
    )


def _box_to_list(box: BoundingBox) -> list[float]:
    return [round(float(edge), PIXEL_DIGITS) for edge in box]


def _landmarks_to_dict(landmarks: Landmarks | None) -> dict[str, list[float]] | None:
    if landmarks is None:
        return None
    return {
        name: [round(float(x), PIXEL_DIGITS), round(float(y), PIXEL_DIGITS)]
        for name, (x, y) in zip(LANDMARK_NAMES, landmarks, strict=True)
    }


def _landmarks_from_dict(data: Mapping[str, Any] | None) -> Landmarks | None:
    if data is None:
        return None
    return Landmarks(**{name: (data[name][0], data[name][1]) for name in LANDMARK_NAMES})


def _age_to_dict(age: AgeEstimate | None) -> dict[str, Any] | None:
    if age is None:
        return None
    return {
        "value": round(age.value, YEAR_DIGITS),
        "low": round(age.low, YEAR_DIGITS),
        "high": round(age.high, YEAR_DIGITS),
        "coverage": round(float(age.coverage), SHARE_DIGITS),
        "bucket": age.bucket,
        "bucket_probability": round(age.bucket_probability, SHARE_DIGITS),
    }


def _age_from_dict(data: Mapping[str, Any] | None) -> AgeEstimate | None:
    if data is None:
        return None
    names = ("value", "low", "high", "coverage", "bucket", "bucket_probability")
    return AgeEstimate(**{name: data[name] for name in names})


def _gender_to_dict(gender: GenderEstimate | None) -> dict[str, Any] | None:
    if gender is None:
        return None
    return {
        "value": gender.value,
        "probability": round(gender.probability, SHARE_DIGITS),
        "female_probability": round(gender.female_probability, SHARE_DIGITS),
    }


def _gender_from_dict(data: Mapping[str, Any] | None) -> GenderEstimate | None:
    if data is None:
        return None
    return GenderEstimate(**{name: data[name] for name in ("value", "probability", "female_probability")})


def _quality_to_dict(quality: Quality) -> dict[str, Any]:
    pose = quality.pose
    return {
        "score": round(quality.score, SHARE_DIGITS),
        "sharpness": round(quality.sharpness, SHARE_DIGITS),
        "brightness": round(quality.brightness, SHARE_DIGITS),
        "size_px": quality.size_px,
        # + 0.0: what is rounded to nothing has no sign.
        "pose": None
        if pose is None
        else {name: round(getattr(pose, name), DEGREE_DIGITS) + 0.0 for name in ("yaw", "pitch", "roll")},
        "reasons": list(quality.reasons),
    }


def _quality_from_dict(data: Mapping[str, Any]) -> Quality:
    pose = data["pose"]
    return Quality(
        score=data["score"],
        sharpness=data["sharpness"],
        brightness=data["brightness"],
        size_px=data["size_px"],
        pose=Pose(pose["yaw"], pose["pitch"], pose["roll"]) if pose else None,
        reasons=tuple(data["reasons"]),
    )


# ── words for people ─────────────────────────────────────────────────────────────────────────────


def _message_to_dict(message: Message) -> dict[str, str]:
    return {"code": message.code, "en": message.en, "zh": message.zh}


def _message_from_dict(data: Mapping[str, str]) -> Message:
    return Message(data["code"], data["en"], data["zh"])


def _hint_to_dict(hint: Hint) -> dict[str, Any]:
    candidate = hint.best_candidate
    return {
        "message": _message_to_dict(hint.message),
        "best_candidate": None
        if candidate is None
        else {
            "bbox": _box_to_list(candidate.box),
            "confidence": round(candidate.confidence, SHARE_DIGITS),
            "landmarks": _landmarks_to_dict(candidate.landmarks),
        },
    }


def _hint_from_dict(data: Mapping[str, Any]) -> Hint:
    candidate = data["best_candidate"]
    return Hint(
        message=_message_from_dict(data["message"]),
        best_candidate=None
        if candidate is None
        else Detection(
            BoundingBox(*candidate["bbox"]), candidate["confidence"], _landmarks_from_dict(candidate["landmarks"])
        ),
    )
