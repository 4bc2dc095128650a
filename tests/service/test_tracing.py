"""Traces: which spans a request has, what is never in them, whose they are, and that nobody waits for a collector."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import time_machine
from tests.promises.harness import ROOT, Server, dulian_server
from tests.service.processes import command, finished
from tests.service.services import PATIENCE_S, FakeAnalysis, client_of, fake_service, wait_until
from tests.service.streams import Running, ask, running

from dulian.analyzer import AnalyzeOptions
from dulian.errors import ImageTruncatedError, InferenceError, MalformedInputError
from dulian.faces import (
    AgeEstimate,
    AnalysisResult,
    BoundingBox,
    Face,
    GenderEstimate,
    Quality,
    Timings,
)
from dulian.image import Image
from dulian.service import tracing
from dulian.service.cache import Keys, MemoryCache, SharedResults
from dulian.service.log import JsonFormatter
from dulian.service.state import Service
from dulian.service.tracing import Record
from dulian.settings import examine_settings
from dulian.store import ModelStore

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra otel is not installed")

from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SentSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tests.service.otlp import attributes, collecting, parent

from dulian.service.tracing import spans as spans_module
from dulian.service.tracing.spans import BATCH_SPANS, QUEUE_SPANS, Sender, Spans, otlp_exporter

TIMINGS = Timings(sniff=1.0, decode=3.0, detect=4.0, attributes=5.0, total=14.0)
STAGES = ["read", "queue", "sniff", "decode", "detect", "attributes", "encode"]
SEEN = "Female"
SECRETS = ("GeheimesFoto", "geheim", "192.0.2.7", SEEN.lower(), "bucket", "curl/8")


def face(number: int) -> Face:
    age = AgeEstimate(31.0, 20.0, 40.0, 0.9, "(25-32)", 0.7)
    gender = GenderEstimate("female", 0.97, 0.97)
    return Face(number, BoundingBox(1, 2, 30, 40), 0.9, None, age, gender, Quality(0.9, 0.9, 0.5, 29), "ok", SEEN)


class TimedAnalysis(FakeAnalysis):
    """Sees as many faces as the first byte says, and claims to have taken its time for each step."""

    def __call__(self, data: bytes, options: AnalyzeOptions) -> tuple[AnalysisResult, Callable[[], Image]]:
        result, load = super().__call__(data, options)
        time.sleep(TIMINGS.total / 1000)
        return replace(result, faces=tuple(face(number) for number in range(data[0] % 8)), timings_ms=TIMINGS), load


class CountedSpans(Spans):
    """Knows how many calls have not ended yet: that is after their clients have their answers."""

    open = 0

    def begin(self, *arguments: Any, **more: Any) -> Record:
        record = super().begin(*arguments, **more)
        self.open += record.wanted
        return record

    def finish(self, record: Record) -> None:
        was_open = record.wanted
        super().finish(record)
        self.open -= was_open


class Traced:
    """A server as in production whose spans stay in memory."""

    def __init__(self, run: Running, spans: CountedSpans, exporter: InMemorySpanExporter) -> None:
        self.run = run
        self.service = run.service
        self._spans = spans
        self._exporter = exporter

    def spans(self) -> tuple[ReadableSpan, ...]:
        """All of them; ends the tracing."""
        wait_until(lambda: self._spans.open == 0)
        self._spans.close()
        return self._exporter.get_finished_spans()

    def client(self, **more: Any) -> httpx.Client:
        return httpx.Client(base_url=f"http://{self.run.host}", timeout=PATIENCE_S, trust_env=False, **more)


@contextmanager
def traced(analysis: FakeAnalysis | None = None, *, ratio: float = 1.0, cached: bool = False, **limits: Any) -> Any:
    with fake_service(analysis or TimedAnalysis(), **limits) as service:
        exporter = InMemorySpanExporter()
        spans = CountedSpans(exporter, ratio=ratio, attributes={"dulian.profile": service.model.profile})
        service.tracing = spans
        if cached:
            service.results = SharedResults(MemoryCache(2**20, 60.0), Keys(service.model), service.admission)
        with running(service) as run:
            yield Traced(run, spans, exporter)
        spans.close()


def calls(spans: Sequence[ReadableSpan]) -> list[ReadableSpan]:
    return [span for span in spans if span.kind is SpanKind.SERVER]


def below(spans: Sequence[ReadableSpan], of: ReadableSpan) -> list[ReadableSpan]:
    """A span's children in the order of time."""
    assert of.context
    found = [span for span in spans if span.parent and span.parent.span_id == of.context.span_id]
    return sorted(found, key=lambda span: (span.start_time or 0, span.end_time or 0))


def the_only_call(traced: Traced) -> tuple[ReadableSpan, list[ReadableSpan]]:
    spans = traced.spans()
    (call,) = calls(spans)
    return call, below(spans, call)


# ── the shape of a trace ─────────────────────────────────────────────────────────────────────────


