"""P12, P13: how a service fares when more is asked of it than it can do: 2, 10 or 100 times as much.

In every round the peak is measured first, with as many clients as keep the service busy, then the overload: both have
the same minute of this machine. Up to 10 times it is ``dulian serve`` with real networks, above that an
analysis of 20 milliseconds that uses no processor. An open loop asks at its own pace, whatever comes back; in a closed
loop every client asks again as soon as it is answered or refused, without heeding Retry-After.

The client runs on the same machine, and its processor time is missing to the service: the table says how much it was.
``--pin`` gives the service the first core and all others to the clients.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from tests.promises.harness import (
    Offered,
    Probes,
    Reply,
    Server,
    closed_loop,
    comparable,
    dulian_server,
    fake_server,
    open_loop,
    post,
)
from tests.soak import Figure, arguments, filled_store, note, portraits, processor_s, quantile, report

USUAL = 16
MOST = 400
DEADLINE_MS = 5000.0
FAKE_FROM = 100


@dataclass
class Measured:
    """All rounds together."""

    ratios: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)
    offered: list[float] = field(default_factory=list)
    accepted_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    livez_s: list[float] = field(default_factory=list)
    client_cores: list[float] = field(default_factory=list)
    server_cores: list[float] = field(default_factory=list)
    late: int = 0
    unsent: int = 0
    faults: int = 0


def faults_of(replies: Sequence[Reply], expected: Mapping[int, bytes]) -> int:
    """Wrong answers, refusals that do not say when to come back, broken connections and other errors."""
    faults = 0
    for one in replies:
        if one.status == 200:
            faults += comparable(one.body) != expected[one.request]
        elif one.status == 503:
            faults += not (one.retry_after and one.retry_after.isdigit() and int(one.retry_after) >= 1)
        else:
            faults += one.status != 504
    return faults


def overload(
    server: Server, requests: Sequence[bytes], factor: float, peak: float, seconds: float, loop: str
) -> Offered:
    if loop == "open":
        rate = factor * peak
        return asyncio.run(open_loop(server.port, requests, rate=rate, count=round(rate * seconds), connections=MOST))
    began = time.monotonic()
    clients = min(MOST, round(factor * USUAL))
    replies = asyncio.run(closed_loop(server.port, requests, clients=clients, seconds=seconds))
    return Offered(replies, 0, time.monotonic() - began)


def measure_round(
    server: Server, requests: Sequence[bytes], expected: Mapping[int, bytes], factor: float, seconds: float, loop: str
) -> Measured:
    one = Measured()
    began = time.monotonic()
    usual = asyncio.run(closed_loop(server.port, requests, clients=USUAL, seconds=seconds))
    peak = len(usual) / (time.monotonic() - began)
    one.faults += faults_of(usual, expected)
    with Probes(server.port, "/livez") as probes:
        began, client_s, server_s = time.monotonic(), time.process_time(), processor_s(server.process.pid)
        done = overload(server, requests, factor, peak, seconds, loop)
        took_s = time.monotonic() - began
        one.client_cores.append((time.process_time() - client_s) / took_s)
        one.server_cores.append((processor_s(server.process.pid) - server_s) / took_s)
    answered = [reply for reply in done.replies if reply.status == 200]
    one.peaks.append(peak)
    one.ratios.append(len(answered) / took_s / peak)
    one.offered.append((len(done.replies) + done.unsent) / done.seconds)
    one.accepted_s += [reply.took_s for reply in answered]
    one.refused_s += [reply.took_s for reply in done.replies if reply.status == 503]
    one.late += sum(reply.status == 504 for reply in done.replies)
    one.livez_s += probes.seconds("/livez")
    one.unsent += done.unsent
    one.faults += faults_of(done.replies, expected) + (probes.statuses("/livez") != {200})
    note(f"peak {peak:.1f}/s, offered {one.offered[0]:.0f}/s, goodput {one.ratios[0]:.0%} of peak")
    return one


def figures_of(all_of: Measured, factor: float, kind: str) -> list[Figure]:
    few, many = factor <= 10, factor > 10
    goodput = {10: 90.0, 100: 50.0}.get(round(factor))
    at = f"{factor:g} ×, {kind}"
    return [
        Figure("P12", f"{at}: goodput", 100 * statistics.median(all_of.ratios), "% of peak", at_least=goodput),
        Figure("P12", f"{at}: peak", statistics.median(all_of.peaks), "/s"),
        Figure("P12", f"{at}: asked", statistics.median(all_of.offered), "/s"),
        Figure("P12", f"{at}: of these never sent", all_of.unsent),
        Figure("P12", f"{at}: answered, p50", 1000 * quantile(all_of.accepted_s, 0.5), "ms"),
        Figure("P12", f"{at}: answered, p99", 1000 * quantile(all_of.accepted_s, 0.99), "ms", at_most=DEADLINE_MS),
        Figure("P12", f"{at}: refused", len(all_of.refused_s)),
        Figure(
            "P12",
            f"{at}: refused, p99",
            1000 * quantile(all_of.refused_s or [0.0], 0.99),
            "ms",
            at_most=100.0 if few else None,
        ),
        Figure("P12", f"{at}: deadlines that passed (504)", all_of.late),
        Figure("P12", f"{at}: wrong answers, other errors, refusals without Retry-After", all_of.faults, at_most=0),
        Figure("P13", f"{at}: /livez, p50", 1000 * quantile(all_of.livez_s, 0.5), "ms"),
        Figure(
            "P13", f"{at}: /livez, p99", 1000 * quantile(all_of.livez_s, 0.99), "ms", at_most=None if many else 100.0
        ),
        Figure("P12", f"{at}: processor of the service", statistics.median(all_of.server_cores), "cores"),
        Figure("P12", f"{at}: processor of the client", statistics.median(all_of.client_cores), "cores"),
    ]


def start(*, fake: bool, profile: str, pin: bool) -> tuple[AbstractContextManager[Server], list[bytes]]:
    wrapper = ["taskset", "-c", str(min(os.sched_getaffinity(0)))] if pin else []
    if fake:
        return fake_server("--seconds", "0.02", wrapper=wrapper), [bytes([number]) * 10_000 for number in range(20)]
    store = filled_store()
    return dulian_server(store, "--profile", profile, wrapper=wrapper), portraits(store)


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--factor", type=float, default=10.0, help="10 if not given")
    parser.add_argument("--loop", choices=("open", "closed"), default="open")
    parser.add_argument("--seconds", type=float, default=5.0, help="of the peak and of the overload, each round; 5")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", default="standard")
    parser.add_argument("--fake", action="store_true", help="20 ms of nothing instead of networks, below 100 times too")
    parser.add_argument("--pin", action="store_true", help="a core for the service, the others for the client")
    options = parser.parse_args(given)
    fake = options.fake or options.factor >= FAKE_FROM
    serving, pictures = start(fake=fake, profile=options.profile, pin=options.pin)
    requests = [post("/v1/analyze", picture) for picture in pictures]
    total = Measured()
    with serving as server:
        if options.pin:
            os.sched_setaffinity(0, os.sched_getaffinity(0) - {min(os.sched_getaffinity(0))} or {0})
        serial = asyncio.run(closed_loop(server.port, requests, clients=1, count=len(requests)))
        expected = {one.request: comparable(one.body) for one in serial if one.status == 200}
        for _ in range(options.rounds):
            one = measure_round(server, requests, expected, options.factor, options.seconds, options.loop)
            for name, value in vars(one).items():
                setattr(total, name, getattr(total, name) + value)
    kind = "fake" if fake else options.profile
    figures = figures_of(total, options.factor, f"{kind}, {options.loop}{', a core each' if options.pin else ''}")
    return report(figures, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
