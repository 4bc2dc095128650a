"""``AnalyzeStream``: the newest frame wins, whatever is dropped is told, and both sides can end it in order."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from tests.service.rpcs import Rpc, calling, details_of, failure, last_words
from tests.service.services import PATIENCE_S, FakeAnalysis, wait_until

from dulian.analyzer import AnalyzeOptions
from dulian.errors import UnsupportedImageError
from dulian.keys import KeysFile, Rate
from dulian.service.access import Access
from dulian.service.rpc.dulian_pb2 import Frame, FrameAnswer, Options


class Client:
    """One open stream."""

    def __init__(self, run: Rpc, metadata: Any = ()) -> None:
        self._frames: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self.call = run.dulian.AnalyzeStream(iter(self._frames.get, None), metadata=metadata, timeout=PATIENCE_S)

    def send(self, image: bytes, id: str | None = None, **options: Any) -> None:
        frame = Frame(image=image, options=Options(**options))
        if id is not None:
            frame.id = id
        self._frames.put(frame)

    def hear(self) -> FrameAnswer:
        answer: FrameAnswer = next(self.call)
        return answer

    def ask(self, image: bytes, id: str | None = None, **options: Any) -> FrameAnswer:
        self.send(image, id, **options)
        return self.hear()

    def end(self) -> None:
        self._frames.put(None)

    def closing(self) -> Any:
        """How the server ends a stream of which nothing else is to come."""
        return failure(self.hear)


@contextmanager
def opened(run: Rpc, metadata: Any = ()) -> Iterator[Client]:
    client = Client(run, metadata)
    try:
        yield client
    finally:
        client.end()
        client.call.cancel()


def refusal(run: Rpc, metadata: Any = ()) -> Any:
    """How a stream ends that is not let in."""
    client = Client(run, metadata)
    try:
        return client.closing()
    finally:
        client.end()


def begin(client: Client, analysis: FakeAnalysis, image: bytes) -> None:
    """Send a frame, and return when a thread is at work on it, where it stays."""
    analysis.leave.clear()
    client.send(image)
    assert analysis.begun.acquire(timeout=PATIENCE_S)


def holds(run: Rpc, count: int) -> None:
    wait_until(lambda: run.service.admission.bytes_in_flight == count)


def test_frames_are_answered_in_order() -> None:
    analysis = FakeAnalysis()
    with calling(analysis) as run, opened(run, [("x-request-id", "this")]) as client:
        first = client.ask(b"one")
        named = client.ask(b"two", "camera 1", max_faces=2)
        assert (first.id, named.id) == ("1", "camera 1")
        assert first.result.request_id == "this"
        assert client.ask(b"three").id == "3"
        client.end()
        assert list(client.call) == []
        assert client.call.code() is grpc.StatusCode.OK
    wished = [options for _, options in analysis.seen]
    assert wished == [AnalyzeOptions(), AnalyzeOptions(max_faces=2), AnalyzeOptions()]


def test_the_newest_frame_wins_and_dropped_ones_are_told() -> None:
    analysis = FakeAnalysis()
    with calling(analysis) as run, opened(run) as client:
        begin(client, analysis, b"1")
        for size in (10, 100, 1000):
            client.send(bytes(size))
        holds(run, 1001)
        analysis.leave.set()
        assert client.hear().id == "1"
        assert list(client.hear().dropped) == ["2", "3"]
        assert client.hear().id == "4"
    assert [len(data) for data, _ in analysis.seen] == [1, 1000]


def test_a_frame_that_is_refused_stops_no_other() -> None:
    analysis = FakeAnalysis(error=UnsupportedImageError("no picture"))
    with calling(analysis) as run, opened(run) as client:
        refused = client.ask(b"x", "a")
        assert (refused.id, refused.WhichOneof("outcome"), refused.error.code) == ("a", "error", "unsupported_image")
        assert MessageToDict(refused, preserving_proto_field_name=True)["error"]["message"] == "no picture"
        analysis.error = None
        assert client.ask(b"x", max_faces=99).error.code == "malformed_input"
        assert client.ask(b"").error.code == "malformed_input"
        assert client.ask(b"x", "i" * 129).error.code == "malformed_input"
        assert client.ask(b"x").result.image.width == 80


def test_frames_that_find_no_room_may_come_again() -> None:
    with calling(FakeAnalysis(), max_body_bytes=100, max_bytes_in_flight=100) as run, opened(run) as client:
        refused = client.ask(bytes(150))
        assert (refused.error.code, refused.error.retry_after_s >= 1) == ("overloaded", True)
        assert client.ask(bytes(50)).result.image.width == 80


def test_a_frame_that_is_too_large_ends_the_stream() -> None:
    with calling(FakeAnalysis(), max_frame_bytes=1000) as run, opened(run) as client:
        client.send(bytes(1001))
        closing = client.closing()
    assert closing.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert last_words(closing)["dulian-error-code"] == "input_too_large"


def test_who_sends_nothing_is_sent_away() -> None:
    with calling(FakeAnalysis(), stream_idle_s=0.2) as run, opened(run) as client:
        closing = client.closing()
    assert closing.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "no frame for 0.2 seconds" in closing.details()


def test_bytes_that_are_no_frame_end_the_stream() -> None:
    with calling(FakeAnalysis()) as run:
        call = run.channel.stream_stream("/dulian.v1.Dulian/AnalyzeStream")
        closing = failure(lambda: next(call(iter([b"\xff\xff\xff"]), timeout=PATIENCE_S)))
    assert closing.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_who_goes_leaves_nothing_behind() -> None:
    analysis = FakeAnalysis()
    with calling(analysis) as run, opened(run) as client:
        begin(client, analysis, b"1")
        client.send(bytes(10))
        holds(run, 11)
        client.call.cancel()
        holds(run, 1)
        analysis.leave.set()
        holds(run, 0)


def test_streams_are_counted_with_those_of_websockets() -> None:
    from websockets.sync.client import connect

    with (
        calling(FakeAnalysis(), max_streams=2) as run,
        connect(run.url.replace("http", "ws") + "/v1/stream", proxy=None),
        opened(run) as client,
    ):
        assert client.ask(b"x").id == "1"
        refused = refusal(run)
        assert refused.code() is grpc.StatusCode.UNAVAILABLE
        assert details_of(refused)["RetryInfo"].retry_delay.seconds >= 1
        assert run.metric("admission_rejected_total", reason="streams") == 1


def test_no_more_streams_than_messages_that_fit() -> None:
    limits = {"max_body_bytes": 100, "max_bytes_in_flight": 250}
    with calling(FakeAnalysis(), **limits) as run, opened(run) as one, opened(run) as two:
        assert (one.ask(b"x").id, two.ask(b"x").id) == ("1", "1")
        assert refusal(run).code() is grpc.StatusCode.UNAVAILABLE


def test_frames_count_for_a_key_with_a_rate(tmp_path: Path) -> None:
    file = KeysFile(tmp_path / "keys.json")
    secret, key = file.create(rate=Rate(2, "minute"))
    with calling(FakeAnalysis()) as run:
        run.service.access = Access(file)
        assert refusal(run).code() is grpc.StatusCode.UNAUTHENTICATED
        with opened(run, [("x-api-key", secret)]) as client:
            assert client.ask(b"1").WhichOneof("outcome") == "result"
            assert client.ask(b"2").WhichOneof("outcome") == "result"
            assert client.ask(b"3").error.code == "rate_limited"
            file.revoke(key.id)
            run.service.access._look_at = 0.0
            assert client.ask(b"4").error.code == "access_denied"
            assert client.closing().code() is grpc.StatusCode.UNAUTHENTICATED


def test_the_end_of_the_service_waits_for_what_was_taken() -> None:
    analysis = FakeAnalysis()
    with calling(analysis) as run, opened(run) as client:
        begin(client, analysis, b"1")
        client.send(b"22")
        holds(run, 3)
        run.server.handle_exit(signal.SIGTERM, None)
        wait_until(lambda: run.rpc._streams.ending.is_set())
        threading.Timer(0.1, analysis.leave.set).start()
        assert [client.hear().id, client.hear().id] == ["1", "2"]
        closing = client.closing()
    assert closing.code() is grpc.StatusCode.UNAVAILABLE
    assert last_words(closing)["dulian-error-code"] == "draining"


def test_one_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from dulian.service.rpc import streaming

    big = streaming.dulian_pb2.AnalyzeResponse(annotated_image=bytes(9 << 20))
    monkeypatch.setattr(streaming, "as_message", lambda *_: big)
    with calling(FakeAnalysis(), stream_idle_s=0.3) as run, opened(run) as client:

        def is_cut_off() -> bool:
            client.send(b"x")
            return bool(run.service.traffic.total > 1 and not run.service.streams)

        wait_until(is_cut_off)
