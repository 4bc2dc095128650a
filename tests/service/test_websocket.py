"""WebSockets below the application: raw frames against a real uvicorn."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from tests.service.services import PATIENCE_S, FakeAnalysis, wait_until
from tests.service.streams import MIB, RawClient, Running, frame, handshake, streaming
from websockets.frames import Opcode

from dulian.service import websocket
from dulian.service.guard import GuardedProtocol
from dulian.service.start import bind
from dulian.service.websocket import MAX_FRAGMENTS, PIECE_BYTES, GuardedWebSocket, guarded_websocket

TEXT, BINARY, MORE, PING, PONG, CLOSE = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING, Opcode.PONG, Opcode.CLOSE


class Application:
    """Accepts, waits for leave, and then keeps what it is sent."""

    def __init__(self) -> None:
        self.leave = asyncio.Event()
        self.messages: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.loop = asyncio.get_running_loop()
        await receive()
        await send({"type": "websocket.accept"})
        await self.leave.wait()
        while True:
            message = await receive()
            self.messages.append(message)
            if message["type"] == "websocket.disconnect":
                return

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """The loop stands still between two of its turns."""
        reached, gone_by = threading.Event(), threading.Event()

        def stand_still() -> None:
            reached.set()
            gone_by.wait(PATIENCE_S)

        self.loop.call_soon_threadsafe(stand_still)
        assert reached.wait(PATIENCE_S)
        try:
            yield
        finally:
            gone_by.set()

    def go_on(self) -> None:
        self.loop.call_soon_threadsafe(self.leave.set)


@contextmanager
def serving(app: Application, *, unread_s: float = PATIENCE_S) -> Iterator[tuple[uvicorn.Server, str]]:
    sockets = guarded_websocket(unread_s=unread_s)
    config = uvicorn.Config(
        app,
        http=GuardedProtocol,
        ws=sockets,
        loop="asyncio",
        ws_max_size=MIB,
        ws_per_message_deflate=False,
        lifespan="off",
    )
    with bind("127.0.0.1", 0) as listener:
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield server, "{}:{}".format(*listener.getsockname()[:2])
        finally:
            app.go_on()
            server.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def only(server: uvicorn.Server) -> GuardedWebSocket:
    wait_until(lambda: any(isinstance(c, GuardedWebSocket) for c in list(server.server_state.connections)))
    (connection,) = server.server_state.connections
    assert isinstance(connection, GuardedWebSocket)
    return connection


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    with streaming(FakeAnalysis()) as run:
        yield run


# ── handshakes ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(handshake(without=b"Sec-WebSocket-Key"), 400, id="no key"),
        pytest.param(handshake(b"Sec-WebSocket-Key: short", without=b"Sec-WebSocket-Key"), 400, id="short key"),
        pytest.param(handshake(without=b"Sec-WebSocket-Version"), 400, id="no version"),
        pytest.param(handshake(b"Sec-WebSocket-Version: 8", without=b"Sec-WebSocket-Version"), 400, id="old version"),
        pytest.param(handshake(b"Origin: http://a", b"Origin: http://b"), 400, id="two origins"),
        pytest.param(handshake(b"Content-Length: 5") + b"hello", 400, id="body"),
        pytest.param(handshake(b"Transfer-Encoding: chunked") + b"0\r\n\r\n", 400, id="chunked body"),
        pytest.param(handshake(line=b"POST /v1/stream HTTP/1.1"), 405, id="POST"),
        pytest.param(handshake(b"X-Long: " + b"x" * 10_000), 431, id="long line"),
        pytest.param(handshake(b"X-Longer: " + b"x" * 40_000), 431, id="large head"),
        pytest.param(handshake(*(b"X-%d: a" % number for number in range(100))), 431, id="many headers"),
        pytest.param(handshake(line=b"GET /v1/stream?" + b"x" * 10_000 + b" HTTP/1.1"), 414, id="long path"),
    ],
)
def test_a_handshake_that_is_none_gets_an_answer_and_no_connection(shared: Running, head: bytes, status: int) -> None:
    with RawClient(shared.host) as client:
        assert client.send(head).head().startswith(b"HTTP/1.1 %d " % status)
        client.socket.settimeout(PATIENCE_S)
        while client.socket.recv(1 << 16):
            pass
    wait_until(lambda: not shared.server.server_state.connections)


def test_frames_that_come_with_the_handshake_are_taken_after_it(shared: Running) -> None:
    with RawClient(shared.host) as client:
        client.send(handshake(), frame(PING, b"first"), frame(BINARY, b"frame"))
        assert client.head().startswith(b"HTTP/1.1 101 ")
        pong = client.next()
        assert (pong.opcode, bytes(pong.data)) == (PONG, b"first")
        assert client.hear()["id"] == 1


# ── what a client may send ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param([frame(BINARY, b"x", mask=False)], 1002, id="not masked"),
        pytest.param([b"\x83\x80aaaa"], 1002, id="unknown opcode"),
        pytest.param([b"\xa2\x80aaaa"], 1002, id="reserved bit"),
        pytest.param([frame(MORE, b"x")], 1002, id="end without a beginning"),
        pytest.param([frame(BINARY, b"x", fin=False), frame(BINARY, b"y")], 1002, id="one message within another"),
        pytest.param([b"\x09\x80aaaa"], 1002, id="ping in pieces"),
        pytest.param([b"\x89\xfe\x00\x7eaaaa" + bytes(126)], 1002, id="large ping"),
        pytest.param([frame(TEXT, b"\xc3\x28")], 1007, id="no UTF-8"),
        pytest.param([frame(TEXT, b"\xc3", fin=False), frame(MORE, b"\x28")], 1007, id="no UTF-8, in pieces"),
        pytest.param([b"\x82\xff" + struct.pack("!Q", 1 << 62) + b"aaaa"], 1009, id="endless"),
        pytest.param([frame(BINARY, bytes(3 * MIB))], 1009, id="big, all of it sent before the answer is read"),
    ],
)
def test_a_broken_rule_is_named_and_heard(shared: Running, sent: list[bytes], code: int) -> None:
    """The reason arrives although the client goes on: closed at once, its socket would be reset."""
    with RawClient(shared.host) as client:
        client.open().send(*sent, frame(PING, b"more"))
        assert client.closing()[0] == code
        for _ in range(10):
            client.send(frame(BINARY, bytes(1000)), frame(PING, b"more"))
    wait_until(lambda: not shared.server.server_state.connections)
    wait_until(lambda: shared.service.streams == 0)


def test_no_message_has_endless_pieces(shared: Running) -> None:
    with RawClient(shared.host) as client:
        client.open().send(frame(BINARY, fin=False), frame(MORE, fin=False) * MAX_FRAGMENTS)
        assert client.closing() == (1008, f"a message in more than {MAX_FRAGMENTS} fragments")


def test_a_text_that_is_cut_within_a_character_is_whole_in_the_end(shared: Running) -> None:
    with RawClient(shared.host) as client:
        text = '{"id": "ä"}'.encode()
        client.open().send(frame(TEXT, text[:9], fin=False), frame(MORE, text[9:]), frame(BINARY, b"frame"))
        assert client.hear()["id"] == "ä"


def test_a_message_may_have_many_pieces(shared: Running) -> None:
    with RawClient(shared.host) as client:
        pieces = frame(MORE, b"x", fin=False) * (MAX_FRAGMENTS - 2)
        client.open().send(frame(BINARY, b"x", fin=False), pieces, frame(MORE, b"x"))
        assert client.hear()["id"] == 1


def test_little_is_parsed_before_the_application_asks() -> None:
    app = Application()
    count = 20_000
    with serving(app) as (server, host), RawClient(host) as client:
        client.open()
        connection = only(server)
        with app.held_up():  # until all of it waits in the socket, to be read at once
            client.send(frame(BINARY) * count)
        wait_until(lambda: connection.read_paused)
        with app.held_up():
            assert 0 < connection.queue.qsize() <= PIECE_BYTES // 6 + 1
        app.go_on()
        wait_until(lambda: len(app.messages) == count)
        client.send(frame(BINARY, b"last"))
        wait_until(lambda: app.messages[-1]["bytes"] == b"last")


# ── what a client may leave unread ───────────────────────────────────────────────────────────────


def stuff(server: uvicorn.Server, client: RawClient) -> GuardedWebSocket:
    """Open a connection and have it answer pings until its answers have no more room."""
    connection = only(server)
    connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    client.send(frame(PING, bytes(125)) * 4000)
    wait_until(lambda: not connection.writable.is_set())
    return connection


def test_pongs_do_not_pile_up_for_one_who_reads_none() -> None:
    app = Application()
    with serving(app) as (server, host), RawClient(host) as client:
        connection = stuff(server, client.open())
        client.send(frame(BINARY, b"after"))
        app.go_on()
        wait_until(lambda: bool(app.messages))
        assert not connection.writable.is_set()
        assert connection.transport.get_write_buffer_size() <= PIECE_BYTES


def test_one_who_reads_nothing_is_cut_off() -> None:
    with serving(Application(), unread_s=0.2) as (server, host), RawClient(host) as client:
        stuff(server, client.open())
        wait_until(lambda: not server.server_state.connections)


def test_one_who_reads_late_is_not_cut_off() -> None:
    unread_s = 3.0
    with serving(Application(), unread_s=unread_s) as (server, host), RawClient(host) as client:
        connection = stuff(server, client.open())
        client.socket.settimeout(0.05)
        while not connection.writable.is_set():
            with suppress(TimeoutError):
                client.receive()
        client.socket.settimeout(PATIENCE_S)
        time.sleep(unread_s + 0.1)
        client.send(frame(PING, b"still there"))
        received = b""
        while b"still there" not in received:
            received = received[-20:] + client.receive()


def test_a_client_that_does_not_answer_our_close_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "CLOSE_S", 0.1)
    with streaming(FakeAnalysis(), stream_idle_s=0.1) as run, RawClient(run.host) as client:
        client.open()
        assert client.closing()[0] == 1008
        wait_until(lambda: not run.server.server_state.connections)


def test_a_client_that_goes_on_after_its_fault_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "CLOSE_S", 0.1)
    with streaming(FakeAnalysis()) as run, RawClient(run.host) as client:
        client.open().send(frame(TEXT, b"\xff"))
        assert client.closing()[0] == 1007
        with suppress(ConnectionError):
            while run.server.server_state.connections:
                client.send(frame(BINARY, bytes(1000)))
        wait_until(lambda: not run.server.server_state.connections)


def test_a_close_is_answered(shared: Running) -> None:
    with RawClient(shared.host) as client:
        client.open().send(frame(CLOSE, struct.pack("!H", 1000)))
        assert client.closing()[0] == 1000
    wait_until(lambda: not shared.server.server_state.connections)