def test_a_request_is_one_span_and_each_step_one_below_it() -> None:
    with traced() as service, service.client() as client:
        assert client.post("/v1/analyze", content=b"\x03picture").status_code == 200
        spans = service.spans()
    (call,) = calls(spans)
    steps = below(spans, call)
    assert len(spans) == len(steps) + 1
    assert [step.name for step in steps] == STAGES
    assert {step.kind for step in steps} == {SpanKind.INTERNAL}
    assert (call.name, call.parent, call.status.status_code) == ("POST /v1/analyze", None, StatusCode.UNSET)
    assert dict(call.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/v1/analyze",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "dulian.profile": "fake",
        "dulian.faces": 3,
    }
    assert all(not step.attributes and not step.events and not step.links for step in steps)
    assert all(call.start_time <= step.start_time <= step.end_time <= call.end_time for step in steps)
    took_ms = {step.name: (step.end_time - step.start_time) / 1e6 for step in steps}
    assert [took_ms[name] for name in STAGES[2:6]] == pytest.approx([1.0, 2.0, 4.0, 5.0], abs=0.001)
    ends = [step.end_time for step in steps[1:6]]
    assert ends == sorted(ends)
    resource = dict(call.resource.attributes)
    assert resource["service.name"] == "dulian"
    assert {"service.version", "service.instance.id", "telemetry.sdk.name"} < set(resource)


def test_a_drawn_copy_is_a_step() -> None:
    with traced() as service, service.client(headers={"accept": "image/jpeg"}) as client:
        assert client.post("/v1/analyze", content=b"\x01").headers["content-type"] == "image/jpeg"
        _, steps = the_only_call(service)
    assert [step.name for step in steps] == [*STAGES[:-1], "draw", "encode"]


def test_nothing_that_was_sent_or_seen_is_in_a_span() -> None:
    headers = {"user-agent": "curl/8", "x-forwarded-for": "192.0.2.7", "x-request-id": "geheim", "host": "geheim"}
    with traced() as service, service.client(headers=headers) as client:
        upload = {"image": ("GeheimesFoto.jpg", b"\x02 GeheimesFoto", "image/jpeg")}
        assert client.post("/predict", files=upload).status_code == 200
        drawn = client.post("/predict", files=upload).json()["output_image"]
        assert client.get(drawn).status_code == 200
        assert client.get("/geheim/GeheimesFoto.jpg?geheim").status_code == 404
        assert client.post("/v1/analyze?geheim=1", content=b"\x02").status_code == 400
        assert client.request("GEHEIM", "/v1/analyze").status_code in (400, 405)
        spans = service.spans()
    text = "".join(str(span.to_json()) for span in spans) + repr([span.resource.attributes for span in spans])
    assert [secret for secret in (*SECRETS, drawn.rpartition("/")[2]) if secret.lower() in text.lower()] == []
    names = Counter(span.name for span in calls(spans))
    assert names["POST /predict"] == 2
    assert names["GET /images/{picture_id}"] == names["GET"] == names["POST /v1/analyze"] == 1
    allowed = {"http.request.method", "http.route", "http.response.status_code", "url.scheme"}
    allowed |= {"dulian.profile", "dulian.faces", "dulian.error.code", "error.type"}
    assert {key for span in spans for key in span.attributes or ()} == allowed - {"error.type"}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(InferenceError("why"), 500, "inference_failed"), (ImageTruncatedError("why"), 422, "image_truncated")],
)
def test_an_error_is_told_by_its_code(error: Exception, status: int, code: str) -> None:
    with traced(FakeAnalysis(error=error)) as service, service.client() as client:
        answer = client.post("/v1/analyze", content=b"x")
        call, _ = the_only_call(service)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert call.attributes["dulian.error.code"] == code
    assert call.attributes["http.response.status_code"] == status
    assert call.status.description is None
    failed = status >= 500  # by the conventions, what the caller did wrong is no failure of the server's
    assert call.status.status_code is (StatusCode.ERROR if failed else StatusCode.UNSET)
    assert call.attributes.get("error.type") == (code if failed else None)


def test_what_nobody_expected_is_an_error() -> None:
    with traced(FakeAnalysis(error=ValueError("geheim"))) as service, service.client() as client:
        assert client.post("/v1/analyze", content=b"x").status_code == 500
        call, _ = the_only_call(service)
    assert call.status.status_code is StatusCode.ERROR
    assert "geheim" not in str(call.to_json())


