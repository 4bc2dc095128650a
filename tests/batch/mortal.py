"""Batches of small files whose drivers are processes of their own, to be killed at will."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from dulian.batch.destinations import open_destination
from dulian.batch.job import read_inputs, read_job
from dulian.batch.records import Record
from dulian.batch.shards import decode, name_of_shard
from tests.conftest import ROOT

PATIENCE_S = 60.0


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def records_of(address: Path | str) -> list[Record]:
    """All that is committed there, in order."""
    destination = open_destination(address)
    job = read_job(destination)
    return [
        record
        for shard in range(job.shards)
        for record in decode(destination.read(name_of_shard(shard)) or b"", job=job.id, shard=shard)
    ]


class Batch:
    """A batch over a folder of small files, its driver a process that can be killed."""

    def __init__(self, folder: Path, pictures: dict[str, bytes], *options: str) -> None:
        self.source, self.destination, self.log = folder / "in", folder / "out", folder / "log"
        self.source.mkdir()
        for name, data in pictures.items():
            (self.source / name).write_bytes(data)
        self.log.touch()
        self.options = options
        self.driver: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.batch.drive", *map(str, (self.source, self.destination, self.log))]
        self.driver = subprocess.Popen(
            [*command, *self.options], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        return self.driver

    def finish(self) -> tuple[int, ...]:
        """Run to the end; what was there before, computed, died, quarantined."""
        driver = self.start()
        out, err = driver.communicate(timeout=PATIENCE_S)
        assert driver.returncode == 0, err
        return tuple(map(int, out.split()))

    def workers(self) -> list[psutil.Process]:
        """Processes that compute; not those that Python starts for itself."""
        assert self.driver is not None
        try:
            children = psutil.Process(self.driver.pid).children()
            return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        except psutil.NoSuchProcess:
            return []

    def analysed(self) -> list[bytes]:
        return self.log.read_bytes().splitlines()

    def records(self) -> list[Record]:
        return records_of(self.destination)

    def check_complete(self) -> None:
        """Ids in are ids out, once, in order; nothing is torn; nothing is left over; a re-run computes nothing."""
        destination = open_destination(self.destination)
        job = read_job(destination)
        listed = [one.source for shard in range(job.shards) for one in read_inputs(destination, job, shard)]
        assert listed == sorted(str(path) for path in self.source.iterdir())
        assert [record["source"] for record in self.records()] == listed
        before = self.log.stat().st_size
        assert self.finish() == (len(listed), 0, 0, 0)
        assert self.log.stat().st_size == before
        assert not [*destination.names("staging")]
        assert not [*destination.names("pieces")]


def numbered(count: int) -> dict[str, bytes]:
    return {f"{index:05d}.jpg": b"%05d" % index for index in range(count)}
