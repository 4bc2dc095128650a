"""``Analyze`` over gRPC: what it says is what HTTP says, and what it refuses it refuses before it is read."""

from __future__ import annotations

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from tests.promises.corpus import files
from tests.service.rpcs import Rpc, calling, details_of, failure, last_words, serving
from tests.service.services import MODEL, PATIENCE_S, FakeAnalysis, fake_service, wait_until

from dulian.analyzer import AnalyzeOptions
from dulian.errors import (
    AccessError,
    BackendError,
    DeadlineError,
    DulianError,
    ImageDecodeError,
    InferenceError,
    InputNotFoundError,
    InputTooLargeError,
    OriginError,
    OverloadedError,
    RateLimitError,
    UnsupportedImageError,
)
from dulian.faces import (
    AgeEstimate,
    AnalysisResult,
    BoundingBox,
    Detection,
    Face,
    GenderEstimate,
    Hint,
    ImageInfo,
    Landmarks,
    Message,
    Pose,
    Quality,
    Timings,
)
from dulian.factory import open_profile
from dulian.keys import KeysFile
from dulian.models.catalog import find_profile
from dulian.service.access import Access
from dulian.service.cache import Keys, MemoryCache, SharedResults
from dulian.service.rpc import calls
from dulian.service.rpc.dulian_pb2 import AnalyzeRequest, AnalyzeResponse, Options
from dulian.service.rpc.messages import as_message
from dulian.service.rpc.status import CODES, grpc_status
from dulian.service.server import make_service
from dulian.service.status import STATUSES
from dulian.store import ModelStore

PICTURE = b"picture"
POINTS = Landmarks((1.5, 2.0), (3.0, 4.0), (5.0, 6.0), (7.0, 8.0), (9.0, 10.0))
FACE = Face(
    id=0,
    box=BoundingBox(0.0, 1.25, 20.0, 30.0),
    confidence=0.9,
    landmarks=POINTS,
    age=AgeEstimate(31.4, 26.0, 37.0, 0.9, "(25-32)", 0.71),
    gender=GenderEstimate("female", 0.97, 0.97),
    quality=Quality(0.8, 0.7, 0.5, 143, Pose(4.0, -2.0, 0.0)),
    status="ok",
    label="Female, (25-32)",
)
DOUBTFUL = Face(
    id=1,
    box=BoundingBox(1.0, 2.0, 3.0, 4.0),
    confidence=0.61,
    landmarks=None,
    age=None,
    gender=GenderEstimate(None, 0.55, 0.45),
    quality=Quality(0.0, 0.0, 0.0, 0, None, ("face_too_small", "blurred")),
    status="low_quality",
    label="",
    message=Message("face_too_small", "The face is too small.", "脸太小。"),
)
NOBODY = Message("no_face", "Nobody.", "没有人。")
RESULTS = {
    "nothing": AnalysisResult(ImageInfo(0, 0), MODEL),
    "all": AnalysisResult(
        ImageInfo(80, 60, 90), MODEL, (FACE, DOUBTFUL), Timings(1.25, 2.0, 3.0, 0.0), skipped=3, request_id="one"
    ),
    "no gender": AnalysisResult(
        ImageInfo(80, 60), MODEL, (Face(0, FACE.box, 0.5, None, FACE.age, None, FACE.quality, "ok", "x"),)
    ),
    "hint": AnalysisResult(ImageInfo(80, 60), MODEL, hint=Hint(NOBODY, Detection(FACE.box, 0.4, POINTS))),
    "hint without candidate": AnalysisResult(ImageInfo(80, 60), MODEL, hint=Hint(NOBODY, None)),
}


def analyze(
    run: Rpc, image: bytes = PICTURE, *, metadata: Any = (), timeout: float = PATIENCE_S, **options: Any
) -> Any:
    request = AnalyzeRequest(image=image, options=Options(**options))
    return run.dulian.Analyze(request, timeout=timeout, metadata=metadata)


def document(message: Any) -> Any:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def same_document(message: AnalyzeResponse, wire: dict[str, Any]) -> None:
    """Null in JSON is what is not set in a message; all else is equal, in both directions."""
    assert document(message) == without_nulls(wire)
    assert ParseDict(wire, AnalyzeResponse()) == message


