"""The Open Inference Protocol over REST, below ``/v2``: its JSON, its binary data, its routes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope

from dulian.errors import DrainingError, MalformedInputError
from dulian.service import inference
from dulian.service.answers import INFERENCE, JSON_TYPE, json_answer, to_json
from dulian.service.body import Buffer, Headers, RequestBody
from dulian.service.endpoint import Endpoint, Upload
from dulian.service.envelope import find_envelope, from_base64, is_form
from dulian.service.inference import Inference, Tensor
from dulian.service.query import Asked
from dulian.service.schema import Wire
from dulian.service.state import Service

# Where in the body the JSON ends and binary data begins.
JSON_BYTES = b"inference-header-content-length"
BINARY_TYPE = "application/octet-stream"
# Pictures are few and long. Ten megabytes of tiny things would become half a gigabyte of objects first.
MAX_THINGS = 4096
_MODEL_PATH = f"{INFERENCE}/models/{{model}}"
_VERSION_PATH = f"{_MODEL_PATH}/versions/{{version}}"
INFER_PATHS = (f"{_MODEL_PATH}/infer", f"{_VERSION_PATH}/infer")

# ── the JSON of requests ─────────────────────────────────────────────────────────────────────────


class Asking(BaseModel):
    """What may be beside the fields that are known is passed over."""

    parameters: dict[str, bool | int | float | str] = {}


class AskedInput(Asking):
    """A tensor with its values; without these they follow the JSON as binary data."""

    name: str = Field(json_schema_extra={"enum": [inference.INPUT]})
    datatype: str = Field(json_schema_extra={"enum": ["BYTES"]})
    shape: list[int] = Field(description="[N], N pictures")
    data: list[str] | None = Field(default=None, description="each picture's file in Base64")


class AskedOutput(Asking):
    """A tensor that is wanted."""

    name: str


class AskedInference(Asking):
    """The body of a request."""

    id: str = ""
    inputs: list[AskedInput]
    outputs: list[AskedOutput] = []


@dataclass(frozen=True, slots=True)
class Opened:
    """A request out of its JSON, and which of its outputs shall be binary data."""

    id: str
    inference: Inference
    binary: frozenset[str]


def open_request(body: Buffer, json_bytes: int | None, service: Service, asked: Asked) -> Opened:
    """A request out of a body; in a compute thread.

    Raises:
        InputError: It makes no sense, or has too many pictures or too large ones.
    """
    view = memoryview(body)
    if json_bytes is not None and json_bytes > len(view):
        raise MalformedInputError("Inference-Header-Content-Length is more than the body has")
    request = _read(bytes(view[:json_bytes]))
    pictures = _pictures(request, view[len(view) if json_bytes is None else json_bytes :], service)
    parameters = request.parameters | request.inputs[0].parameters
    all_binary = parameters.pop("binary_data_output", False)
    parameters.pop("binary_data_size", None)
    names = [output.name for output in request.outputs]
    made = inference.make_inference(pictures, names, parameters, asked)
    chosen = {output.name: output.parameters.get("binary_data", all_binary) for output in request.outputs}
    binary = frozenset(one.name for one in made.outputs if chosen.get(one.name, all_binary) is True)
    return Opened(request.id, made, binary)


def _read(text: bytes) -> AskedInference:
    if sum(map(text.count, (b",", b":", b"[", b"{"))) > MAX_THINGS:
        raise MalformedInputError("the JSON has too many parts")
    try:
        request = AskedInference.model_validate(json.loads(text), strict=True)
    except (ValueError, RecursionError):
        raise MalformedInputError(
            'the body is not {"inputs": [{"name": …, "datatype": …, "shape": […], "data": […]}]} in JSON'
        ) from None
    if len(request.inputs) != 1:
        raise MalformedInputError(f"there is one input, {inference.INPUT!r}, and it is needed")
    return request


def _pictures(request: AskedInference, binary: memoryview, service: Service) -> list[bytes]:
    (given,) = request.inputs
    limits = service.limits
    count = inference.check_input(given.name, given.datatype, given.shape, most=limits.max_batch_parts)
    if given.data is None:
        if given.parameters.get("binary_data_size") != len(binary):
            raise MalformedInputError("the input has neither data nor, after the JSON, binary data of binary_data_size")
        return inference.unpack(binary, count)
    if len(given.data) != count or len(binary):
        raise MalformedInputError(f"the input has {len(given.data)} elements, its shape says {count}")
    texts = (text.encode("utf-8", "replace") for text in given.data)
    return [from_base64(memoryview(text), limits.max_body_bytes) for text in texts]


# ── the route that takes pictures ────────────────────────────────────────────────────────────────


class InferEndpoint(Endpoint):
    """``POST …/infer``: pictures in, tensors out."""

    parameters = ()

    def __init__(self, service: Service, path: str) -> None:
        super().__init__(service)
        self.path = path

    async def _answer(self, scope: Scope, headers: Headers, body: RequestBody, receive: Receive) -> ASGIApp:
        chosen = scope["path_params"]
        inference.check_model(self._service, chosen["model"], chosen.get("version", ""))
        return await super()._answer(scope, headers, body, receive)

    def _check_envelope(self, content_type: str) -> None:
        if is_form(content_type):
            raise MalformedInputError("a form is not accepted here; send JSON")
        find_envelope(content_type)

    async def _respond(self, upload: Upload) -> ASGIApp:
        started = time.monotonic()
        try:
            opened = await self._open(upload)
            tensors = await inference.infer(self._service, opened.inference, upload.hold, upload.receive)
        finally:
            upload.hold.release()
        self._service.traffic.note_answer(time.monotonic() - started)
        return _spell(self._service, opened, tensors)

    async def _open(self, upload: Upload) -> Opened:
        """What is asked; a thread reads it, but that is no measure for a picture's time."""
        json_bytes = _json_bytes(upload.headers)
        upload.hold.keep()
        return await self._service.admission.perform(
            lambda: open_request(upload.body, json_bytes, self._service, upload.asked),
            budget_s=upload.asked.budget_s,
            hold=upload.hold,
            receive=upload.receive,
            measure=False,
        )


