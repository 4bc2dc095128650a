"""Records as one file: complete, in order, whole or not at all, and never over what it must not touch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dulian.batch import merge as merging
from dulian.batch.destinations import open_destination
from dulian.batch.job import Job
from dulian.batch.merge import Merged, merge, merged, read_ahead
from dulian.batch.records import Input
from dulian.batch.shards import name_of_shard
from dulian.batch.verify import verify
from dulian.batch.writers import WRITERS
from dulian.errors import DamagedJobError, DestinationError, MalformedInputError
from dulian.files import PART_PREFIX
from tests.batch.fakes import MemoryDestination, begin, commit, failed, finished_job, ok, some_records
from tests.conftest import ROOT

RECORDS = some_records(20)


@pytest.fixture
def job() -> tuple[MemoryDestination, Job]:
    return finished_job(RECORDS)


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# ── what is read ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shard_size", [1, 3, 7, 20, 5000])
def test_every_input_has_its_record_in_the_order_of_the_manifest(shard_size: int) -> None:
    assert [*merged(*finished_job(RECORDS, shard_size=shard_size))] == RECORDS


def test_missing_shards_are_counted_before_anything_is_written(tmp_path: Path) -> None:
    destination, job = finished_job(RECORDS)
    del destination.files[name_of_shard(2)], destination.files[name_of_shard(6)]
    target = tmp_path / "all.jsonl"
    target.write_text("from before")
    with pytest.raises(DamagedJobError, match="2 of 7 shards are missing; `dulian batch run` goes on"):
        merge(destination, job, target)
    assert target.read_text() == "from before"
    with pytest.raises(DamagedJobError, match="2 of 7 shards"):
        merged(destination, job)


def test_a_damaged_shard_leaves_no_file(tmp_path: Path) -> None:
    destination, job = finished_job(RECORDS)
    destination.files[name_of_shard(4)] = destination.files[name_of_shard(4)][:-30]
    for suffix in WRITERS:
        with pytest.raises(DamagedJobError, match=r"shard 4 are torn; remove records/000004\.jsonl, and"):
            merge(destination, job, tmp_path / f"all{suffix}")
    assert [*tmp_path.iterdir()] == []


def test_a_shard_with_too_few_records_is_damaged() -> None:
    destination, job = finished_job(RECORDS)
    del destination.files[name_of_shard(1)]
    commit(destination, job, 1, RECORDS[3:5])
    with pytest.raises(DamagedJobError, match="2 records of the 3 of shard 1"):
        [*merged(destination, job)]


def test_records_of_other_inputs_are_no_list_of_names(tmp_path: Path) -> None:
    destination, job = finished_job(RECORDS)
    del destination.files[name_of_shard(1)]
    commit(destination, job, 1, [*reversed(RECORDS[3:6])])
    with pytest.raises(DamagedJobError, match="shard 1 are not those of its inputs"):
        merge(destination, job, tmp_path / "names.txt")


def test_shards_are_read_ahead_and_not_all_at_once() -> None:
    job = finished_job(some_records(400), shard_size=4)[1]
    begun, most_ahead = [0], [0]
    lock = threading.Lock()

    def read(shard: int) -> int:
        with lock:
            begun[0] += 1
        return shard

    for taken, shard in enumerate(read_ahead(read, job)):
        assert shard == taken
        with lock:
            most_ahead[0] = max(most_ahead[0], begun[0] - taken)
    assert begun[0] == 100
    assert 1 < most_ahead[0] <= merging.READERS + 1


def test_who_stops_early_leaves_no_thread_behind() -> None:
    records: Iterator[Any] = merged(*finished_job(some_records(400)))
    assert next(records)["source"] == "0000.jpg"
    del records
    assert [thread for thread in threading.enumerate() if thread.name.startswith("dulian-shards")] == []


# ── what is written ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("suffix", WRITERS)
def test_merging_again_gives_the_same_file(job: tuple[MemoryDestination, Job], suffix: str, tmp_path: Path) -> None:
    before = dict(job[0].files)
    target = tmp_path / f"all{suffix}"
    assert merge(*job, target) == Merged(20, 20)
    first = target.read_bytes()
    merge(*job, target)
    assert target.read_bytes() == first
    assert job[0].files == before
    assert [*tmp_path.iterdir()] == [target]


def test_conditions_choose(job: tuple[MemoryDestination, Job], tmp_path: Path) -> None:
    target = tmp_path / "errors.jsonl"
    done = merge(*job, target, where=["error", "source=000*"])
    assert lines(target) == [RECORDS[3]]
    assert done == Merged(records=20, written=1)
    assert merge(*job, target, where=["age>150"]) == Merged(20, 0)
    assert target.read_bytes() == b""


def test_a_kind_may_be_named_whatever_the_suffix(job: tuple[MemoryDestination, Job], tmp_path: Path) -> None:
    merge(*job, tmp_path / "records.data", kind="jsonl")
    assert lines(tmp_path / "records.data") == RECORDS


def test_suffixes_may_be_capitals(job: tuple[MemoryDestination, Job], tmp_path: Path) -> None:
    merge(*job, tmp_path / "ALL.JSONL")
    assert lines(tmp_path / "ALL.JSONL") == RECORDS


@pytest.mark.parametrize("name", ["all.json", "all", "all.xlsx"])
def test_another_kind_is_refused(job: tuple[MemoryDestination, Job], tmp_path: Path, name: str) -> None:
    with pytest.raises(MalformedInputError, match=r"choose from \.jsonl, \.csv, \.parquet, \.txt, \.html"):
        merge(*job, tmp_path / name)


def test_progress_is_told_shard_by_shard(job: tuple[MemoryDestination, Job], tmp_path: Path) -> None:
    told: list[int] = []
    merge(*job, tmp_path / "all.jsonl", progress=told.append)
    assert told == [3, 6, 9, 12, 15, 18, 20]


def test_a_job_without_inputs_merges_to_nothing(tmp_path: Path) -> None:
    assert merge(*finished_job([]), tmp_path / "all.jsonl") == Merged(0, 0)
    assert (tmp_path / "all.jsonl").read_bytes() == b""


# ── where it is written ──────────────────────────────────────────────────────────────────────────


def test_a_name_below_the_destination_is_written_there(job: tuple[MemoryDestination, Job]) -> None:
    merge(*job, "fake://place/job/out/all.jsonl")
    assert [json.loads(line) for line in job[0].files["out/all.jsonl"].splitlines()] == RECORDS


@pytest.mark.parametrize("name", ["records/000000.jsonl", "manifest/x.txt", "staging/a.csv", "pictures/all.html"])
def test_the_job_s_own_files_are_never_written_over(tmp_path: Path, name: str) -> None:
    destination, job = finished_job(RECORDS)
    before = dict(destination.files)
    with pytest.raises(MalformedInputError, match="among the job's own files"):
        merge(destination, job, f"{destination.url}/{name}")
    assert destination.files == before

    local = MemoryDestination(before, url=str(tmp_path))
    (tmp_path / name).parent.mkdir()
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(tmp_path)
    for folder in (tmp_path, link, f"file://{tmp_path}"):
        with pytest.raises(MalformedInputError, match="among the job's own files"):
            merge(local, job, f"{folder}/{name}")
    assert [*(tmp_path / name).parent.iterdir()] == []
    merge(local, job, link / "all.jsonl")
    assert lines(tmp_path / "all.jsonl") == RECORDS


def test_a_real_folder_is_merged_into_and_left_as_it_is(tmp_path: Path) -> None:
    destination = open_destination(tmp_path / os.fsdecode(b"album \xff"))
    destination.prepare()
    files, job = finished_job(RECORDS)
    for name, data in files.files.items():
        assert destination.create(name, data)
    for suffix in WRITERS:
        merge(destination, job, f"{destination.url}/all{suffix}")
        assert destination.read(f"all{suffix}")
    assert verify(destination).state == "complete"


def test_a_store_is_merged_into_and_out_of() -> None:
    destination = open_destination("memory://album/out")
    destination.prepare()
    files, job = finished_job(RECORDS)
    for name, data in files.files.items():
        assert destination.create(name, data)
    merge(destination, job, "memory://album/out/all.jsonl")
    merge(destination, job, "memory://elsewhere/all.csv")
    assert verify(destination).state == "complete"
    found = destination.read("all.jsonl") or b""
    assert [json.loads(line) for line in found.splitlines()] == RECORDS
    assert (open_destination("memory://elsewhere").read("all.csv") or b"").count(b"\r\n") == len(RECORDS) + 1
    with pytest.raises(MalformedInputError, match="among the job's own files"):
        merge(destination, job, "memory://album/out/records/000000.jsonl")
    with pytest.raises(MalformedInputError, match="ftp"):
        merge(destination, job, "ftp://album/out/all.csv")


def test_a_device_is_not_replaced(job: tuple[MemoryDestination, Job], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    for target in (pipe, Path("/dev/null")):
        with pytest.raises(DestinationError, match="it is no file"):
            merge(*job, target, kind="jsonl")
        assert not target.is_file()


def test_a_folder_that_is_not_there_is_said(job: tuple[MemoryDestination, Job], tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match=r"cannot write .*nowhere.*No such file"):
        merge(*job, tmp_path / "nowhere" / "all.csv")


def test_a_failure_half_way_leaves_what_was_there(
    job: tuple[MemoryDestination, Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "all.parquet"
    target.write_text("from before")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dulian.batch.writers.parquet.ParquetWriter.write", fail)
    with pytest.raises(DestinationError, match="No space left"):
        merge(*job, target)
    assert target.read_text() == "from before"
    assert [one for one in tmp_path.iterdir() if one.name.startswith(PART_PREFIX)] == []


def test_standard_output_needs_a_kind(job: tuple[MemoryDestination, Job]) -> None:
    with pytest.raises(MalformedInputError, match="say of which kind"):
        merge(*job, "-")


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from tests.batch.fakes import finished_job, some_records
from dulian.batch.merge import merge
merge(*finished_job(some_records(20)), "-", kind={kind!r})
"""