# ── the same document ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("drawn", [None, b"\xff\xd8drawn"])
def test_json_and_message_are_the_same_document(name: str, drawn: bytes | None) -> None:
    from dulian.service.analysis import as_result

    wire = json.loads(as_result(RESULTS[name], drawn, "that").body)
    same_document(as_message(RESULTS[name], drawn, "that"), wire)


def test_a_field_that_a_message_lacks_is_a_defect() -> None:
    from dulian.service.rpc.messages import fill

    with pytest.raises(AttributeError):
        fill(AnalyzeResponse(), {"request_id": "one", "mood": "good"})


def properties(schema: dict[str, Any], of: dict[str, Any]) -> dict[str, dict[str, Any]]:
    if "$ref" in schema:
        return properties(of[schema["$ref"].rpartition("/")[2]], of)
    for one in (*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())):
        if found := properties(one, of):
            return found
    return schema.get("properties", {})


def same_fields(descriptor: Any, schema: dict[str, Any], of: dict[str, Any]) -> int:
    """Every field of the wire contract is in the message, and no other; how many messages were compared."""
    known = properties(schema, of)
    assert set(known) == set(descriptor.fields_by_name), descriptor.full_name
    return 1 + sum(
        same_fields(field.message_type, known[field.name], of) for field in descriptor.fields if field.message_type
    )


def test_messages_have_the_fields_of_the_contract() -> None:
    from pydantic.json_schema import models_json_schema

    from dulian.service import schema

    _, definitions = models_json_schema([(schema.AnalysisResult, "serialization")])
    whole = definitions["$defs"]
    assert same_fields(AnalyzeResponse.DESCRIPTOR, whole["AnalysisResult"], whole) == 15
    from dulian.service.query import BATCH_PARAMETERS

    assert set(Options.DESCRIPTOR.fields_by_name) == set(BATCH_PARAMETERS)


@pytest.fixture(scope="module")
def real(model_store: ModelStore) -> Any:
    factory = open_profile(find_profile("standard"), model_store, threads=1, workers=2)
    service = make_service(factory, 2)
    with serving(service) as run:
        yield run
    service.pool.close()


@pytest.mark.weights
def test_real_pictures_have_the_same_answer(real: Rpc, samples: Path) -> None:
    pictures = sorted(path for path in samples.iterdir() if path.suffix in (".jpg", ".png"))
    for path in pictures:
        for options in ({}, {"attributes": "", "max_faces": 1}, {"annotate": "base64", "order": "left_to_right"}):
            answer = analyze(real, path.read_bytes(), metadata=[("x-request-id", "this")], **options)
            asked = httpx.post(
                f"{real.url}/v1/analyze", params=options, content=path.read_bytes(), headers={"x-request-id": "this"}
            )
            wire = asked.json() | {"timings_ms": document(answer)["timings_ms"]}
            same_document(answer, wire)
    assert len(pictures) >= 2


@pytest.mark.weights
def test_many_at_once_are_answered_as_one_after_the_other(real: Rpc, samples: Path) -> None:
    """Real networks and threads: nobody gets another one's answer."""
    files = [path.read_bytes() for path in sorted(samples.iterdir()) if path.suffix in (".jpg", ".png")]
    alone = [httpx.post(f"{real.url}/v1/analyze", content=data).json()["faces"] for data in files]

    def ask(number: int) -> Any:
        return document(analyze(real, files[number % len(files)]))["faces"]

    with ThreadPoolExecutor(8) as many:
        for number, faces in enumerate(many.map(ask, range(40))):
            assert faces == without_nulls(alone[number % len(files)])


