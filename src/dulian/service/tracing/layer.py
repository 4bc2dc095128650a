"""The layer round the application that traces its requests; it is there only where traces are wanted."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dulian.service.metrics import METHODS, OTHER, Templates
from dulian.service.status import INTERNAL
from dulian.service.tracing import Record, recorded
from dulian.service.tracing.spans import Spans, traceresponse

# What asks for these asks again and again, and for the sake of no user.
LEFT_OUT = frozenset({"/livez", "/readyz", "/metrics"})

SWITCHING = 101
_FORBIDDEN = 403  # what a server answers to a handshake that is closed
_HEADS = {"http.response.start": 0, "websocket.http.response.start": 0, "websocket.accept": SWITCHING}


class Traced:
    """Gives every request one span, its answer the header ``traceresponse``, and its task the record for notes.

    A stream's span ends when it is open; its frames have spans of their own.
    """

    def __init__(self, app: ASGIApp, spans: Spans) -> None:
        self._app = app
        self._spans = spans
        self._templates: Templates | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # What the service asks itself, to warm up, brings its caller along; no client can do that.
        of_nobody = "caller" in scope.get("state", ())
        if scope["type"] not in ("http", "websocket") or scope["path"] in LEFT_OUT or of_nobody:
            with recorded(None):
                await self._app(scope, receive, send)
            return
        record = self._spans.begin("HTTP", scope["headers"])
        status = 0

        async def send_traced(message: Message) -> None:
            nonlocal status
            kind = message["type"]
            if kind in _HEADS:
                status = _HEADS[kind] or message["status"]
                if record.ids:
                    message["headers"] = [*message.get("headers", ()), (b"traceresponse", traceresponse(record))]
            elif kind == "websocket.close" and not status:
                status = _FORBIDDEN
            await send(message)
            if status == SWITCHING:
                self._finish(record, scope, status)

        try:
            with recorded(record):
                await self._app(scope, receive, send_traced)
        finally:
            self._finish(record, scope, status)

    def _finish(self, record: Record, scope: Scope, status: int) -> None:
        """The span by the semantic conventions for HTTP servers, but for what a client could have made up."""
        if not record.wanted:
            return
        method = scope.get("method", "GET")  # a handshake has none, because it has this one
        route = self._template_of(scope)
        known = method in METHODS
        record.attributes["http.request.method"] = method if known else "_OTHER"
        record.attributes["url.scheme"] = "https" if scope.get("scheme") in ("https", "wss") else "http"
        if route != OTHER:
            record.attributes["http.route"] = route
        if status:
            record.attributes["http.response.status_code"] = status
        else:
            record.attributes["dulian.client_gone"] = True
        record.failed = status >= INTERNAL
        record.name = (method if known else "HTTP") + ("" if route == OTHER else f" {route}")
        self._spans.finish(record)

    def _template_of(self, scope: Scope) -> str:
        if self._templates is None:  # routes may be added until the first request
            self._templates = Templates(scope["app"].routes)
        return self._templates.find(scope)
