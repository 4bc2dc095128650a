"""Servers with streams as in production, and two kinds of clients: one that behaves, and one that need not."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from tests.service.services import PATIENCE_S, FakeAnalysis, fake_service, wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import Protocol, Side
from websockets.sync.client import ClientConnection, connect

from dulian.service import schema
from dulian.service.http import create_app
from dulian.service.server import DrainingServer
from dulian.service.start import bind
from dulian.service.state import Service
from dulian.service.websocket import GuardedWebSocket

MIB = 2**20


@dataclass
class Running:
    """A server as in production, in a thread."""

    service: Service
    server: DrainingServer
    host: str

    @property
    def url(self) -> str:
        return f"ws://{self.host}/v1/stream"

    @property
    def sockets(self) -> list[GuardedWebSocket]:
        return [c for c in list(self.server.server_state.connections) if isinstance(c, GuardedWebSocket)]

    def open(self, **more: Any) -> ClientConnection:
        return connect(self.url, **{"compression": None, "max_size": None, "proxy": None, "close_timeout": 1} | more)

    def holds(self, count: int) -> None:
        """Wait until the bytes of all frames that wait or are worked on are so many: sizes tell frames apart."""
        wait_until(lambda: self.service.admission.bytes_in_flight == count)


@contextmanager
def running(service: Service, *, grace_s: float = 0.0) -> Iterator[Running]:
    with bind("127.0.0.1", 0) as listener:
        server = DrainingServer(create_app(service), service, grace_s=grace_s)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield Running(service, server, "{}:{}".format(*listener.getsockname()[:2]))
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
    assert service.streams == 0


@contextmanager
def streaming(analysis: FakeAnalysis, *, grace_s: float = 0.0, **limits: Any) -> Iterator[Running]:
    with fake_service(analysis, **limits) as service:
        with running(service, grace_s=grace_s) as run:
            analysis.seen.clear()  # of the rehearsal
            while analysis.begun.acquire(blocking=False):
                pass
            try:
                yield run
            finally:
                analysis.leave.set()
        wait_until(lambda: service.admission.bytes_in_flight == 0)


def begin(run: Running, client: ClientConnection, analysis: FakeAnalysis, data: bytes) -> None:
    """Send a frame, and return when a thread is at work on it, where it stays."""
    analysis.leave.clear()
    client.send(data)
    assert analysis.begun.acquire(timeout=PATIENCE_S)


def hear(client: ClientConnection) -> dict[str, Any]:
    message = client.recv(timeout=PATIENCE_S)
    assert isinstance(message, str)
    said: dict[str, Any] = json.loads(message)
    return said


def ask(client: ClientConnection, data: bytes, **wishes: Any) -> dict[str, Any]:
    if wishes:
        client.send(json.dumps(wishes))
    client.send(data)
    return hear(client)


def closing(client: ClientConnection) -> tuple[int, str]:
    """How the server ends a stream of which nothing else is to come."""
    with pytest.raises(ConnectionClosed) as caught:
        client.recv(timeout=PATIENCE_S)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def refusal(run: Running, **more: Any) -> httpx.Response:
    """The HTTP answer to a handshake that is not granted, which is an error like any other."""
    with pytest.raises(InvalidStatus) as caught:
        run.open(**more)
    refused = caught.value.response
    answer = httpx.Response(refused.status_code, headers=refused.headers.raw_items(), content=bytes(refused.body))
    error = schema.ErrorAnswer.model_validate(answer.json()).error
    assert error.request_id == answer.headers["x-request-id"]
    assert answer.headers["connection"] == "close"
    return answer


HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1",
    b"Host: dulian",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
)


def handshake(*more: bytes, without: bytes = b"nothing", line: bytes = HANDSHAKE[0]) -> bytes:
    """The head of a request for a stream; ``without`` drops the headers that begin so."""
    kept = [header for header in (*HANDSHAKE[1:], *more) if not header.startswith(without)]
    return b"\r\n".join((line, *kept, b"", b""))


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True, mask: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=mask)


class RawClient:
    """Sends what it is told, reads only when it is told, and has little room for what it has not read."""

    def __init__(self, host: str) -> None:
        address, _, port = host.partition(":")
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE_S)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect((address, int(port)))
        self.protocol = Protocol(Side.CLIENT, max_size=None)
        self.events: list[Any] = []

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> RawClient:
        self.socket.sendall(b"".join(pieces))
        return self

    def head(self) -> bytes:
        """The head of an HTTP answer; what follows it is kept for :meth:`next`."""
        received = b""
        while b"\r\n\r\n" not in received:
            received += self.receive()
        head, _, rest = received.partition(b"\r\n\r\n")
        self.protocol.receive_data(rest)
        return head

    def open(self, *headers: bytes) -> RawClient:
        head = self.send(handshake(*headers)).head()
        assert head.startswith(b"HTTP/1.1 101 "), head
        return self

    def next(self) -> Frame:
        """The next frame of the server, ping and close included."""
        while not self.events:
            self.events += self.protocol.events_received()
            if not self.events:
                self.protocol.receive_data(self.receive())
        taken: Frame = self.events.pop(0)
        return taken

    def hear(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(bytes(self.next().data))
        return said

    def closing(self) -> tuple[int, str]:
        """The reason in the server's close frame, before which only a pong may come."""
        taken = self.next()
        while taken.opcode is Opcode.PONG:
            taken = self.next()
        assert taken.opcode is Opcode.CLOSE
        close = Close.parse(taken.data)
        return close.code, close.reason

    def receive(self) -> bytes:
        data = self.socket.recv(1 << 16)
        assert data, "closed"
        return data