@pytest.mark.weights
def test_what_http_refuses_is_refused_alike(real: Rpc) -> None:
    """Whole, halved and made-up files of every format: the same answer, or the same code and words."""
    whole = list(files().values())
    pictures = [*whole, *(one[: len(one) // 2] for one in whole), b"GIF89a", b"\xff\xd8\xff", b"<svg/>"]
    by_http = [told_by_http(real, data) for data in pictures]
    assert [told_by_grpc(real, data) for data in pictures] == by_http
    assert {code for code, _, _ in by_http} == {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}


def told_by_http(run: Rpc, data: bytes) -> tuple[Any, Any, Any]:
    answer = httpx.post(f"{run.url}/v1/analyze", content=data)
    if answer.status_code == 200:
        return grpc.StatusCode.OK, answer.json()["image"], without_nulls(answer.json()["faces"])
    error = answer.json()["error"]
    return CODES[answer.status_code], error["code"], error["message"]


def told_by_grpc(run: Rpc, data: bytes) -> tuple[Any, Any, Any]:
    try:
        answer = document(analyze(run, data))
    except grpc.RpcError as error:
        return error.code(), last_words(error)["dulian-error-code"], error.details()
    return grpc.StatusCode.OK, answer["image"], answer["faces"]


# ── what is asked ────────────────────────────────────────────────────────────────────────────────


def test_options_are_those_of_the_query() -> None:
    analysis = FakeAnalysis()
    with calling(analysis) as run:
        analyze(run)
        analyze(run, max_faces=3, min_confidence=0.25, attributes="", order="quality", coverage=0.5, max_ms=900)
        answer = analyze(run, annotate="base64", attributes="age")
    wished = AnalyzeOptions(max_faces=3, min_confidence=0.25, attributes=frozenset(), order="quality", coverage=0.5)
    assert [options for _, options in analysis.seen] == [
        AnalyzeOptions(),
        wished,
        AnalyzeOptions(attributes=frozenset({"age"})),
    ]
    assert answer.annotated_image.startswith(b"\xff\xd8\xff")


def test_request_ids_come_back() -> None:
    with calling(FakeAnalysis()) as run:
        request = AnalyzeRequest(image=PICTURE)
        answer, call = run.dulian.Analyze.with_call(request, metadata=[("x-request-id", "mine")], timeout=PATIENCE_S)
        assert answer.request_id == "mine"
        assert dict(call.trailing_metadata())["x-request-id"] == "mine"
        made_up = analyze(run, metadata=[("x-request-id", "no blanks")]).request_id
    assert len(made_up) == 32


# ── errors ───────────────────────────────────────────────────────────────────────────────────────


def test_every_status_has_a_code() -> None:
    assert set(CODES) == set(STATUSES.values())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnsupportedImageError("no picture"), "INVALID_ARGUMENT"),
        (ImageDecodeError("broken"), "INVALID_ARGUMENT"),
        (InputTooLargeError("too many pixels"), "RESOURCE_EXHAUSTED"),
        (InputNotFoundError("not there"), "NOT_FOUND"),
        (AccessError("no key"), "UNAUTHENTICATED"),
        (OriginError("not from there"), "PERMISSION_DENIED"),
        (RateLimitError("later", wait_s=3), "RESOURCE_EXHAUSTED"),
        (OverloadedError("later", wait_s=3), "UNAVAILABLE"),
        (DeadlineError("too late"), "DEADLINE_EXCEEDED"),
        (BackendError("/secret/place"), "UNAVAILABLE"),
        (InferenceError("array (3, 4)"), "INTERNAL"),
    ],
    ids=lambda value: getattr(value, "code", None),
)
def test_errors_are_told_in_the_standard_form(error: DulianError, code: str) -> None:
    with calling(FakeAnalysis()) as run:
        run.service.analyze = FakeAnalysis(error=error)
        refused = failure(lambda: analyze(run, metadata=[("x-request-id", "this")]))
        wait_until(lambda: run.metric("grpc_requests_total", method="dulian.v1.Dulian/Analyze", code=code) == 1)
    assert refused.code().name == code == grpc_status(error).name
    assert last_words(refused)["x-request-id"] == "this"
    assert last_words(refused)["dulian-error-code"] == error.code
    details = details_of(refused)
    assert details["ErrorInfo"].reason == error.code.upper()
    assert details["ErrorInfo"].metadata["x-request-id"] == "this"
    later = isinstance(error, OverloadedError | BackendError)
    assert ("RetryInfo" in details) == later
    assert not later or details["RetryInfo"].retry_delay.seconds >= 1
    assert "secret" not in refused.details()
    assert "array" not in refused.details()


