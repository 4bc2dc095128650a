"""Servers in processes of their own, and clients that cost little: what the tests of promises and the scripts share.

Also a program: ``fake`` serves an analysis that only takes its time, ``serve`` is ``dulian serve`` with a leak put in
from outside, ``probe`` asks for the health of a server until its standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from dulian.store import ModelStore

PATIENCE_S = 60.0
ROOT = Path(__file__).parent.parent.parent
BOUNDARY = "a-boundary-of-parts"

# ── servers ──────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Server:
    """A process that serves, and what it has logged so far."""

    process: subprocess.Popen[str]
    port: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> int:
        """End it in order; its exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE_S)


@contextmanager
def dulian_server(
    store: ModelStore, *arguments: str, wrapper: Sequence[str] = (), cwd: Path = ROOT, **environment: str | None
) -> Iterator[Server]:
    """``dulian serve`` with real networks; ``wrapper`` is a program that starts it, strace say.

    Variables of the environment that are None are taken out of it.
    """
    command = [*wrapper, sys.executable, "-m", "dulian", "serve", *arguments]
    with _running([*command, "--offline", "--model-dir", str(store.write_dir)], environment, cwd) as server:
        yield server


@contextmanager
def leaking_server(store: ModelStore, leak_bytes: int, *arguments: str) -> Iterator[Server]:
    """The same with a leak of so many bytes for every picture."""
    command = [sys.executable, "-m", "tests.promises.harness", "serve", str(leak_bytes), *arguments]
    with _running([*command, "--offline", "--model-dir", str(store.write_dir)], {}) as server:
        yield server


@contextmanager
def fake_server(*arguments: str, wrapper: Sequence[str] = ()) -> Iterator[Server]:
    """A service without networks: every picture takes 20 ms unless told otherwise, and its answer says which it was."""
    with _running([*wrapper, sys.executable, "-m", "tests.promises.harness", "fake", *arguments], {}) as server:
        yield server


@contextmanager
def _running(command: Sequence[str], environment: Mapping[str, str | None], cwd: Path = ROOT) -> Iterator[Server]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DULIAN_")}
    # The keys of whoever runs the tests are not theirs.
    base = {**clean, "LANG": "C.UTF-8", "XDG_CONFIG_HOME": os.devnull, "DULIAN_PORT": "0", "DULIAN_GRACE_S": "0"}
    whole = {name: value for name, value in {**base, **environment}.items() if value is not None}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=whole, cwd=cwd)
    server = Server(process)
    listening = threading.Event()
    reader = threading.Thread(target=_read_log, args=(server, listening), daemon=True)
    reader.start()
    try:
        if not listening.wait(PATIENCE_S) or not server.port:
            raise RuntimeError(f"{command} does not serve: {server.events}")
        yield server
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        reader.join(PATIENCE_S)
        assert process.stderr
        process.stderr.close()


def _read_log(server: Server, listening: threading.Event) -> None:
    assert server.process.stderr
    for line in server.process.stderr:
        try:
            event = json.loads(line)
        except ValueError:
            event = {"event": "unreadable", "line": line}
        server.events.append(event)
        if event["event"] == "listening":
            server.port = event["port"]
            listening.set()
    listening.set()  # it has ended; whoever waits sees that there is no port


# ── requests and answers ─────────────────────────────────────────────────────────────────────────


