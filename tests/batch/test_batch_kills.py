"""Real processes that are killed, hang, or run out of room; afterwards every input has exactly one record."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from dulian.batch.destinations import open_destination
from dulian.batch.job import read_job
from dulian.batch.shards import decode
from tests.batch.fake_work import HANGS, KILLS, RAISES
from tests.batch.mortal import PATIENCE_S, Batch, numbered, wait_for

KILLED = 20


@pytest.fixture
def make_batch(tmp_path: Path) -> Iterator[Callable[..., Batch]]:
    batches: list[Batch] = []

    def make(pictures: dict[str, bytes], *options: str) -> Batch:
        batches.append(Batch(tmp_path, pictures, *options))
        return batches[-1]

    yield make
    for batch in batches:
        if batch.driver is not None and batch.driver.poll() is None:
            batch.driver.kill()
            batch.driver.communicate()


def test_twenty_random_kills_lose_and_repeat_nothing(make_batch: Callable[..., Batch]) -> None:
    pictures = numbered(1500)
    batch = make_batch(pictures, "--seconds", "0.003")
    generator = random.Random(20)
    victims: Counter[str] = Counter()
    batch.start()
    while victims.total() < KILLED:
        goal = len(batch.analysed()) + generator.randrange(5, 40)
        wait_for(lambda: len(batch.analysed()) >= goal or batch.driver.poll() is not None, "nothing is computed")  # type: ignore[union-attr] # noqa: B023
        assert batch.driver is not None
        assert batch.driver.poll() is None, "it ended before it was killed often enough"
        if generator.random() < 0.4:
            survivors = batch.workers()
            batch.driver.kill()
            batch.driver.communicate()
            victims["driver"] += 1
            _, alive = psutil.wait_procs(survivors, PATIENCE_S)
            assert not alive, "workers outlive their driver"
            batch.start()
        elif workers := batch.workers():
            generator.choice(workers).kill()
            victims["worker"] += 1
    assert batch.driver is not None
    batch.driver.communicate(timeout=PATIENCE_S)
    assert min(victims["driver"], victims["worker"]) >= 3
    assert {record["status"] for record in batch.records()} == {"ok"}
    assert set(batch.analysed()) == set(pictures.values())
    batch.check_complete()


def test_a_picture_that_kills_or_hangs_is_found_and_quarantined(make_batch: Callable[..., Batch]) -> None:
    pictures = numbered(40) | {"00013.jpg": KILLS, "00022.jpg": RAISES, "00030.jpg": HANGS}
    batch = make_batch(pictures, "--shard-size", "4", "--stall-s", "1")
    assert batch.finish()[3] == 3
    wrong = {Path(one["source"]).name: one["error"] for one in batch.records() if one["status"] != "ok"}
    assert {name: error["code"] for name, error in wrong.items()} == {
        "00013.jpg": "process_died",
        "00022.jpg": "process_died",
        "00030.jpg": "process_died",
    }
    assert "SIGKILL" in wrong["00013.jpg"]["message"]
    assert "code 1" in wrong["00022.jpg"]["message"]
    assert "no sign for 1 seconds" in wrong["00030.jpg"]["message"]
    batch.check_complete()


def test_ctrl_c_ends_in_order_and_the_next_run_computes_what_is_missing(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(numbered(400), "--seconds", "0.01")
    driver = batch.start()
    wait_for(lambda: len(batch.analysed()) > 100, "nothing is computed")
    workers = batch.workers()
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate(timeout=PATIENCE_S)
    assert "KeyboardInterrupt" in err
    assert not [process for process in workers if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    destination = open_destination(batch.destination)
    assert not [*destination.names("staging")]
    committed = len([*destination.names("records")])
    assert batch.finish()[:2] == (16 * committed, 400 - 16 * committed)
    batch.check_complete()


def test_two_drivers_at_once_commit_every_shard_once(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(numbered(300), "--seconds", "0.002")
    other = batch.start()
    assert sum(batch.finish()[:2]) == 300
    _, err = other.communicate(timeout=PATIENCE_S)
    assert other.returncode == 0, err
    batch.check_complete()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_tears_nothing_and_the_run_goes_on_when_there_is_room(
    make_batch: Callable[..., Batch], tmp_path: Path
) -> None:
    batch = make_batch(numbered(600))
    batch.destination.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(batch.destination)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"this machine lets nobody mount a small file system: {mounted.stderr.strip()}")
    try:
        driver = batch.start()
        _, err = driver.communicate(timeout=PATIENCE_S)
        assert driver.returncode != 0
        assert "DestinationError" in err
        assert "space" in err
        destination = open_destination(batch.destination)
        job = read_job(destination)
        committed = [*destination.names("records")]
        assert 0 < len(committed) < job.shards
        for name in committed:
            shard = int(Path(name).stem)
            decode(destination.read(f"records/{name}") or b"", job=job.id, shard=shard)
        subprocess.run(["mount", "-o", "remount,size=20m", str(batch.destination)], check=True)
        assert batch.finish()[:2] == (16 * len(committed), 600 - 16 * len(committed))
        batch.check_complete()
    finally:
        subprocess.run(["umount", "--lazy", str(batch.destination)], check=True)
