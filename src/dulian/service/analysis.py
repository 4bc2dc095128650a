"""``POST /v1/analyze``: what the loop does about it, and what a compute thread does."""

from __future__ import annotations

import base64
import logging
import time
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dulian.errors import BackendError, DulianError, InferenceError
from dulian.image import encode_jpeg
from dulian.render import annotate
from dulian.service.admission import Hold
from dulian.service.answers import JPEG_TYPE, JSON_TYPE, error_answer, to_json
from dulian.service.body import Buffer, ClientGone, RequestBody
from dulian.service.envelope import find_envelope, open_envelope
from dulian.service.log import log_event
from dulian.service.query import Asked, read_request
from dulian.service.state import Service


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer, ready to be sent."""

    body: bytes
    media_type: str


def answer_picture(service: Service, body: Buffer, content_type: str, asked: Asked, request_id: str) -> Answer:
    """From a request's body to the answer's; runs in a compute thread.

    Raises:
        DulianError: The picture, or what it is wrapped in, is refused.
    """
    data = open_envelope(body, content_type, service.limits)
    result, load_image = service.analyze(data, asked.options)
    drawn = None
    if asked.picture or asked.annotate:
        drawn = encode_jpeg(annotate(load_image(), result, language=service.language))
        if asked.picture:
            return Answer(drawn, JPEG_TYPE)
    wire = result.to_dict()
    wire["request_id"] = request_id
    if drawn is not None:
        wire["annotated_image"] = base64.b64encode(drawn).decode("ascii")
    return Answer(to_json(wire), JSON_TYPE)


class AnalyzeEndpoint:
    """An ASGI application of its own, so that a request costs no more than it must.

    Its errors are answered here and not by the framework's handlers, because here it is known whether
    the body was read, and because a refusal under load has to be cheap.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._service.traffic.count_request()
        headers = dict(scope["headers"])
        request_id = scope["state"]["request_id"]
        body = RequestBody(headers, self._service.limits)
        try:
            response = await self._answer(scope["query_string"], headers, body, request_id, receive)
        except DulianError as error:
            if isinstance(error, InferenceError | BackendError):
                log_event("analysis_failed", level=logging.ERROR, error=error, request_id=request_id, code=error.code)
            response = error_answer(error, request_id, close=body.must_close)
        except ClientGone:
            return
        await response(scope, receive, send)

    async def _answer(
        self, query: bytes, headers: dict[bytes, bytes], body: RequestBody, request_id: str, receive: Receive
    ) -> Response:
        service = self._service
        asked = read_request(query, headers, deadline_s=service.limits.deadline_s)
        content_type = headers.get(b"content-type", b"").decode("latin-1")
        find_envelope(content_type)
        body.check()
        service.admission.check(body.declared_bytes or 0, asked.budget_s)
        hold = Hold(service.admission)
        try:
            data = await body.read(receive, hold=hold.add)
        except BaseException:
            hold.release()
            raise
        started = time.monotonic()
        answer = await service.admission.perform(
            lambda: answer_picture(service, data, content_type, asked, request_id),
            budget_s=asked.budget_s,
            hold=hold,
            receive=receive,
        )
        service.traffic.note_answer(time.monotonic() - started)
        return Response(answer.body, media_type=answer.media_type)