def post(path: str, body: bytes, *headers: str) -> bytes:
    """A whole request, made once and sent often."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def form(*pictures: bytes, filename: str = "a.jpg") -> tuple[bytes, str]:
    """A body with a field ``image`` for each picture, and the header that says so."""
    disposition = f'Content-Disposition: form-data; name="image"; filename="{filename}"'
    head = f"--{BOUNDARY}\r\n{disposition}\r\n\r\n".encode()
    body = b"".join(head + picture + b"\r\n" for picture in pictures) + f"--{BOUNDARY}--\r\n".encode()
    return body, f"Content-Type: multipart/form-data; boundary={BOUNDARY}"


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


class Reply(NamedTuple):
    """What came back for the request with that number; status 0 is a connection that broke."""

    request: int
    status: int
    head: bytes
    body: bytes
    ended_at: float
    took_s: float

    @property
    def retry_after(self) -> str | None:
        found = re.search(rb"\r\nretry-after: *([^\r]*)", self.head, re.IGNORECASE)
        return found[1].decode() if found else None


# What differs between two answers to the same question.
_OWN = re.compile(
    rb'"request_id":"[^"]*",?|"timings_ms":\{[^}]*\}|"processing_time(_ms)?":("[^"]*"|[0-9.]+)'
    rb'|"resource_usage":\{[^}]*\}|"output_image":"[^"]*"'
)


def comparable(body: bytes) -> bytes:
    """An answer without what is its own: ids and times. Every other byte counts."""
    return _OWN.sub(b"", body)


# ── clients ──────────────────────────────────────────────────────────────────────────────────────


class Connection(asyncio.Protocol):
    """One connection on which one request at a time is asked; nothing but what that needs, so that it costs little."""

    def __init__(self) -> None:
        self._received = b""
        self._head_end = -1
        self._wanted = 0
        self._answered: Callable[[int, bytes, bytes], None] | None = None
        self.open = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.open = True

    def ask(self, request: bytes, answered: Callable[[int, bytes, bytes], None]) -> None:
        """Send a request; ``answered`` gets status, head and body, and (0, b"", b"") if the connection breaks."""
        self._answered = answered
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._head_end < 0:
            self._head_end = self._received.find(b"\r\n\r\n")
            if self._head_end < 0:
                return
            found = re.search(rb"\r\ncontent-length: *(\d+)", self._received[: self._head_end], re.IGNORECASE)
            assert found, self._received[:1000]
            self._wanted = self._head_end + 4 + int(found[1])
        if len(self._received) < self._wanted:
            return
        head, body = self._received[: self._head_end], self._received[self._head_end + 4 : self._wanted]
        self._received, self._head_end = self._received[self._wanted :], -1
        if b"\r\nconnection: close" in head.lower():
            self.open = False
            self.transport.close()
        self._tell(int(head[9:12]), head, body)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._tell(0, b"", b"")

    def _tell(self, status: int, head: bytes, body: bytes) -> None:
        answered, self._answered = self._answered, None
        if answered:
            answered(status, head, body)


async def connect(port: int) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return connection


async def ask(connection: Connection, number: int, request: bytes, since: float | None = None) -> Reply:
    """One request and its answer; ``since`` is when it should have been sent, now if not given."""
    future: asyncio.Future[tuple[int, bytes, bytes]] = asyncio.get_running_loop().create_future()
    since = time.monotonic() if since is None else since
    connection.ask(request, lambda *answer: None if future.done() else future.set_result(answer))
    status, head, body = await future
    now = time.monotonic()
    return Reply(number, status, head, body, now, now - since)


async def closed_loop(
    port: int, requests: Sequence[bytes], *, clients: int, count: int | None = None, seconds: float = PATIENCE_S
) -> list[Reply]:
    """So many clients, each asking again as soon as it is answered, until ``count`` is sent or the time is over."""
    replies: list[Reply] = []
    sent = 0
    until = time.monotonic() + seconds

    async def client() -> None:
        nonlocal sent
        connection = None
        while (count is None or sent < count) and time.monotonic() < until:
            number = sent % len(requests)
            sent += 1
            if connection is None or not connection.open:
                connection = await connect(port)
            replies.append(await ask(connection, number, requests[number]))
        if connection is not None:
            connection.transport.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return replies


class Offered(NamedTuple):
    """What an open loop came to; ``unsent`` is what found no connection free within a second."""

    replies: list[Reply]
    unsent: int
    seconds: float


async def open_loop(
    port: int, requests: Sequence[bytes], *, rate: float, count: int, connections: int = 400
) -> Offered:
    """Requests that come when they come, whether or not those before are answered.

    Each goes out on a connection that is free, or a new one as long as there are fewer than ``connections``. Where
    none is, it waits, and that counts as part of the time its answer took.
    """
    replies: list[Reply] = []
    free: list[Connection] = []
    waiting: deque[tuple[int, float]] = deque()
    made = unsent = 0
    tasks: set[asyncio.Task[None]] = set()

    async def serve(connection: Connection | None, number: int, since: float) -> None:
        nonlocal made
        while True:
            if connection is None or not connection.open:
                connection = await connect(port)
            replies.append(await ask(connection, number, requests[number], since))
            if not waiting:
                break
            number, since = waiting.popleft()
        if connection.open:
            free.append(connection)
        else:
            made -= 1

    def arrive(number: int, since: float) -> None:
        nonlocal made
        while free:
            connection = free.pop()
            if connection.open:
                start(connection, number, since)
                return
            made -= 1
        if made < connections:
            made += 1
            start(None, number, since)
        else:
            waiting.append((number, since))

    def start(connection: Connection | None, number: int, since: float) -> None:
        task = asyncio.create_task(serve(connection, number, since))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    began = time.monotonic()
    done = 0
    while done < count:
        now = time.monotonic()
        due = min(count, int((now - began) * rate) + 1)
        while done < due:
            arrive(done % len(requests), began + done / rate)
            done += 1
        while waiting and waiting[0][1] < now - 1.0:
            waiting.popleft()
            unsent += 1
        await asyncio.sleep(max(0.0, began + done / rate - time.monotonic()))
    seconds = time.monotonic() - began
    while tasks:
        await asyncio.wait(tasks)
    for connection in free:
        connection.transport.close()
    return Offered(replies, unsent, seconds)


@dataclass
class Persistence:
    """What clients met that ask again until they are answered; ``broken`` counts connections that ended unanswered."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    refused: int = 0
    broken: int = 0

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())


