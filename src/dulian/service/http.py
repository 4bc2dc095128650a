"""The HTTP application: its routes, what every answer carries, and the one shape of every error."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dulian import __version__
from dulian.analyzer import MAX_FACES
from dulian.errors import DrainingError, DulianError, MalformedInputError
from dulian.models.rows import ModelRow
from dulian.service import openapi, schema, stream
from dulian.service.access import Gate
from dulian.service.analysis import AnalyzeEndpoint
from dulian.service.answers import PICTURES, error_answer, error_shape, json_answer, request_id_of
from dulian.service.articles import ARTICLES, ArticleEndpoint, picture_endpoint
from dulian.service.batch import BatchEndpoint
from dulian.service.docs_page import add_docs
from dulian.service.inference import versions
from dulian.service.inference.http import add_inference
from dulian.service.inference.openapi import describe_inference
from dulian.service.log import log_event
from dulian.service.metrics import TEXT_TYPE, Measured
from dulian.service.security import allow_origins, security_headers
from dulian.service.state import Service
from dulian.service.status import INTERNAL, ROUTING
from dulian.service.stream import StreamEndpoint
from dulian.service.webui import MODEL_CARD, add_page

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

# FastAPI traces by itself wherever a provider is set for all: with path and query, and with texts of errors.
SILENT: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}

_CLOSE = (b"connection", b"close")

_OPENED = "websocket.accept"
_STARTS = ("http.response.start", "websocket.http.response.start", _OPENED)


def create_app(service: Service, *, metrics: bool = True) -> FastAPI:
    """The application over a service whose threads are warm; without ``metrics`` these have a port of their own."""
    app = FastAPI(
        title=openapi.TITLE,
        summary=openapi.SUMMARY,
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=SILENT,
    )
    # A FastAPI route would add its own validation and response machinery to the one request that has to be quick.
    articles = (ArticleEndpoint(service, article) for article in ARTICLES)
    for endpoint in (AnalyzeEndpoint(service), BatchEndpoint(service), *articles):
        app.add_route(endpoint.path, endpoint, methods=["POST"])  # type: ignore[arg-type]
    app.add_route(f"{PICTURES}{{picture_id}}", picture_endpoint(service), methods=["GET"])
    app.router.routes.append(WebSocketRoute(stream.PATH, StreamEndpoint(service)))
    app.add_route(stream.PATH, stream.refuse_plain_request, methods=["GET"])
    _add_probes(app, service)
    _add_descriptions(app, service)
    add_docs(app)
    add_page(app, service.samples)
    add_inference(app, service)
    if metrics:
        _add_metrics(app, service)
    app.add_middleware(Gate, service=service)
    allow_origins(app, service.origins)
    _add_answers(app, service)
    if service.tracing is not None:
        from dulian.service.tracing.layer import Traced

        app.add_middleware(Traced, spans=service.tracing)  # outside even what counts, so that this can note something
    describe = app.openapi
    app.openapi = cache(lambda: _described(describe(), service))  # type: ignore[method-assign]
    return app


def _described(document: dict[str, Any], service: Service) -> dict[str, Any]:
    document = openapi.complete(document, service.limits)
    return describe_inference(document, service.limits, versions(service))


def create_metrics_app(service: Service) -> FastAPI:
    """The application of a port of its own: the metrics and the probes."""
    app = FastAPI(title=openapi.TITLE, version=__version__, openapi_url=None, redirect_slashes=False, telemetry=SILENT)
    _add_probes(app, service)
    _add_metrics(app, service)
    _add_answers(app, service)
    return app


def _add_answers(app: FastAPI, service: Service) -> None:
    """What all answers have in common."""
    app.add_exception_handler(DulianError, _answer_ours)
    app.add_exception_handler(HTTPException, _answer_routing)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_middleware(Envelope, service=service)
    app.add_middleware(Measured, metrics=service.metrics)  # the last is the outermost: it sees every answer


class Envelope:
    """Gives every answer its request id and headers, and an answer to what nobody expected."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_enveloped(message: Message) -> None:
            nonlocal started
            if message["type"] in _STARTS:
                started = True
                given = message.get("headers", ())
                headers = [*given, *security_headers(given), (b"x-request-id", request_id.encode("ascii"))]
                ending = self._service.draining or self._service.retiring
                if ending and _CLOSE not in headers and message["type"] != _OPENED:
                    headers.append(_CLOSE)
                message["headers"] = headers
            await send(message)

        try:
            await self._app(scope, receive, send_enveloped)
        except Exception as error:  # noqa: BLE001 - the outermost handler: logged, and told to nobody else
            log_event("internal_error", level=logging.ERROR, error=error, request_id=request_id)
            if not started:
                text = "an internal error; the log has it"
                answer = error_shape(INTERNAL, DulianError.code, text, request_id, path=scope["path"])
                await answer(scope, receive, send_enveloped)
            elif scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1011, "reason": "an internal error; the log has it"})


