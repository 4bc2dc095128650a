"""What traces cost: the same requests to services that trace all of them, none of them, or have no tracing at all.

All services run at once and are asked in turns, so that each has the same minutes of this machine: one client first,
whose median latency counts, then eight, who count as requests per second. The processor time of a service, that of the
thread that sends included, is what other programs on the machine disturb least. The collector is a process of its own.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.promises.harness import PATIENCE_S, Server, closed_loop, dulian_server, post
from tests.soak import Figure, arguments, filled_store, note, portraits, processor_s, quantile, report

OFF = "off"
USUAL = 8


class _Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def collect() -> None:
    """Take everything that comes, and keep nothing."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Collector) as server:
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()


@contextmanager
def collector() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.soak.tracing", "collect"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        assert process.stdout
        process.stdout.close()


def ways(endpoint: str) -> dict[str, dict[str, str]]:
    """What is compared, by the environment of a service; nobody listens at port 9."""
    return {
        OFF: {},
        "every request": {"DULIAN_OTEL_ENDPOINT": endpoint},
        "no request (ratio 0)": {"DULIAN_OTEL_ENDPOINT": endpoint, "DULIAN_OTEL_SAMPLE_RATIO": "0"},
        "every request, the collector away": {"DULIAN_OTEL_ENDPOINT": "http://127.0.0.1:9"},
    }


class Measured:
    """All rounds of one way together."""

    def __init__(self) -> None:
        self.latencies_s: list[float] = []
        self.rates: list[float] = []
        self.processor_s: list[float] = []
        self.faults = 0

    def ask(self, server: Server, requests: Sequence[bytes], count: int) -> None:
        used = processor_s(server.process.pid)
        alone = asyncio.run(closed_loop(server.port, requests, clients=1, count=count))
        together = asyncio.run(closed_loop(server.port, requests, clients=USUAL, count=count))
        ended = [one.ended_at for one in together]
        self.latencies_s += [one.took_s for one in alone]
        self.rates.append((len(ended) - 1) / (max(ended) - min(ended)))
        self.processor_s.append((processor_s(server.process.pid) - used) / (len(alone) + len(together)))
        self.faults += sum(one.status != 200 for one in (*alone, *together))

    def figures(self, way: str, off: Measured) -> Iterator[Figure]:
        yield Figure("tracing", f"{way}: one client, median", 1000 * quantile(self.latencies_s, 0.5), "ms")
        yield Figure("tracing", f"{way}: {USUAL} clients", statistics.median(self.rates), "requests/s")
        cost = 1000 * statistics.median(self.processor_s)
        yield Figure("tracing", f"{way}: processor time of a request", cost, "ms")
        if self is not off:
            more = [own - without for own, without in zip(self.processor_s, off.processor_s, strict=True)]
            yield Figure(
                "tracing", f"{way}: more than without, median of the rounds", 1000 * statistics.median(more), "ms"
            )
        yield Figure("tracing", f"{way}: requests that failed", self.faults, at_most=0)


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=100, help="by one client and by eight, in each round")
    options = parser.parse_args(argv)
    store = filled_store()
    requests = [post("/v1/analyze", picture) for picture in portraits(store)]
    measured: dict[str, Measured] = defaultdict(Measured)
    with ExitStack() as running:
        endpoint = running.enter_context(collector())
        servers = {
            way: running.enter_context(dulian_server(store, NO_PROXY="127.0.0.1", **environment))
            for way, environment in ways(endpoint).items()
        }
        for server in servers.values():
            asyncio.run(closed_loop(server.port, requests, clients=USUAL, count=2 * USUAL))
        for number in range(options.rounds):
            note(f"round {number + 1} of {options.rounds}")
            order = list(servers) if number % 2 else list(servers)[::-1]
            for way in order:
                measured[way].ask(servers[way], requests, options.requests)
        faults = sum(server.stop() != 0 for server in servers.values())
    figures = [figure for way in servers for figure in measured[way].figures(way, measured[OFF])]
    figures.append(Figure("tracing", "services that did not end in order", faults, at_most=0))
    return report(figures, as_json=options.json)


if __name__ == "__main__":
    if sys.argv[1:] == ["collect"]:
        collect()
    else:
        sys.exit(main())