def test_who_waits_in_vain_has_waited() -> None:
    """A deadline that passes in the queue, and one that passes while a thread is at work; later notes are nobody's."""
    analysis = TimedAnalysis()
    with traced(analysis) as service, service.client() as client, ThreadPoolExecutor(2) as others:
        analysis.leave.clear()
        headers = {"x-request-timeout-ms": "300"}
        first = others.submit(client.post, "/v1/analyze", content=b"\x01first", headers=headers)
        assert analysis.begun.acquire(timeout=PATIENCE_S)
        second = others.submit(client.post, "/v1/analyze", content=b"\x01second", headers=headers)
        assert [first.result().status_code, second.result().status_code] == [504, 504]
        analysis.leave.set()
        wait_until(lambda: service.service.pool.busy == 0)
        spans = service.spans()
    for call in calls(spans):
        assert call.attributes["error.type"] == "deadline_exceeded"
        assert [step.name for step in below(spans, call)] == ["read", "queue"]
    waits = [(span.end_time - span.start_time) / 1e9 for span in spans if span.name == "queue"]
    assert min(waits) < 0.2 < max(waits)


def test_a_client_that_leaves_has_no_status() -> None:
    analysis = FakeAnalysis()
    with traced(analysis) as service:
        analysis.leave.clear()
        while analysis.begun.acquire(blocking=False):
            pass
        host, _, port = service.run.host.partition(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST /v1/analyze HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
            assert analysis.begun.acquire(timeout=PATIENCE_S)
        wait_until(lambda: service.service.admission.waiting == 0)
        analysis.leave.set()
        call, _ = the_only_call(service)
    assert "http.response.status_code" not in call.attributes
    assert call.attributes["dulian.client_gone"] is True


def test_each_picture_of_a_batch_has_its_own_steps() -> None:
    class Analysis(TimedAnalysis):
        def __call__(self, data: bytes, options: AnalyzeOptions) -> tuple[AnalysisResult, Callable[[], Image]]:
            if data == b"bad":
                raise ImageTruncatedError("")
            return super().__call__(data, options)

    with traced(Analysis()) as service, service.client() as client:
        files = [("image", ("a.jpg", data)) for data in (b"\x01", b"bad", b"\x05")]
        assert client.post("/v1/batch", files=files).status_code == 200
        spans = service.spans()
    (call,) = calls(spans)
    pictures = [span for span in below(spans, call) if span.name == "picture"]
    told = sorted(
        (picture.attributes.get("dulian.faces", 0), picture.attributes.get("dulian.error.code")) for picture in pictures
    )
    assert told == [(0, "image_truncated"), (1, None), (5, None)]
    for picture in pictures:
        steps = [step.name for step in below(spans, picture)]
        assert steps == (["queue"] if "dulian.error.code" in picture.attributes else STAGES[1:6])
        assert call.start_time <= picture.start_time <= picture.end_time <= call.end_time
    assert "dulian.faces" not in call.attributes


def test_each_frame_of_a_stream_has_a_span_in_the_trace_of_its_handshake() -> None:
    trace_id, span_id, headers = parent(7)
    with traced() as service:
        with service.run.open(additional_headers=headers) as client:
            assert client.response.headers["traceresponse"].split("-")[1] == trace_id
            assert len(ask(client, b"\x02")["faces"]) == 2
            assert ask(client, b"")["error"]["code"] == "malformed_input"
        spans = service.spans()
    handshake, good, bad = calls(spans)
    assert (handshake.name, handshake.attributes["http.response.status_code"]) == ("GET /v1/stream", 101)
    assert handshake.parent
    assert f"{handshake.parent.span_id:016x}" == span_id
    assert {f"{span.context.trace_id:032x}" for span in spans} == {trace_id}
    assert [span.name for span in below(spans, handshake)] == ["frame", "frame"]
    assert [step.name for step in below(spans, good)] == STAGES[1:6]
    assert (good.attributes["dulian.faces"], bad.attributes["dulian.error.code"]) == (2, "malformed_input")
    assert handshake.end_time < good.end_time < bad.end_time


def test_a_stream_that_is_refused_has_the_status_of_its_refusal() -> None:
    with traced(max_streams=1) as service:
        service.service.streams = 1
        with service.client() as client:
            assert client.get("/v1/stream").status_code == 426
        with pytest.raises(Exception, match="503"):
            service.run.open()
        service.service.streams = 0
        statuses = [span.attributes["http.response.status_code"] for span in calls(service.spans())]
    assert statuses == [426, 503]


def test_what_the_cache_says_is_noted() -> None:
    analysis = TimedAnalysis()
    with traced(analysis, cached=True) as service, service.client() as client, ThreadPoolExecutor(2) as others:
        analysis.leave.clear()
        both = [others.submit(client.post, "/v1/analyze", content=b"\x02same") for _ in range(2)]
        wait_until(lambda: service.service.admission.waiting == 2)
        analysis.leave.set()
        assert {one.result().headers["x-cache"] for one in both} == {"miss", "shared"}
        assert client.post("/v1/analyze", content=b"\x02same").headers["x-cache"] == "hit"
        spans = service.spans()
    steps = {span.attributes["dulian.cache.memory"]: [one.name for one in below(spans, span)] for span in calls(spans)}
    assert steps == {"miss": STAGES, "shared": ["read"], "hit": ["read"]}


def test_probes_scrapes_and_rehearsals_are_not_traced() -> None:
    _, _, headers = parent(1)
    with traced() as service, service.client(headers=headers) as client:
        for path in ("/livez", "/readyz", "/metrics"):
            answer = client.get(path)
            assert answer.status_code == 200
            assert "traceresponse" not in answer.headers
        assert client.get("/v1/limits").headers["traceresponse"]
        names = [span.name for span in service.spans()]
    assert names == ["GET /v1/limits"]


def test_a_probe_notes_nothing_in_the_record_of_another_request() -> None:
    """A server may begin the next request of a connection in the context of the one before."""
    record = Record("before", ids={})

    async def main(service: Service) -> None:
        with tracing.recorded(record):
            async with client_of(service) as client:
                assert (await client.put("/readyz")).status_code == 405

    with traced() as service:
        asyncio.run(main(service.service))
    assert record.attributes == {}


@pytest.mark.parametrize("days", [1, -1])
def test_no_span_is_moved_when_the_clock_is_set(days: int) -> None:
    analysis = TimedAnalysis()
    with traced(analysis) as service, service.client() as client, ThreadPoolExecutor(1) as others:
        analysis.leave.clear()
        waiting = others.submit(client.post, "/v1/analyze", content=b"\x01")
        wait_until(lambda: service.service.pool.busy == 1)
        with time_machine.travel(datetime.now(UTC) + timedelta(days=days)):
            analysis.leave.set()
            assert waiting.result().status_code == 200
            call, steps = the_only_call(service)
    assert 0 < call.end_time - call.start_time < PATIENCE_S * 1e9
    assert all(call.start_time <= step.start_time <= step.end_time <= call.end_time for step in steps)


# ── whose trace it is ────────────────────────────────────────────────────────────────────────────


def test_a_request_belongs_to_the_trace_of_its_caller() -> None:
    trace_id, span_id, headers = parent(3)
    with traced() as service, service.client(headers={**headers, "tracestate": "a=1,b=2"}) as client:
        answer = client.post("/v1/analyze", content=b"\x01")
        call, steps = the_only_call(service)
    assert call.parent
    assert call.parent.is_remote
    assert f"{call.parent.trace_id:032x}-{call.parent.span_id:016x}" == f"{trace_id}-{span_id}"
    assert answer.headers["traceresponse"] == f"00-{trace_id}-{call.context.span_id:016x}-01"
    assert dict(call.context.trace_state) == {"a": "1", "b": "2"}
    assert {step.context.trace_id for step in steps} == {int(trace_id, 16)}


GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", value)]
        for value in (
            "",
            "x" * 8000,
            GOOD.upper(),
            GOOD.replace("00-", "ff-", 1),
            GOOD + "-more",
            GOOD[:-3],
            "00-" + "0" * 32 + GOOD[35:],
            GOOD[:36] + "0" * 16 + "-01",
            GOOD.replace("a", "\xe9"),
            GOOD.replace("-", "\t"),
            "'; DROP TABLE spans; --",
        )
    ]
    + [[("traceparent", GOOD), ("traceparent", GOOD.replace("b7", "b8"))]],
)
def test_a_hostile_trace_context_is_none(headers: list[tuple[str, str]]) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    with traced() as service, service.client() as client:
        answer = client.post("/v1/analyze", content=b"\x01", headers=raw)
        call, _ = the_only_call(service)
    assert answer.status_code == 200
    assert call.parent is None
    assert call.context.trace_id not in (0, int(GOOD[3:35], 16))


