"""Streams over real sockets: order, ids, what is dropped, what is refused, and how they end."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.golden.pictures import sample_pictures
from tests.service.services import PATIENCE_S, FakeAnalysis, eventually, fake_service, wait_until
from tests.service.streams import MIB, RawClient, Running, ask, begin, closing, frame, hear, refusal, running, streaming
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Opcode
from websockets.sync.client import ClientConnection, connect

from dulian.errors import AccessError, DulianError, ImageTruncatedError, InferenceError, RateLimitError
from dulian.factory import open_profile
from dulian.models.catalog import find_profile
from dulian.service import schema, stream, websocket
from dulian.service.admission import Caller
from dulian.service.body import ClientGone
from dulian.service.server import make_service
from dulian.service.state import Service
from dulian.service.stream import MAX_DROPPED, MAX_TEXTS, Stream
from dulian.service.stream.wishes import MAX_ID, Wishes, read_wishes
from dulian.store import ModelStore

BINARY = Opcode.BINARY
BIG = 16 * MIB


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    """For tests that neither change the service nor hold it up."""
    with streaming(FakeAnalysis()) as run:
        run.service.origins = frozenset({"https://photos.example"})
        yield run


# ── answers ──────────────────────────────────────────────────────────────────────────────────────


def test_frames_are_answered_in_order_with_their_ids() -> None:
    analysis = FakeAnalysis()
    with streaming(analysis) as run, run.open() as client:
        given = [None, "left", 0, -7, MAX_ID, '左 "\\\n', "x" * 128, None, "left"]
        for number, chosen in enumerate(given, 1):
            answer = ask(client, b"frame %d" % number, **({} if chosen is None else {"id": chosen}))
            assert next(iter(answer)) == "id"
            assert answer.pop("id") == (number if chosen is None else chosen)
            assert schema.AnalysisResult.model_validate(answer).faces == []
            assert answer["request_id"] == client.response.headers["x-request-id"]
        assert [data for data, _ in analysis.seen] == [b"frame %d" % number for number in range(1, len(given) + 1)]
        assert run.service.traffic.total == len(given)


def test_options_are_those_of_a_request_and_hold_for_one_frame() -> None:
    analysis = FakeAnalysis()
    with streaming(analysis) as run, run.open() as client:
        ask(client, b"a", options={"max_faces": 2, "attributes": ["age"], "min_confidence": 0.25, "order": "quality"})
        ask(client, b"b")
        ask(client, b"c", options={"max_faces": "3", "attributes": []})
    first, second, third = (options for _, options in analysis.seen)
    assert (first.max_faces, first.attributes, first.min_confidence, first.order) == (2, {"age"}, 0.25, "quality")
    assert second == type(second)()
    assert (third.max_faces, third.attributes) == (3, frozenset())


def test_of_several_texts_the_last_one_counts() -> None:
    with streaming(FakeAnalysis()) as run, run.open() as client:
        for _ in range(2):
            for number in range(MAX_TEXTS - 1):
                client.send(json.dumps({"id": number, "options": {"max_faces": 0}}))
            assert ask(client, b"frame", id="last")["faces"] == []


def test_a_drawn_copy_comes_along_if_asked_for() -> None:
    with streaming(FakeAnalysis()) as run, run.open() as client:
        assert ask(client, b"a", options={"annotate": "base64"})["annotated_image"].startswith("/9j/")
        assert ask(client, b"a")["annotated_image"] is None


@pytest.mark.parametrize(
    ("options", "query"),
    [
        ({"max_faces": 0}, "max_faces=0"),
        ({"max_faces": 1.5}, "max_faces=1.5"),
        ({"min_confidence": "high"}, "min_confidence=high"),
        ({"attributes": ["age", "mood"]}, "attributes=age,mood"),
        ({"order": "random"}, "order=random"),
        ({"coverage": 2}, "coverage=2"),
        ({"max_ms": 0}, "max_ms=0"),
        ({"annotate": "yes"}, "annotate=yes"),
    ],
)
def test_options_that_make_no_sense_are_told_as_to_a_request(
    shared: Running, options: dict[str, Any], query: str
) -> None:
    with shared.open() as client:
        error = ask(client, b"frame", id="this", options=options)
        assert error["id"] == "this"
        told = httpx.post(f"http://{shared.host}/v1/analyze?{query}", content=b"frame").json()["error"]
        assert (error["error"]["code"], error["error"]["message"]) == (told["code"], told["message"])
        assert ask(client, b"frame")["faces"] == []


@pytest.mark.parametrize(
    ("wishes", "chosen", "said"),
    [
        ({"id": 1, "option": {}}, 1, "unknown field 'option'"),
        ({"id": 1, "options": {"nonsense": 1}}, 1, "unknown parameter 'nonsense'"),
        ({"id": 1, "options": {"format": "faces"}}, 1, "unknown parameter 'format'"),
        ({"id": 1, "options": []}, 1, "options is not an object"),
        ({"id": 1, "options": None}, 1, "options is not an object"),
        ({"id": 1, "options": {"max_faces": True}}, 1, "option 'max_faces' is neither"),
        ({"id": 1, "options": {"max_faces": None}}, 1, "option 'max_faces' is neither"),
        ({"id": 1, "options": {"attributes": [1]}}, 1, "option 'attributes' is neither"),
        ({"id": 1, "options": {"attributes": {"age": 1}}}, 1, "option 'attributes' is neither"),
        ({"id": 1, "options": {"order": "\ud800"}}, 1, "order"),
        ({"id": 1, "options": {"\ud800": "x"}}, 1, "unknown parameter"),
        ({"id": 1, "options": {str(n): "x" for n in range(50)}}, 1, "more than 20 parameters"),
        ({"id": "x" * 129}, None, "id is neither"),
        ({"id": "\ud800"}, None, "id is neither"),
        ({"id": MAX_ID + 1}, None, "id is neither"),
        ({"id": 10**1000}, None, "id is neither"),
        ({"id": 1.5}, None, "id is neither"),
        ({"id": True}, None, "id is neither"),
        ({"id": [1]}, None, "id is neither"),
    ],
)
def test_wishes_that_make_no_sense_are_the_frames_error(wishes: Any, chosen: Any, said: str) -> None:
    read = read_wishes(json.dumps(wishes), deadline_s=5)
    assert read.id == chosen
    assert read.error is not None
    assert said in str(read.error)
    assert read.error.__traceback__ is None  # it would keep the text for as long as the frame waits


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["id", "options", "max_faces"]), inner),
)


@given(JSON.map(json.dumps) | st.text())
def test_no_text_is_too_strange_to_be_read_or_refused(text: str) -> None:
    try:
        read = read_wishes(text, deadline_s=5)
    except ValueError:
        return
    assert isinstance(read, Wishes)
    json.dumps(read.id, ensure_ascii=False).encode()


def test_a_latency_budget_holds_for_a_frame_from_its_arrival() -> None:
    analysis = FakeAnalysis()
    with streaming(analysis) as run, run.open() as client:
        begin(run, client, analysis, b"frame")
        client.send(json.dumps({"id": "late", "options": {"max_ms": 1}}))
        client.send(b"second")
        run.holds(5 + 6)
        time.sleep(0.01)
        analysis.leave.set()
        assert hear(client)["id"] == 1
        late = hear(client)
        assert (late["id"], late["error"]["code"]) == ("late", "deadline_exceeded")
        assert [data for data, _ in analysis.seen] == [b"frame"]
        assert ask(client, b"third")["faces"] == []


# ── the mailbox ──────────────────────────────────────────────────────────────────────────────────


def test_a_new_frame_replaces_the_one_that_waits() -> None:
    analysis = FakeAnalysis()
    with streaming(analysis) as run, run.open() as client:
        begin(run, client, analysis, b"1")
        for size in (10, 100, 1000):
            client.send(json.dumps({"id": f"of {size}"}))
            client.send(bytes(size))
        run.holds(1 + 1000)
        analysis.leave.set()
        assert hear(client)["id"] == 1
        assert hear(client) == {"dropped": ["of 10", "of 100"]}
        assert hear(client)["id"] == "of 1000"
        assert ask(client, b"last")["id"] == 5
        assert [len(data) for data, _ in analysis.seen] == [1, 1000, 4]
        schema.StreamDropped.model_validate({"dropped": ["of 10", 7]})


def test_a_refused_frame_replaces_the_one_that_waits_as_well() -> None:
    analysis = FakeAnalysis()
    with streaming(analysis) as run, run.open() as client:
        begin(run, client, analysis, b"1")
        client.send(bytes(10))
        run.holds(1 + 10)
        client.send(json.dumps({"options": {"max_faces": 0}}))
        client.send(bytes(100))
        run.holds(1)
        analysis.leave.set()
        assert hear(client)["id"] == 1
        assert hear(client) == {"dropped": [2]}
        error = hear(client)
        assert (error["id"], error["error"]["code"]) == (3, "malformed_input")


def test_of_a_flood_every_frame_has_one_outcome_and_two_are_held() -> None:
    analysis = FakeAnalysis()
    count, size = 1000, 5000
    with streaming(analysis) as run, run.open() as client:
        held: list[int] = []
        check = run.service.admission.check_bytes

        def watched(more: int) -> None:
            held.append(run.service.admission.bytes_in_flight + more)
            check(more)

        run.service.admission.check_bytes = watched  # type: ignore[method-assign]
        begin(run, client, analysis, bytes(size))
        for _ in range(count - 2):
            client.send(bytes(size))
        client.send(bytes(size + 1))
        run.holds(size + size + 1)
        assert max(held) <= 2 * size + 1
        analysis.leave.set()
        answered, dropped = [], []
        while len(answered) + len(dropped) < count:
            said = hear(client)
            if "dropped" in said:
                assert len(said["dropped"]) <= MAX_DROPPED
                dropped += said["dropped"]
            else:
                answered.append(said["id"])
        assert answered == [1, count]
        assert dropped == list(range(2, count))


def test_a_second_stream_has_a_mailbox_of_its_own() -> None:
    analysis = FakeAnalysis()
    with streaming(analysis) as run, run.open() as one, run.open() as other:
        begin(run, one, analysis, b"1")
        one.send(bytes(10))
        other.send(bytes(100))
        wait_until(lambda: run.service.pool.queued == 1)
        run.holds(1 + 10 + 100)
        analysis.leave.set()
        assert [hear(one)["id"], hear(one)["id"]] == [1, 2]
        assert hear(other)["id"] == 1


# ── frames that are not answered with faces ──────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ImageTruncatedError("the file ends early"), "image_truncated", True),
        (InferenceError("secret shape"), "inference_failed", False),
    ],
)
def test_a_bad_frame_leaves_the_stream_open(
    error: Exception, code: str, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    analysis = FakeAnalysis()
    with streaming(analysis) as run, run.open() as client, caplog.at_level(logging.INFO, "dulian.service"):
        analysis.error = error
        answer = ask(client, b"bad", id="bad")
        assert schema.StreamError.model_validate(answer).error.code == code
        assert (answer["id"], answer["error"]["request_id"]) == ("bad", client.response.headers["x-request-id"])
        assert (str(error) in answer["error"]["message"]) is told
        assert ([record.message for record in caplog.records] == ["analysis_failed"]) is not told
        analysis.error = None
        assert ask(client, b"")["error"]["message"] == "the frame is empty; send a picture"
        assert ask(client, b"good")["faces"] == []


@pytest.mark.parametrize("kind", [RuntimeError, OSError, MemoryError])
def test_a_defect_is_logged_and_ends_the_stream_with_1011(
    kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    analysis = FakeAnalysis()
    with streaming(analysis) as run, run.open() as client, caplog.at_level(logging.INFO, "dulian.service"):
        analysis.error = kind("secret text")
        client.send(b"frame")
        assert closing(client) == (1011, "an internal error; the log has it")
        (record,) = (record for record in caplog.records if record.message == "internal_error")
        assert vars(record)["fields"]["request_id"] == client.response.headers["x-request-id"]


def test_a_frame_for_which_there_is_no_room_is_refused_and_the_next_may_have_some() -> None:
    analysis = FakeAnalysis()
    with streaming(analysis, max_bytes_in_flight=100) as run, run.open() as client:
        begin(run, client, analysis, bytes(60))
        client.send(bytes(41))
        client.send(bytes(42))
        run.holds(60)
        client.send(bytes(40))
        run.holds(60 + 40)
        analysis.leave.set()
        assert hear(client)["id"] == 1
        assert hear(client) == {"dropped": [2, 3]}
        assert hear(client)["id"] == 4
        answer = ask(client, bytes(101))
        assert answer["error"]["code"] == "overloaded"
        assert schema.StreamError.model_validate(answer).error.retry_after_s >= 1


def test_a_full_queue_refuses_a_frame_as_it_refuses_a_request() -> None:
    analysis = FakeAnalysis()
    with streaming(analysis, max_queued=1) as run, ExitStack() as stack:
        first, second, third = (stack.enter_context(run.open()) for _ in range(3))
        begin(run, first, analysis, b"1")
        second.send(b"2")
        wait_until(lambda: run.service.pool.queued == 1)
        answer = ask(third, b"3")
        assert (answer["error"]["code"], answer["error"]["message"]) == ("overloaded", "the queue is full")
        assert answer["error"]["retry_after_s"] >= 1
        analysis.leave.set()
        assert hear(first)["id"] == hear(second)["id"] == 1
        assert ask(third, b"4")["id"] == 2


# ── messages that end the stream ─────────────────────────────────────────────────────────────────


def flood(client: ClientConnection) -> None:
    for number in range(MAX_TEXTS + 1):
        client.send(json.dumps({"id": number}))


@pytest.mark.parametrize(
    ("send", "code"),
    [
        pytest.param(lambda client: client.send("hello"), 1003, id="no JSON"),
        pytest.param(lambda client: client.send(""), 1003, id="empty text"),
        pytest.param(lambda client: client.send("[]"), 1003, id="no object"),
        pytest.param(lambda client: client.send('{"id": NaN}'), 1003, id="NaN"),
        pytest.param(lambda client: client.send('{"id": 1, "id": 2}'), 1003, id="one name twice"),
        pytest.param(lambda client: client.send('{"id": 1} {}'), 1003, id="two objects"),
        pytest.param(lambda client: client.send("[" * 4000), 1003, id="deep"),
        pytest.param(lambda client: client.send(b"\xff", text=True), 1007, id="no UTF-8"),
        pytest.param(flood, 1008, id="many texts"),
        pytest.param(lambda client: client.send(json.dumps({"id": "x" * 4096})), 1009, id="long text"),
        pytest.param(lambda client: client.send("ä" * 2049), 1009, id="text of many bytes"),
        pytest.param(lambda client: client.send(bytes(MIB + 1)), 1009, id="big frame"),
        pytest.param(lambda client: client.send([bytes(MIB // 2)] * 3), 1009, id="big frame in pieces"),
    ],
)
def test_what_breaks_the_rules_closes_the_stream(send: Callable[[ClientConnection], None], code: int) -> None:
    analysis = FakeAnalysis()
    with streaming(analysis) as run, run.open() as client:
        begin(run, client, analysis, b"in work")
        client.send(bytes(100))
        run.holds(7 + 100)
        with suppress(ConnectionClosed):  # before all of it is sent
            send(client)
        assert closing(client)[0] == code
        run.holds(7)
        analysis.leave.set()
        run.holds(0)
        assert len(analysis.seen) == 1


def test_a_frame_may_be_as_big_as_the_limit_in_any_number_of_pieces() -> None:
    analysis = FakeAnalysis()
    with streaming(analysis) as run, run.open() as client:
        ask(client, bytes(MIB))
        client.send([bytes(MIB // 512)] * 512)
        hear(client)
    assert [len(data) for data, _ in analysis.seen] == [MIB, MIB]


def test_a_stream_without_frames_is_closed() -> None:
    with streaming(FakeAnalysis(), stream_idle_s=0.05) as run, run.open() as client:
        assert closing(client) == (1008, "no frame for too long")


def test_texts_alone_keep_no_stream_open() -> None:
    with streaming(FakeAnalysis(), stream_idle_s=0.3) as run, run.open() as client:
        with suppress(ConnectionClosed):
            for number in range(MAX_TEXTS + 1):
                client.send(json.dumps({"id": number}))
                time.sleep(0.05)
        assert closing(client) == (1008, "no frame for too long")


def test_a_stream_is_not_idle_while_its_frame_is_worked_on() -> None:
    analysis = FakeAnalysis()
    with streaming(analysis, stream_idle_s=0.05) as run, run.open() as client:
        begin(run, client, analysis, b"frame")
        time.sleep(0.2)
        analysis.leave.set()
        assert hear(client)["id"] == 1
        assert closing(client)[0] == 1008


# ── clients that leave, or do not listen ─────────────────────────────────────────────────────────


@pytest.mark.parametrize("manner", ["close frame", "closed", "reset"])
def test_a_client_that_goes_takes_its_frames_along(manner: str) -> None:
    analysis = FakeAnalysis()
    with streaming(analysis) as run, run.open() as other:
        begin(run, other, analysis, b"1")
        with RawClient(run.host) as client:
            client.open().send(frame(BINARY, bytes(10)))
            wait_until(lambda: run.service.pool.queued == 1)
            client.send(frame(BINARY, bytes(100)))
            run.holds(1 + 10 + 100)
            if manner == "close frame":
                client.send(frame(Opcode.CLOSE, struct.pack("!H", 1001)))
                assert client.closing()[0] == 1001
            if manner == "reset":
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        run.holds(1)
        wait_until(lambda: run.service.streams == 1)
        assert run.service.pool.queued == 0
        analysis.leave.set()
        assert hear(other)["id"] == 1
        assert len(analysis.seen) == 1


def test_a_client_that_is_gone_when_its_answer_is_ready_is_no_defect() -> None:
    messages: list[Any] = [{"type": "websocket.receive", "bytes": b"frame"}]

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.Future()

    async def send(message: Any) -> None:
        raise BrokenPipeError

    async def main() -> None:
        with pytest.raises(ClientGone):
            await Stream(service, receive, send, request_id="this").run()
        await eventually(lambda: service.admission.bytes_in_flight == 0)

    with fake_service(FakeAnalysis()) as service:
        asyncio.run(main())


def big_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that no system keeps for one who does not read."""

    def answer(service: Service, came: stream.Frame, request_id: str) -> bytes:
        service.analyze(came.data, came.asked.options)
        return json.dumps({"id": came.id, "filler": "x" * BIG}).encode()

    monkeypatch.setattr(stream, "answer_frame", answer)


