"""Examples for people: a line for a shell, a value where nobody has given a better one, JSON as it reads well."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from dulian.markup import Html, element, join

REF = "#/components/schemas/"
# Where examples ask: the address of a service that was told nothing else.
_ADDRESS = "127.0.0.1:8080"
_LINE_CHARS = 72

FACE = {"bbox": [120, 80, 200, 180], "gender": "Female", "age": "25-32", "confidence": 0.93}
RESULT = {
    "request_id": "9f0c2d6e5b7a4c1d8e3f6a5b4c3d2e1f",
    "image": {"width": 800, "height": 533, "rotated": 0},
    "model": {"profile": "standard", "engine": "onnxruntime", "digest": "5f1c8e0a9b7d"},
    "faces": [
        {
            "id": 0,
            "bbox": [120.0, 80.0, 263.0, 238.0],
            "confidence": 0.98,
            "landmarks": {
                "right_eye": [162.4, 139.8],
                "left_eye": [221.7, 137.2],
                "nose": [193.5, 170.1],
                "mouth_right": [168.9, 201.3],
                "mouth_left": [217.2, 199.6],
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
                "pose": {"yaw": 4, "pitch": -2, "roll": 1},
                "reasons": [],
            },
            "status": "ok",
            "label": "Female, (25-32)",
            "message": None,
        }
    ],
    "timings_ms": {"decode": 3.1, "detect": 4.6, "attributes": 1.2, "total": 9.0},
    "annotated_image": None,
}
ERROR = {
    "error": {
        "code": "image_truncated",
        "message": "the file ends before its picture does",
        "request_id": RESULT["request_id"],
    }
}


def command(path: str, operation: dict[str, Any]) -> str:
    """A line for a shell that asks this route."""
    if "101" in operation["responses"]:
        return f"python -m websockets ws://{_ADDRESS}{path}"
    url = f"http://{_ADDRESS}{path}"
    media = operation.get("requestBody", {}).get("content", {})
    if "image/*" in media:
        return f"curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' {url}"
    for fields in (content["schema"].get("properties", {}) for content in media.values()):
        files = [
            f"-F {name}=@{file}"
            for name, field in fields.items()
            for file in (("one.jpg", "two.jpg") if field.get("type") == "array" else ("photo.jpg",))
        ]
        return f"curl {' '.join(files)} {url}"
    return f"curl {url}"


def sample(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """A value of a schema, where nobody has given a better one."""
    if "$ref" in schema:
        return sample(schemas[schema["$ref"].removeprefix(REF)], schemas)
    for key in ("examples", "enum"):
        if key in schema:
            return schema[key][0]
    if "const" in schema:
        return schema["const"]
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return sample(schema[key][0], schemas)
    makers: dict[str, Callable[[], Any]] = {
        "object": lambda: {name: sample(field, schemas) for name, field in schema.get("properties", {}).items()},
        "array": lambda: [sample(schema.get("items", {}), schemas)] * schema.get("minItems", 1),
        "string": lambda: "…",
        "integer": lambda: schema.get("minimum", 0),
        "number": lambda: schema.get("minimum", 0),
        "boolean": lambda: True,
    }
    return makers.get(schema.get("type", ""), lambda: None)()


def laid_out(value: Any, indent: str = "") -> str:
    """JSON in which what fits into a line has one."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(line) <= _LINE_CHARS or not isinstance(value, dict | list) or not value:
        return line
    deeper = indent + "  "
    if isinstance(value, dict):
        parts = [f"{json.dumps(name, ensure_ascii=False)}: {laid_out(part, deeper)}" for name, part in value.items()]
    else:
        parts = [laid_out(part, deeper) for part in value]
    opening, end = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{deeper}" + f",\n{deeper}".join(parts) + f"\n{indent}{end}"


_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|(-?[0-9][0-9.eE+-]*|true|false|null)')


def coloured(text: str) -> Html:
    """JSON with its names, texts and other values marked."""
    parts: list[str | Html] = []
    at = 0
    for found in _TOKEN.finditer(text):
        parts.append(text[at : found.start()])
        kind = "name" if found[2] else "text" if found[1] else "value"
        parts.append(element("span", found[1] or found[3], class_=kind))
        parts.append(found[2] or "")
        at = found.end()
    return join((*parts, text[at:]))