def _json_bytes(headers: Headers) -> int | None:
    given = headers.get(JSON_BYTES)
    if given is None:
        return None
    if not given.isdigit() or len(given) > 9:
        raise MalformedInputError("Inference-Header-Content-Length is not a whole number")
    return int(given)


def _spell(service: Service, opened: Opened, tensors: list[Tensor]) -> Response:
    """The answer: JSON, and after it the binary data of those outputs that were wanted so."""
    binary: list[bytes] = []
    outputs = []
    for tensor in tensors:
        output: dict[str, Any] = {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype}
        if tensor.name in opened.binary:
            binary.append(tensor.packed())
            output["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            output["data"] = tensor.values
        outputs.append(output)
    given_id = {"id": opened.id} if opened.id else {}
    known = {"model_name": inference.MODEL, "model_version": service.model.digest}
    text = to_json({**known, **given_id, "outputs": outputs})
    if not opened.binary:
        return Response(text, media_type=JSON_TYPE)
    headers = {JSON_BYTES.decode(): str(len(text))}
    return Response(b"".join((text, *binary)), headers=headers, media_type=BINARY_TYPE)


# ── all routes ───────────────────────────────────────────────────────────────────────────────────


class ServerLive(Wire):
    """The process answers."""

    live: Literal[True]


class ServerReady(Wire):
    """New work is welcome."""

    ready: Literal[True]


class ModelReady(Wire):
    """New work for the model is welcome."""

    name: str
    ready: Literal[True]


class ServerMetadata(Wire):
    """What this server is."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(Wire):
    """A tensor; -1 in its shape is any number."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Wire):
    """The model's versions and tensors."""

    name: str
    versions: list[str] = Field(description="that of the tensors, and the digest of what answers")
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class OutputTensor(Wire):
    """A tensor of the answer, row after row; without data its values follow the JSON as binary data."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float | str] | None = Field(default=None, description="a value, or a row of them, for each face")
    parameters: dict[str, int] | None = None


class InferenceAnswer(Wire):
    """The faces of all pictures, as many in each tensor."""

    model_name: str
    model_version: str
    id: str | None = Field(default=None, description="as in the request")
    outputs: list[OutputTensor]


def add_inference(app: FastAPI, service: Service) -> None:
    """Answer below ``/v2``."""
    for path in INFER_PATHS:
        app.add_route(path, InferEndpoint(service, path), methods=["POST"])  # type: ignore[arg-type]
    _add_server(app, service)
    for path in (_MODEL_PATH, _VERSION_PATH):
        _add_model(app, service, path)


def _add_server(app: FastAPI, service: Service) -> None:
    @app.get(INFERENCE, summary="What this server is", response_model=ServerMetadata)
    async def server_metadata() -> Response:
        return json_answer(inference.server_metadata())

    @app.get(f"{INFERENCE}/health/live", summary="Whether the process answers", response_model=ServerLive)
    async def live() -> Response:
        if service.hung:
            raise DrainingError("something hangs, and the process is about to end")
        return json_answer({"live": True})

    @app.get(f"{INFERENCE}/health/ready", summary="Whether new work is welcome", response_model=ServerReady)
    async def ready() -> Response:
        _check_ready(service)
        return json_answer({"ready": True})


def _add_model(app: FastAPI, service: Service, path: str) -> None:
    # Parameters of the path are taken from the request: declared, they would be validated once more.
    @app.get(path, summary="The model's versions and tensors", response_model=ModelMetadata)
    async def model_metadata(request: Request) -> Response:
        _check_path(service, request.path_params)
        return json_answer(inference.model_metadata(service))

    @app.get(f"{path}/ready", summary="Whether new work for the model is welcome", response_model=ModelReady)
    async def model_ready(request: Request) -> Response:
        _check_path(service, request.path_params)
        _check_ready(service)
        return json_answer({"name": inference.MODEL, "ready": True})


def _check_path(service: Service, chosen: Mapping[str, str]) -> None:
    inference.check_model(service, chosen["model"], chosen.get("version", ""))


def _check_ready(service: Service) -> None:
    if error := service.unready:
        raise error