@pytest.mark.parametrize("state", ["x" * 5000, "=" * 300, "a=" + "\xe9" * 20, ",".join(f"k{n}=v" for n in range(200))])
def test_a_hostile_tracestate_harms_nothing(state: str) -> None:
    raw = [(b"traceparent", GOOD.encode()), (b"tracestate", state.encode("latin-1"))]
    with traced() as service, service.client() as client:
        assert client.post("/v1/analyze", content=b"\x01", headers=raw).status_code == 200
        call, _ = the_only_call(service)
    assert call.context.trace_id == int(GOOD[3:35], 16)
    assert len(call.context.trace_state) <= 32
    assert len(call.context.trace_state.to_header()) <= 512


def test_a_caller_who_is_not_sampled_makes_no_spans() -> None:
    trace_id, _, headers = parent(5, sampled=False)
    with traced() as service, service.client(headers=headers) as client:
        answer = client.post("/v1/analyze", content=b"\x01")
        assert client.post("/v1/batch", files=[("image", ("a", b"\x01"))]).status_code == 200
        with service.run.open(additional_headers=headers) as stream:
            assert ask(stream, b"\x01")["faces"]
        assert service.spans() == ()
    assert answer.headers["traceresponse"].startswith(f"00-{trace_id}-")
    assert answer.headers["traceresponse"].endswith("-00")


