"""Spans of OpenTelemetry, made of what was noted, and the thread that sends them.

The only module that imports the library, and imported only where traces are wanted. The provider is this service's
own: no global one is set or read. When a request began is told by the library's clock, once; everything else about it
is reckoned from there by the monotonic one, so that no span is moved when somebody sets the clock.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.sdk.version import __version__ as sdk_version
from opentelemetry.trace import (
    NoOpTracer,
    SpanContext,
    SpanKind,
    StatusCode,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dulian import __version__
from dulian.service.log import log_event
from dulian.service.tracing import ERROR_CODE, Headers, Record, Value

# Spans that wait to be sent; a picture makes about eight.
QUEUE_SPANS = 4096
BATCH_SPANS = 512
SEND_EVERY_S = 1.0
# One batch, whatever is tried again included.
TIMEOUT_S = 3.0
# After a batch that could not be sent.
PAUSE_S = 5.0
# At the end of the process.
FLUSH_S = 2.0

SCOPE = InstrumentationScope("dulian", __version__)
TRACES_PATH = "/v1/traces"
_NS = 1_000_000_000


def otlp_exporter(endpoint: str) -> SpanExporter:
    """Sends spans to a collector by OTLP over HTTP; ``endpoint`` is the collector's address without a signal's path."""
    return OTLPSpanExporter(endpoint.rstrip("/") + TRACES_PATH, timeout=TIMEOUT_S)


class Spans:
    """The spans of one service. All but the sending happens in the threads of those who are answered."""

    def __init__(
        self, exporter: SpanExporter, *, ratio: float = 1.0, attributes: Mapping[str, Value] | None = None
    ) -> None:
        """``ratio`` is the share of the traces beginning here that are sampled; ``attributes`` all calls have."""
        # It would tell of every span that it cannot send; what there is to tell is told by the sender.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
        self._attributes = dict(attributes or {})
        self._sender = Sender(exporter)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=_resource(),
            shutdown_on_exit=False,
            span_limits=_limits(),
        )
        self._provider.add_span_processor(self._sender)
        self._tracer = self._provider.get_tracer(SCOPE.name, SCOPE.version)
        self._disabled = isinstance(self._tracer, NoOpTracer)  # by the environment
        self._propagator = TraceContextTextMapPropagator()

    def tell_losses(self, hear: Callable[[int], object]) -> None:
        """Have somebody hear how many spans were lost, whenever some are."""
        self._sender.hear = hear

    def begin(
        self, name: str, headers: Headers = (), *, within: Record | None = None, began: float | None = None
    ) -> Record:
        """The record of a call that begins now, in the trace that its headers name, else in that of another record.

        It may have begun earlier, by the monotonic clock, where it is within another one.
        """
        context, at = self._context(headers), None
        if within is not None and within.span is not None and context is None:
            context = set_span_in_context(within.span, Context())
            if began is not None and isinstance(within.span, Span):
                at = _wall(within, began)
        now = time.monotonic()
        span = self._tracer.start_span(name, context or Context(), kind=SpanKind.SERVER, start_time=at)
        own = span.get_span_context()
        ids = {"trace_id": format_trace_id(own.trace_id), "span_id": format_span_id(own.span_id)}
        record = Record(name, ids={} if self._disabled else ids, span=span, began=now if at is None else began)
        record.wanted = isinstance(span, Span)
        return record

    def finish(self, record: Record) -> None:
        """End a call, with all that was noted. What is noted later, by work that nobody waits for, is not sent."""
        if not record.wanted:
            return
        record.wanted = False
        record.ended = time.monotonic()
        span: Span = record.span
        span.update_name(record.name)
        span.set_attributes(self._attributes)
        self._complete(span, record, origin=record)

    def close(self) -> None:
        """Send what waits, for so long at most, and end the thread that sends."""
        self._sender.close(FLUSH_S)

    def _context(self, headers: Headers) -> Context | None:
        """The trace that a caller belongs to, as the library reads it; what is not well-formed says nothing."""
        found: dict[str, list[str]] = {}
        for name, value in headers:
            if name in (b"traceparent", b"tracestate"):
                found.setdefault(name.decode("ascii"), []).append(value.decode("latin-1"))
        # More than one is one too many: which is meant, nobody can tell.
        return self._propagator.extract(found, Context()) if len(found.get("traceparent", ())) == 1 else None

    def _complete(self, span: Span, record: Record, origin: Record) -> None:
        own = span.get_span_context()
        self._sender.add([self._step(own, origin, *stage) for stage in tuple(record.stages)])
        context = set_span_in_context(span, Context())
        for part in tuple(record.parts):
            below = self._tracer.start_span(part.name, context, start_time=_wall(origin, part.began))
            if isinstance(below, Span):
                self._complete(below, part, origin)
        span.set_attributes(dict(record.attributes))  # a copy: other threads may not have noticed the end yet
        if record.failed:
            span.set_attribute("error.type", record.attributes.get(ERROR_CODE, "_OTHER"))
            span.set_status(StatusCode.ERROR)
        span.end(_wall(origin, record.ended or time.monotonic()))

    def _step(self, parent: SpanContext, origin: Record, name: str, began: float, ended: float) -> ReadableSpan:
        """A span of which all is known already: made so, it takes a third of what it takes by a tracer."""
        span_id, flags = self._provider.id_generator.generate_span_id(), parent.trace_flags
        return ReadableSpan(
            name,
            SpanContext(parent.trace_id, span_id, is_remote=False, trace_flags=flags, trace_state=parent.trace_state),
            parent,
            self._provider.resource,
            start_time=_wall(origin, began),
            end_time=_wall(origin, ended),
            instrumentation_scope=SCOPE,
        )


def traceresponse(record: Record) -> bytes:
    """The header of that name for the answer: in which trace the call was seen, and as which span."""
    context = record.span.get_span_context()
    return f"00-{record.ids['trace_id']}-{record.ids['span_id']}-{context.trace_flags:02x}".encode("ascii")


def _wall(origin: Record, at: float) -> int:
    """Nanoseconds since 1970 of a monotonic time, by when the library says that a call began."""
    span: Span = origin.span
    return (span.start_time or 0) + round((at - origin.began) * _NS)


def _resource() -> Resource:
    """Who sends; ``OTEL_RESOURCE_ATTRIBUTES`` and ``OTEL_SERVICE_NAME`` may say otherwise, and more."""
    own = {
        "service.name": "dulian",
        "service.version": __version__,
        "service.instance.id": str(uuid.uuid4()),
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": sdk_version,
    }
    return _Resource({**own, **OTELResourceDetector().detect().attributes})


class _Resource(Resource):
    """Its hash is asked for with every span that is encoded, and is that of the same text each time."""

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return super().__hash__()


def _limits() -> SpanLimits:
    """Said in full, so that no variable of the environment is asked: one that makes no sense would raise."""
    return SpanLimits(
        max_attributes=64,
        max_events=0,
        max_links=0,
        max_span_attributes=64,
        max_event_attributes=0,
        max_link_attributes=0,
        max_attribute_length=256,
        max_span_attribute_length=256,
    )


class Sender(SpanProcessor):
    """Sends ended spans in batches from a thread of its own; who ends them never waits, and what has no place is lost.

    The library's own for batches ends within no bound, and reports every span that it loses.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._waiting: deque[ReadableSpan] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._end_at = 0.0
        self._failing = False
        self.hear: Callable[[int], object] = lambda count: None
        self._thread = threading.Thread(target=self._run, name="tracing", daemon=True)
        self._thread.start()

    def on_end(self, span: ReadableSpan) -> None:
        self.add([span])

    def add(self, spans: Sequence[ReadableSpan]) -> None:
        """Send these some time; as many as there is room for."""
        with self._changed:
            before = len(self._waiting)
            room = 0 if self._closing else QUEUE_SPANS - before
            self._waiting.extend(spans[:room])
            if not before or before < BATCH_SPANS <= len(self._waiting):
                self._changed.notify()
        if len(spans) > room:
            self.hear(len(spans) - room)

    def shutdown(self) -> None:
        self.close(FLUSH_S)

    def close(self, within_s: float) -> None:
        """Send what waits, for so long at most."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._end_at = time.monotonic() + within_s
            self._changed.notify()
        self._thread.join(within_s)
        if left := len(self._waiting):
            self._report(left)
        self._exporter.shutdown()

    def _run(self) -> None:
        while batch := self._next_batch():
            if self._send(batch):
                continue
            with self._changed:  # who could not take these will not take the next ones at once
                self._changed.wait_for(lambda: self._closing, PAUSE_S)

    def _next_batch(self) -> Sequence[ReadableSpan]:
        """What is to be sent next, waited for; nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            self._changed.wait_for(lambda: len(self._waiting) >= BATCH_SPANS or self._closing, SEND_EVERY_S)
            if self._closing and time.monotonic() >= self._end_at:
                return ()
            return [self._waiting.popleft() for _ in range(min(BATCH_SPANS, len(self._waiting)))]

    def _send(self, batch: Sequence[ReadableSpan]) -> bool:
        try:
            sent = self._exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception:  # noqa: BLE001 - whatever it is, it is not worth the thread
            sent = False
        if not sent:
            self._report(len(batch))
        elif self._failing:
            self._failing = False
            log_event("traces_sent", note="the collector takes spans again")
        return sent

    def _report(self, count: int) -> None:
        """Tell of spans that were lost: a line when it begins, and the number of all of them."""
        if not self._failing:
            self._failing = True
            log_event("traces_lost", level=logging.WARNING, note="the collector does not take spans", spans=count)
        self.hear(count)
