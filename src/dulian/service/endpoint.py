"""What every route that takes pictures does: headers, admission, the body, a compute thread, the answer."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dulian.errors import BackendError, DulianError, InferenceError
from dulian.faces import AnalysisResult
from dulian.image import encode_jpeg
from dulian.render import draw_on
from dulian.service import tracing
from dulian.service.admission import Caller, Hold
from dulian.service.answers import JSON_TYPE, error_answer
from dulian.service.body import EMPTY, Buffer, ClientGone, Headers, RequestBody
from dulian.service.cache import INLINE_BYTES, SharedResults
from dulian.service.envelope import find_envelope, open_envelope
from dulian.service.log import log_event
from dulian.service.query import PARAMETERS, Asked, read_request
from dulian.service.state import Service


@dataclass(frozen=True, slots=True)
class Upload:
    """A request whose body has arrived; ``hold`` counts its bytes until the last who works on them has released it."""

    body: Buffer
    content_type: str
    asked: Asked
    request_id: str
    hold: Hold
    receive: Receive
    headers: Headers


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer, ready to be sent; ``kept`` is a drawn picture to be fetched for a while, with its id."""

    body: bytes
    media_type: str
    kept: tuple[str, bytes] | None = None
    headers: dict[str, str] | None = None


class Endpoint(ABC):
    """An ASGI application of its own, so that a request costs no more than it must.

    Its errors are answered here and not by the framework's handlers, because here it is known whether
    the body was read, and because a refusal under load has to be cheap. A route has its path, the parameters of a
    query that it knows, and words for a body that is empty.
    """

    path: str
    parameters: ClassVar[tuple[str, ...]] = PARAMETERS
    empty = EMPTY

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._service.traffic.count_request()
        headers = dict(scope["headers"])
        body = RequestBody(headers, self._service.limits, empty=self.empty)
        response: ASGIApp
        try:
            response = await self._answer(scope, headers, body, receive)
        except DulianError as error:
            request_id = scope["state"]["request_id"]
            note_failure(error, request_id)
            response = error_answer(error, request_id, close=body.must_close, path=self.path)
        except ClientGone:
            return
        await response(scope, receive, send)

    async def _answer(self, scope: Scope, headers: Headers, body: RequestBody, receive: Receive) -> ASGIApp:
        limits, admission = self._service.limits, self._service.admission
        caller: Caller | None = scope["state"].get("caller")
        asked = read_request(scope["query_string"], headers, deadline_s=limits.deadline_s, parameters=self.parameters)
        content_type = headers.get(b"content-type", b"").decode("latin-1")
        self._check_envelope(content_type)
        body.check()
        admission.check(body.declared_bytes or 0, asked.budget_s, caller)
        hold = Hold(admission, caller)
        try:
            data = await body.read(receive, hold=hold.add)
        except BaseException:
            hold.release()
            raise
        request_id = scope["state"]["request_id"]
        return await self._respond(Upload(data, content_type, asked, request_id, hold, receive, headers))

    def _check_envelope(self, content_type: str) -> None:
        """Refuse a wrapping that the route does not open, before the body is read.

        Raises:
            InputError: It does not.
        """
        find_envelope(content_type)

    @abstractmethod
    async def _respond(self, upload: Upload) -> ASGIApp:
        """The answer to a complete request; ``upload.hold`` is released in here, whatever happens."""


class PictureEndpoint(Endpoint):
    """One picture, one job, one answer."""

    async def _respond(self, upload: Upload) -> ASGIApp:
        started = time.monotonic()
        answer = await self._perform(upload)
        self._service.traffic.note_answer(time.monotonic() - started)
        if answer.kept is not None:
            await self._service.pictures.put(*answer.kept)
        return Response(answer.body, headers=answer.headers, media_type=answer.media_type)

    async def _perform(self, upload: Upload) -> Answer:
        """Have the work done, on the loop's side: the one place where an answer can come from elsewhere.

        What it depends on is ``upload.body``, ``upload.content_type``, ``self.path`` and all of ``upload.asked`` but
        ``budget_s``. An answer is the requester's own in two things: JSON that has a request id starts with it, and
        ``kept`` belongs to one answer alone. Whoever answers without the queue releases ``upload.hold``.
        """
        results = self._service.results
        if results is not None and not self._draws(upload.asked):
            return await self._share(results, upload)
        return await self._service.admission.perform(
            lambda: self._work(upload), budget_s=upload.asked.budget_s, hold=upload.hold, receive=upload.receive
        )

    async def _share(self, results: SharedResults, upload: Upload) -> Answer:
        """The answer that was given to the same question, or will be; the wrapping of the picture is not part of it."""
        body, found = await results.perform(
            lambda: self._work(upload).body,
            request_id=upload.request_id,
            picture=lambda: self._open(upload),
            aside=len(upload.body) >= INLINE_BYTES or find_envelope(upload.content_type) != "raw",
            route=self.path,
            asked=upload.asked,
            budget_s=upload.asked.budget_s,
            hold=upload.hold,
            receive=upload.receive,
        )
        return Answer(body, JSON_TYPE, headers={"x-cache": found})

    def _work(self, upload: Upload) -> Answer:
        """From a request's body to the answer's; runs in a compute thread.

        Raises:
            DulianError: The picture, or what it is wrapped in, is refused.
        """
        result, drawn = look_at(self._service, self._open(upload), upload.asked, draw=self._draws(upload.asked))
        with self._service.metrics.timed("encode"):
            return self._shape(result, drawn, upload)

    def _open(self, upload: Upload) -> bytes:
        """The picture's file; in a compute thread."""
        return open_envelope(upload.body, upload.content_type, self._service.limits)

    @abstractmethod
    def _draws(self, asked: Asked) -> bool:
        """Whether the answer needs a drawn copy."""

    @abstractmethod
    def _shape(self, result: AnalysisResult, drawn: bytes | None, upload: Upload) -> Answer:
        """A result in this route's words, with the JPEG of the drawn copy if there is one; in a compute thread."""


def look_at(service: Service, picture: bytes, asked: Asked, *, draw: bool) -> tuple[AnalysisResult, bytes | None]:
    """What is seen in a picture, and a drawn copy of it as JPEG where that is wanted; runs in a compute thread.

    Raises:
        DulianError: The picture is refused.
    """
    result, load_image = service.analyze(picture, asked.options)
    if not draw:
        return result, None
    with service.metrics.timed("draw"):
        image = load_image()
        draw_on(image, result, language=service.language)
        return result, encode_jpeg(image)


def note_failure(error: DulianError, request_id: str) -> None:
    """Log what is not the caller's fault nor the load's; a trace hears of everything."""
    tracing.note_error(error)
    if isinstance(error, InferenceError | BackendError):
        log_event("analysis_failed", level=logging.ERROR, error=error, request_id=request_id, code=error.code)