def test_nothing_is_analysed_for_one_who_does_not_read_the_last_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    big_answers(monkeypatch)
    analysis = FakeAnalysis()
    with streaming(analysis) as run, RawClient(run.host) as client:
        client.open().send(frame(BINARY, b"1"))
        wait_until(lambda: bool(run.sockets) and not run.sockets[0].writable.is_set())
        for size in (10, 100, 1000):
            client.send(frame(BINARY, bytes(size)))
        run.holds(1000)
        assert run.sockets[0].transport.get_write_buffer_size() <= BIG + 1000
        assert len(analysis.seen) == 1
        assert client.hear()["id"] == 1
        assert client.hear() == {"dropped": [2, 3]}
        assert client.hear()["id"] == 4


def test_one_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    big_answers(monkeypatch)
    with streaming(FakeAnalysis(), stream_idle_s=0.2) as run, RawClient(run.host) as client:
        client.open().send(frame(BINARY, b"1"))
        wait_until(lambda: run.service.traffic.total == 1)
        wait_until(lambda: not run.sockets)
        wait_until(lambda: run.service.streams == 0)


# ── the door ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("origin", "welcome"),
    [
        (None, True),
        ("http://{host}", True),
        ("https://{host}", True),
        ("https://photos.example", True),
        ("https://photos.example:444", False),
        ("http://photos.example", False),
        ("https://other.example", False),
        ("http://{host}.other.example", False),
        ("http://127.0.0.1", False),
        ("ftp://{host}", False),
        ("null", False),
        ("", False),
    ],
)
def test_pages_of_other_origins_open_no_streams(shared: Running, origin: str | None, welcome: bool) -> None:
    named: Any = None if origin is None else origin.format(host=shared.host)
    if welcome:
        with shared.open(origin=named) as client:
            assert ask(client, b"frame")["id"] == 1
    else:
        answer = refusal(shared, origin=named)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")


