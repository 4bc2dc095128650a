"""P16: what results in Redis cost those who ask, when Redis is well and when it is not, beside a service without.

Two services with real networks: one keeps nothing, the other only what Redis keeps, which it reaches through a proxy
that spoils the connection. Every client asks both the same, one after the other, so that whatever else the machine
does meets both: portraits, each with a wish that nobody had before, so that every answer has to be computed, and is
looked for and kept in Redis. Only "again" asks for what is there. A fault begins where the breaker is closed, so the
failures that open it, and the tries to close it, are in it.

First come looks into Redis alone, with a breaker that never opens: all that an answer may wait for. Beside each there
is a pause as long as the budget, which shows how late this machine is with everything. The client and the proxy run
on it too, in one process.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dulian.service.cache.breaker import Breaker
from dulian.service.cache.redis import BUDGET_S, RedisCache
from tests.promises.harness import PATIENCE_S, Reply, Server, closed_loop, comparable, connect, dulian_server, post
from tests.promises.harness import ask as ask_one
from tests.service.fault_proxy import FaultProxy
from tests.service.redis_server import redis_server
from tests.soak import Figure, arguments, filled_store, note, portraits, quantile, report

AGAIN = "again"
CONDITIONS: dict[str, dict[str, Any]] = {
    "well": {"mode": "pass"},
    AGAIN: {"mode": "pass"},
    "down": {"mode": "refuse"},
    "late-10-ms": {"mode": "delay", "delay_s": 0.01},
    "late-100-ms": {"mode": "delay", "delay_s": 0.1},
    "silent": {"mode": "black hole"},
    "garbage": {"mode": "garbage"},
    "cut-off": {"mode": "cut", "cut_bytes": 5},
}
MOST_MORE_MS = 20.0
SECRET = "0123456789abcdef" * 4


@dataclass
class Measured:
    """All rounds of one condition."""

    seconds: list[float] = field(default_factory=list)
    without: list[float] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    hits: int = 0
    faults: int = 0


class Questions:
    """Requests that nobody has sent before, and what the answers have to be, which the wish does not change."""

    def __init__(self, pictures: Sequence[bytes]) -> None:
        self._pictures = pictures
        self._numbers = itertools.count()

    def some(self, count: int) -> list[bytes]:
        return [self._one(number) for number in itertools.islice(self._numbers, count)]

    def _one(self, number: int) -> bytes:
        # Doubt about being seen at all is not what these portraits are answered by, so this changes nothing.
        return post(
            f"/v1/analyze?min_confidence={0.5 + number / 1e6:.6f}", self._pictures[number % len(self._pictures)]
        )


def breaker_of(server: Server) -> float:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=PATIENCE_S) as answer:
        lines: Iterator[str] = (line.decode() for line in answer)
        return next(float(line.split()[1]) for line in lines if line.startswith("dulian_cache_breaker_open "))


def ask(server: Server, requests: Sequence[bytes], clients: int) -> list[Reply]:
    return asyncio.run(closed_loop(server.port, requests, clients=clients, count=len(requests)))


async def ask_both(
    plain: Server, cached: Server, requests: Sequence[bytes], clients: int, *, again: bool
) -> list[tuple[Reply, Reply]]:
    """What both answer, the one and the other first in turns; with ``again`` the second has been asked before."""
    waiting = iter(enumerate(requests))
    replies: list[tuple[Reply, Reply]] = []

    async def client() -> None:
        one, other = await connect(plain.port), await connect(cached.port)
        for number, request in waiting:
            if again:
                await ask_one(other, number, request)
            first, second = (one, other) if number % 2 else (other, one)
            pair = await ask_one(first, number, request), await ask_one(second, number, request)
            replies.append(pair if number % 2 else pair[::-1])
        for connection in (one, other):
            connection.transport.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return replies


def mend(server: Server, proxy: FaultProxy, questions: Questions) -> None:
    """Until Redis is asked again."""
    proxy.become("pass")
    until = time.monotonic() + PATIENCE_S
    while breaker_of(server):
        if time.monotonic() > until:
            raise RuntimeError("the breaker does not close")
        ask(server, questions.some(1), 1)
        time.sleep(0.1)


async def look(proxy: FaultProxy, measured: dict[str, Measured], count: int) -> None:
    cache = RedisCache(f"redis://127.0.0.1:{proxy.port}", SECRET.encode(), 60.0, breaker=Breaker(failures=sys.maxsize))
    known, text = bytes(32), b'{"faces":[]}'
    for name, one in measured.items():
        proxy.become("pass")
        while await cache.get(known) != text:
            await cache.put(known, text)
        proxy.become(**CONDITIONS[name])
        for _ in range(count):
            began = time.perf_counter()
            await cache.get(known if name == AGAIN else os.urandom(32))
            one.looks.append(time.perf_counter() - began)
            began = time.perf_counter()
            await asyncio.sleep(BUDGET_S)
            one.pauses.append(time.perf_counter() - began)
    await cache.close()


def add(measured: Measured, pairs: Sequence[tuple[Reply, Reply]]) -> None:
    for without, reply in pairs:
        measured.without.append(without.took_s)
        measured.seconds.append(reply.took_s)
        measured.hits += b"x-cache: hit" in reply.head
        statuses = {without.status, reply.status}
        measured.faults += statuses != {200} or comparable(reply.body) != comparable(without.body)


def measure(options: Any, folder: Path) -> dict[str, Measured]:
    store = filled_store()
    questions = Questions(portraits(store))
    measured = {name: Measured() for name in options.only or CONDITIONS}
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(folder))
        proxy = stack.enter_context(FaultProxy(redis.port))
        asyncio.run(look(proxy, measured, options.looks))
        proxy.become("pass")
        profile = ("--profile", options.profile)
        plain = stack.enter_context(dulian_server(store, *profile))
        environment = {
            "DULIAN_REDIS_URL": f"redis://127.0.0.1:{proxy.port}",
            "DULIAN_CACHE_SECRET": SECRET,
        }
        cached = stack.enter_context(dulian_server(store, *profile, **environment))
        for server in (plain, cached):
            ask(server, questions.some(options.requests), options.clients)
        for number in range(options.rounds):
            for name in measured:
                mend(cached, proxy, questions)
                proxy.become(**CONDITIONS[name])
                requests = questions.some(options.requests)
                asked = ask_both(plain, cached, requests, options.clients, again=name == AGAIN)
                add(measured[name], asyncio.run(asked))
                note(f"round {number + 1}, {name}")
    return measured


def figures_of(measured: dict[str, Measured]) -> list[Figure]:
    figures = []
    for name, one in measured.items():
        p50, p99, pause = (1000 * quantile(*of) for of in ((one.looks, 0.5), (one.looks, 0.99), (one.pauses, 0.99)))
        figures.append(Figure("P16", f"{name}: one look, p50", p50, "ms"))
        figures.append(Figure("P16", f"{name}: one look, p99", p99, "ms"))
        figures.append(Figure("P16", f"{name}: a pause of 15 ms beside it, p99", pause, "ms"))
        for share in (0.5, 0.99):
            there, without = (1000 * quantile(seconds, share) for seconds in (one.seconds, one.without))
            at, most = f"{name}: p{100 * share:g}", MOST_MORE_MS if share > 0.5 else None
            figures += [Figure("P16", at, there, "ms"), Figure("P16", f"{at} without Redis meanwhile", without, "ms")]
            figures.append(Figure("P16", f"{at} more than without", there - without, "ms", at_most=most))
        figures.append(Figure("P16", f"{name}: wrong answers, errors", one.faults, at_most=0))
        figures.append(Figure("P16", f"{name}: given again", 100 * one.hits / len(one.seconds), "%"))
    return figures


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--requests", type=int, default=300, help="of each condition and round; 300 if not given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--looks", type=int, default=300, help="of each condition; 300 if not given")
    parser.add_argument("--clients", type=int, default=2, help="each asks again as soon as it is answered; 2")
    parser.add_argument("--profile", default="standard")
    parser.add_argument("--only", action="append", choices=list(CONDITIONS), help="leave the others out; repeatable")
    options = parser.parse_args(given)
    if not shutil.which("redis-server"):
        note("redis-server is not installed: apt-get install redis-server")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        return report(figures_of(measure(options, Path(folder))), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
