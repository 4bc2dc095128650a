"""Verdicts on whole, unfinished and damaged jobs, and how far a job is."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from dulian.batch.job import JOB, Job, name_of_manifest
from dulian.batch.records import Input
from dulian.batch.shards import name_of_shard
from dulian.batch.status import READ_UP_TO, status
from dulian.batch.verify import MAX_LISTED, verify
from dulian.errors import DamagedJobError, InputNotFoundError
from tests.batch.fakes import (
    MemoryDestination,
    MemoryReader,
    begin,
    commit,
    face,
    failed,
    finished_job,
    ok,
    same,
    some_records,
)

RECORDS = some_records(20)


def test_a_finished_job_is_complete() -> None:
    destination, job = finished_job(RECORDS)
    verdict = verify(destination)
    assert verdict.state == "complete"
    assert (verdict.job, verdict.inputs, verdict.shards, verdict.committed) == (job.id, 20, 7, 7)
    assert verdict.records == {"ok": 14, "error": 3, "duplicate": 3}
    assert not verdict.missing
    assert not verdict.foreign
    assert not verdict.damage


def test_a_verdict_is_json() -> None:
    destination, _ = finished_job(RECORDS)
    told = json.loads(json.dumps(verify(destination).to_dict()))
    assert told["state"] == "complete"
    assert told["records"] == {"ok": 14, "error": 3, "duplicate": 3}
    assert told["damage"] == {"count": 0, "first": []}


def test_a_job_without_inputs_is_complete() -> None:
    destination, _ = finished_job([])
    assert verify(destination).state == "complete"


def test_what_is_missing_makes_it_incomplete() -> None:
    destination, _ = finished_job(RECORDS)
    del destination.files[name_of_shard(2)], destination.files[name_of_shard(5)]
    verdict = verify(destination)
    assert verdict.state == "incomplete"
    assert verdict.missing.first == ["records/000002.jsonl", "records/000005.jsonl"]
    assert (verdict.committed, verdict.records.total()) == (5, 14)


def test_what_is_left_over_or_foreign_is_named_and_harmless() -> None:
    destination, _ = finished_job(RECORDS)
    for name in ("staging/attempt_000001_0-3_host_1_aa", "staging/part", "pieces/000001.0-2.jsonl"):
        destination.replace(name, b"")
    for name in ("records/.DS_Store", "records/000099.jsonl", "records/1.jsonl", "records/evil\x1b.txt"):
        destination.replace(name, b"whatever")
    verdict = verify(destination)
    assert verdict.state == "complete"
    assert verdict.left_over == {"staging": 2, "pieces": 1}
    assert sorted(verdict.foreign.first) == sorted(
        ["records/.DS_Store", "records/000099.jsonl", "records/1.jsonl", "records/evil\\x1b.txt"]
    )


def replace_shard(destination: MemoryDestination, job: Job, shard: int, change: Callable[[list[dict]], object]) -> None:  # type: ignore[type-arg]
    records = json.loads(json.dumps(RECORDS[shard * 3 : shard * 3 + 3]))
    change(records)
    del destination.files[name_of_shard(shard)]
    commit(destination, job, shard, records)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda records: records.reverse(), "is not in the order of its inputs"),
        (lambda records: records.pop(), "there are 2 records of the 3 of shard 2"),
        (lambda records: records.append(RECORDS[0]), "there are 4 records of the 3 of shard 2"),
        (lambda records: records[0].update(source="other.jpg"), "has no record of 0006.jpg"),
        (lambda records: records[0].update(source="other.jpg"), "has 1 records of other.jpg, and the shard 0 inputs"),
        (lambda records: records[0].update(source="0007.jpg"), "has 2 records of 0007.jpg, and the shard 1 inputs"),
        (lambda records: records[1].pop("status"), "records [1] of records/000002.jsonl are none"),
        (lambda records: records[1].update(status="maybe"), "records [1] of records/000002.jsonl are none"),
        (lambda records: records[1].pop("faces"), "records [1] of records/000002.jsonl are none"),
        (lambda records: records[2].update(source=7), "records [2] of records/000002.jsonl are none"),
        (lambda records: records[1].update(same_as="0001.jpg"), "the same as 0001.jpg, not None"),
        (lambda records: records[0].update(annotated_image="pictures/000002/000_x.jpg"), "000_x.jpg is missing"),
    ],
)
def test_records_that_are_not_those_of_the_inputs_are_damage(
    change: Callable[[list[dict]], object],  # type: ignore[type-arg]
    told: str,
) -> None:
    destination, job = finished_job(RECORDS)
    replace_shard(destination, job, 2, change)
    verdict = verify(destination)
    assert verdict.state == "damaged"
    assert any(told in one for one in verdict.damage.first), verdict.damage.first


@pytest.mark.parametrize("cut", [1, 40, 200, 500])
def test_a_torn_file_is_damage(cut: int) -> None:
    destination, _ = finished_job(RECORDS)
    destination.files[name_of_shard(1)] = destination.files[name_of_shard(1)][:-cut]
    verdict = verify(destination)
    # the end of the last line is all that may be missing
    assert verdict.state == ("complete" if cut == 1 else "damaged")
    if cut > 1:
        assert "remove records/000001.jsonl" in verdict.damage.first[0]


def test_a_changed_byte_is_damage() -> None:
    destination, _ = finished_job(RECORDS)
    name = name_of_shard(1)
    destination.files[name] = destination.files[name].replace(b"640", b"641", 1)
    assert "not what was committed" in verify(destination).damage.first[0]


def test_a_shard_of_another_job_is_damage() -> None:
    destination, _ = finished_job(RECORDS)
    other, _ = finished_job(RECORDS, model={"profile": "classic"})
    destination.files[name_of_shard(0)] = other.files[name_of_shard(0)]
    assert verify(destination).state == "damaged"


def test_a_list_that_was_changed_is_damage() -> None:
    destination, job = finished_job(RECORDS)
    name = name_of_manifest(job, 1)
    destination.files[name] = destination.files[name].replace(b'"0003.jpg"', b'"0003.jpg","size":5')
    assert verify(destination).damage.first == ["the lists of the inputs are not those that job.json was made for"]
    del destination.files[name]
    assert verify(destination).damage.first == ["the list of the inputs of shard 1 is missing"]


def test_annotated_pictures_that_are_there_are_no_damage() -> None:
    name = "pictures/000000/000_a.jpg"
    destination, _ = finished_job([ok("a.jpg", face(), annotated_image=name)])
    assert verify(destination).damage.first == [f"the picture {name} is missing"]
    destination.replace(name, b"JPEG")
    assert verify(destination).state == "complete"


def test_a_name_in_two_shards_is_damage() -> None:
    sources = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "a.jpg", "e.jpg"]
    destination, _ = finished_job([failed(source) for source in sources])
    assert verify(destination).damage.first == ["a.jpg is 2 times among the inputs"]


def test_a_duplicate_of_nothing_is_damage() -> None:
    destination, _ = finished_job([ok("a.jpg"), same("b.jpg", "a.jpg"), ok("c.jpg"), same("d.jpg", "gone.jpg")])
    assert verify(destination).damage.first == ["d.jpg is said to be the same as gone.jpg, which is no input"]


def test_damage_is_counted_and_not_all_listed() -> None:
    records = [failed(f"{number}.jpg") for number in range(3 * MAX_LISTED)]
    destination, job = finished_job(records, shard_size=1)
    for shard in range(job.shards):
        destination.files[name_of_shard(shard)] = b"torn"
    verdict = verify(destination)
    assert verdict.damage.count == 3 * MAX_LISTED
    assert len(verdict.damage.first) == MAX_LISTED


def test_progress_is_told() -> None:
    told: list[int] = []
    verify(finished_job(RECORDS)[0], progress=told.append)
    assert told == [3, 6, 9, 12, 15, 18, 20]


def test_inputs_that_have_changed_since_are_found() -> None:
    records = [ok("a.jpg"), ok("b.jpg"), ok("c.jpg"), failed("broken.jpg"), same("d.jpg", "a.jpg")]
    # the records' hashes are those of the names
    reader = MemoryReader({"a.jpg": b"a.jpg", "b.jpg": b"another picture", "broken.jpg": b"mended"})
    destination, _ = finished_job(records)
    verdict = verify(destination, reader=reader)
    assert verdict.state == "complete"
    assert verdict.reread == 4
    assert verdict.changed.first == [
        "b.jpg has changed",
        "c.jpg cannot be read any more: cannot read c.jpg: there is no such file",
        "broken.jpg has changed",
    ]
    assert "d.jpg" not in reader.read_names


def test_no_job_is_an_input_error() -> None:
    with pytest.raises(InputNotFoundError, match="there is no batch in fake://"):
        verify(MemoryDestination())
    with pytest.raises(InputNotFoundError):
        status(MemoryDestination())


def test_a_damaged_job_file_is_said() -> None:
    with pytest.raises(DamagedJobError):
        verify(MemoryDestination({JOB: b"{"}))


# ── status ───────────────────────────────────────────────────────────────────────────────────────


def test_status_counts_what_is_there() -> None:
    destination, job = finished_job(RECORDS)
    del destination.files[name_of_shard(6)], destination.files[name_of_shard(1)]
    for name in ("staging/attempt_000001_0-3_host_1_aa", "staging/other", "pieces/000001.0-2.jsonl"):
        destination.replace(name, b"")
    found = status(destination)
    assert (found.shards_done, found.shards, found.inputs_done, found.inputs) == (5, 7, 15, 20)
    assert (found.attempts, found.pieces, found.finished, found.job) == (1, 1, False, job.id)
    assert found.details is not None
    assert found.details.statuses == {"ok": 12, "error": 2, "duplicate": 1}
    assert found.details.errors == {"image_truncated": 2}
    assert found.details.faces == sum(len(record.get("faces", ())) for record in (*RECORDS[:3], *RECORDS[6:18]))
    assert found.details.input_bytes == 12 * 12_345 + 2 * 99
    assert json.loads(json.dumps(found.to_dict()))["inputs_done"] == 15


def test_status_of_a_job_that_was_just_begun() -> None:
    destination = MemoryDestination()
    begin(destination, [Input(source="a.jpg")])
    found = status(destination)
    assert (found.inputs_done, found.shards_done, found.finished) == (0, 0, False)
    assert status(finished_job([])[0]).finished


class CountingDestination(MemoryDestination):
    """Counts reads of records."""

    record_reads = 0

    def read(self, name: str) -> bytes | None:
        self.record_reads += name.startswith("records/")
        return super().read(name)


def test_status_of_a_large_job_reads_no_records_unless_asked() -> None:
    records = [failed(f"{number}.jpg") for number in range(READ_UP_TO + 1)]
    destination, _ = finished_job(records, destination=CountingDestination(), shard_size=1)
    assert isinstance(destination, CountingDestination)
    assert status(destination).details is None
    assert destination.record_reads == 0
    found = status(destination, details=True)
    assert found.details is not None
    assert found.details.errors.total() == READ_UP_TO + 1
    assert status(finished_job(RECORDS)[0], details=False).details is None


def test_status_survives_damage() -> None:
    destination, _ = finished_job(RECORDS)
    destination.files[name_of_shard(0)] = b"torn"
    found = status(destination)
    assert found.details is not None
    assert found.details.damaged_shards == 1
