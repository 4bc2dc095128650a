"""Answers as they go out: bytes made once, and the shapes of an error."""

from __future__ import annotations

import json
import random
import re
from typing import Any

from starlette.responses import Response

from dulian.errors import DulianError, OverloadedError
from dulian.service import tracing
from dulian.service.admission import retry_after_s
from dulian.service.status import TOO_MANY, UNAUTHENTICATED, UNAVAILABLE, http_status, told

JSON_TYPE = "application/json"
JPEG_TYPE = "image/jpeg"

# Who calls these knows the services of the articles, which put a text under "error" and nothing else.
PICTURES = "/images/"
# And so does the Open Inference Protocol.
INFERENCE = "/v2"
_TEXT_ERRORS = ("/predict", "/api/analyze", "/analyze", INFERENCE)
_BELOW = (PICTURES, f"{INFERENCE}/")
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")


def make_request_id() -> str:
    """The id of a request that brought none. It is no secret, so it need not cost a call of the system."""
    return f"{random.getrandbits(128):032x}"


def request_id_of(given: bytes) -> str:
    """What a request calls itself, if that can stand in a header and in the log; else a new id."""
    return given.decode("ascii") if _REQUEST_ID.fullmatch(given) else make_request_id()


def to_json(data: Any) -> bytes:
    """Compact JSON; a number that JSON does not have is a defect and raises."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def json_answer(data: Any) -> Response:
    """A success with JSON."""
    return Response(to_json(data), media_type=JSON_TYPE)


def error_answer(error: DulianError, request_id: str, *, close: bool = False, path: str = "") -> Response:
    """An error of ours, in the shape that clients of the path know; ``close`` ends the connection after it."""
    status = http_status(error)
    headers = {"connection": "close"} if close else {}
    if status == UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    if status in (TOO_MANY, UNAVAILABLE):
        headers["retry-after"] = str(retry_after_s(error.wait_s if isinstance(error, OverloadedError) else 0.0))
    return error_shape(status, error.code, told(error), request_id, headers, path=path)


def error_shape(
    status: int, code: str, message: str, request_id: str, headers: dict[str, str] | None = None, *, path: str = ""
) -> Response:
    """The only form in which an error leaves the service; two, counting the paths of others."""
    tracing.note("error.code", code)
    plain = path in _TEXT_ERRORS or path.startswith(_BELOW)
    body = to_json({"error": message}) if plain else error_json(code, message, request_id)
    return Response(body, status_code=status, headers=headers, media_type=JSON_TYPE)


def error_json(code: str, message: str, request_id: str) -> bytes:
    """An error as JSON, alone or in place of one result among several."""
    return to_json({"error": {"code": code, "message": message, "request_id": request_id}})


def without_request_id(body: bytes, request_id: str) -> bytes:
    """An answer before it was given its request id, which is its first field where it has one."""
    return body.removeprefix(to_json({"request_id": request_id})[:-1])


def with_request_id(body: bytes, request_id: str) -> bytes:
    """The same answer for another request."""
    return to_json({"request_id": request_id})[:-1] + body if body.startswith(b",") else body
