from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dulian.errors import MalformedInputError
from dulian.faces import (
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
from dulian.serialize import from_dict, to_dict

# The contract's own example, number for number.
CONTRACT_FACE = {
    "id": 0,
    "bbox": [120.0, 80.0, 200.0, 180.0],
    "confidence": 0.98,
    "landmarks": {
        "right_eye": [140.0, 110.0],
        "left_eye": [180.0, 110.0],
        "nose": [160.0, 130.0],
        "mouth_right": [145.0, 155.0],
        "mouth_left": [175.0, 155.0],
    },
    "age": {
        "value": 31.4,
        "low": 26.0,
        "high": 37.0,
        "coverage": 0.9,
        "bucket": "(25-32)",
        "bucket_probability": 0.71,
    },
    "gender": {"value": "female", "probability": 0.97, "female_probability": 0.97},
    "quality": {
        "score": 0.82,
        "sharpness": 0.7,
        "brightness": 0.5,
        "size_px": 143,
        "pose": {"yaw": 4.0, "pitch": -2.0, "roll": 1.0},
        "reasons": [],
    },
    "status": "ok",
    "label": "Female, (25-32)",
    "message": None,
}
CONTRACT_RESULT = {
    "request_id": None,
    "image": {"width": 800, "height": 533, "rotated": 0},
    "model": {"profile": "standard", "engine": "onnxruntime", "digest": "abc"},
    "faces": [CONTRACT_FACE],
    "timings_ms": {"decode": 3.1, "detect": 4.6, "attributes": 1.2, "total": 9.0},
    "annotated_image": None,
}

shares = st.floats(0, 1).map(lambda value: round(value, 4))
pixels = st.floats(-50, 5000).map(lambda value: round(value, 1))
years = st.floats(0, 100).map(lambda value: round(value, 1))
points = st.tuples(pixels, pixels)
texts = st.text(st.characters(codec="utf-8"), max_size=12)
landmarks = st.builds(Landmarks, points, points, points, points, points)
box = st.builds(BoundingBox, pixels, pixels, pixels, pixels)
messages = st.builds(Message, texts, texts, texts)
faces = st.builds(
    Face,
    id=st.integers(0, 49),
    box=box,
    confidence=shares,
    landmarks=st.none() | landmarks,
    age=st.none() | st.builds(AgeEstimate, years, years, years, shares, texts, shares),
    gender=st.none() | st.builds(GenderEstimate, st.sampled_from([None, "female", "male"]), shares, shares),
    quality=st.builds(
        Quality,
        shares,
        shares,
        shares,
        st.integers(0, 5000),
        st.none() | st.builds(Pose, pixels, pixels, pixels),
        st.lists(texts, max_size=3).map(tuple),
    ),
    status=st.sampled_from(["ok", "uncertain", "low_quality"]),
    label=texts,
    message=st.none() | messages,
)
milliseconds = st.floats(0, 1e4).map(lambda value: round(value, 2))
results = st.builds(
    AnalysisResult,
    image=st.builds(ImageInfo, st.integers(1, 9999), st.integers(1, 9999), st.sampled_from([0, 90, 180, 270])),
    model=st.builds(ModelInfo, texts, texts, texts),
    faces=st.lists(faces, max_size=4).map(tuple),
    timings_ms=st.builds(Timings, milliseconds, milliseconds, milliseconds, milliseconds),
    skipped=st.integers(0, 100),
    hint=st.none() | st.builds(Hint, messages, st.none() | st.builds(Detection, box, shares, st.none() | landmarks)),
    request_id=st.none() | texts,
    annotated_image=st.none() | texts,
)


@given(results)
def test_a_result_survives_the_round_trip_through_json(result: AnalysisResult) -> None:
    assert from_dict(json.loads(json.dumps(to_dict(result)))) == result


def test_the_contract_example_is_spelled_exactly_so() -> None:
    assert to_dict(from_dict(CONTRACT_RESULT)) == CONTRACT_RESULT
    assert list(to_dict(from_dict(CONTRACT_RESULT))) == list(CONTRACT_RESULT)


@pytest.mark.parametrize("damage", [{}, {"faces": 3}, {"image": None}, {"faces": [{}]}, {"timings_ms": []}])
def test_damaged_dictionaries_are_refused(damage: dict[str, object]) -> None:
    with pytest.raises(MalformedInputError, match="no analysis result"):
        from_dict({**CONTRACT_RESULT, **damage} if damage else {})


def test_unknown_fields_of_newer_versions_are_ignored() -> None:
    newer = {**CONTRACT_RESULT, "weather": "fine", "faces": [{**CONTRACT_FACE, "hat": True}]}
    assert to_dict(from_dict(newer)) == CONTRACT_RESULT


def test_single_precision_floats_are_rounded_on_the_wire() -> None:
    face = replace(from_dict(CONTRACT_RESULT).faces[0], confidence=float(np.float32(0.9)))
    result = replace(from_dict(CONTRACT_RESULT), faces=(face,))
    assert to_dict(result)["faces"][0]["confidence"] == 0.9


def test_truncation_is_said_beside_the_faces_only_when_it_happened() -> None:
    result = from_dict(CONTRACT_RESULT)
    assert "truncated" not in to_dict(result)
    assert to_dict(replace(result, skipped=7))["truncated"] is True
    assert to_dict(replace(result, skipped=7))["skipped"] == 7
