"""What is noted of a request while it is answered, where requests are traced; elsewhere a look at one variable.

Nothing here knows the library for tracing: what was noted becomes spans at the end of the request, in
:mod:`dulian.service.tracing.spans`, which is imported only where traces are wanted. Notes tell how long something took
and how it ended, never what was sent or seen: no path, query, header, name, address, and of faces only how many.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from dulian.errors import BackendError, DulianError, MissingDependencyError
from dulian.service.status import INTERNAL, http_status

if TYPE_CHECKING:
    from dulian.faces import AnalysisResult, ModelInfo
    from dulian.service.state import Service
    from dulian.service.tracing.spans import Spans
    from dulian.settings import Settings

T = TypeVar("T")
Value = str | int | float | bool
Headers = Iterable[tuple[bytes, bytes]]

ERROR_CODE = "dulian.error.code"
# What cannot be found where the extra is not installed.
_LIBRARY = "opentelemetry.exporter.otlp.proto.http"
_NONE: Mapping[str, str] = MappingProxyType({})


class Record:
    """What is noted of one request, frame or picture; any thread may add to it until it is finished.

    Times are monotonic seconds. ``wanted`` says whether notes are taken: not where the trace is not sampled, and not
    after the end. ``ids`` name the trace and the span, for lines of the log; ``span`` is the library's.
    """

    __slots__ = ("attributes", "began", "ended", "failed", "ids", "name", "parts", "span", "stages", "wanted")

    def __init__(self, name: str, *, ids: Mapping[str, str], span: Any = None, began: float | None = None) -> None:
        self.name = name
        self.ids = ids
        self.span = span
        self.began = time.monotonic() if began is None else began
        self.ended: float | None = None
        self.attributes: dict[str, Value] = {}
        self.stages: list[tuple[str, float, float]] = []
        self.parts: list[Record] = []
        self.failed = False
        self.wanted = True

    def note(self, name: str, value: Value) -> None:
        self.attributes[f"dulian.{name}"] = value

    def note_stage(self, stage: str, began: float, ended: float) -> None:
        self.stages.append((stage, max(began, self.began), ended))

    def note_result(self, result: AnalysisResult) -> None:
        """Note an analysis that has just ended; its stages, of which only durations are known, one after the other."""
        timings = result.timings_ms
        self.note("faces", len(result.faces) + result.skipped)
        began = time.monotonic() - timings.total / 1000
        for stage, took_ms in (
            ("sniff", timings.sniff),
            ("decode", timings.decode - timings.sniff),  # which is a part of it
            ("detect", timings.detect),
            ("attributes", timings.attributes),
        ):
            if took_ms > 0:
                ended = began + took_ms / 1000
                self.note_stage(stage, began, ended)
                began = ended

    def note_error(self, error: DulianError) -> None:
        self.attributes[ERROR_CODE] = error.code
        self.failed = http_status(error) >= INTERNAL


# ── the record of what is being answered here ────────────────────────────────────────────────────

_record: ContextVar[Record | None] = ContextVar("record", default=None)


def current() -> Record | None:
    """The record of what this task or thread is at work on, if notes are wanted."""
    record = _record.get()
    return record if record is not None and record.wanted else None


def ids() -> Mapping[str, str]:
    """``trace_id`` and ``span_id`` of what this task or thread is at work on, sampled or not; empty without a trace."""
    record = _record.get()
    return _NONE if record is None else record.ids


@contextmanager
def recorded(record: Record | None) -> Iterator[None]:
    """Have notes taken in that record, or in none: a task may have been begun by that of another request."""
    token = _record.set(record)
    try:
        yield
    finally:
        _record.reset(token)


def carried(work: Callable[[], T]) -> Callable[[], T]:
    """The same work, to be done by another thread in the name of this task; that it waited until then is noted."""
    record = current()
    if record is None:
        return work
    put_at = time.monotonic()

    def work_recorded() -> T:
        record.note_stage("queue", put_at, time.monotonic())
        with recorded(record):
            return work()

    return work_recorded


def note(name: str, value: Value) -> None:
    """Note something in few known words."""
    if (record := current()) is not None:
        record.note(name, value)


def note_stage(stage: str, began: float, ended: float) -> None:
    """Note that a step took from then to then, in monotonic seconds."""
    if (record := current()) is not None:
        record.note_stage(stage, began, ended)


def note_error(error: DulianError) -> None:
    """Note what the answer says instead of a result."""
    if (record := current()) is not None:
        record.note_error(error)


def part(name: str) -> AbstractContextManager[None]:
    """Have what this task does noted apart, as one of several parts of the same request."""
    whole = current()
    return nullcontext() if whole is None else _part(whole, name)


@contextmanager
def _part(whole: Record, name: str) -> Iterator[None]:
    record = Record(name, ids=whole.ids)
    whole.parts.append(record)
    try:
        with recorded(record):
            yield
    finally:
        record.ended = time.monotonic()
        record.wanted = False


@contextmanager
def start(
    service: Service,
    name: str,
    headers: Headers = (),
    *,
    began: float | None = None,
    attributes: Mapping[str, Value] = MappingProxyType({}),
) -> Iterator[Record | None]:
    """Trace a call that is no HTTP request: a remote procedure, a frame. Yields None where nothing is traced.

    ``headers`` are what the call brought along, its ``traceparent`` among them: names in lower case. Without them it
    belongs to the trace of what this task is at work on, and may have begun earlier. Who finds out more while it is
    answered puts it into ``attributes`` of the record, by names of the conventions. Errors that pass are noted.
    """
    spans = service.tracing
    if spans is None:
        yield None
        return
    record = spans.begin(name, headers, within=_record.get(), began=began)
    record.attributes.update(attributes)
    try:
        with recorded(record):
            yield record
    except DulianError as error:
        record.note_error(error)
        raise
    except Exception:
        record.attributes[ERROR_CODE] = DulianError.code
        record.failed = True
        raise
    finally:
        spans.finish(record)


# ── assembly ─────────────────────────────────────────────────────────────────────────────────────


def check_extra(settings: Settings) -> None:
    """Refuse to start where traces are wanted and cannot be sent; imports nothing.

    Raises:
        MissingDependencyError: The extra is not installed.
    """
    if settings.otel_endpoint is None:
        return
    try:
        found = importlib.util.find_spec(_LIBRARY)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise MissingDependencyError("otel_endpoint is set, and OpenTelemetry is missing; pip install 'dulian[otel]'")


def open_tracing(settings: Settings, model: ModelInfo) -> Spans | None:
    """Where traces go, as it is set; None, and nothing imported, without an address.

    Raises:
        BackendError: The extra is not installed, or does not like its variables.
    """
    if settings.otel_endpoint is None:
        return None
    check_extra(settings)
    try:
        from dulian.service.tracing.spans import Spans, otlp_exporter
    except ValueError as error:  # it reads variables as it is imported
        raise BackendError(f"OpenTelemetry cannot be used with this environment: {error}") from error
    return Spans(
        otlp_exporter(settings.otel_endpoint),
        ratio=settings.otel_sample_ratio,
        attributes={"dulian.profile": model.profile, "dulian.engine": model.engine},
    )
