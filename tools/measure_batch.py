"""How fast a batch goes on this machine, beside the library itself on the same pictures, and what memory it takes.

    PYTHONPATH=. python tools/measure_batch.py [--pictures 1500] [--rounds 3] [--profile standard] [--side 1000] [--s3]

Pictures are JPEG files of a public-domain portrait (one face), made for the occasion. Rounds alternate, because
machines drift. ``library`` is one process with a thread per core that reads and analyses the same files, nothing else;
``batch`` is ``dulian batch run`` as a process of its own, ``steady`` the same from its first shard to its last. With
``--s3`` pictures and records lie in an S3 server on this machine, which takes its share of the cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil

from dulian.batch.destinations import Destination, open_destination
from dulian.batch.drivers.local import this_machine
from dulian.batch.job import committed_shards, find_job
from dulian.batch.merge import merge
from dulian.batch.shards import name_of_shard
from dulian.bench import one_portrait
from dulian.factory import open_profile
from dulian.image import ImageLimits
from dulian.machine import effective_cores
from dulian.models.catalog import find_profile
from dulian.pipeline import Pipeline
from dulian.store import ModelStore

MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", default="standard")
    parser.add_argument("--side", type=int, default=1000, help="pixels along each side")
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("options", nargs="*", help="more options of 'dulian batch run', after --")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = make_pictures(folder / "in", asked.pictures, asked.side)
        with place_of(folder, pictures, s3=asked.s3) as place:
            rows = []
            for number in range(asked.rounds):
                library = measure_library(pictures, asked.profile)
                rows.append({"library": library, **measure_batch(place, number, asked)})
                print(json.dumps(rows[-1]), flush=True)
            summarise(rows, asked.pictures)
            weigh(open_destination(f"{place}/out0"), asked.pictures)


def make_pictures(folder: Path, count: int, side: int) -> list[Path]:
    folder.mkdir()
    data = one_portrait(ModelStore(), side)
    paths = [folder / f"{index:06d}.jpg" for index in range(count)]
    for path in paths:
        path.write_bytes(data)
    return paths


@contextmanager
def place_of(folder: Path, pictures: list[Path], *, s3: bool) -> Iterator[str]:
    """Where the pictures are, below ``in``: the folder, or a bucket that has copies of them."""
    if not s3:
        yield str(folder)
        return
    from tests.batch.stores import S3Bucket, new_bucket, s3_process

    with s3_process() as port:
        bucket = S3Bucket(new_bucket(port).name, port, prefix="measured")
        for path in pictures:
            bucket.put(f"in/{path.name}", path.read_bytes())
        os.environ.update(bucket.environment)
        yield bucket.url


def measure_library(pictures: list[Path], profile: str) -> float:
    """Pictures per second of a thread per core."""
    cores = effective_cores()
    factory = open_profile(find_profile(profile), ModelStore(), workers=cores)
    pipeline = Pipeline(factory.new_analyzer, limits=ImageLimits())
    with ThreadPoolExecutor(cores) as pool:
        [*pool.map(lambda path: pipeline.analyze(path.read_bytes()), pictures[: 8 * cores])]
        started = time.perf_counter()
        [*pool.map(lambda path: pipeline.analyze(path.read_bytes())[0].to_dict(), pictures)]
        return len(pictures) / (time.perf_counter() - started)


def measure_batch(place: str, number: int, asked: argparse.Namespace) -> dict[str, float]:
    output = f"{place}/out{number}"
    command = [sys.executable, "-m", "dulian", "batch", "run", f"{place}/in", "--output", output]
    command += ["--profile", asked.profile, "--format", "none", "--json", *asked.options]
    destination = open_destination(output)
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    most = dict.fromkeys(("driver", "workers"), 0)
    marks: list[tuple[float, int]] = []
    while process.poll() is None:
        watch(process.pid, most)
        marks.append((time.perf_counter(), committed(destination)))
        time.sleep(0.1)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"the batch ended with {process.returncode}")
    busy = [(at, done) for at, done in marks if done]
    steady = (busy[-1][1] - busy[0][1]) / (busy[-1][0] - busy[0][0]) if len(busy) > 1 else 0.0
    return {
        "batch": asked.pictures / seconds,
        "steady": steady,
        "first_s": busy[0][0] - started if busy else 0.0,
        "driver_mib": most["driver"] / MIB,
        "worker_mib": most["workers"] / MIB,
    }


def committed(destination: Destination) -> int:
    """Pictures whose records are there."""
    job = find_job(destination)
    return sum(len(job.whole(shard)) for shard in committed_shards(destination, job)) if job else 0


def watch(pid: int, most: dict[str, int]) -> None:
    """Take note of the largest memory of the driver and of any of its processes."""
    try:
        driver = psutil.Process(pid)
        most["driver"] = max(most["driver"], driver.memory_info().rss)
        for child in driver.children(recursive=True):
            most["workers"] = max(most["workers"], child.memory_info().rss)
    except psutil.NoSuchProcess:
        pass


def summarise(rows: list[dict[str, float]], pictures: int) -> None:
    processes, threads = this_machine()
    print(f"\n{pictures} pictures, {processes} processes of {threads} threads; medians of {len(rows)} rounds")
    for name in rows[0]:
        print(f"{name:12} {statistics.median(row[name] for row in rows):8.1f}")
    ratios = [row["steady"] / row["library"] for row in rows]
    print(f"steady / library: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


def weigh(destination: Destination, pictures: int) -> None:
    """What records take, and how many files there are."""
    job = find_job(destination)
    assert job is not None
    sizes = [len(destination.read(name_of_shard(shard)) or b"") for shard in range(job.shards)]
    print(f"records: {sum(sizes) / pictures:.0f} bytes a picture, in {job.shards} shards of {job.shard_size}")
    for kind in ("jsonl", "parquet"):
        with tempfile.NamedTemporaryFile(suffix=f".{kind}") as file:
            merge(destination, job, file.name)
            print(f"records.{kind}: {Path(file.name).stat().st_size / pictures:.0f} bytes a picture")


if __name__ == "__main__":
    main()
