"""What Ray costs, by python tools/measure_batch_ray.py batch FOLDER [COPIES [ROUNDS]], or … serve FOLDER [SECONDS].

``batch`` goes through the photos of a folder, copied so many times, with two processes of the local driver and with two
Ray nodes on this machine that compute one range each, in turns; it says how long the cluster takes to start and how
much memory its processes have. ``serve`` does the same with ``dulian serve`` on one thread and with the application
for Ray Serve in deploy/ray, one replica each, and four callers.

For development a package is installed that makes every process of Ray seconds slower to start, because jsonschema
imports it (rfc3987-syntax); it is hidden from them here.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parent.parent
CALLERS = 4
ONE_REPLICA = """
from serve import Dulian
app = Dulian.options(num_replicas=1, autoscaling_config=None).bind()
"""
MIB = 2**20


def main() -> None:
    kind, folder, *numbers = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as place:
        hide_slow_import(Path(place))
        os.environ |= {"RAY_TMPDIR": place, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
        measure = {"batch": measure_batch, "serve": measure_serve}[kind]
        measure(Path(folder), Path(place), *map(int, numbers))


def hide_slow_import(place: Path) -> None:
    folder = place / "without"
    folder.mkdir()
    (folder / "rfc3987_syntax.py").write_text("raise ImportError")
    os.environ["PYTHONPATH"] = str(folder)
    sys.path.insert(0, str(folder))


def photos_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.suffix.lower() in {".jpg", ".jpeg", ".png"}]


# ── batch ────────────────────────────────────────────────────────────────────────────────────────


def measure_batch(folder: Path, place: Path, copies: int = 100, rounds: int = 3) -> None:
    from dulian.batch.drivers.local import LocalDriver
    from dulian.batch.drivers.ray import RayDriver

    count = copy(folder, place / "photos", copies)
    started = time.perf_counter()
    import ray

    print(f"import ray: {time.perf_counter() - started:.1f} s")
    from ray.cluster_utils import Cluster

    started = time.perf_counter()
    node = {"num_cpus": 2, "object_store_memory": 80 * MIB}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    print(f"two nodes: {time.perf_counter() - started:.1f} s")
    print(f"their processes: {memory(children())}")
    started = time.perf_counter()
    ray.init(address=cluster.address, log_to_driver=False)
    ray.get(ray.remote(lambda: None).remote())
    print(f"connected, first task done: {time.perf_counter() - started:.1f} s; then {memory(children())}")
    drivers = {"local": LocalDriver(processes=2), "ray": RayDriver(address=cluster.address)}
    rates: dict[str, list[float]] = {name: [] for name in drivers}
    for _ in range(rounds):
        for name, driver in drivers.items():
            watch = Watch() if name == "ray" else None
            rates[name].append(count / run(driver, place / "photos", place / "out"))
            if watch is not None:
                print(f"at work: {watch.end()}")
    for name, values in rates.items():
        print(f"{name}: {statistics.median(values):.1f} pictures/s of {', '.join(f'{one:.1f}' for one in values)}")
    ratios = [theirs / ours for theirs, ours in zip(rates["ray"], rates["local"], strict=True)]
    print(f"ray / local: {statistics.median(ratios):.2f} of {', '.join(f'{one:.2f}' for one in ratios)}")
    ray.shutdown()
    cluster.shutdown()


def copy(folder: Path, into: Path, copies: int) -> int:
    into.mkdir()
    photos = photos_in(folder)
    for number in range(copies):
        for photo in photos:
            shutil.copy(photo, into / f"{number:04d}-{photo.name}")
    return copies * len(photos)


def run(driver: Any, source: Path, destination: Path) -> float:
    """Seconds that a whole batch takes, from the ledger to its last record."""
    from dulian.batch.analysis import ModelAnalysis
    from dulian.batch.destinations import open_destination
    from dulian.batch.run import Wish, prepare
    from dulian.batch.run import run as run_batch
    from dulian.settings import read_settings

    shutil.rmtree(destination, ignore_errors=True)
    analysis = ModelAnalysis(profile="standard", model_dir=read_settings().model_dir, offline=True)
    place = open_destination(destination)
    job, _ = prepare(Wish(sources=[str(source)], analysis=analysis, shard_size=32), place)
    started = time.perf_counter()
    tally = run_batch(job, place, analysis, driver=driver)
    assert tally.computed == job.inputs, tally
    return time.perf_counter() - started


# ── memory ───────────────────────────────────────────────────────────────────────────────────────


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def memory(processes: Sequence[psutil.Process]) -> str:
    """What processes have resident, and what of it is theirs when shared pages are divided."""
    resident, own, count = 0, 0, 0
    for process in processes:
        try:
            info = process.memory_full_info()
        except psutil.Error:
            continue
        resident, own, count = resident + info.rss, own + info.pss, count + 1
    return f"{count} processes, {resident // MIB} MiB resident ({own // MIB} MiB with shared pages divided)"


class Watch:
    """The largest memory of this process's children in a while."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._largest = (0, "")
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._done.wait(1.0):
            seen = children()
            total = sum(process.memory_info().rss for process in seen if process.is_running())
            if total > self._largest[0]:
                self._largest = total, memory(seen)

    def end(self) -> str:
        self._done.set()
        self._thread.join()
        return self._largest[1]