@pytest.mark.parametrize(("ratio", "own", "of_callers"), [(0.0, 0, 20), (1.0, 20, 20)])
def test_the_ratio_is_for_traces_that_begin_here(ratio: float, own: int, of_callers: int) -> None:
    with traced(FakeAnalysis(), ratio=ratio) as service, service.client() as client:
        for number in range(20):
            assert client.get("/v1/limits").status_code == 200
            assert client.get("/v1/limits", headers=parent(number)[2]).status_code == 200
        found = Counter(span.parent is None for span in service.spans())
    assert (found[True], found[False]) == (own, of_callers)


def test_requests_at_the_same_time_never_mix_their_spans() -> None:
    """By the number of faces, which is in the picture; over kept connections, on some of them without waiting."""
    analysis = TimedAnalysis()

    def many(worker: int) -> None:
        with service.client() as client:
            for number in range(12):
                _, _, headers = parent(worker * 100 + number)
                body = bytes([(worker + number) % 8])
                assert client.post("/v1/analyze", content=body, headers=headers).status_code == 200

    def pipelined(worker: int) -> None:
        host, _, port = service.run.host.partition(":")
        with socket.create_connection((host, int(port)), PATIENCE_S) as client:
            for first in range(0, 12, 4):  # with the probes between them no more than may wait on one connection
                requests = b""
                for number in range(first, first + 4):
                    probe = "PUT /readyz HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"  # has an error to note
                    head = "POST /v1/analyze HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\ntraceparent: "
                    told = parent(worker * 100 + number)[2]["traceparent"]
                    requests += f"{probe}{head}{told}\r\n\r\n".encode() + bytes([(worker + number) % 8])
                client.sendall(requests)
                got = b""
                while got.count(b"HTTP/1.1 200 ") + got.count(b"HTTP/1.1 405 ") < 8 or not got.endswith(b"}"):
                    got += client.recv(65536) or pytest.fail(got.decode())

    with traced(analysis, workers=2) as service:
        with ThreadPoolExecutor(8) as clients:
            work = [clients.submit(many if worker < 5 else pipelined, worker) for worker in range(8)]
            assert [one.result() for one in work] == [None] * 8
        spans = service.spans()
    assert len(calls(spans)) == 96
    for call in calls(spans):
        number = call.context.trace_id - 1
        assert call.attributes["dulian.faces"] == (number // 100 + number % 100) % 8
        assert "dulian.error.code" not in call.attributes
        steps = below(spans, call)
        assert [step.name for step in steps] == [name for name in STAGES if name in {s.name for s in steps}]
        assert Counter(step.name for step in steps) == Counter(STAGES)
        assert {step.context.trace_id for step in steps} == {call.context.trace_id}
        assert all(call.start_time <= step.start_time <= step.end_time <= call.end_time for step in steps)


def test_lines_of_the_log_name_the_trace(caplog: pytest.LogCaptureFixture) -> None:
    trace_id, _, headers = parent(9)
    _, _, unsampled = parent(10, sampled=False)
    caplog.set_level(logging.INFO, logger="dulian.service")
    with traced(FakeAnalysis(error=InferenceError("why"))) as service, service.client() as client:
        client.post("/v1/analyze", content=b"x", headers=headers)
        client.post("/v1/analyze", content=b"x", headers=unsampled)
        call, _ = the_only_call(service)
    lines = [json.loads(JsonFormatter({}).format(record)) for record in caplog.records]
    failed, silent = [line for line in lines if "trace_id" in line]  # the rehearsal has failed too, without one
    assert (failed["trace_id"], failed["span_id"]) == (trace_id, f"{call.context.span_id:016x}")
    assert silent["trace_id"] == f"{11:032x}"
    assert failed["event"] == silent["event"] == "analysis_failed"


def test_the_library_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with traced() as service, service.client(headers=parent(1)[2]) as client:
        answer = client.post("/v1/analyze", content=b"\x01")
        with service.run.open(additional_headers=parent(1)[2]) as stream:
            assert ask(stream, b"\x01")["faces"]
        assert service.spans() == ()
    assert answer.status_code == 200
    assert "traceresponse" not in answer.headers


# ── calls that are no HTTP requests ──────────────────────────────────────────────────────────────


def test_other_transports_trace_their_calls_by_the_same_means() -> None:
    trace_id, span_id, headers = parent(4)
    metadata = [(name.encode(), value.encode()) for name, value in headers.items()]
    rpc = {"rpc.system": "grpc"}

    async def call(service: Service, error: Exception | None) -> None:
        with tracing.start(service, "dulian.v1.Dulian/Analyze", metadata, attributes=rpc) as record:
            assert record is not None
            record.attributes["rpc.grpc.status_code"] = 0
            hold = tracing.carried(lambda: tracing.note("faces", 2))
            await asyncio.get_running_loop().run_in_executor(None, hold)
            if error:
                raise error

    with traced() as service:
        asyncio.run(call(service.service, None))
        with pytest.raises(InferenceError):
            asyncio.run(call(service.service, InferenceError("")))
        with pytest.raises(MalformedInputError):
            asyncio.run(call(service.service, MalformedInputError("")))
        with pytest.raises(ValueError, match="x"):
            asyncio.run(call(service.service, ValueError("x")))
        spans = service.spans()
    told = [(span.status.status_code is StatusCode.ERROR, span.attributes.get("error.type")) for span in calls(spans)]
    assert told == [(False, None), (True, "inference_failed"), (False, None), (True, "internal")]
    first = calls(spans)[0]
    assert dict(first.attributes) == {**rpc, "rpc.grpc.status_code": 0, "dulian.faces": 2, "dulian.profile": "fake"}
    assert first.parent
    assert f"{first.parent.trace_id:032x}-{first.parent.span_id:016x}" == f"{trace_id}-{span_id}"
    assert [step.name for step in below(spans, first)] == ["queue"]


def test_without_tracing_a_call_has_no_record() -> None:
    with fake_service(FakeAnalysis()) as service, tracing.start(service, "call", [(b"traceparent", b"x")]) as record:
        assert record is None
        assert (tracing.current(), dict(tracing.ids())) == (None, {})
        work = object()
        assert tracing.carried(work) is work  # type: ignore[arg-type]


# ── the thread that sends ────────────────────────────────────────────────────────────────────────


class StuckExporter(SpanExporter):
    """Takes what it is given until told to hold it, to fail or to raise."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.result = SpanExportResult.SUCCESS
        self.raises: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()
        self.closed = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken.append(len(spans))
        assert self.go_on.wait(PATIENCE_S)
        if self.raises:
            raise self.raises
        return self.result

    def shutdown(self) -> None:
        self.closed = True


@pytest.fixture
def stuck() -> Iterator[tuple[StuckExporter, Sender, list[int]]]:
    exporter = StuckExporter()
    sender = Sender(exporter)
    lost: list[int] = []
    sender.hear = lost.append
    yield exporter, sender, lost
    exporter.go_on.set()
    sender.close(PATIENCE_S)
    wait_until(lambda: "tracing" not in {thread.name for thread in threading.enumerate()})


ENDED = ReadableSpan("ended")


def test_who_ends_a_span_never_waits_and_no_more_are_kept_than_there_is_room_for(
    stuck: tuple[StuckExporter, Sender, list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    exporter, sender, lost = stuck
    exporter.go_on.clear()
    sender.on_end(ENDED)
    wait_until(lambda: exporter.taken == [1])
    for _ in range(QUEUE_SPANS + 500):
        sender.on_end(ENDED)
    assert sum(lost) == 500
    exporter.go_on.set()
    sender.close(PATIENCE_S)
    assert sum(exporter.taken) == 1 + QUEUE_SPANS
    assert max(exporter.taken) == BATCH_SPANS
    assert exporter.closed
    sender.on_end(ENDED)
    assert sum(lost) == 501


@pytest.mark.parametrize("raises", [None, RuntimeError("a defect of the exporter")])
def test_a_collector_that_fails_is_one_line_of_the_log_and_left_alone_for_a_while(
    stuck: tuple[StuckExporter, Sender, list[int]],
    raises: Exception | None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exporter, sender, lost = stuck
    caplog.set_level(logging.INFO, logger="dulian.service")
    monkeypatch.setattr(spans_module, "PAUSE_S", 0.05)
    monkeypatch.setattr(spans_module, "SEND_EVERY_S", 0.01)
    exporter.result, exporter.raises = SpanExportResult.FAILURE, raises
    for number in range(1, 4):
        sender.on_end(ENDED)
        wait_until(lambda number=number: len(lost) == number)  # type: ignore[misc]
    monkeypatch.setattr(spans_module, "PAUSE_S", PATIENCE_S)
    sender.on_end(ENDED)
    wait_until(lambda: len(lost) == 4)
    attempts = len(exporter.taken)
    for _ in range(3 * BATCH_SPANS):
        sender.on_end(ENDED)
    time.sleep(0.2)  # of thirty seconds
    assert len(exporter.taken) == attempts
    assert [record.message for record in caplog.records] == ["traces_lost"]
    exporter.result, exporter.raises = SpanExportResult.SUCCESS, None
    sender.close(PATIENCE_S)
    assert [record.message for record in caplog.records] == ["traces_lost", "traces_sent"]
    assert sum(exporter.taken) == 4 + 3 * BATCH_SPANS


def test_the_end_does_not_wait_for_a_collector_that_hangs(stuck: tuple[StuckExporter, Sender, list[int]]) -> None:
    exporter, sender, lost = stuck
    exporter.go_on.clear()
    for _ in range(BATCH_SPANS + 10):
        sender.on_end(ENDED)
    wait_until(lambda: len(exporter.taken) == 1)
    sender.close(0.05)
    assert exporter.closed
    assert sum(lost) == BATCH_SPANS + 10 - exporter.taken[0]


def test_a_collector_that_has_no_time_is_asked_a_few_times_and_not_more(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with collecting(status=503) as collector:
        spans = Spans(otlp_exporter(collector.url))
        lost: list[int] = []
        spans.tell_losses(lost.append)
        for _ in range(3 * BATCH_SPANS):
            spans.finish(spans.begin("call"))
        wait_until(lambda: bool(lost))
        assert 1 <= collector.asked <= 4
        spans.close()
        assert collector.asked <= 8
    assert sum(lost) == 3 * BATCH_SPANS
    told = [record.message for record in caplog.records if not record.name.startswith("urllib3")]
    assert told == ["traces_lost"]


# ── a real server ────────────────────────────────────────────────────────────────────────────────

weights = pytest.mark.weights


@pytest.fixture(scope="module")
def portrait(samples: Path) -> bytes:
    return (samples / "astronaut.png").read_bytes()


@contextmanager
def serving(store: ModelStore, endpoint: str, *arguments: str, **environment: str | None) -> Iterator[Server]:
    """``dulian serve`` that sends its spans there, past all proxies."""
    direct = {"NO_PROXY": "127.0.0.1", "DULIAN_OTEL_ENDPOINT": endpoint, **environment}
    with dulian_server(store, *arguments, **direct) as server:
        yield server


def post(server: Server, picture: bytes, **headers: str) -> httpx.Response:
    url = f"{server.url}/v1/analyze"
    return httpx.post(url, content=picture, headers=headers, timeout=PATIENCE_S, trust_env=False)


def comparable(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return {key: value for key, value in answer.json().items() if key not in ("request_id", "timings_ms")}


@weights
def test_spans_reach_a_collector_in_the_trace_of_the_caller(
    model_store: ModelStore, portrait: bytes, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(TELL_IMPORTS)
    trace_id, span_id, headers = parent(1)
    environment = {
        "PYTHONPATH": str(tmp_path),
        "OTEL_SERVICE_NAME": "faces",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abc",
        "OTEL_TRACES_SAMPLER": "always_off",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "1",
        "OTEL_BSP_MAX_QUEUE_SIZE": "nonsense",
    }
    with collecting() as collector, serving(model_store, collector.url, **environment) as server:
        assert post(server, portrait, **headers).status_code == 200
        spans = collector.wait_for(trace_id)
        assert post(server, b"no picture", **headers).status_code == 415
        assert post(server, portrait, **parent(1, sampled=False)[2]).status_code == 200
        assert server.stop() == 0
    (call,) = [span for span in spans if span.kind == SentSpan.SPAN_KIND_SERVER]
    assert (call.name, call.parent_span_id.hex()) == ("POST /v1/analyze", span_id)
    steps = sorted((span for span in spans if span is not call), key=lambda span: span.start_time_unix_nano)
    assert {span.parent_span_id for span in steps} == {call.span_id}
    assert [span.name for span in steps] == STAGES
    assert attributes(call)["dulian.faces"] == 1
    assert attributes(call)["dulian.profile"] == "standard"
    assert abs(call.start_time_unix_nano / 1e9 - time.time()) < PATIENCE_S
    resource = collector.resources[0]
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("faces", "test")
    assert {head["path"] for head in collector.heads} == {"/v1/traces"}
    assert {head["authorization"] for head in collector.heads} == {"Bearer abc"}
    # What came at the end was sent before the process ended; what is not sampled never.
    ended = [attributes(one) for one in collector.spans if one.kind == SentSpan.SPAN_KIND_SERVER]
    assert sorted(one["http.response.status_code"] for one in ended) == [200, 415]
    assert {one.status.code for one in collector.spans} == {Status.STATUS_CODE_UNSET}
    assert not [secret for secret in (b"female", b"male", b"bucket") if secret in b"".join(collector.bodies)]
    events = [event["event"] for event in server.events]
    assert events == ["models_ready", "listening", "draining", "stopped", "imported"]
    assert "opentelemetry.sdk" in imported(server)


@weights
def test_each_process_sends_for_itself(model_store: ModelStore, portrait: bytes) -> None:
    with collecting() as collector, serving(model_store, collector.url, "--workers", "2", "--threads", "1") as server:
        for number in range(200):
            assert post(server, portrait, **parent(number)[2]).status_code == 200
            if len({one["service.instance.id"] for one in collector.resources}) == 2:
                break
        assert server.stop() == 0
        made = number + 1
    assert len({one["service.instance.id"] for one in collector.resources}) == 2
    assert len([one for one in collector.spans if one.kind == SentSpan.SPAN_KIND_SERVER]) == made
    assert [one.name for one in collector.traces()[f"{made:032x}"] if one.kind == SentSpan.SPAN_KIND_SERVER]


@weights
@pytest.mark.parametrize("trouble", ["away", "slow", "500"])
def test_a_collector_in_trouble_changes_no_answer_and_holds_up_no_end(
    trouble: str, model_store: ModelStore, portrait: bytes
) -> None:
    behaviour: dict[str, Any] = {"slow": {"delay_s": PATIENCE_S}, "500": {"status": 500}}
    with collecting(**behaviour.get(trouble, {})) as collector:
        endpoint = collector.url if trouble != "away" else f"http://127.0.0.1:{free_port()}"
        with serving(model_store, endpoint) as server:
            answers = [post(server, portrait, **parent(number)[2]) for number in range(5)]
            assert {json.dumps(comparable(one)) for one in answers} == {json.dumps(comparable(answers[0]))}
            wait_until(lambda: lost_spans(server) > 0)
            began = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began < 28  # a hang guard: a supervisor would kill it then
        assert collector.spans == []
    events = [event["event"] for event in server.events]
    assert events == ["models_ready", "listening", "traces_lost", "draining", "stopped"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def lost_spans(server: Server) -> float:
    text = httpx.get(f"{server.url}/metrics", timeout=PATIENCE_S, trust_env=False).text
    (line,) = [line for line in text.splitlines() if line.startswith("dulian_trace_spans_lost_total ")]
    return float(line.split()[1])


# ── the extra, and what is off ───────────────────────────────────────────────────────────────────

TELL_IMPORTS = """
import atexit, json, sys
EXTRA = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto", "requests",
         "dulian.service.tracing.spans")