def test_a_defect_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with calling(FakeAnalysis()) as run, caplog.at_level(logging.ERROR, "dulian.service"):
        run.service.analyze = FakeAnalysis(error=ValueError("a secret"))
        refused = failure(lambda: analyze(run))
    assert (refused.code().name, last_words(refused)["dulian-error-code"]) == ("INTERNAL", "internal")
    assert "secret" not in str(refused)
    (record,) = (one for one in caplog.records if one.getMessage() == "internal_error")
    assert record.exc_info


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (AnalyzeRequest(), "empty"),
        (AnalyzeRequest(image=b"x", options=Options(max_faces=99)), "max_faces 99"),
        (AnalyzeRequest(image=b"x", options=Options(min_confidence=float("nan"))), "min_confidence"),
        (AnalyzeRequest(image=b"x", options=Options(attributes="mood")), "mood"),
        (AnalyzeRequest(image=b"x", options=Options(annotate="maybe")), "annotate"),
        (AnalyzeRequest(image=b"x", options=Options(max_ms=0)), "max_ms"),
    ],
)
def test_requests_that_make_no_sense(request_: Any, words: str) -> None:
    analysis = FakeAnalysis()
    with calling(analysis) as run:
        refused = failure(lambda: run.dulian.Analyze(request_, timeout=PATIENCE_S))
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in refused.details()
    assert not analysis.seen


def test_bytes_that_are_no_message() -> None:
    with calling(FakeAnalysis()) as run:
        call = run.channel.unary_unary("/dulian.v1.Dulian/Analyze")
        refused = failure(lambda: call(b"\xff\xff\xff", timeout=PATIENCE_S))
        unknown = failure(lambda: run.channel.unary_unary("/dulian.v1.Dulian/Guess")(b"", timeout=PATIENCE_S))
        empty = failure(lambda: run.channel.stream_unary("/dulian.v1.Dulian/Analyze")(iter(()), timeout=PATIENCE_S))
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert unknown.code() is grpc.StatusCode.UNIMPLEMENTED
    assert empty.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


# ── who may ask ──────────────────────────────────────────────────────────────────────────────────


def test_keys_come_in_metadata(tmp_path: Path) -> None:
    file = KeysFile(tmp_path / "keys.json")
    secret, _ = file.create()
    with calling(FakeAnalysis()) as run:
        run.service.access = Access(file)
        for metadata in ([], [("authorization", "Bearer dk_wrong")], [("x-api-key", "")], [("host", secret)]):
            refused = failure(lambda metadata=metadata: analyze(run, metadata=metadata))
            assert refused.code() is grpc.StatusCode.UNAUTHENTICATED
        for metadata in ([("authorization", f"Bearer {secret}")], [("x-api-key", secret)]):
            assert analyze(run, metadata=metadata).image.width == 80


def test_a_rate_counts_calls(tmp_path: Path) -> None:
    from dulian.keys import Rate

    file = KeysFile(tmp_path / "keys.json")
    secret, _ = file.create(rate=Rate(2, "minute"))
    with calling(FakeAnalysis()) as run:
        run.service.access = Access(file)
        metadata = [("x-api-key", secret)]
        assert [analyze(run, metadata=metadata).image.width for _ in range(2)] == [80, 80]
        refused = failure(lambda: analyze(run, metadata=metadata))
        assert run.metric("admission_rejected_total", reason="rate") == 1
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details_of(refused)["RetryInfo"].retry_delay.seconds >= 1


