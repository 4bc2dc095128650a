"""Raw sockets against a real uvicorn: what no well-behaved client library would send."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from dulian.service.guard import GuardedProtocol, GuardLimits, _JoiningTransport, guarded_protocol

HANG_S = 20.0  # far beyond anything measured here: a guard against hanging, never an assertion
HASTE_S = 0.5  # the time of a head where the test waits for its end
LARGE_BYTES = 32 * 2**20  # more than the system keeps for both ends of a connection

GET = b"GET /echo HTTP/1.1\r\nHost: dulian\r\n\r\n"
GATED = b"GET /gated HTTP/1.1\r\nHost: dulian\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: dulian\r\n"


def head_of(n_bytes: int) -> bytes:
    """A whole head of exactly so many bytes."""
    start = b"GET /echo HTTP/1.1\r\nHost: dulian\r\nX-Filler: "
    return start + b"a" * (n_bytes - len(start) - 4) + b"\r\n\r\n"


def head_with(n_headers: int) -> bytes:
    return b"GET /echo HTTP/1.1\r\n" + b"".join(b"X-%d: a\r\n" % i for i in range(n_headers)) + b"\r\n"


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < give_up, "still waiting"
        time.sleep(0.005)


# ── the server ──────────────────────────────────────────────────────────────────────────────────────────────────────


class EchoWebSocket(asyncio.Protocol):
    """Stands in for a WebSocket implementation: sends the handshake and every later byte back."""

    def __init__(self, config: uvicorn.Config, server_state: Any, app_state: dict[str, Any]) -> None:
        self.connections = server_state.connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connections.add(self)
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def shutdown(self) -> None:
        self.transport.close()


class Running:
    """A uvicorn in a thread, on a port of its own, with a tiny application."""

    def __init__(self, limits: GuardLimits, websockets: Any = "none") -> None:
        self.seen: list[str] = []
        self.gate = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop | None = None
        routes = [
            Route("/echo", self.echo, methods=["GET", "POST"]),
            Route("/gated", self.gated),
            Route("/slow", self.slow, methods=["GET", "POST"]),
            Route("/hasty", self.hasty, methods=["POST"]),
            Route("/trickle", self.trickle),
            Route("/large", self.large),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes),
            http=guarded_protocol(limits),
            ws=websockets,
            loop="asyncio",
            lifespan="off",
            log_config=None,
        )
        self.server = uvicorn.Server(config)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=asyncio.run, args=(self.serve(),))

    async def serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        await self.server.serve(sockets=[self.listener])

    async def echo(self, request: Request) -> JSONResponse:
        self.seen.append("echo")
        body = await request.body()
        return JSONResponse(
            {"body": body[:100].decode(), "length": len(body), "headers": len(request.scope["headers"])}
        )

    async def gated(self, request: Request) -> PlainTextResponse:
        self.seen.append("gated")
        await self.gate.wait()
        return PlainTextResponse("at last")

    async def slow(self, request: Request) -> PlainTextResponse:
        self.seen.append("slow")
        await request.body()
        await asyncio.sleep(2 * HASTE_S)
        return PlainTextResponse("slow")

    async def hasty(self, request: Request) -> PlainTextResponse:
        self.seen.append("hasty")
        return PlainTextResponse("no thanks", status_code=413)

    async def large(self, request: Request) -> PlainTextResponse:
        self.seen.append("large")
        return PlainTextResponse("a" * LARGE_BYTES)

    async def trickle(self, request: Request) -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            yield "first"
            await self.gate.wait()
            yield "last"

        return StreamingResponse(pieces())

    @property
    def connections(self) -> list[GuardedProtocol]:
        return [c for c in list(self.server.server_state.connections) if isinstance(c, GuardedProtocol)]

    def open_gate(self) -> None:
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.gate.set)

    def __enter__(self) -> Running:
        self.thread.start()
        wait_until(lambda: self.server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self.open_gate()
        self.server.should_exit = True
        self.thread.join(HANG_S)
        self.listener.close()
        assert not self.thread.is_alive()


def fresh(server: Running) -> Running:
    wait_until(lambda: not server.server.server_state.connections)
    server.seen.clear()
    server.gate.clear()
    return server


@pytest.fixture(scope="module")
def patient_server() -> Iterator[Running]:
    with Running(GuardLimits(head_seconds=HANG_S)) as server:
        yield server


@pytest.fixture(scope="module")
def hasty_server() -> Iterator[Running]:
    with Running(GuardLimits(head_seconds=HASTE_S), EchoWebSocket) as server:
        yield server


@pytest.fixture
def patient(patient_server: Running) -> Running:
    """All limits but the time: no stall of the machine can turn an answer into a 408."""
    return fresh(patient_server)


@pytest.fixture
def hasty(hasty_server: Running) -> Running:
    """Little time for a head, and a WebSocket implementation."""
    return fresh(hasty_server)


# ── the client ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return cast(dict[str, Any], json.loads(self.body))


class Client:
    """A socket that sends what it is told and reads answers, tolerating a reset once it was refused."""

    def __init__(self, server: Running) -> None:
        self.socket = socket.create_connection(server.listener.getsockname(), timeout=HANG_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes, pause_s: float = 0.01) -> Client:
        """Each piece as a packet of its own."""
        with contextlib.suppress(ConnectionError):
            for i, piece in enumerate(pieces):
                time.sleep(pause_s if i else 0)
                self.socket.sendall(piece)
        return self

    def more(self) -> bool:
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionError:
            data = b""
        self.received += data
        return bool(data)

    def take(self, n_bytes: int) -> bytes:
        while len(self.received) < n_bytes and self.more():
            pass
        taken, self.received = self.received[:n_bytes], self.received[n_bytes:]
        return taken

    def answer(self) -> Answer:
        while b"\r\n\r\n" not in self.received:
            assert self.more(), f"closed after {self.received!r}"
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return Answer(int(status.split()[1]), headers, self.take(int(headers.get("content-length", 0))))

    def rest(self) -> bytes:
        """Everything until the server closes."""
        while self.more():
            pass
        return self.received

    def refusal(self) -> int:
        """The status of a refusal in its only shape, after which the connection is closed."""
        answer = self.answer()
        assert answer.body == b""
        assert answer.headers == {"connection": "close", "content-length": "0"} | (
            {"retry-after": "1"} if answer.status == 503 else {}
        )
        assert self.rest() == b""
        return answer.status


@pytest.fixture
def client(patient: Running) -> Iterator[Client]:
    with Client(patient) as made:
        yield made


@pytest.fixture
def hurried(hasty: Running) -> Iterator[Client]:
    with Client(hasty) as made:
        yield made


# ── what must pass ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_plain_request_is_answered_on_a_socket_without_delay(client: Client, patient: Running) -> None:
    assert client.send(GET).answer().status == 200
    accepted = patient.connections[0]._plain_transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_the_defaults_are_those_of_the_guide() -> None:
    assert GuardedProtocol.limits == GuardLimits(
        connections=512,
        head_bytes=32768,
        headers=100,
        head_seconds=3.0,
        pipelined=16,
        answer_seconds=30.0,
        answer_bytes=65536,
    )


def test_the_factory_leaves_the_limits_of_the_class_it_extends_alone() -> None:
    made = cast(type[GuardedProtocol], guarded_protocol(GuardLimits(headers=7)))
    assert issubclass(made, GuardedProtocol)
    assert made.limits.headers == 7
    assert GuardedProtocol.limits.headers == 100


def test_a_connection_serves_one_request_after_another(client: Client) -> None:
    for _ in range(3):
        assert client.send(GET).answer().status == 200


def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    bodies = [b"one", b"two", b"three"]
    client.send(b"".join(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies))
    assert [client.answer().json["body"] for _ in bodies] == ["one", "two", "three"]


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 10])
def test_a_blank_line_may_be_split_over_two_chunks(client: Client, cut: int) -> None:
    head = head_of(30_000)
    assert client.send(head[:-cut], head[-cut:]).answer().status == 200


def test_every_head_has_a_budget_of_its_own(client: Client) -> None:
    for _ in range(3):
        assert client.send(head_of(30_000)).answer().status == 200
    client.send(head_of(30_000) * 2)
    assert [client.answer().status, client.answer().status] == [200, 200]


def test_a_head_its_body_and_the_next_head_do_not_share_a_budget(client: Client) -> None:
    filler = b"a" * 20_000
    client.send(
        POST + b"Transfer-Encoding: chunked\r\nX-Filler: " + filler + b"\r\n\r\n",
        b"1;name=" + filler + b"\r\na\r\n",
        b"0\r\nX-Trailer: " + filler + b"\r\n\r\n",
        head_of(20_000),
    )
    assert [client.answer().status, client.answer().status] == [200, 200]


@pytest.mark.parametrize("n_pieces", [1, 2, 300])
def test_a_large_body_is_not_held_to_the_budget_of_heads(client: Client, n_pieces: int) -> None:
    size = 3_000_000 // n_pieces
    client.send(POST + b"Content-Length: %d\r\n\r\n" % (size * n_pieces), *[b"a" * size] * n_pieces, pause_s=0)
    assert client.answer().json["length"] == size * n_pieces


def test_a_chunked_body_passes_whatever_its_chunks(client: Client) -> None:
    chunks = b"1\r\na\r\n" * 30_000 + b"5;name=value\r\nhello\r\n" + b"0\r\n\r\n"
    client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n", chunks)
    assert client.answer().json["length"] == 30_005
    assert client.send(GET).answer().status == 200


def test_trailers_do_not_become_headers(client: Client) -> None:
    client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n0\r\nX-Forged: yes\r\n\r\n")
    assert client.answer().json == {"body": "a", "length": 1, "headers": 2}


def test_expect_100_continue_is_answered_before_the_body(client: Client) -> None:
    client.send(POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    assert client.answer().status == 100
    assert client.send(b"hello").answer().json["body"] == "hello"


def test_the_head_of_a_streamed_answer_does_not_wait_for_its_end(client: Client, patient: Running) -> None:
    client.send(GET.replace(b"/echo", b"/trickle"))
    assert client.answer().status == 200
    assert client.take(10) == b"5\r\nfirst\r\n"
    patient.open_gate()
    assert client.take(14) == b"4\r\nlast\r\n0\r\n\r\n"


# ── heads that are too large ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        pytest.param([head_of(32 * 1024)], 200, id="the whole budget"),
        pytest.param([head_of(32 * 1024 + 1)], 431, id="one byte more"),
        pytest.param([head_of(200_000)], 431, id="200 KB header"),
        pytest.param([head_of(60_000)[:30_000], head_of(60_000)[30_000:]], 431, id="60 KB in two chunks"),
        pytest.param([b"GET /" + b"a" * 40_000], 431, id="endless path"),
        pytest.param([b"\r\n" * 20_000], 431, id="nothing but blank lines"),
        pytest.param([head_with(5000)], 431, id="5000 headers"),
        pytest.param([head_with(100)], 200, id="100 headers"),
        pytest.param([head_with(101)], 431, id="101 headers"),
        pytest.param([head_with(102)[:-2]], 431, id="102 headers and no end"),
    ],
)
def test_the_size_of_a_head_is_bounded(client: Client, patient: Running, pieces: list[bytes], status: int) -> None:
    client.send(*pieces)
    if status == 200:
        assert client.answer().status == 200
    else:
        assert client.refusal() == status
        assert patient.seen == []


def test_an_endless_header_is_cut_off_while_it_arrives(client: Client) -> None:
    client.send(b"GET / HTTP/1.1\r\nX-Endless: ")
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < 64_000_000:
            sent += client.socket.send(b"a" * 4096)
    assert sent < 64_000_000
    assert client.refusal() == 431


@pytest.mark.parametrize("tail", [b"0\r\nX-Endless: ", b"1;name="])
def test_trailers_and_chunk_extensions_have_the_same_budget(client: Client, tail: bytes) -> None:
    client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n", tail, b"a" * 33_000)
    assert client.refusal() == 431


def test_a_second_head_on_the_connection_is_bounded_too(client: Client) -> None:
    client.send(GET)
    assert client.answer().status == 200
    assert client.send(head_of(40_000)).refusal() == 431


# ── heads that make no sense ────────────────────────────────────────────────────────────────────────────────────────


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="dulian").do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(client_hello(), id="TLS"),
        pytest.param(b"\x00\x01\x02 nonsense\r\n\r\n", id="garbage"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
        pytest.param(POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="CL+TE"),
        pytest.param(POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", id="TE+CL"),
        pytest.param(POST + b"Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\nhello", id="CL+TE identity"),
        pytest.param(POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", id="the same CL twice"),
        pytest.param(POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", id="two CLs"),
        pytest.param(POST + b"Content-Length: 5, 5\r\n\r\nhello", id="a list of CLs"),
        pytest.param(POST + b"Content-Length: +5\r\n\r\nhello", id="CL with a sign"),
        pytest.param(
            POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", id="two TEs"
        ),
        pytest.param(POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", id="space before the colon"),
        pytest.param(b"GET /echo HTTP/1.1\r\nX-Folded: a\r\n b\r\n\r\n", id="folded header"),
        pytest.param(b"GET /echo HTTP/1.1\nHost: dulian\n\n", id="bare line feeds"),
        pytest.param(b"GET /echo HTTP/1.1\r\nX-Nul: a\x00b\r\n\r\n", id="NUL in a header"),
    ],
)
def test_what_is_not_one_clear_request_gets_400(client: Client, patient: Running, request_bytes: bytes) -> None:
    assert client.send(request_bytes).refusal() == 400
    assert patient.seen == []


def test_a_chunk_without_a_size_is_refused_while_the_application_reads(client: Client, patient: Running) -> None:
    client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    wait_until(lambda: patient.seen == ["echo"])
    assert client.send(b"what?\r\n").refusal() == 400


# ── heads that take too long ────────────────────────────────────────────────────────────────────────────────────────


def test_an_idle_connection_gets_408(hurried: Client) -> None:
    assert hurried.refusal() == 408


def test_bytes_that_trickle_in_do_not_extend_the_time(hurried: Client) -> None:
    hurried.send(GET[:-2] + b"X-Slow: ")
    hurried.socket.settimeout(0.02)
    with contextlib.suppress(ConnectionError):
        for _ in range(500):
            hurried.socket.send(b"a")
            with contextlib.suppress(TimeoutError):
                hurried.more()
                break
        else:
            pytest.fail("five hundred drips and still listening")
    hurried.socket.settimeout(HANG_S)
    assert hurried.refusal() == 408


@pytest.mark.parametrize("first", [GET, POST + b"Content-Length: 5\r\n\r\nhello"])
def test_half_of_the_next_head_gets_408(hurried: Client, first: bytes) -> None:
    hurried.send(first)
    assert hurried.answer().status == 200
    assert hurried.send(GET[:12]).refusal() == 408


def test_half_of_the_next_head_that_came_during_an_answer_gets_408_after_it(hurried: Client) -> None:
    hurried.send(GET.replace(b"/echo", b"/slow") + GET[:12])
    assert hurried.answer().body == b"slow"
    assert hurried.refusal() == 408


def test_the_next_head_has_its_full_time_after_a_slow_answer(hurried: Client) -> None:
    hurried.send(GET.replace(b"/echo", b"/slow") + GET[:12])
    assert hurried.answer().body == b"slow"
    assert hurried.send(GET[12:]).answer().status == 200


def test_a_stray_line_break_after_a_body_spoils_neither_a_slow_answer_nor_the_next(hurried: Client) -> None:
    request = POST.replace(b"/echo", b"/slow") + b"Content-Length: 5\r\n\r\nhello"
    hurried.send(request, b"\r\n")
    answer = hurried.answer()
    assert (answer.status, answer.body) == (200, b"slow")
    time.sleep(1.5 * HASTE_S)  # no head has begun, so only the longer time of a kept connection runs
    assert hurried.send(GET).answer().status == 200


def test_a_stray_line_break_on_an_idle_connection_closes_it_without_an_answer(hurried: Client) -> None:
    hurried.send(GET)
    assert hurried.answer().status == 200
    assert hurried.send(b"\r\n").rest() == b""


def test_a_slow_body_is_left_to_the_application(hurried: Client) -> None:
    hurried.send(POST + b"Content-Length: 5\r\n\r\n", b"he", b"llo", pause_s=1.5 * HASTE_S)
    assert hurried.answer().json["body"] == "hello"


def test_a_body_nobody_wants_any_more_has_the_time_of_a_head(hurried: Client) -> None:
    hurried.send(POST.replace(b"/echo", b"/hasty") + b"Content-Length: 100000\r\n\r\n")
    assert hurried.answer().status == 413
    with contextlib.suppress(ConnectionError):
        for _ in range(1000):
            hurried.socket.send(b"a")
            time.sleep(HASTE_S / 10)
    assert hurried.rest() == b""


# ── refused while an answer is under way ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "late",
    [
        pytest.param([b"\x00 nonsense\r\n\r\n"], id="garbage"),
        pytest.param([head_of(40_000)], id="large head"),
        pytest.param([head_with(101)], id="many headers"),
        pytest.param([b"\x00 nonsense\r\n\r\n", GET, GET], id="requests after garbage"),
        pytest.param([POST + b"Transfer-Encoding: chunked\r\n\r\nwhat?\r\n"], id="queued request, broken body"),
    ],
)
def test_a_refusal_lets_the_running_answer_finish_and_then_closes(
    client: Client, patient: Running, late: list[bytes]
) -> None:
    client.send(GATED)
    wait_until(lambda: patient.seen == ["gated"])
    client.send(*late)
    wait_until(lambda: patient.connections[0]._deaf)
    patient.open_gate()
    answer = client.answer()
    assert (answer.status, answer.body) == (200, b"at last")
    assert client.rest() == b""
    assert patient.seen == ["gated"]


def test_requests_accepted_before_the_refused_one_are_all_answered(client: Client, patient: Running) -> None:
    client.send(GATED + GET + b"\x00 nonsense\r\n\r\n")
    wait_until(lambda: any(connection._deaf for connection in patient.connections))
    patient.open_gate()
    assert client.answer().body == b"at last"
    last = client.answer()
    assert (last.status, last.headers["connection"]) == (200, "close")
    assert client.rest() == b""


def test_of_a_flood_of_pipelined_requests_only_the_first_are_kept(client: Client, patient: Running) -> None:
    client.send(GATED + GET * 5000)
    wait_until(lambda: any(connection._deaf for connection in patient.connections))
    patient.open_gate()
    assert client.answer().body == b"at last"
    answers = [client.answer() for _ in range(GuardLimits().pipelined)]
    assert [answer.headers.get("connection") for answer in answers[-2:]] == [None, "close"]
    assert client.rest() == b""
    assert patient.seen == ["gated"] + ["echo"] * len(answers)


# ── upgrades ────────────────────────────────────────────────────────────────────────────────────────────────────────

UPGRADE = b"GET /echo HTTP/1.1\r\nHost: dulian\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def test_a_websocket_is_handed_over_with_no_timer_left(hasty: Running, hurried: Client) -> None:
    hurried.send(UPGRADE)
    assert hurried.take(len(UPGRADE)).lower() == UPGRADE.lower()
    time.sleep(1.5 * HASTE_S)
    big = b"frame" * 20_000
    hurried.send(big)
    assert hurried.take(len(big)) == big
    assert len(hasty.server.server_state.connections) == 1


def test_the_head_of_a_websocket_handshake_is_bounded(hurried: Client) -> None:
    assert hurried.send(UPGRADE[:-2] + b"X-Filler: " + b"a" * 40_000 + b"\r\n\r\n").refusal() == 431


def upgrade(protocol: bytes, *headers: bytes, method: bytes = b"GET") -> bytes:
    request = UPGRADE.replace(b"websocket", protocol).replace(b"GET", method)
    return request[:-2] + b"".join(header + b"\r\n" for header in headers) + b"\r\n"


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
def test_an_upgrade_nobody_speaks_is_a_plain_request_like_any_other(client: Client, protocol: bytes) -> None:
    client.send(upgrade(protocol), GET)
    for _ in range(2):
        answer = client.answer()
        assert (answer.status, answer.headers.get("connection"), answer.json["length"]) == (200, None, 0)


def test_only_the_wish_for_an_upgrade_is_passed_over(client: Client) -> None:
    client.send(upgrade(b"h2c", b"HTTP2-Settings: AAMAAABk", b"X-Same: a", b"X-Same: b"))
    assert client.answer().json["headers"] == 5


@pytest.mark.parametrize("n_pieces", [1, 2, 50])
@pytest.mark.parametrize(
    ("header", "body"),
    [
        pytest.param(b"Content-Length: 5", b"hello", id="length"),
        pytest.param(b"Transfer-Encoding: chunked", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", id="chunked"),
    ],
)
def test_the_body_of_an_upgrade_nobody_speaks_is_read(
    client: Client, patient: Running, header: bytes, body: bytes, n_pieces: int
) -> None:
    # Java's client wishes for h2c in every request. A body taken for the next request would be a smuggled one.
    request = upgrade(b"h2c", header, method=b"POST") + body + GET
    size = -(-len(request) // n_pieces)
    client.send(*(request[at : at + size] for at in range(0, len(request), size)), pause_s=0.001)
    assert client.answer().json["body"] == "hello"
    assert client.answer().json["length"] == 0
    assert patient.seen == ["echo", "echo"]


def test_a_body_that_looks_like_a_request_is_none(client: Client, patient: Running) -> None:
    body = GET.replace(b"/echo", b"/gated")
    client.send(upgrade(b"h2c", b"Content-Length: %d" % len(body), method=b"POST") + body)
    assert client.answer().json["length"] == len(body)
    assert patient.seen == ["echo"]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(upgrade(b"h2c", b"X-Filler: " + b"a" * 40_000), 431, id="large head"),
        pytest.param(upgrade(b"h2c", *(b"X-%d: a" % i for i in range(101))), 431, id="many headers"),
        pytest.param(
            upgrade(b"h2c", b"Content-Length: 5", b"Transfer-Encoding: chunked", method=b"POST"), 400, id="CL+TE"
        ),
        pytest.param(upgrade(b"h2c", b"Transfer-Encoding: chunked", method=b"POST") + b"what?\r\n", 400, id="broken"),
    ],
)
def test_a_wish_for_an_upgrade_excuses_nothing(client: Client, request_bytes: bytes, status: int) -> None:
    assert client.send(request_bytes).refusal() == status


def test_after_a_connect_nothing_is_read(client: Client, patient: Running) -> None:
    client.send(b"CONNECT /echo HTTP/1.1\r\nHost: dulian\r\n\r\n" + GET)
    assert client.answer().status >= 400
    assert client.rest() == b""
    assert patient.seen == []


def test_a_websocket_behind_an_unfinished_answer_is_not_let_in(hasty: Running, hurried: Client) -> None:
    """Its frames and that answer would share the wire."""
    hurried.send(GATED + UPGRADE)
    wait_until(lambda: any(connection._deaf for connection in hasty.connections))
    hasty.open_gate()
    answer = hurried.answer()
    assert (answer.body, answer.headers["connection"]) == (b"at last", "close")
    assert hurried.rest() == b""


def test_what_follows_a_websocket_handshake_at_once_is_handed_over_too(hurried: Client) -> None:
    hurried.send(UPGRADE + b"frames")
    assert hurried.take(len(UPGRADE) + 6)[-6:] == b"frames"


def test_websockets_count_as_connections() -> None:
    limits = GuardLimits(connections=2, head_seconds=HANG_S)
    with Running(limits, EchoWebSocket) as server, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(Client(server)) for _ in range(2)]
        for client in sockets:
            client.send(UPGRADE).take(len(UPGRADE))
        with Client(server) as refused:
            assert refused.refusal() == 503


# ── connections ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_connection_too_many_gets_503_until_another_goes() -> None:
    with Running(GuardLimits(connections=3, head_seconds=HANG_S)) as server, contextlib.ExitStack() as stack:
        held = [stack.enter_context(Client(server)) for _ in range(3)]
        for _ in range(2):
            with Client(server) as refused:
                assert refused.refusal() == 503
        assert [client.send(GET).answer().status for client in held] == [200, 200, 200]
        held[0].socket.close()
        wait_until(lambda: len(server.connections) == 2)
        with Client(server) as welcome:
            assert welcome.send(GET).answer().status == 200


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param([], id="idle"),
        pytest.param([GET[:12]], id="half a head"),
        pytest.param([POST + b"Content-Length: 5\r\n\r\nhe"], id="half a body"),
        pytest.param([GATED], id="waiting for the answer"),
        pytest.param([GET, GET[:12]], id="half of the next head"),
        pytest.param([GET], id="kept alive"),
    ],
)
def test_a_client_that_goes_leaves_nothing_behind(patient: Running, sent: list[bytes], reset: bool) -> None:
    with Client(patient) as client:
        client.send(*sent)
        if sent[:1] == [GET]:
            assert client.answer().status == 200
        wait_until(lambda: len(patient.connections) == 1 and (len(patient.seen) > 0 or not sent or sent[0] == GET[:12]))
        [connection] = patient.connections
        if reset:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: not patient.connections)
    patient.open_gate()
    wait_until(lambda: not patient.server.server_state.tasks)
    assert connection._head_timer is None
    assert connection.timeout_keep_alive_task is None


def test_no_refused_connection_stays_in_memory(hasty: Running) -> None:
    for request in (b"", b"\x00", head_of(40_000), head_with(101), GET[:12]):
        with Client(hasty) as client:
            assert client.send(request).refusal() >= 400
    wait_until(lambda: not hasty.server.server_state.connections)
    gc.collect()
    kept = [o for o in gc.get_objects() if type(o) is hasty.server.config.http_protocol_class]
    assert kept == []


# ── joined writes ───────────────────────────────────────────────────────────────────────────────────────────────────


class Wire(asyncio.Transport):
    """Remembers what was written, and that it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.packets: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.packets.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def test_writes_of_one_turn_leave_in_pairs_and_none_waits_for_the_next_turn() -> None:
    async def write_some() -> None:
        wire = Wire()
        joining = _JoiningTransport(wire, asyncio.get_running_loop())
        joining.write(b"head ")
        joining.write(memoryview(b"body"))
        joining.write(b"more")
        assert wire.packets == [b"head body"]
        await asyncio.sleep(0)
        assert wire.packets == [b"head body", b"more"]
        joining.write(b"last")
        joining.close()
        assert wire.packets == [b"head body", b"more", b"last"]
        assert joining.is_closing()

    asyncio.run(write_some())


# ── answers that nobody reads ───────────────────────────────────────────────────────────────────────────────────────

LARGE = GET.replace(b"/echo", b"/large")


def test_who_does_not_read_an_answer_is_cut_off_and_frees_the_place() -> None:
    limits = GuardLimits(head_seconds=HANG_S, answer_seconds=HASTE_S)
    with Running(limits) as server, socket.create_connection(server.listener.getsockname()) as client:
        client.sendall(LARGE)
        wait_until(lambda: bool(server.seen))
        wait_until(lambda: not server.server.server_state.connections)


def test_who_reads_slowly_gets_the_whole_answer() -> None:
    limits = GuardLimits(head_seconds=HANG_S, answer_seconds=HASTE_S, answer_bytes=1024)
    with Running(limits) as server, socket.create_connection(server.listener.getsockname()) as client:
        client.settimeout(HANG_S)
        client.sendall(LARGE)
        received = 0
        for _ in range(6):  # three times as long as one may read nothing
            time.sleep(HASTE_S / 2)
            for _ in range(4):
                received += len(client.recv(2**18))
        while received < LARGE_BYTES:
            got = len(client.recv(2**20))
            assert got
            received += got
