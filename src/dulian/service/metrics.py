"""What the service counts about itself, as Prometheus reads it: one registry for each service, never the global one.

No value of a label comes from a request: routes are templates out of the application's own table, methods, reasons and
formats are known words, and what is none of them is "other". Nothing is counted by perceived age or gender.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dulian.errors import InputError, UnsupportedImageError
from dulian.formats import sniff
from dulian.service import tracing
from dulian.service.status import UNAVAILABLE

if TYPE_CHECKING:
    from dulian.analyzer import AnalyzeOptions
    from dulian.faces import AnalysisResult
    from dulian.image import Image
    from dulian.service.state import Analyze, Service

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

RejectReason = Literal["queue", "share", "rate", "bytes", "deadline", "connections", "streams", "draining"]
Where = Literal["queue", "compute"]
Stage = Literal["read", "sniff", "decode", "detect", "attributes", "draw", "encode"]
Tier = Literal["memory", "redis"]
CacheResult = Literal["hit", "miss", "shared", "error"]

STAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BODY_BUCKETS = (2**10, 2**12, 2**14, 2**16, 2**18, 2**20, 2**22, 10 * 2**20)
FACE_BUCKETS = (0, 1, 2, 3, 5, 10, 20, 50)
BATCH_BUCKETS = (1, 2, 4, 8)

# In this format each would be one series more, which nobody reads.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The counts of one service, added up in this process; any thread may add to them.

    What every request adds costs well below a microsecond a piece: the children of labelled metrics are looked up once.
    """

    def __init__(self) -> None:
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._service: Service | None = None
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self._registry = CollectorRegistry()
        self._add_requests()
        self._add_rpc()
        self._add_admission()
        self._add_pictures()
        self.lost_spans = self._counter("trace_spans_lost_total", "Spans that were made and could not be sent")
        ProcessCollector(registry=self._registry)
        if self._service is not None:
            self.watch(self._service)

    async def scrape(self) -> bytes:
        """All metrics as text, written in a thread of its own, one scrape after the other: each takes milliseconds."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, generate_latest, self._registry)

    # ── requests ─────────────────────────────────────────────────────────────────────────────────

    def _add_requests(self) -> None:
        self._requests = self._counter("http_requests_total", "Answers by their status", "route", "method", "code")
        self._durations = self._histogram(
            "http_request_duration_seconds",
            "From the end of a request's head to the end of its answer, refusals included",
            Histogram.DEFAULT_BUCKETS,
            "route",
        )
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self.body_bytes = self._histogram("request_body_bytes", "Bodies as sent, complete and not empty", BODY_BUCKETS)
        self.inflight = self._gauge("inflight_requests", "Requests that are not answered yet, the scrape included")
        self.disconnects = self._counter("client_disconnects_total", "Clients that left before their answer began")

    def count_answer(self, route: str, method: str, status: int, took_s: float) -> None:
        """A request was answered; ``route`` is a template."""
        key = route, method if method in METHODS else OTHER, status
        children = self._known.get(key)
        if children is None:
            children = self._known[key] = self._requests.labels(*key), self._durations.labels(route)
        children[0].inc()
        children[1].observe(took_s)

    def _add_rpc(self) -> None:
        self._rpcs = self._counter("grpc_requests_total", "Calls over gRPC by their status", "method", "code")
        self._rpc_durations = self._histogram(
            "grpc_request_duration_seconds",
            "From a call's first byte to its last, refusals included; not of streams",
            Histogram.DEFAULT_BUCKETS,
            "method",
        )

    def count_rpc(self, method: str, code: str, took_s: float | None) -> None:
        """A call over gRPC has ended; ``method`` is one of ours. A stream takes as long as its client wants: None."""
        self._rpcs.labels(method, code).inc()
        if took_s is not None:
            self._rpc_durations.labels(method).observe(took_s)

    def count_handshake(self, route: str, status: int) -> None:
        """A WebSocket was opened (101), or was not."""
        self._requests.labels(route, "GET", status).inc()

    def count_refusal(self, status: int) -> None:
        """The guard answered before there was a request."""
        self._requests.labels(OTHER, OTHER, status).inc()
        if status == UNAVAILABLE:  # it has one reason for that
            self.count_rejected("connections")

    # ── admission ────────────────────────────────────────────────────────────────────────────────

    def _add_admission(self) -> None:
        rejected = self._counter("admission_rejected_total", "Work that was refused for want of room or time", "reason")
        self._rejected = {reason: rejected.labels(reason) for reason in get_args(RejectReason)}
        self.queue_wait = self._histogram(
            "queue_wait_seconds", "How long jobs waited for a thread, those that never got one included", STAGE_BUCKETS
        )
        expired = self._counter("deadline_exceeded_total", "Deadlines that passed", "where")
        self._expired = {where: expired.labels(where) for where in get_args(Where)}
        cache = self._counter("cache_requests_total", "Results that were looked for", "tier", "result")
        self._cache = {
            (tier, result): cache.labels(tier, result) for tier in get_args(Tier) for result in get_args(CacheResult)
        }

    def count_rejected(self, reason: RejectReason) -> None:
        """Work was not admitted."""
        self._rejected[reason].inc()

    def count_expired(self, where: Where) -> None:
        """A deadline passed while the job waited for a thread, or while one was at work on it."""
        self._expired[where].inc()

    def count_cached(self, tier: Tier, result: CacheResult) -> None:
        """A result was looked for; ``shared`` is one that another request was about to get."""
        self._cache[tier, result].inc()
        tracing.note(f"cache.{tier}", result)

    # ── pictures ─────────────────────────────────────────────────────────────────────────────────

    def _add_pictures(self) -> None:
        stages = self._histogram("stage_duration_seconds", "Steps of the work on a request", STAGE_BUCKETS, "stage")
        self.stages: dict[Stage, Histogram] = {stage: stages.labels(stage) for stage in get_args(Stage)}
        self._faces = self._histogram("faces_detected", "Faces found in a picture", FACE_BUCKETS)
        self._batches = self._histogram("batch_size", "Faces in one run of an attribute network", BATCH_BUCKETS)
        self._images_rejected = self._counter("images_rejected_total", "Pictures that were refused", "reason", "format")

    def timed(self, stage: Stage) -> _Timed:
        """For a ``with``: what is done in it is that step of the work."""
        return _Timed(stage, self.stages[stage])

    def measured(self, analyze: Analyze) -> Analyze:
        """The same analysis, with its faces, its stages and its refusals counted."""

        def analyze_and_count(data: bytes, options: AnalyzeOptions) -> tuple[AnalysisResult, Callable[[], Image]]:
            try:
                result, load_image = analyze(data, options)
            except InputError as error:
                self._images_rejected.labels(error.code, _format_of(data)).inc()
                raise
            self._count_result(result, options)
            return result, load_image

        return analyze_and_count

    def _count_result(self, result: AnalysisResult, options: AnalyzeOptions) -> None:
        count = len(result.faces)
        timings = result.timings_ms
        if (record := tracing.current()) is not None:
            record.note_result(result)
        self._faces.observe(count + result.skipped)
        self.stages["sniff"].observe(timings.sniff / 1000)
        self.stages["decode"].observe(timings.decode / 1000)
        self.stages["detect"].observe(timings.detect / 1000)
        if count and options.attributes:
            self.stages["attributes"].observe(timings.attributes / 1000)
            for row in self._service.networks if self._service else ():
                if row.provides & options.attributes:
                    for start in range(0, count, row.max_batch):
                        self._batches.observe(min(row.max_batch, count - start))

    # ── state ────────────────────────────────────────────────────────────────────────────────────

    def watch(self, service: Service) -> None:
        """Show what is to be seen of a service at the moment of each scrape."""
        self._service = service
        pool, process = service.pool, service.process

        def used() -> float:
            return _number(process.memory_bytes)

        def limit() -> float:
            return _number(service.memory_limit_bytes)

        self._show("queue_depth", "Jobs that wait for a thread", lambda: pool.queued)
        self._show("draining", "1 while the process is about to end", lambda: service.draining)
        self._show("cache_breaker_open", "1 while Redis is not asked, because it failed", lambda: service.breaker_open)
        self._show("memory_used_bytes", "Resident memory of this process", used)
        self._show("memory_limit_bytes", "Its share of the cgroup's limit, else of the machine's memory", limit)
        self._show("memory_used_ratio", "The one by the other", lambda: used() / limit())
        high = "1 from 80 % of the limit on, until it is less than 75 % again"
        self._show("memory_high", high, lambda: process.memory_high)
        self._counter("worker_restarts_total", "Processes whose place this one has taken").inc(service.share.restarts)
        info = self._gauge("model_info", "The networks that are served", "name", "version", "backend", "sha256")
        for row in service.networks:
            info.labels(row.name, service.model.digest, service.model.engine, row.weights.sha256).set(1)

    # ── the library's kinds ──────────────────────────────────────────────────────────────────────

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, namespace="dulian", registry=self._registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(name, meaning, labels, namespace="dulian", registry=self._registry)

    def _show(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        self._gauge(name, meaning).set_function(read)

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, meaning, labels, namespace="dulian", registry=self._registry, buckets=buckets)


class _Timed:
    """Times one step of the work, for the metrics and for a trace."""

    __slots__ = ("_began", "_histogram", "_stage")

    def __init__(self, stage: Stage, histogram: Histogram) -> None:
        self._stage = stage
        self._histogram = histogram

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        ended = time.monotonic()
        self._histogram.observe(ended - self._began)
        tracing.note_stage(self._stage, self._began, ended)


def _number(value: int | None) -> float:
    return math.nan if value is None else value


def _format_of(data: bytes) -> str:
    try:
        return sniff(data)
    except UnsupportedImageError:
        return OTHER


# ── the layer round the application ──────────────────────────────────────────────────────────────


class Measured:
    """The outermost layer of an application: counts and times what all others answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._templates: Templates | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._exchange(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._app(scope, receive, self._counting_handshake(scope, send))
        else:
            await self._app(scope, receive, send)

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        metrics, inflight = self._metrics, self._metrics.inflight
        exchange = _Exchange(metrics, receive, send)
        inflight.inc()
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            inflight.dec()
        if exchange.status:
            took_s = time.monotonic() - exchange.started
            metrics.count_answer(self._template_of(scope), scope["method"], exchange.status, took_s)
        else:
            metrics.disconnects.inc()

    def _counting_handshake(self, scope: Scope, send: Send) -> Send:
        """Hear the first word: the status of what began as a request, and now has no end that could be timed."""
        opened = False

        async def send_counted(message: Message) -> None:
            nonlocal opened
            await send(message)
            if not opened:
                opened = True
                status = 101 if message["type"] == "websocket.accept" else message.get("status", 403)
                self._metrics.count_handshake(self._template_of(scope), status)

        return send_counted

    def _template_of(self, scope: Scope) -> str:
        if self._templates is None:  # routes may be added until the first request
            self._templates = Templates(scope["app"].routes)
        return self._templates.find(scope)


class _Exchange:
    """One request and its answer, overheard."""

    __slots__ = ("_bytes", "_metrics", "_read_from", "_receive", "_send", "started", "status")

    def __init__(self, metrics: Metrics, receive: Receive, send: Send) -> None:
        self._metrics = metrics
        self._receive = receive
        self._send = send
        self._bytes = 0
        self._read_from: float | None = None
        self.started = time.monotonic()
        self.status = 0

    async def receive(self) -> Message:
        if self._read_from is None:
            self._read_from = time.monotonic()
        message = await self._receive()
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            if not message.get("more_body", False):
                self._note_body(self._read_from, time.monotonic())
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    def _note_body(self, began: float, ended: float) -> None:
        if self._bytes:
            self._metrics.body_bytes.observe(self._bytes)
            self._metrics.stages["read"].observe(ended - began)
            tracing.note_stage("read", began, ended)


class Templates:
    """Which route a request belongs to, by the application's own table."""

    def __init__(self, routes: Sequence[Any]) -> None:
        described = [route for route in routes if hasattr(route, "path")]
        # Who is refused before the router is asked has a path, but no endpoint.
        self._fixed = frozenset(route.path for route in described if "{" not in route.path)
        self._by_endpoint = {getattr(route, "endpoint", None) or route.app: route.path for route in described}

    def find(self, scope: Scope) -> str:
        path: str = scope["path"]
        return path if path in self._fixed else self._by_endpoint.get(scope.get("endpoint"), OTHER)
