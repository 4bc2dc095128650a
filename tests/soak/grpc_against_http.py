"""gRPC beside HTTP: bytes on the wire, time with one caller, requests per second with eight, for the same photos.

Both are asked of the same process with real networks, in turns, so that both have the same minutes of this machine.
Other work on it only ever slows: with many short rounds the best ones tell what it can do.
HTTP is asked by the cheapest client there can be, bytes made once over open sockets, and by httpx, as programs do; gRPC
by the library's own client over one channel. The clients run on the same machine: what they use is missing to the
service, and the table says how much it was. Bytes are counted between client and server, after a first request has
opened the connection; those of the picture itself are subtracted.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
from google.protobuf.json_format import MessageToDict

from dulian.service.rpc.dulian_pb2 import AnalyzeRequest
from dulian.service.rpc.dulian_pb2_grpc import DulianStub
from tests.promises.harness import Server, closed_loop, dulian_server, post
from tests.soak import Figure, arguments, filled_store, note, portraits, processor_s, quantile, report

CALLERS = 8
WAYS = ("HTTP, raw", "HTTP, httpx", "gRPC")

Ask = Callable[[int], Awaitable[Any]]


@dataclass
class Measured:
    """All rounds of one way to ask."""

    alone_s: list[float] = field(default_factory=list)
    alone_p50_s: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    server_ms: list[float] = field(default_factory=list)
    client_ms: list[float] = field(default_factory=list)
    faults: int = 0


# ── ways to ask ──────────────────────────────────────────────────────────────────────────────────


def seen(document: Any) -> Any:
    """What an answer says that is the same for every request."""
    return [(face["bbox"], face["age"], face["gender"]) for face in document["faces"]]


async def ask_often(ask: Ask, count: int, callers: int, seconds: float) -> tuple[list[float], list[Any]]:
    """So many callers, each asking again as soon as it is answered; how long each answer took, and what it was."""
    took: list[float] = []
    answers: list[Any] = []
    until = time.monotonic() + seconds
    sent = 0

    async def caller() -> None:
        nonlocal sent
        while time.monotonic() < until:
            number, sent = sent % count, sent + 1
            began = time.monotonic()
            answer = await ask(number)
            took.append(time.monotonic() - began)
            answers.append((number, answer))

    await asyncio.gather(*(caller() for _ in range(callers)))
    return took, answers


async def by_grpc(port: int, pictures: Sequence[bytes], callers: int, seconds: float) -> tuple[list[float], list[Any]]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = DulianStub(channel)
        requests = [AnalyzeRequest(image=picture) for picture in pictures]
        took, answers = await ask_often(lambda number: stub.Analyze(requests[number]), len(requests), callers, seconds)
    return took, [(number, seen(document(answer))) for number, answer in answers]


def document(answer: Any) -> dict[str, Any]:
    return MessageToDict(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


async def by_httpx(port: int, pictures: Sequence[bytes], callers: int, seconds: float) -> tuple[list[float], list[Any]]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:

        async def ask(number: int) -> Any:
            answer = await client.post("/v1/analyze", content=pictures[number])
            return answer.json()

        took, answers = await ask_often(ask, len(pictures), callers, seconds)
    return took, [(number, seen(answer)) for number, answer in answers]


async def by_raw(port: int, pictures: Sequence[bytes], callers: int, seconds: float) -> tuple[list[float], list[Any]]:
    requests = [post("/v1/analyze", picture) for picture in pictures]
    replies = await closed_loop(port, requests, clients=callers, seconds=seconds)
    took = [one.took_s for one in replies]
    return took, [(one.request, seen(json.loads(one.body)) if one.status == 200 else one.status) for one in replies]


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def counted(port: int) -> Any:
    """A port that leads to another one, and how many bytes have gone there and back."""
    counts = {"up": 0, "down": 0}
    passing: set[asyncio.Task[None] | None] = set()

    async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: str) -> None:
        with suppress(ConnectionError):
            while data := await source.read(1 << 16):
                counts[way] += len(data)
                sink.write(data)
                await sink.drain()
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passing.add(asyncio.current_task())
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pass_on(reader, other_writer, "up"), pass_on(other_reader, writer, "down"))

    relay = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield relay.sockets[0].getsockname()[1], counts
    finally:
        relay.close()
        await asyncio.wait({task for task in passing if task}, timeout=5)


async def bytes_of(port: int, ask: Callable[[int], Any], picture: bytes, times: int) -> tuple[float, float]:
    """Bytes per request beside the picture, and bytes per answer, once the connection is open."""
    async with AsyncExitStack() as stack:
        relayed, counts = await stack.enter_async_context(counted(port))
        once = await stack.enter_async_context(ask(relayed))
        await once()
        before = dict(counts)
        for _ in range(times):
            await once()
        return (counts["up"] - before["up"]) / times - len(picture), (counts["down"] - before["down"]) / times


async def all_bytes(http: int, rpc: int, picture: bytes, times: int) -> dict[str, tuple[float, float]]:
    @asynccontextmanager
    async def grpc_once(port: int) -> Any:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield lambda: DulianStub(channel).Analyze(AnalyzeRequest(image=picture))

    @asynccontextmanager
    async def httpx_once(port: int) -> Any:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            yield lambda: client.post("/v1/analyze", content=picture)

    @asynccontextmanager
    async def raw_once(port: int) -> Any:
        request = post("/v1/analyze", picture)
        yield lambda: closed_loop(port, [request], clients=1, count=1)

    asks = {"HTTP, raw": raw_once, "HTTP, httpx": httpx_once}
    found = {way: await bytes_of(http, ask, picture, times) for way, ask in asks.items()}
    return found | {"gRPC": await bytes_of(rpc, grpc_once, picture, times)}


# ── measuring ────────────────────────────────────────────────────────────────────────────────────


def measure(
    server: Server, way: str, pictures: Sequence[bytes], expected: Sequence[Any], seconds: float, all_of: Measured
) -> None:
    """One way alone, then with many callers."""
    ask, port = {
        "HTTP, raw": (by_raw, server.port),
        "HTTP, httpx": (by_httpx, server.port),
        "gRPC": (by_grpc, rpc_port(server)),
    }[way]
    took, answers = asyncio.run(ask(port, pictures, 1, seconds))
    all_of.alone_s += took
    all_of.alone_p50_s.append(quantile(took, 0.5))
    began, client_s, server_s = time.monotonic(), time.process_time(), processor_s(server.process.pid)
    many, more = asyncio.run(ask(port, pictures, CALLERS, seconds))
    lasted = time.monotonic() - began
    all_of.rates.append(len(many) / lasted)
    all_of.client_ms.append(1000 * (time.process_time() - client_s) / len(many))
    all_of.server_ms.append(1000 * (processor_s(server.process.pid) - server_s) / len(many))
    all_of.faults += sum(answer != expected[number] for number, answer in (*answers, *more))
    note(f"{way}: {1000 * statistics.median(took):.1f} ms alone, {all_of.rates[-1]:.1f}/s with {CALLERS}")


def rpc_port(server: Server) -> int:
    return next(int(event["port"]) for event in server.events if event["event"] == "grpc_listening")


def figures_of(way: str, all_of: Measured, wire: tuple[float, float]) -> list[Figure]:
    return [
        Figure("gRPC", f"{way}: beside the picture, up", wire[0], "bytes"),
        Figure("gRPC", f"{way}: answer, down", wire[1], "bytes"),
        Figure("gRPC", f"{way}: one caller, p50 of the best round", 1000 * min(all_of.alone_p50_s), "ms"),
        Figure("gRPC", f"{way}: one caller, p50", 1000 * quantile(all_of.alone_s, 0.5), "ms"),
        Figure("gRPC", f"{way}: one caller, p99", 1000 * quantile(all_of.alone_s, 0.99), "ms"),
        Figure("gRPC", f"{way}: {CALLERS} callers, best round", max(all_of.rates), "/s"),
        Figure("gRPC", f"{way}: {CALLERS} callers", statistics.median(all_of.rates), "/s"),
        Figure(
            "gRPC",
            f"{way}: {CALLERS} callers, processor of the service",
            statistics.median(all_of.server_ms),
            "ms each",
        ),
        Figure(
            "gRPC", f"{way}: {CALLERS} callers, processor of the client", statistics.median(all_of.client_ms), "ms each"
        ),
        Figure("gRPC", f"{way}: wrong answers", all_of.faults, at_most=0),
    ]


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement; 5 if not given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", default="standard")
    options = parser.parse_args(given)
    store = filled_store()
    pictures = portraits(store)
    found = {way: Measured() for way in WAYS}
    with dulian_server(store, "--profile", options.profile, "--grpc-port", "0") as server:
        replies = asyncio.run(by_raw(server.port, pictures, 1, 1.0))[1]
        expected = [dict(replies)[number] for number in range(len(pictures))]
        wire = asyncio.run(all_bytes(server.port, rpc_port(server), pictures[0], 20))
        for _ in range(options.rounds):
            for way in WAYS:
                measure(server, way, pictures, expected, options.seconds, found[way])
    note(f"{os.cpu_count()} cores; pictures of {min(map(len, pictures)):,} to {max(map(len, pictures)):,} bytes")
    figures = [figure for way in WAYS for figure in figures_of(way, found[way], wire[way])]
    return report(figures, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