atexit.register(lambda: print(json.dumps({
    "event": "imported", "names": sorted(name for name in sys.modules if name.startswith(EXTRA))
}), file=sys.stderr))
"""
HIDE = "import sys; sys.modules['opentelemetry.exporter'] = None"
# FastAPI traces by itself wherever somebody has set a provider for all, path, query and texts of errors included.
FOREIGN = """
import asyncio, httpx
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.service.services import FakeAnalysis, client_of, fake_service
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
async def main():
    async with client_of(service) as client:
        assert (await client.get("/v1/limits")).status_code == 200
        assert (await client.post("/v1/analyze", content=b"x")).status_code == 200
    print(len(exporter.get_finished_spans()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(FastAPI()), base_url="http://test") as client:
        await client.get("/docs")
    print(len(exporter.get_finished_spans()))
with fake_service(FakeAnalysis()) as service:
    asyncio.run(main())
"""


@weights
def test_nothing_is_imported_unless_traces_are_wanted(model_store: ModelStore, portrait: bytes, tmp_path: Path) -> None:
    """The test of a real server above has the negative control: there it is."""
    (tmp_path / "sitecustomize.py").write_text(TELL_IMPORTS)
    with dulian_server(model_store, PYTHONPATH=str(tmp_path)) as server:
        answer = post(server, portrait, **parent(1)[2])
        assert answer.status_code == 200
        assert "traceresponse" not in answer.headers
        assert server.stop() == 0
    assert imported(server) == []


def imported(server: Server) -> list[str]:
    """What belongs to the extra, as a process tells at its end."""
    (names,) = [event["names"] for event in server.events if event["event"] == "imported"]
    return list(names)


def test_the_web_framework_traces_nothing_of_its_own() -> None:
    """Beside a negative control: it does where nobody tells it not to."""
    done = subprocess.run(
        [sys.executable, "-c", FOREIGN], cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    ours, plain = map(int, done.stdout.split())
    assert ours == 0
    assert plain > 0


@weights
def test_an_environment_that_the_library_refuses_is_one_line(model_store: ModelStore) -> None:
    limits = {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "nonsense", "DULIAN_OTEL_ENDPOINT": "http://127.0.0.1:4318"}
    code, out, err = finished(command("--offline", "--model-dir", str(model_store.write_dir), "--port", "0", **limits))
    assert (code, out) == (3, "")
    assert "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT must be" in err
    assert len(err.splitlines()) == 1


def test_without_the_extra_it_says_so_and_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    code, out, err = finished(command(PYTHONPATH=str(tmp_path), DULIAN_OTEL_ENDPOINT="http://127.0.0.1:4318"))
    assert (code, out) == (3, "")
    assert err.splitlines()[-1].endswith("pip install 'dulian[otel]'")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "endpoint",
    [
        "127.0.0.1:4318",
        "ftp://a",
        "http://",
        "http://me:secret@a",
        "http://a?x=1",
        "http://a#b",
        "http://a b",
        "http://a\n",
    ],
)
def test_what_is_no_address_of_a_collector_is_refused(endpoint: str) -> None:
    (problem,) = examine_settings(otel_endpoint=endpoint).problems
    assert problem.startswith("setting otel_endpoint: it is no address")
    assert "secret" not in problem


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:4318", "https://otel.example/base/", "http://[::1]:4318"])
def test_an_address_of_a_collector_is_taken(endpoint: str) -> None:
    assert examine_settings(otel_endpoint=endpoint).problems == ()


def test_no_provider_is_set_for_others() -> None:
    with traced() as service, service.client() as client:
        assert client.get("/v1/limits").status_code == 200
        assert type(trace.get_tracer_provider()).__name__ == "ProxyTracerProvider"
        assert len(service.spans()) == 1