def test_so_many_streams_are_open_at_a_time() -> None:
    with streaming(FakeAnalysis(), max_streams=2) as run, run.open(), ExitStack() as stack:
        client = stack.enter_context(run.open())
        answer = refusal(run)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
        client.close()
        wait_until(lambda: run.service.streams == 1)
        assert ask(stack.enter_context(run.open()), b"frame")["id"] == 1


def test_options_in_the_query_are_refused_without_a_word_in_the_log(
    shared: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        with pytest.raises(InvalidStatus) as caught:
            connect(f"{shared.url}?max_faces=1", proxy=None)
        with shared.open() as client:  # its answer comes when the refusal is over and done with
            ask(client, b"frame")
    assert caught.value.response.status_code == 400
    assert not [record for record in caplog.records if record.name.startswith(("uvicorn", "dulian"))]


def test_the_subprotocol_is_chosen_if_it_is_offered(shared: Running) -> None:
    for offered, chosen in [(None, None), (["other"], None), (["other", "dulian.v1"], "dulian.v1")]:
        with shared.open(subprotocols=offered) as client:
            assert client.subprotocol == chosen


def test_compression_is_declined(shared: Running) -> None:
    with shared.open(compression="deflate") as client:
        assert client.protocol.extensions == []
        assert ask(client, b"frame")["id"] == 1
    with RawClient(shared.host) as raw:
        compressed = bytearray(frame(BINARY, b"frame"))
        compressed[0] |= 0x40
        raw.open(b"Sec-WebSocket-Extensions: permessage-deflate").send(compressed)
        assert raw.closing()[0] == 1002


def test_a_plain_request_is_told_to_upgrade(shared: Running) -> None:
    answer = httpx.get(f"http://{shared.host}/v1/stream")
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
    assert schema.ErrorAnswer.model_validate(answer.json()).error.code == "upgrade_required"
    assert httpx.post(f"http://{shared.host}/v1/stream", content=b"x").status_code == 405


@pytest.mark.parametrize("path", ["/", "/v1/analyze", "/v1/stream/", "/nowhere", "/livez"])
def test_there_are_no_streams_elsewhere(shared: Running, path: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://{shared.host}{path}", proxy=None)
    assert caught.value.response.status_code in (403, 404)


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────


class FakeAccess:
    """One caller, good for so many frames until something is wrong with the key."""

    def __init__(self, *charges: DulianError | None) -> None:
        self.charges = list(charges)
        self.callers: list[Caller | None] = []

    async def admit(self, path: str, headers: Any) -> Caller:
        return Caller("key", sharing=False)

    async def charge(self, caller: Caller | None, count: int = 1) -> None:
        self.callers.append(caller)
        if error := self.charges.pop(0):
            raise error


def test_every_frame_but_the_first_is_charged_to_the_key() -> None:
    with streaming(FakeAnalysis()) as run:
        access: Any = FakeAccess(None, RateLimitError("enough", wait_s=7), None)
        run.service.access = access
        with run.open() as client:
            assert [ask(client, b"frame")["id"] for _ in range(2)] == [1, 2]
            error = ask(client, b"frame")["error"]
            assert error["code"] == "rate_limited"
            assert error["retry_after_s"] >= 7
            assert ask(client, b"frame")["id"] == 4
        assert [caller and caller.key_id for caller in access.callers] == ["key"] * 3


def test_a_revoked_key_ends_the_stream() -> None:
    with streaming(FakeAnalysis()) as run:
        access: Any = FakeAccess(AccessError("revoked"))
        run.service.access = access
        with run.open() as client:
            ask(client, b"frame")
            assert ask(client, b"frame", id=7)["error"]["code"] == "access_denied"
            assert closing(client) == (1008, "the key is no longer valid")


# ── the end of the service ───────────────────────────────────────────────────────────────────────


def test_what_was_accepted_is_answered_before_the_service_ends() -> None:
    analysis = FakeAnalysis()
    with streaming(analysis, grace_s=3600) as run, run.open() as idle, run.open() as client:
        begin(run, client, analysis, b"1")
        client.send(bytes(10))
        run.holds(1 + 10)
        run.server.handle_exit(signal.SIGTERM, None)
        assert closing(idle) == (1012, "the service is about to end; connect again")
        answer = refusal(run)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
        assert int(answer.headers["retry-after"]) >= 1
        client.send(json.dumps({"id": "late"}))
        client.send(b"not accepted")
        client.ping().wait(PATIENCE_S)  # answered in turn: the frame before it has arrived
        analysis.leave.set()
        said = [hear(client) for _ in range(3)]
        assert [answer.get("id") for answer in said] == [1, None, 2]
        assert said[1] == {"dropped": ["late"]}
        assert closing(client)[0] == 1012
        assert [len(data) for data, _ in analysis.seen] == [1, 10]


def test_the_service_does_not_wait_for_one_who_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    big_answers(monkeypatch)
    monkeypatch.setattr(websocket, "CLOSE_S", 0.3)
    with streaming(FakeAnalysis(), grace_s=3600) as run, RawClient(run.host) as client:
        client.open().send(frame(BINARY, b"1"))
        wait_until(lambda: bool(run.sockets) and not run.sockets[0].writable.is_set())
        run.server.handle_exit(signal.SIGTERM, None)
        wait_until(lambda: not run.sockets)


def test_a_server_that_is_told_nothing_else_ends_its_streams_too() -> None:
    with streaming(FakeAnalysis()) as run, run.open() as client:
        run.server.should_exit = True
        assert closing(client)[0] == 1012


# ── real networks ────────────────────────────────────────────────────────────────────────────────


def comparable(answer: dict[str, Any]) -> str:
    return json.dumps({name: answer[name] for name in answer if name not in ("id", "request_id", "timings_ms")})


@pytest.mark.weights
def test_streams_and_requests_at_once_answer_as_one_alone(model_store: ModelStore, samples: Path) -> None:
    pictures = [data for data in sample_pictures(samples).values() if len(data) <= MIB]
    service = make_service(open_profile(find_profile("standard"), model_store, workers=2), 2)
    try:
        with running(service) as run, run.open() as client, ThreadPoolExecutor(6) as pool:
            alone = [comparable(ask(client, data)) for data in pictures]

            def stream_all() -> list[str]:
                with run.open() as own:
                    return [comparable(ask(own, data)) for data in pictures]

            def post_all() -> list[str]:
                url = f"http://{run.host}/v1/analyze"
                return [comparable(httpx.post(url, content=data, timeout=PATIENCE_S).json()) for data in pictures]

            work = [pool.submit(job) for job in (stream_all, post_all) * 3]
            assert all(done.result() == alone for done in work)
            assert sum(bool(json.loads(answer)["faces"]) for answer in alone) >= 2
    finally:
        service.pool.close()