async def persist(
    port: int, requests: Sequence[bytes], expected: Mapping[int, bytes], *, clients: int, stop: asyncio.Event
) -> Persistence:
    """Clients that ask on, come what may, until ``stop``; every other one connects anew for each request."""
    met = Persistence()

    async def client(index: int) -> None:
        connection = None
        number = index
        while not stop.is_set():
            if connection is None or not connection.open:
                try:
                    connection = await connect(port)
                except OSError:
                    met.refused += 1
                    await asyncio.sleep(0.005)
                    continue
            number = (number + clients) % len(requests)
            reply = await ask(connection, number, requests[number])
            if not reply.status:
                met.broken += 1
            else:
                met.statuses[reply.status] += 1
                met.wrong += reply.status == 200 and comparable(reply.body) != expected[number]
            if index % 2 and connection.open:
                connection.transport.close()
                connection.open = False
        if connection is not None:
            connection.transport.close()

    await asyncio.gather(*(client(index) for index in range(clients)))
    return met


async def through(
    event: Callable[[], None],
    port: int,
    requests: Sequence[bytes],
    expected: Mapping[int, bytes],
    *,
    times: int,
    clients: int = 16,
    between_s: float = 0.3,
) -> Persistence:
    """What clients meet while something happens so many times; each time they are at work before and after it."""
    stop = asyncio.Event()
    load = asyncio.create_task(persist(port, requests, expected, clients=clients, stop=stop))
    for _ in range(times):
        await asyncio.sleep(between_s)
        await asyncio.to_thread(event)
    await asyncio.sleep(between_s)
    stop.set()
    return await load


class Restarted:
    """A server that is ended and started again on the same port; ``start`` takes the port."""

    def __init__(self, start: Callable[[int], AbstractContextManager[Server]]) -> None:
        self._start = start
        self._running = ExitStack()
        self.codes: list[int] = []
        self.server: Server

    def __enter__(self) -> Restarted:
        self.server = self._running.enter_context(self._start(0))
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def restart(self) -> None:
        """As an operator would: an orderly end, and when it has ended, a new one."""
        port = self.server.port
        self.codes.append(self.server.stop())
        self._running.close()
        self.server = self._running.enter_context(self._start(port))


# ── this module as a program ─────────────────────────────────────────────────────────────────────


