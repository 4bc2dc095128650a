"""The OpenAPI description of ``POST /v1/analyze``, which is no FastAPI route and so does not describe itself."""

from __future__ import annotations

from typing import Any, get_args

from pydantic.json_schema import models_json_schema

from dulian.analyzer import ALL_ATTRIBUTES, DEFAULT_OPTIONS, MAX_FACES
from dulian.faces import FaceOrder
from dulian.service import schema
from dulian.service.envelope import FIELD
from dulian.service.limits import ServiceLimits
from dulian.service.query import ANNOTATE

TITLE = "dulian"
SUMMARY = "Faces, perceived age and gender, and how far to trust each answer, from a photo."
_REF = "#/components/schemas/"
_ERRORS = {
    "400": "The request is malformed: an empty body, a broken envelope, an option out of range.",
    "408": "The body arrived too slowly.",
    "413": "Too many bytes, pixels, or pixels along one side.",
    "415": "Not an image type, a content type or a content encoding that is accepted.",
    "422": "A known image type that is damaged or ends too early.",
    "500": "A defect of the service.",
    "503": "Overloaded, or the deadline is out of reach.",
    "504": "The deadline passed.",
}
ERROR_RESPONSE: dict[str, Any] = {
    "description": "Any failure.",
    "content": {"application/json": {"schema": {"$ref": f"{_REF}ErrorAnswer"}}},
}


def complete(document: dict[str, Any], limits: ServiceLimits) -> dict[str, Any]:
    """FastAPI's document with the analysis, the shape of errors and every schema they refer to."""
    _, definitions = models_json_schema(
        [(schema.AnalysisResult, "serialization"), (schema.ErrorAnswer, "serialization")],
        ref_template=_REF + "{model}",
    )
    components = document.setdefault("components", {}).setdefault("schemas", {})
    components.update(definitions["$defs"])
    result = components["AnalysisResult"]
    result["required"] = [name for name in result["required"] if name not in ("truncated", "skipped", "hint")]
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"]["default"] = ERROR_RESPONSE
    document["paths"]["/v1/analyze"] = {"post": _analyze(limits)}
    return document


def _analyze(limits: ServiceLimits) -> dict[str, Any]:
    return {
        "summary": "Find the faces in one picture",
        "description": "One picture in, all its faces out. A picture without faces is an answer with a hint.",
        "operationId": "analyze",
        "parameters": [*_query(limits), *_headers(limits)],
        "requestBody": {"required": True, "content": _bodies(limits)},
        "responses": {"200": _success(), **{status: _error(status, text) for status, text in _ERRORS.items()}},
    }


def _query(limits: ServiceLimits) -> list[dict[str, Any]]:
    attributes = {"type": "array", "items": {"type": "string", "enum": sorted(ALL_ATTRIBUTES)}}
    return [
        _parameter("max_faces", "faces in the answer, at most", type="integer", minimum=1, maximum=MAX_FACES)
        | {"example": MAX_FACES},
        _parameter(
            "min_confidence",
            "detection threshold; the profile's own if not given",
            type="number",
            exclusiveMinimum=0,
            maximum=1,
        ),
        _parameter("attributes", "separated by commas, or repeated; empty only detects", **attributes)
        | {"style": "form", "explode": False, "allowEmptyValue": True},
        _parameter("annotate", "a drawn copy within the JSON", type="string", enum=list(ANNOTATE), default="none"),
        _parameter(
            "order", "order of the faces", type="string", enum=list(get_args(FaceOrder)), default=DEFAULT_OPTIONS.order
        ),
        _parameter(
            "coverage",
            "probability with which the age interval holds the true age",
            type="number",
            minimum=0.5,
            maximum=0.99,
            default=DEFAULT_OPTIONS.coverage,
        ),
        _parameter(
            "max_ms",
            f"latency budget from the complete body on; {limits.deadline_s * 1000:.0f} at most",
            type="integer",
            minimum=1,
        ),
    ]


def _headers(limits: ServiceLimits) -> list[dict[str, Any]]:
    return [
        {
            "name": "X-Request-Timeout-Ms",
            "in": "header",
            "description": "as max_ms; the smaller of the two counts",
            "schema": {"type": "integer", "minimum": 1},
        },
        {
            "name": "X-Request-Id",
            "in": "header",
            "description": "comes back in the answer; a new one otherwise",
            "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
        },
    ]


def _parameter(name: str, description: str, **schema_of_it: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema_of_it}


def _bodies(limits: ServiceLimits) -> dict[str, Any]:
    binary = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
    form = {
        "type": "object",
        "required": [FIELD],
        "properties": {FIELD: {"type": "string", "contentMediaType": "image/*", "description": "exactly one file"}},
    }
    in_json = {
        "type": "object",
        "required": [FIELD],
        "additionalProperties": False,
        "properties": {FIELD: {"type": "string", "contentEncoding": "base64", "maxLength": limits.max_body_bytes}},
    }
    return {
        "image/*": binary,
        "application/octet-stream": binary,
        "multipart/form-data": {"schema": form},
        "application/json": {"schema": in_json},
    }


def _success() -> dict[str, Any]:
    return {
        "description": "The faces; with `Accept: image/jpeg` the picture with the faces drawn on it.",
        "headers": {"X-Request-Id": {"schema": {"type": "string"}}},
        "content": {
            "application/json": {"schema": {"$ref": f"{_REF}AnalysisResult"}},
            "image/jpeg": {"schema": {"type": "string", "contentMediaType": "image/jpeg"}},
        },
    }


def _error(status: str, description: str) -> dict[str, Any]:
    answer = ERROR_RESPONSE | {"description": description}
    if status == "503":
        answer["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}
    return answer
