"""What goes wrong around a service: clients that hang or leave, clocks that jump, restarts. Nothing is lost or left."""

from __future__ import annotations

import ast
import asyncio
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import time_machine

from dulian.service import guard
from dulian.service.cache import Keys, MemoryCache, SharedResults
from dulian.service.closing import turn_away
from dulian.service.limits import GuardLimits
from tests.conftest import ROOT
from tests.promises.harness import Restarted, closed_loop, comparable, fake_server, form, get, post, through
from tests.service.services import PATIENCE_S, FakeAnalysis, fake_service, wait_until
from tests.service.streams import Running, running

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the filter that turns newcomers away is Linux's")
HASTE_S = 1.0


@contextmanager
def served(analysis: FakeAnalysis, *, guarded: GuardLimits | None = None, **limits: Any) -> Iterator[Running]:
    """A server as in production, in a thread, that keeps its results and has forgotten its rehearsal."""
    with fake_service(analysis, **limits) as service:
        service.guard_limits = guarded or GuardLimits()
        service.results = SharedResults(MemoryCache(2**20, 60.0), Keys(service.model), service.admission)
        with running(service) as run:
            analysis.seen.clear()
            while analysis.begun.acquire(blocking=False):
                pass
            try:
                yield run
            finally:
                analysis.leave.set()


def connected(run: Running) -> socket.socket:
    host, _, port = run.host.partition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def port_of(run: Running) -> int:
    return int(run.host.rpartition(":")[2])


def is_idle(run: Running) -> bool:
    admission, pool = run.service.admission, run.service.pool
    return not (pool.queued or pool.busy or admission.waiting or admission.bytes_in_flight)


# ── P8: slow clients ─────────────────────────────────────────────────────────────────────────────

HEAD = b"POST /v1/analyze HTTP/1.1\r\nHost: 127.0.0.1\r\n"
SLOW = {
    "silent": (b"", b"", 408),
    "half a line": (b"POST /v1/ana", b"", 408),
    "a byte at a time": (b"GET /livez HTTP/1.1\r\nX-Slow: ", b"a", 408),
    "a header at a time": (HEAD, b"X-More: a\r\n", 408),
    "half a body": (HEAD + b"Content-Length: 100\r\n\r\nhalf", b"", 408),
    "a body byte by byte": (HEAD + b"Content-Length: 100000\r\n\r\n", b"b", 408),
    "an endless chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n", b"c", 408),
    "half a form": (HEAD + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 99\r\n\r\n--x", b"", 408),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32), b"", 400),
}
EACH = 30