def serve_fake(options: argparse.Namespace) -> None:
    import zlib
    from dataclasses import replace

    from dulian.faces import ImageInfo
    from dulian.service.log import configure_logging
    from dulian.service.server import run
    from dulian.service.start import bind
    from tests.service.services import FakeAnalysis, fake_service

    class Telling(FakeAnalysis):
        """Its answer shows which picture it was asked about, and how."""

        def __call__(self, data: bytes, options: Any) -> Any:
            result, load = super().__call__(data, options)
            self.seen.clear()
            return replace(result, image=ImageInfo(zlib.crc32(data), options.max_faces)), load

    configure_logging()
    limits = dict(pair.split("=") for pair in options.limit)
    given = {name: int(value) if value.isdigit() else float(value) for name, value in limits.items()}
    with (
        fake_service(Telling(options.seconds), workers=options.workers, **given) as service,
        bind("127.0.0.1", options.port) as listener,
    ):
        from dulian.service.start import log_listening

        run(service, listener, grace_s=0.0, announce=lambda: log_listening(listener))


def serve_leaking(options: argparse.Namespace) -> None:
    """The real program, every analysis of which leaves some bytes behind for good."""
    from dulian.cli import main
    from dulian.service import server

    make_service, leaked = server.make_service, []

    def make_leaking_service(*arguments: Any, **named: Any) -> Any:
        service = make_service(*arguments, **named)
        analyze = service.analyze

        def leak(data: bytes, wishes: Any) -> Any:
            leaked.append(os.urandom(options.leak_bytes))
            return analyze(data, wishes)

        service.analyze = leak
        return service

    server.make_service = make_leaking_service
    sys.argv = ["dulian", "serve", *options.arguments]
    main()


def probe(options: argparse.Namespace) -> None:
    """Every 20 ms, on one kept connection: path, status and seconds, as JSON when standard input ends."""
    import http.client

    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    seen: list[tuple[str, int, float]] = []
    connection = http.client.HTTPConnection("127.0.0.1", options.port, timeout=PATIENCE_S)
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    while not ended.wait(0.02):
        for path in options.paths:
            began = time.monotonic()
            status = 0
            for _ in range(2):  # a connection that was idle for too long is no answer
                with suppress(OSError, http.client.HTTPException):
                    connection.request("GET", path)
                    answer = connection.getresponse()
                    answer.read()
                    status = answer.status
                    break
                connection.close()
            seen.append((path, status, time.monotonic() - began))
    json.dump(seen, sys.stdout)


class Probes:
    """The health of a server as another process sees it, while something else is going on."""

    def __init__(self, port: int, *paths: str) -> None:
        command = [sys.executable, "-m", "tests.promises.harness", "probe", str(port), *paths]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.seen: list[tuple[str, int, float]] = []

    def __enter__(self) -> Probes:
        assert self._process.stdout
        self._process.stdout.readline()  # it has begun
        return self

    def __exit__(self, *_: object) -> None:
        out, _ = self._process.communicate(timeout=PATIENCE_S)
        self.seen = [(path, status, took_s) for path, status, took_s in json.loads(out)]

    def statuses(self, path: str) -> set[int]:
        return {status for asked, status, _ in self.seen if asked == path}

    def seconds(self, path: str) -> list[float]:
        return [took_s for asked, _, took_s in self.seen if asked == path]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    fake = commands.add_parser("fake")
    fake.add_argument("--seconds", type=float, default=0.02)
    fake.add_argument("--workers", type=int, default=2)
    fake.add_argument("--port", type=int, default=0)
    fake.add_argument("--limit", action="append", default=[], metavar="NAME=NUMBER")
    fake.set_defaults(run=serve_fake)
    leaking = commands.add_parser("serve")
    leaking.add_argument("leak_bytes", type=int)
    leaking.add_argument("arguments", nargs=argparse.REMAINDER)
    leaking.set_defaults(run=serve_leaking)
    probes = commands.add_parser("probe")
    probes.add_argument("port", type=int)
    probes.add_argument("paths", nargs="+")
    probes.set_defaults(run=probe)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