# ── serve ────────────────────────────────────────────────────────────────────────────────────────


def measure_serve(folder: Path, place: Path, seconds: int = 10, rounds: int = 3) -> None:
    photos = [
        path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix.lower() in {".jpg", ".jpeg", ".png"}
    ]
    programs = Path(sys.executable).parent
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    plain = [str(programs / "dulian"), "serve", "--threads", "1", "--port", str(port)]
    ours = program(plain, ROOT, f"http://127.0.0.1:{port}", place)
    (place / "one.py").write_text(ONE_REPLICA)
    os.environ["PYTHONPATH"] += f":{ROOT / 'deploy/ray'}"
    theirs = program([str(programs / "serve"), "run", "one:app"], place, "http://127.0.0.1:8000", place)
    with ours as (dulian, at), theirs as (ray, there):
        rates: dict[str, list[float]] = {at: [], there: []}
        for _ in range(rounds):
            for url, values in rates.items():
                values.append(load(url, photos, seconds))
        for name, url, process in (("dulian serve", at, dulian), ("Ray Serve", there, ray)):
            values = rates[url]
            family = [process, *process.children(recursive=True)]
            print(f"{name}: {statistics.median(values):.1f} pictures/s of {', '.join(f'{one:.1f}' for one in values)}")
            print(f"  {memory(family)}")
        ratios = [one / other for one, other in zip(rates[there], rates[at], strict=True)]
        print(f"Ray Serve / dulian serve: {statistics.median(ratios):.2f}")


@contextmanager
def program(command: list[str], folder: Path, url: str, place: Path) -> Iterator[tuple[psutil.Process, str]]:
    """A server that is ready, and its address; ended with all that it started."""
    started = time.perf_counter()
    with (place / "log").open("ab") as log:
        process = psutil.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        while not is_ready(url):
            assert process.poll() is None, (place / "log").read_text()
            time.sleep(0.05)
        print(f"{' '.join([Path(command[0]).name, *command[1:3]])}: ready after {time.perf_counter() - started:.1f} s")
        yield process, url
    finally:
        family = process.children(recursive=True)
        process.terminate()
        _, alive = psutil.wait_procs([process, *family], 20)
        for one in alive:
            one.kill()


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def load(url: str, photos: Sequence[bytes], seconds: int) -> float:
    """Pictures per second that several callers get answered, each asking again as soon as it has an answer."""
    answered = [0] * CALLERS
    until = time.perf_counter() + seconds

    def ask(caller: int) -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while time.perf_counter() < until:
                answer = client.post("/v1/analyze", content=photos[answered[caller] % len(photos)])
                assert answer.status_code == 200, answer.text
                answered[caller] += 1

    callers = [threading.Thread(target=ask, args=(number,)) for number in range(CALLERS)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    return sum(answered) / seconds


if __name__ == "__main__":
    main()
