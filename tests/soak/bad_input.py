"""P1, P6 and P18: how long bombs and floods of metadata take, and what memory they and the largest pictures do.

Each file is sent alone, so that its time is its own. Then the largest pictures come from several clients at once, and
of the largest ordinary JPEG also drawn copies are asked for. Where a cgroup can be made, the service has 512 MB for
itself, the page cache included, and is killed if it needs more.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.pictures import picture, save
from tests.promises import corpus
from tests.promises.cgroup import MemoryGroup, Unavailable, memory_group
from tests.promises.corpus import Case
from tests.promises.envelopes import FORM, in_form
from tests.promises.harness import Probes, Reply, Server, closed_loop, dulian_server, post
from tests.soak import Figure, arguments, filled_store, note, quantile, report

MIB = 2**20
LIMIT_BYTES = 512 * MIB
REFUSALS = frozenset({200, 413, 415, 422})


class Memory:
    """Resident memory of a process, in MiB; its peak can begin anew."""

    def __init__(self, pid: int) -> None:
        self._folder = Path("/proc", str(pid))

    def now(self) -> float:
        return self._read("VmRSS")

    def peak(self) -> float:
        return self._read("VmHWM")

    def begin(self) -> None:
        (self._folder / "clear_refs").write_text("5")

    def _read(self, name: str) -> float:
        (line,) = (line for line in (self._folder / "status").read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) / 1024


def ask(server: Server, requests: Sequence[bytes], *, rounds: int = 1, clients: int = 1) -> list[Reply]:
    count = rounds * len(requests)
    return asyncio.run(closed_loop(server.port, requests, clients=clients, count=count))


def alone(server: Server, promise: str, what: str, cases: Sequence[Case], rounds: int, most_ms: float) -> list[Figure]:
    """Each file for itself, several times."""
    memory = Memory(server.process.pid)
    requests = [post("/v1/analyze", case.data) for case in cases]
    ask(server, [max(requests, key=len)])  # the memory for a body is not what is asked about
    before = memory.now()
    memory.begin()
    replies = ask(server, requests, rounds=rounds)
    growth = memory.peak() - before
    times_ms = [reply.took_s * 1000 for reply in replies]
    slowest = cases[max(replies, key=lambda reply: reply.took_s).request].name
    unexpected = sum(reply.status not in REFUSALS for reply in replies)
    return [
        Figure(promise, f"{what}: files", len(cases)),
        Figure(promise, f"{what}: half of them within", quantile(times_ms, 0.5), "ms"),
        Figure(promise, f"{what}: all within (slowest: {slowest})", max(times_ms), "ms", at_most=most_ms),
        Figure(promise, f"{what}: more memory", growth, "MiB", at_most=20.0 if promise == "P1" else None),
        Figure(promise, f"{what}: unexpected statuses", unexpected, at_most=0),
    ]


def beside_health(server: Server, cases: Sequence[Case], rounds: int, clients: int) -> list[Figure]:
    """What looks at metadata is not what answers everybody else."""
    with Probes(server.port, "/livez") as probes:
        ask(server, [post("/v1/analyze", case.data) for case in cases], rounds=rounds, clients=clients)
    times_ms = [took_s * 1000 for _, _, took_s in probes.seen]
    failed = sum(status != 200 for _, status, _ in probes.seen)
    return [
        Figure("P6", f"/livez beside {clients} clients who send floods, p99", quantile(times_ms, 0.99), "ms"),
        Figure("P6", "of these probes failed", failed, at_most=0),
    ]


def at_once(server: Server, what: str, requests: Sequence[bytes], rounds: int, clients: int) -> list[Figure]:
    memory = Memory(server.process.pid)
    memory.begin()
    statuses = Counter(reply.status for reply in ask(server, requests, rounds=rounds, clients=clients))
    unexpected = sum(count for status, count in statuses.items() if status not in REFUSALS | {503, 504})
    return [
        Figure("P18", f"{what}, {clients} clients: answered of {statuses.total()}", statuses[200], at_least=1),
        Figure("P18", f"{what}, {clients} clients: unexpected statuses", unexpected, at_most=0),
        Figure("P18", f"{what}, {clients} clients: most resident memory", memory.peak(), "MiB"),
    ]


def bombs(server: Server, rounds: int, clients: int) -> list[Figure]:
    del clients
    figures = alone(server, "P1", "bombs", list(corpus.bombs()), rounds, 50.0)
    return figures + alone(server, "P1", "frames without number", list(corpus.many_frames()), rounds, 150.0)


def metadata(server: Server, rounds: int, clients: int) -> list[Figure]:
    floods = list(corpus.metadata())
    figures = alone(server, "P6", "7 MB of metadata", floods, rounds, 150.0)
    return figures + beside_health(server, floods, rounds, clients)


def large(server: Server, rounds: int, clients: int) -> list[Figure]:
    files = {case.name: case.data for case in corpus.largest()}
    jpeg = files["largest: jpeg"]
    drawn = [post(path, in_form(jpeg), f"Content-Type: {FORM}") for path in ("/predict", "/analyze")]
    figures = at_once(server, "largest pictures", [post("/v1/analyze", data) for data in files.values()], 1, clients)
    figures += at_once(server, "40 MP JPEG", [post("/v1/analyze", jpeg)], 4 * rounds, clients)
    return figures + at_once(server, "40 MP JPEG, drawn", drawn, 4 * rounds, clients)


PARTS = {"P1": bombs, "P6": metadata, "P18": large}


def measure(server: Server, parts: Sequence[str], rounds: int, clients: int) -> list[Figure]:
    photo = [post("/v1/analyze", save(picture(), "JPEG"))]
    ask(server, photo, rounds=20, clients=clients)
    figures = [figure for part in parts for figure in PARTS[part](server, rounds, clients)]
    (after,) = ask(server, photo)
    return [*figures, Figure("P1", "alive and right afterwards", after.status == 200, at_least=1)]


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--profile", default="standard")
    parser.add_argument("--rounds", type=int, default=5, help="how often each file is sent")
    parser.add_argument("--clients", type=int, default=8, help="that send the largest pictures at once")
    parser.add_argument("--only", choices=PARTS, action="append", help="one of the promises; may be repeated")
    options = parser.parse_args(given)
    with ExitStack() as stack:
        group: MemoryGroup | None = None
        try:
            group = stack.enter_context(memory_group(LIMIT_BYTES))
        except Unavailable as error:
            note(f"nothing is limited: {error}")
        wrapper = group.wrapper if group else ()
        server = stack.enter_context(dulian_server(filled_store(), "--profile", options.profile, wrapper=wrapper))
        figures = measure(server, options.only or list(PARTS), options.rounds, options.clients)
        figures.append(Figure("P1", "exit code", server.stop(), at_most=0))
        if group:
            figures.append(Figure("P1", "killed for want of memory", group.kills, at_most=0))
            peak = (group.peak_bytes or 0) / MIB
            figures.append(Figure("P1", "most of 512 MB, page cache included", peak, "MiB", at_most=512.0))
    return report(figures, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
