"""Answers as they go out: bytes made once, and the one shape of an error."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

from dulian.errors import DulianError, OverloadedError
from dulian.service.admission import retry_after_s
from dulian.service.status import UNAVAILABLE, http_status, told

JSON_TYPE = "application/json"
JPEG_TYPE = "image/jpeg"


def to_json(data: Any) -> bytes:
    """Compact JSON; a number that JSON does not have is a defect and raises."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def json_answer(data: Any) -> Response:
    """A success with JSON."""
    return Response(to_json(data), media_type=JSON_TYPE)


def error_answer(error: DulianError, request_id: str, *, close: bool = False) -> Response:
    """An error of ours; ``close`` ends the connection after it."""
    status = http_status(error)
    headers = {"connection": "close"} if close else {}
    if status == UNAVAILABLE:
        headers["retry-after"] = str(retry_after_s(error.wait_s if isinstance(error, OverloadedError) else 0.0))
    return error_shape(status, error.code, told(error), request_id, headers)


def error_shape(
    status: int, code: str, message: str, request_id: str, headers: dict[str, str] | None = None
) -> Response:
    """The only form in which an error leaves the service."""
    body = to_json({"error": {"code": code, "message": message, "request_id": request_id}})
    return Response(body, status_code=status, headers=headers, media_type=JSON_TYPE)
