"""P8: hundreds of connections that send next to nothing, while others want answers and the health is asked for.

A third say nothing, a third send a head byte by byte, a third a body byte by byte; whoever is sent away comes back at
once. Where slowhttptest is installed, ``--slowhttptest`` has that make as many connections instead.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import httpx

from tests.promises.harness import Probes, Server, closed_loop, comparable, dulian_server, fake_server, post
from tests.soak import Figure, arguments, filled_store, note, portraits, quantile, report

BEGINNINGS = (
    (b"", b""),
    (b"GET /livez HTTP/1.1\r\nX-Slow: ", b"a"),
    (b"POST /v1/analyze HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n", b"b"),
)
PAUSE_S = 0.5
# A head's 3 seconds or a body's 10, and what the rules allow beyond.
LONGEST_S = (3.5, 3.5, 10.5)


class Crowd:
    """So many slow clients, and how long each was put up with."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._count = count
        self.held_s: list[list[float]] = [[] for _ in BEGINNINGS]
        self.ends: Counter[bytes] = Counter()

    async def linger(self, stop: asyncio.Event) -> None:
        await asyncio.gather(*(self._one(number % len(BEGINNINGS), stop) for number in range(self._count)))

    async def _one(self, kind: int, stop: asyncio.Event) -> None:
        first, then = BEGINNINGS[kind]
        while not stop.is_set():
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            began = time.monotonic()
            writer.write(first)
            said = asyncio.create_task(reader.read())
            leaving = asyncio.create_task(stop.wait())
            while not (said.done() or leaving.done()):
                await asyncio.wait([said, leaving], timeout=PAUSE_S, return_when=asyncio.FIRST_COMPLETED)
                writer.write(then)
            leaving.cancel()
            if said.done():
                self.held_s[kind].append(time.monotonic() - began)
                with suppress(OSError):
                    self.ends[said.result()[9:12]] += 1
            else:
                said.cancel()
            writer.close()


async def measure(server: Server, options: object, requests: Sequence[bytes]) -> tuple[Crowd, int, int]:
    """The crowd, and of those who want an answer meanwhile, how many there were and how many got another."""
    seconds, count = float(vars(options)["seconds"]), int(vars(options)["connections"])
    alone = await closed_loop(server.port, requests, clients=1, count=len(requests))
    expected = {one.request: (200, comparable(one.body)) for one in alone}
    crowd, stop = Crowd(server.port, count), asyncio.Event()
    lingering = asyncio.create_task(crowd.linger(stop))
    served = await closed_loop(server.port, requests, clients=2, seconds=seconds)
    stop.set()
    await lingering
    return crowd, len(served), sum((one.status, comparable(one.body)) != expected[one.request] for one in served)


def open_files(server: Server) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return next(float(line.partition(" ")[2]) for line in lines if line.startswith("process_open_fds "))


def wait_for(server: Server, files: float) -> float:
    """How many files are open when the last of the crowd is gone."""
    until = time.monotonic() + 15
    while (now := open_files(server)) > files and time.monotonic() < until:
        time.sleep(0.1)
    return now


def with_slowhttptest(server: Server, connections: int, seconds: float) -> None:
    command = ["slowhttptest", "-c", str(connections), "-H", "-i", "1", "-r", "200", "-l", f"{seconds:.0f}"]
    subprocess.run([*command, "-u", f"{server.url}/livez"], check=False, stdout=subprocess.DEVNULL)


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--fake", action="store_true", help="20 ms of nothing instead of networks")
    parser.add_argument("--slowhttptest", action="store_true", help="have that make the connections")
    options = parser.parse_args(given)
    store = None if options.fake else filled_store()
    pictures = portraits(store) if store else [bytes([number]) * 10_000 for number in range(10)]
    requests = [post("/v1/analyze", picture) for picture in pictures]
    with dulian_server(store) if store else fake_server() as server:
        before = open_files(server)
        with Probes(server.port, "/livez") as probes:
            if options.slowhttptest:
                if not shutil.which("slowhttptest"):
                    parser.error("slowhttptest is not installed")
                with_slowhttptest(server, options.connections, options.seconds)
                crowd, answered, wrong = Crowd(server.port, 0), 0, 0
            else:
                crowd, answered, wrong = asyncio.run(measure(server, options, requests))
        left = wait_for(server, before) - before
    at = f"{options.connections} slow connections"
    livez = probes.seconds("/livez")
    note(f"ends: {dict(crowd.ends)}")
    figures = [
        Figure("P8", f"{at}: /livez, p50", 1000 * quantile(livez, 0.5), "ms"),
        Figure("P8", f"{at}: /livez, p99", 1000 * quantile(livez, 0.99), "ms", at_most=100.0),
        Figure("P8", f"{at}: /livez without an answer", sum(status != 200 for _, status, _ in probes.seen), at_most=0),
        Figure("P8", f"{at}: pictures answered meanwhile", answered),
        Figure("P8", f"{at}: of these wrong or refused", wrong, at_most=0),
        Figure("P8", f"{at}: open files left behind", left, at_most=0),
    ]
    names = ("nothing sent", "head byte by byte", "body byte by byte")
    for name, held_s, longest_s in zip(names, crowd.held_s, LONGEST_S, strict=True):
        if held_s:
            figures.append(Figure("P8", f"{at}: {name}, put up with", max(held_s), "s", at_most=longest_s))
    return report(figures, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