class Unsent:
    """A message that is not sent before it is asked for; iterating tells that the library wants it."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def __iter__(self) -> Any:
        assert self.release.wait(PATIENCE_S)
        yield AnalyzeRequest(image=PICTURE).SerializeToString()


def test_who_has_no_key_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    file = KeysFile(tmp_path / "keys.json")
    file.create()
    unsent = Unsent()
    with calling(FakeAnalysis()) as run:
        run.service.access = Access(file)
        call = run.channel.stream_unary("/dulian.v1.Dulian/Analyze")
        refused = failure(lambda: call(iter(unsent), timeout=PATIENCE_S))
        unsent.release.set()
    assert refused.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_full_queue_refuses_before_anything_is_sent() -> None:
    analysis, unsent = FakeAnalysis(), Unsent()
    with calling(analysis, max_queued=1) as run:
        analysis.leave.clear()
        working = run.dulian.Analyze.future(AnalyzeRequest(image=PICTURE), timeout=PATIENCE_S)
        assert analysis.begun.acquire(timeout=PATIENCE_S)
        waiting = run.dulian.Analyze.future(AnalyzeRequest(image=PICTURE), timeout=PATIENCE_S)
        wait_until(lambda: run.service.pool.queued == 1)
        refused = failure(
            lambda: run.channel.stream_unary("/dulian.v1.Dulian/Analyze")(iter(unsent), timeout=PATIENCE_S)
        )
        unsent.release.set()
        analysis.leave.set()
        assert working.result().image.width == waiting.result().image.width == 80
    assert refused.code() is grpc.StatusCode.UNAVAILABLE
    assert details_of(refused)["RetryInfo"].retry_delay.seconds >= 1


# ── limits ───────────────────────────────────────────────────────────────────────────────────────


def test_a_message_above_the_limit_is_refused() -> None:
    analysis = FakeAnalysis()
    with calling(analysis, max_body_bytes=100_000, max_bytes_in_flight=200_000) as run:
        refused = failure(lambda: analyze(run, bytes(300_000)))
        wait_until(lambda: run.metric("inflight_requests") == 0)
        assert analyze(run, bytes(90_000)).image.width == 80
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(analysis.seen) == 1


def test_compressed_messages_are_refused() -> None:
    with calling(FakeAnalysis()) as run:
        call = run.dulian.Analyze
        request = AnalyzeRequest(image=bytes(100_000))
        refused = failure(lambda: call(request, compression=grpc.Compression.Gzip, timeout=PATIENCE_S))
    assert refused.code() is grpc.StatusCode.UNIMPLEMENTED


def test_no_more_messages_are_read_at_once_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two places: who sends nothing keeps one until another wants it, and no longer than patience lasts."""
    monkeypatch.setattr(calls, "PATIENCE_S", 0.3)
    monkeypatch.setattr(calls, "LOOK_EVERY_S", 0.05)
    idle = [Unsent(), Unsent()]
    with calling(FakeAnalysis(), max_body_bytes=100, max_bytes_in_flight=200) as run:
        assert run.rpc._calls.reading.places == 2
        call = run.channel.stream_unary("/dulian.v1.Dulian/Analyze")
        held = [call.future(iter(one), timeout=PATIENCE_S) for one in idle]
        wait_until(lambda: run.rpc._calls.reading._free.locked())
        began = time.monotonic()
        assert analyze(run).image.width == 80
        assert time.monotonic() - began >= 0.1
        ended = [one.exception(timeout=PATIENCE_S) for one in held[:1]]
        for one in idle:
            one.release.set()
    assert ended[0].code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert last_words(ended[0])["dulian-error-code"] == "slow_client"


def test_who_finds_no_place_in_time_may_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "LOOK_EVERY_S", PATIENCE_S)
    idle = Unsent()
    with calling(FakeAnalysis(), max_body_bytes=100, max_bytes_in_flight=100, body_timeout_s=0.2) as run:
        held = run.channel.stream_unary("/dulian.v1.Dulian/Analyze").future(iter(idle), timeout=PATIENCE_S)
        wait_until(lambda: run.rpc._calls.reading._free.locked())
        refused = failure(lambda: analyze(run))
        idle.release.set()
        assert held.result().startswith(b"\n")
    assert refused.code() is grpc.StatusCode.UNAVAILABLE
    assert details_of(refused)["RetryInfo"].retry_delay.seconds >= 1


def test_bytes_in_flight_are_those_of_all_transports() -> None:
    analysis = FakeAnalysis()
    with calling(analysis, max_body_bytes=1000, max_bytes_in_flight=1500) as run:
        analysis.leave.clear()
        first = run.dulian.Analyze.future(AnalyzeRequest(image=bytes(900)), timeout=PATIENCE_S)
        wait_until(lambda: run.service.admission.bytes_in_flight >= 900)
        assert httpx.post(f"{run.url}/v1/analyze", content=bytes(900)).status_code == 503
        refused = failure(lambda: analyze(run, bytes(900)))
        analysis.leave.set()
        assert first.result().image.width == 80
    assert refused.code() is grpc.StatusCode.UNAVAILABLE


