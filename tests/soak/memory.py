"""P18: what memory a service takes at most while it is asked for ten times as much as it can do.

First photos as usual, then the same with JPEGs of 40 megapixels among them (and progressive ones, which are refused),
all at ten times the load. The process is looked at from outside. As root and with cgroups it has 512 MB for itself, the
page cache included, and is killed if it needs more.
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from PIL import Image

from dulian.store import ModelStore
from tests.promises.harness import Reply, Server, closed_loop, dulian_server, get, post
from tests.soak import Figure, arguments, filled_store, note, portraits, quantile, report

MIB = 2**20
LIMIT_BYTES = 512 * 10**6
USUAL, OVERLOAD = 16, 80
# The two generations of cgroups: where they are, and what the files of a limit and of the highest use are called.
CGROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.peak"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
)


@contextmanager
def limited(limit_bytes: int) -> Iterator[tuple[list[str], Path | None]]:
    """A program that starts others in a cgroup with so much memory, and where the highest use is told."""
    for root, limit, peak in CGROUPS:
        group = root / f"dulian-memory-{os.getpid()}"
        if not (root / "cgroup.procs").exists():
            continue
        try:
            group.mkdir()
            (group / limit).write_text(str(limit_bytes))
        except OSError:
            with suppress(OSError):
                group.rmdir()
            continue
        try:
            yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"], group / peak
        finally:
            time.sleep(0.1)
            group.rmdir()
        return
    note("no cgroup can be made here: nothing is limited")
    yield [], None


def large_photos(store: ModelStore) -> list[bytes]:
    """40 megapixels, baseline and progressive, in few bytes."""
    portrait = Image.open(store.pull_samples() / "astronaut.png").convert("RGB").resize((7300, 5400))
    made = []
    for progressive in (False, True):
        file = io.BytesIO()
        portrait.save(file, "JPEG", quality=60, progressive=progressive)
        made.append(file.getvalue())
    return made


class Watch:
    """Resident memory of a process, looked at a hundred times a second."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.seen: list[int] = []

    def _look(self) -> None:
        while not self._ended.wait(0.01):
            with suppress(psutil.Error):
                self.seen.append(self._process.memory_info().rss)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def mib(self, share: float) -> float:
        return quantile(self.seen, share) / MIB


def load(server: Server, seconds: float, *kinds: tuple[Sequence[bytes], int]) -> tuple[Watch, list[list[Reply]]]:
    """So many clients for each kind of requests, all at once."""

    async def together() -> list[list[Reply]]:
        loops = (closed_loop(server.port, requests, clients=count, seconds=seconds) for requests, count in kinds)
        return await asyncio.gather(*loops)

    with Watch(server.process.pid) as watch:
        return watch, asyncio.run(together())


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--profile", default="standard")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each of the two loads")
    options = parser.parse_args(given)
    store = filled_store()
    usual = [post("/v1/analyze", photo) for photo in portraits(store)]
    large = [post("/v1/analyze", photo) for photo in large_photos(store)]
    with (
        limited(LIMIT_BYTES) as (wrapper, peak),
        dulian_server(store, "--profile", options.profile, wrapper=wrapper) as server,
    ):
        steady, [first] = load(server, options.seconds, (usual, USUAL))
        most, [second, third] = load(server, options.seconds, (usual, OVERLOAD), (large, OVERLOAD))
        after = asyncio.run(closed_loop(server.port, [*usual, get("/livez")], clients=1, count=len(usual) + 1))
        highest = int(peak.read_text()) / MIB if peak else float("nan")
        unexpected = {one.status for one in (*first, *second, *third)} - {200, 413, 503, 504}
        large_answered = sum(one.status == 200 for one in third)
        alive = server.process.poll() is None and {one.status for one in after} == {200}
        server.stop()
    at = options.profile
    figures = [
        Figure("P18", f"{at}: steady, median of resident memory", steady.mib(0.5), "MiB", at_most=300.0),
        Figure("P18", f"{at}: at ten times the load with 40 MP, most", most.mib(1.0), "MiB", at_most=450.0),
        Figure("P18", f"{at}: of these with 40 MP answered", large_answered, "photos", at_least=1),
        Figure("P18", f"{at}: unexpected statuses", len(unexpected), at_most=0),
        Figure("P18", f"{at}: alive and right afterwards", alive, at_least=1),
    ]
    if peak:
        figures.append(
            Figure("P18", f"{at}: most of 512 MB that its cgroup counted, page cache included", highest, "MiB")
        )
    return report(figures, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