def _request_id(scope: Scope) -> str:
    return request_id_of(next((value for name, value in scope["headers"] if name == b"x-request-id"), b""))


# ── errors that reach the framework ──────────────────────────────────────────────────────────────


async def _answer_ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, DulianError)
    return error_answer(error, request.state.request_id, path=request.scope["path"])


async def _answer_routing(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code, message = ROUTING.get(error.status_code, ("invalid_input", "the request is not accepted"))
    headers = dict(error.headers or {})
    return error_shape(error.status_code, code, message, request.state.request_id, headers, path=request.scope["path"])


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"][1:]))
    return error_answer(MalformedInputError(f"{where}: {first['msg']}"), request.state.request_id)


# ── routes ───────────────────────────────────────────────────────────────────────────────────────


def _add_probes(app: FastAPI, service: Service) -> None:
    @app.get("/livez", summary="Whether the process answers", response_model=schema.Alive)
    async def livez() -> Response:
        if service.hung:
            raise DrainingError("something hangs, and the process is about to end")
        return json_answer({"alive": True})

    @app.get("/readyz", summary="Whether new work is welcome", response_model=schema.Ready)
    async def readyz() -> Response:
        if error := service.unready:
            raise error
        return json_answer({"ready": True})


def _add_metrics(app: FastAPI, service: Service) -> None:
    @app.get("/metrics", summary="Counts and measurements for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(await service.metrics.scrape(), media_type=TEXT_TYPE)


def _add_descriptions(app: FastAPI, service: Service) -> None:
    @app.get("/v1/status", summary="How the service is doing", response_model=schema.Status)
    async def status() -> Response:
        return json_answer(_status(service))

    @app.get("/v1/models", summary="What answers", response_model=schema.Models)
    async def models() -> Response:
        model = service.model
        networks = [_network(row) for row in service.networks]
        known = {"profile": model.profile, "engine": model.engine, "digest": model.digest, "card": MODEL_CARD}
        return json_answer({**known, "networks": networks})

    @app.get("/v1/limits", summary="What a request may bring", response_model=schema.Limits)
    async def limits() -> Response:
        return json_answer(_limits(service))


def _network(row: ModelRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "provides": sorted(row.provides),
        "sha256": row.weights.sha256,
        "licence_code": row.licence_code,
        "licence_weights": row.licence_weights,
        "trained_on": row.trained_on,
        "origin": row.origin,
    }


def _limits(service: Service) -> dict[str, Any]:
    limits, picture, guard = service.limits, service.image_limits, service.guard_limits
    return {
        "body_bytes": limits.max_body_bytes,
        "body_seconds": limits.body_timeout_s,
        "multipart_parts": limits.max_parts,
        "batch_parts": limits.max_batch_parts,
        "batch_answer_bytes": limits.max_batch_answer_bytes,
        "multipart_part_head_bytes": limits.max_part_head_bytes,
        "image_pixels": picture.max_pixels,
        "image_side_px": picture.max_side,
        "image_fancy_pixels": picture.max_fancy_pixels,
        "faces": MAX_FACES,
        "deadline_ms": limits.deadline_s * 1000,
        "queue": limits.max_queued,
        "bytes_in_flight": limits.max_bytes_in_flight,
        "kept_pictures": limits.max_kept_pictures,
        "kept_bytes": limits.max_kept_bytes,
        "kept_seconds": limits.kept_s,
        "streams": limits.max_streams,
        "stream_frame_bytes": limits.max_frame_bytes,
        "stream_text_bytes": limits.max_stream_text_bytes,
        "stream_idle_seconds": limits.stream_idle_s,
        "connections": guard.connections,
        "head_bytes": guard.head_bytes,
        "headers": guard.headers,
        "head_seconds": guard.head_seconds,
        "pipelined_requests": guard.pipelined,
        "answer_seconds": guard.answer_seconds,
        "answer_bytes": guard.answer_bytes,
    }


def _status(service: Service) -> dict[str, Any]:
    p50, p99 = service.traffic.latency_ms(0.5, 0.99)
    return {
        "ready": service.unready is None,
        "profile": service.model.profile,
        "engine": service.model.engine,
        "process": service.share.index,
        "processes": service.share.processes,
        "workers": service.pool.workers,
        "busy": service.pool.busy,
        "queue": {"length": service.pool.queued, "limit": service.limits.max_queued},
        "in_flight": {"requests": service.admission.waiting, "bytes": service.admission.bytes_in_flight},
        "streams": {"open": service.streams, "limit": service.limits.max_streams},
        "requests_total": service.traffic.total,
        "requests_per_s": round(service.traffic.requests_per_s(), 2),
        "latency_ms": {"p50": p50, "p99": p99},
        "cpu_percent": service.process.cpu_percent,
        "memory": {"used_bytes": service.process.memory_bytes, "limit_bytes": service.memory_limit_bytes},
        "uptime_s": round(service.traffic.uptime_s, 1),
    }
