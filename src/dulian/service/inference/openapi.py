"""What ``/openapi.json`` says of the routes below ``/v2``."""

from __future__ import annotations

from typing import Any

from dulian.service import inference, openapi
from dulian.service.answers import INFERENCE, JSON_TYPE
from dulian.service.inference import http as inference_http
from dulian.service.limits import ServiceLimits

_MODELS = (inference_http.AskedInference, inference_http.InferenceAnswer)
_REQUEST = {
    "id": "7",
    "inputs": [{"name": inference.INPUT, "datatype": "BYTES", "shape": [1], "data": ["/9j/4AAQSkZJRg…"]}],
    "outputs": [{"name": "boxes"}, {"name": "ages"}],
}
_ANSWER = {
    "model_name": inference.MODEL,
    "model_version": "5f1c8e0a9b7d",
    "id": "7",
    "outputs": [
        {"name": "boxes", "shape": [1, 4], "datatype": "FP32", "data": [120.0, 80.0, 263.0, 238.0]},
        {"name": "ages", "shape": [1], "datatype": "FP32", "data": [31.4]},
    ],
}


def describe_inference(document: dict[str, Any], limits: ServiceLimits, versions: list[str]) -> dict[str, Any]:
    """The document, with the protocol's own shape of errors and the route that takes pictures."""
    schemas = openapi.schemas_of(_MODELS)
    schemas["AskedInference"]["examples"] = [_REQUEST]
    schemas["InferenceAnswer"]["examples"] = [_ANSWER]
    document["components"]["schemas"] |= schemas
    paths = document["paths"] | {path: {"post": _infer(limits, path)} for path in inference_http.INFER_PATHS}
    for path, operations in paths.items():
        if path == INFERENCE or path.startswith(f"{INFERENCE}/"):
            for operation in operations.values():
                operation["responses"]["default"] = openapi.text_error("Any failure.")
                operation["parameters"] = [*_path_parameters(path, versions), *operation.get("parameters", ())]
    document["paths"] = paths
    return document


def _path_parameters(path: str, versions: list[str]) -> list[dict[str, Any]]:
    known = {"model": [inference.MODEL], "version": versions}
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "enum": values},
            "description": "1, or the digest of what answers" if name == "version" else "the only model",
        }
        for name, values in known.items()
        if f"{{{name}}}" in path
    ]


def _infer(limits: ServiceLimits, path: str) -> dict[str, Any]:
    outputs = ", ".join(f"`{one.name}` {one.datatype} {one.shape}" for one in inference.OUTPUTS)
    return {
        "summary": "Find the faces in pictures, as tensors",
        "description": (
            f"The Open Inference Protocol: one input, `{inference.INPUT}`, of datatype BYTES and shape [N], the file of"
            f" a picture in each element, {limits.max_batch_parts} at most. In JSON they are in Base64; with the header"
            " `Inference-Header-Content-Length` they may follow it as binary data."
            "\n\n"
            f"Outputs, all of them unless some are named: {outputs}. A picture that is refused is the error of the"
            f" whole request. Parameters: {', '.join(sorted(inference.PARAMETERS))}, as in the query of `/v1/analyze`."
        ),
        "operationId": "infer_version" if "{version}" in path else "infer",
        "parameters": openapi.headers(),
        "requestBody": {
            "required": True,
            "content": {JSON_TYPE: {"schema": {"$ref": "#/components/schemas/AskedInference"}}},
        },
        "responses": {
            "200": openapi.success(
                "The faces of all pictures.",
                {
                    JSON_TYPE: {"schema": {"$ref": "#/components/schemas/InferenceAnswer"}},
                    inference_http.BINARY_TYPE: openapi.BINARY,
                },
            ),
            "404": openapi.text_error("There is no such model, or no such version of it."),
            **openapi.errors(openapi.text_error),
        },
    }