@pytest.mark.parametrize("kind", [suffix.removeprefix(".") for suffix in WRITERS])
def test_standard_output_is_what_a_file_would_be(job: tuple[MemoryDestination, Job], tmp_path: Path, kind: str) -> None:
    merge(*job, tmp_path / f"all.{kind}")
    script = SCRIPT.format(root=str(ROOT), kind=kind)
    piped = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, cwd=ROOT)
    assert piped.stdout == (tmp_path / f"all.{kind}").read_bytes()


def test_memory_does_not_grow_with_the_job() -> None:
    """The records of all shards together are a hundred times what is held of them at once."""
    import tracemalloc

    destination, job = finished_job(
        some_records(4000, lambda number: ok(f"{number}.jpg", note="x" * 1000)), shard_size=10
    )
    held = sum(map(len, destination.files.values()))
    tracemalloc.start()
    assert sum(1 for _ in merged(destination, job)) == 4000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < held / 5


def test_an_unfinished_job_has_no_records() -> None:
    destination = MemoryDestination()
    job = begin(destination, [Input(source="a.jpg"), Input(source="b.jpg")])
    with pytest.raises(DamagedJobError, match="1 of 1 shards"):
        merged(destination, job)
    commit(destination, job, 0, [failed("a.jpg"), failed("b.jpg")])
    assert [record["source"] for record in merged(destination, job)] == ["a.jpg", "b.jpg"]