# ── time ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_deadline_of_the_client_lowers_the_budget() -> None:
    analysis = FakeAnalysis()
    with calling(analysis) as run:
        analysis.leave.clear()
        working = run.dulian.Analyze.future(AnalyzeRequest(image=PICTURE), timeout=PATIENCE_S)
        assert analysis.begun.acquire(timeout=PATIENCE_S)
        late = failure(lambda: analyze(run, b"late", timeout=0.2))
        hurried = failure(lambda: analyze(run, b"hurried", max_ms=100))
        wait_until(lambda: not run.service.pool.queued)
        analysis.leave.set()
        working.result()
    assert late.code() is hurried.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert last_words(hurried)["dulian-error-code"] == "deadline_exceeded"
    assert [data for data, _ in analysis.seen] == [PICTURE]


def test_who_cancels_takes_the_work_back() -> None:
    analysis = FakeAnalysis()
    with calling(analysis) as run:
        analysis.leave.clear()
        working = run.dulian.Analyze.future(AnalyzeRequest(image=PICTURE), timeout=PATIENCE_S)
        assert analysis.begun.acquire(timeout=PATIENCE_S)
        waiting = run.dulian.Analyze.future(AnalyzeRequest(image=b"waits"), timeout=PATIENCE_S)
        wait_until(lambda: run.service.pool.queued == 1)
        waiting.cancel()
        wait_until(lambda: run.service.pool.queued == 0)
        wait_until(lambda: run.metric("grpc_requests_total", method="dulian.v1.Dulian/Analyze", code="CANCELLED") == 1)
        analysis.leave.set()
        working.result()
    assert [data for data, _ in analysis.seen] == [PICTURE]


# ── what is kept and counted ─────────────────────────────────────────────────────────────────────


def test_results_are_shared_with_http() -> None:
    analysis = FakeAnalysis()
    with fake_service(analysis) as service:
        service.results = SharedResults(MemoryCache(1 << 20, 60.0), Keys(MODEL), service.admission)
        with serving(service) as run:
            analysis.seen.clear()
            first = httpx.post(f"{run.url}/v1/analyze", content=PICTURE)
            kept = analyze(run, metadata=[("x-request-id", "mine")])
            other = httpx.post(f"{run.url}/v1/analyze", content=PICTURE)
            analyze(run, max_faces=1)
            analyze(run, annotate="base64")
    assert first.headers["x-cache"] == "miss"
    assert other.headers["x-cache"] == "hit"
    assert len(analysis.seen) == 3
    same_document(kept, first.json() | {"request_id": "mine"})


def test_calls_are_counted() -> None:
    with calling(FakeAnalysis()) as run:
        analyze(run)
        method = "dulian.v1.Dulian/Analyze"
        wait_until(lambda: run.metric("grpc_requests_total", method=method, code="OK") == 1)
        assert run.metric("grpc_request_duration_seconds_count", method=method) == 1
        assert run.metric("request_body_bytes_count") == 1
        assert run.metric("inflight_requests") == 0
        assert run.service.traffic.total == 1


def test_calls_are_traced_in_the_trace_of_their_caller() -> None:
    pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from dulian.service.tracing.spans import Spans

    exporter = InMemorySpanExporter()
    with fake_service(FakeAnalysis()) as service:
        service.tracing = Spans(exporter)
        with serving(service) as run:
            analyze(run, metadata=[("traceparent", f"00-{'1' * 32}-{'2' * 16}-01")])
            failure(lambda: analyze(run, b"", metadata=[("traceparent", f"00-{'1' * 32}-{'2' * 16}-01")]))
        service.tracing.close()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    calls = [span for span in exporter.get_finished_spans() if span.name == "dulian.v1.Dulian/Analyze"]
    assert [span.attributes["rpc.grpc.status_code"] for span in calls] == [0, 3]
    assert {span.attributes["rpc.service"] for span in calls} == {"dulian.v1.Dulian"}
    assert calls[1].attributes["dulian.error.code"] == "malformed_input"
    assert {f"{span.parent.trace_id:x}-{span.parent.span_id:x}" for span in calls} == {f"{'1' * 32}-{'2' * 16}"}
    assert {"read", "queue", "encode"} <= spans.keys()


def test_a_message_takes_fewer_bytes_than_json() -> None:
    from dulian.service.analysis import as_result

    text = as_result(RESULTS["all"], None, "one").body
    assert len(as_message(RESULTS["all"], None, "one").SerializeToString()) < 0.6 * len(text)