async def linger(run: Running, first: bytes, then: bytes, begun: asyncio.Semaphore) -> bytes:
    """Send a beginning, then a little of the rest again and again, until the server has had enough; what it said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(run))
    writer.write(first)
    begun.release()
    said = asyncio.create_task(reader.read())
    while then and not (await asyncio.wait([said], timeout=0.1))[0]:
        writer.write(then)
    try:
        return await said
    except ConnectionError:  # it was answered while more was on its way
        return b""
    finally:
        writer.close()


def test_hundreds_of_slow_clients_hold_nothing_up_and_leave_nothing_behind() -> None:
    """P8."""
    guarded = GuardLimits(connections=len(SLOW) * EACH + 30, head_seconds=HASTE_S)
    requests = [post("/v1/analyze", bytes([number])) for number in range(20)]

    async def main(run: Running) -> None:
        port, begun = port_of(run), asyncio.Semaphore(0)
        lingering = [
            (name, asyncio.create_task(linger(run, first, then, begun)))
            for name, (first, then, _) in SLOW.items()
            for _ in range(EACH)
        ]
        for _ in lingering:
            await begun.acquire()
        served = await closed_loop(port, [*requests, get("/livez"), get("/readyz")], clients=8, count=100)
        assert {one.status for one in served} == {200}
        for name, task in lingering:
            said = await task
            assert not said or said.startswith(f"HTTP/1.1 {SLOW[name][2]} ".encode()), (name, said)
        while run.server.server_state.connections:
            await asyncio.sleep(0.001)
        assert is_idle(run)
        # All places are free again.
        everywhere = await closed_loop(port, [get("/livez")], clients=guarded.connections, count=guarded.connections)
        assert [one.status for one in everywhere] == [200] * guarded.connections

    with served(FakeAnalysis(), guarded=guarded, body_timeout_s=HASTE_S) as run:
        asyncio.run(asyncio.wait_for(main(run), PATIENCE_S))
        assert is_idle(run)


# ── P21: clients that are gone ───────────────────────────────────────────────────────────────────


def vanish(client: socket.socket, *, reset: bool) -> None:
    if reset:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def test_nothing_is_computed_for_clients_that_are_gone() -> None:
    """P21: forty clients on all routes queue their pictures and vanish, by a close or a reset."""
    analysis = FakeAnalysis()
    with served(analysis) as run, ExitStack() as stack:
        analysis.leave.clear()
        first = stack.enter_context(connected(run))
        first.sendall(post("/v1/analyze", b"first"))
        assert analysis.begun.acquire(timeout=PATIENCE_S)
        held = run.service.admission.bytes_in_flight
        clients = [stack.enter_context(connected(run)) for _ in range(40)]
        for number, client in enumerate(clients):
            picture = b"gone %d" % number
            body, kind = form(picture)
            path = ("/v1/analyze", "/predict", "/api/analyze", "/analyze", "/v1/batch")[number % 5]
            client.sendall(post(path, picture) if number % 5 == 0 else post(path, body, kind))
        # Batches queue one after the other.
        wait_until(lambda: run.service.pool.queued >= 32 and run.service.admission.waiting >= 33)
        for number, client in enumerate(clients):
            vanish(client, reset=bool(number // 5 % 2))
        wait_until(lambda: run.service.pool.queued == 0 and run.service.admission.bytes_in_flight == held)
        analysis.leave.set()
        assert first.recv(100).startswith(b"HTTP/1.1 200 ")
        assert httpx.post(f"http://{run.host}/v1/analyze", content=b"last").status_code == 200
        wait_until(lambda: is_idle(run))
    assert [data for data, _ in analysis.seen] == [b"first", b"last"]


# ── P19: the clock of the wall ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("days", [1, -1])
def test_nothing_expires_hangs_or_turns_negative_when_the_clock_is_set(days: int) -> None:
    """P19: results, drawn pictures, waiting work, rates and metrics go by a clock that nobody sets."""
    analysis = FakeAnalysis()
    body, kind = form(b"drawn")
    answers: list[httpx.Response] = []
    with served(analysis) as run, httpx.Client(base_url=f"http://{run.host}", timeout=PATIENCE_S) as client:
        form_type = {"content-type": kind.partition(": ")[2]}
        assert client.post("/v1/analyze", content=b"kept").headers["x-cache"] == "miss"
        drawn = client.post("/predict", content=body, headers=form_type).json()["output_image"]
        analysis.leave.clear()
        while analysis.begun.acquire(blocking=False):
            pass
        waiting = [
            threading.Thread(
                target=lambda: answers.append(httpx.post(f"http://{run.host}/v1/analyze", content=b"late"))
            )
            for _ in range(2)
        ]
        for thread in waiting:
            thread.start()
        assert analysis.begun.acquire(timeout=PATIENCE_S)
        with time_machine.travel(datetime.now(UTC) + timedelta(days=days)):
            assert client.post("/v1/analyze", content=b"kept").headers["x-cache"] == "hit"
            assert client.get(drawn).status_code == 200
            assert client.get("/readyz").status_code == 200
            analysis.leave.set()
            for thread in waiting:
                thread.join(PATIENCE_S)
            assert client.post("/v1/analyze", content=b"new").status_code == 200
            told = client.get("/v1/status").json()
            measured = client.get("/metrics").text
        assert client.post("/v1/analyze", content=b"kept").headers["x-cache"] == "hit"
        assert client.get(drawn).status_code == 200
    assert [answer.status_code for answer in answers] == [200, 200]
    assert 0 <= told["uptime_s"] < 3600
    assert 0 <= told["latency_ms"]["p50"] <= told["latency_ms"]["p99"] < 3.6e6
    assert told["requests_per_s"] > 0
    values = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in measured.splitlines()
        if not line.startswith("#")
    }
    assert all(value >= 0 for value in values.values() if value == value)
    assert all(value < 3600 for name, value in values.items() if name.partition("{")[0].endswith("_seconds_sum"))


# Where the time of day is meant: when a key was made, and when the process looked at itself.
TIME_OF_DAY = {"src/dulian/keys.py": {"datetime.now"}, "src/dulian/service/traffic.py": {"datetime.now"}}
WALL = {
    *(f"time.{name}" for name in ("time", "time_ns", "localtime", "gmtime", "ctime", "strftime", "clock_gettime")),
    *(f"datetime.{name}" for name in ("now", "utcnow", "today")),
    *("date.today", "dt.now", "time.CLOCK_REALTIME"),
}


def wall_clocks(source: str) -> set[str]:
    """The clocks of the wall that a module reads, however it was imported."""
    tree = ast.parse(source)
    read = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found = {name for name in WALL if any(one == name or one.endswith(f".{name}") for one in read)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            found |= {f"time.{alias.name}" for alias in node.names} & WALL
    return found


def test_no_module_goes_by_the_clock_of_the_wall() -> None:
    """P19, by the source."""
    sources = {str(file.relative_to(ROOT)): file.read_text("utf-8") for file in (ROOT / "src").rglob("*.py")}
    assert len(sources) > 50
    assert {name: found for name, source in sources.items() if (found := wall_clocks(source))} == TIME_OF_DAY


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.time()",
        "import time as t\nfrom time import time_ns",
        "import datetime\ndatetime.datetime.now()",
    ],
)
def test_a_clock_of_the_wall_is_noticed(source: str) -> None:
    assert wall_clocks(source)
    assert not wall_clocks("import time\ntime.monotonic()\ntime.sleep(1)")


# ── P20: restarts ────────────────────────────────────────────────────────────────────────────────


@LINUX
def test_a_restart_under_load_loses_nothing() -> None:
    """P20: whoever was connected is answered; a refused connection is the only thing that a client has to repeat."""
    requests = [post("/v1/analyze", bytes([number]) * 5000) for number in range(16)]

    with Restarted(lambda port: fake_server("--seconds", "0.005", "--port", str(port))) as service:
        port = service.server.port
        alone = asyncio.run(closed_loop(port, requests, clients=1, count=len(requests)))
        expected = {one.request: comparable(one.body) for one in alone}
        met = asyncio.run(through(service.restart, port, requests, expected, times=3))
    assert service.codes == [0, 0, 0]
    assert (met.broken, met.wrong, set(met.statuses)) == (0, 0, {200})
    assert met.answered > 100


@LINUX
def test_who_has_connected_is_accepted_and_nobody_else_comes_in() -> None:
    """P20: the way in is shut before the socket is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address, timeout=PATIENCE_S) as early:
            early.sendall(b"asked")
            turn_away(listener)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.3)
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.recv(100) == b"asked"
                accepted.sendall(b"answered")
                assert early.recv(100) == b"answered"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=PATIENCE_S)


def test_what_is_on_its_way_when_the_service_ends_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """P20: a connection that looks idle may have a request under way, and gets the time for that."""
    monkeypatch.setattr(guard, "LAST_CALL_S", PATIENCE_S)
    with served(FakeAnalysis()) as run, connected(run) as new, connected(run) as kept:
        kept.sendall(get("/livez"))
        assert kept.recv(1000).startswith(b"HTTP/1.1 200 ")
        wait_until(lambda: len(run.server.server_state.connections) == 2)
        run.server.should_exit = True
        wait_until(lambda: not run.server.servers[0].is_serving())
        for client in (new, kept):
            client.sendall(post("/v1/analyze", b"asked"))
            answer = b"".join(iter(lambda client=client: client.recv(1000), b""))  # until it closes
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in answer.lower()


def test_connections_that_ask_nothing_more_do_not_keep_a_service_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """P20."""
    monkeypatch.setattr(guard, "LAST_CALL_S", 0.01)
    with served(FakeAnalysis()) as run, connected(run) as new:
        wait_until(lambda: len(run.server.server_state.connections) == 1)
        run.server.should_exit = True
        assert new.recv(1000) == b""
