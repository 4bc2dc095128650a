from __future__ import annotations

import hashlib
from collections.abc import Iterable

import pytest

from dulian.batch.job import JOB, Job, check_same, committed_shards, find_job, read_inputs, read_job
from dulian.batch.manifest import listed
from dulian.batch.records import Input
from dulian.batch.shards import decode, encode, name_of_shard
from dulian.errors import DamagedJobError, InputNotFoundError, JobChangedError
from tests.batch.fake_work import FailingDestination, FakeAnalysis, StoreReader


def job_of(inputs: Iterable[Input], *, shard_size: int = 4, **changed: object) -> tuple[Job, FailingDestination]:
    destination = FailingDestination()
    with listed(inputs) as manifest:
        fields = {"model": FakeAnalysis().model(), "options": {}, **changed}
        job = Job(
            inputs=manifest.inputs,
            manifest=manifest.sha256,
            shard_size=shard_size,
            base="/",
            **fields,  # type: ignore[arg-type]
        )
        manifest.write(destination, job)
    destination.create(JOB, job.to_json())
    return job, destination


def named(*names: str) -> list[Input]:
    return [Input(source=name, size=len(name)) for name in names]


def test_lines_round_trip_whatever_names_hold() -> None:
    odd = [
        Input(source="plain.jpg"),
        Input(source="line\\nfeed.jpg", path="line\nfeed.jpg", size=3, version="17"),
        Input(source="a\\udcff.jpg", path="a\udcff.jpg", offset=512, same_as="plain.jpg"),
        Input(source="读脸 😀.png", problem=("input_not_found", "a link is not followed")),
    ]
    assert [Input.from_line(one.to_line()) for one in odd] == odd
    assert all(one.to_line().count(b"\n") == 1 for one in odd)


def test_the_manifest_is_cut_into_shards_in_order() -> None:
    inputs = named(*"abcdefghij")
    job, destination = job_of(inputs)
    assert (job.inputs, job.shards) == (10, 3)
    assert [one for shard in range(3) for one in read_inputs(destination, job, shard)] == inputs
    assert [len(job.whole(shard)) for shard in range(3)] == [4, 4, 2]
    assert job.manifest == hashlib.sha256(b"".join(one.to_line() for one in inputs)).hexdigest()


def test_what_is_listed_twice_counts_once() -> None:
    inputs = named("a", "b", "a", "c", "b", "a")
    with listed(inputs) as manifest:
        assert [one.source for one in manifest.read()] == ["a", "b", "c"]
        assert manifest.inputs == 3


def test_different_files_of_one_printable_name_keep_names_of_their_own() -> None:
    inputs = [
        Input(source="a\\udcff", path="a\udcff"),
        Input(source="a\\udcff"),
        Input(source="a\\udcff", path="a\udcff"),
        Input(source="a\\udcff (2)"),
    ]
    with listed(inputs) as manifest:
        kept = [*manifest.read()]
    assert [one.location for one in kept] == ["a\udcff", "a\\udcff", "a\\udcff (2)"]
    assert len({one.source for one in kept}) == 3


def test_a_limit_takes_the_first() -> None:
    heard: list[int] = []
    with listed(iter(named(*"abcdef")), limit=2, told=heard.append) as manifest:
        assert [one.source for one in manifest.read()] == ["a", "b"]
    assert heard[-1] == 2


def test_equal_bytes_are_found_by_reading_only_what_may_be_equal() -> None:
    files = {"a": b"12", "b": b"123", "c": b"12", "d": b"45", "e": b"12", "gone": b"12"}
    inputs = [Input(source=name, size=len(data)) for name, data in files.items()]
    inputs.append(Input(source="unknown"))
    reader = StoreReader({**files, "unknown": b"123"})
    del reader.files["gone"]
    with listed(inputs, same_bytes=reader) as manifest:
        same = {one.source: one.same_as for one in manifest.read()}
    assert same == {"a": None, "b": None, "c": "a", "d": None, "e": "a", "gone": None, "unknown": None}
    assert "b" not in reader.reads


def test_the_order_of_equal_bytes_does_not_depend_on_who_is_read_first() -> None:
    files: dict[str, bytes | None] = {f"{index:03d}": b"%d" % (index % 7) for index in range(300)}
    inputs = [Input(source=name, size=1) for name in files]
    with listed(inputs, same_bytes=StoreReader(files)) as manifest:
        for one in manifest.read():
            index = int(one.source)
            assert one.same_as == (None if index < 7 else f"{index % 7:03d}")


def test_the_identity_holds_what_shapes_a_record_and_nothing_else() -> None:
    job, _ = job_of(named(*"abc"))
    same, _ = job_of(named(*"abc"))
    assert job.id == same.id
    assert Job.from_json(job.to_json()) == job
    others = [
        job_of(named(*"abd")),
        job_of([Input(source=name, size=1, version="2") for name in "abc"]),
        job_of(named(*"abc"), model={"profile": "fake", "engine": "none", "digest": "other"}),
        job_of(named(*"abc"), options={"coverage": 0.8}),
        job_of(named(*"abc"), shard_size=3),
    ]
    assert len({job.id, *(other.id for other, _ in others)}) == 6
    for other, _ in others:
        with pytest.raises(JobChangedError):
            check_same(job, other)


def test_a_refused_job_says_what_differs() -> None:
    begun, _ = job_of(named(*"abc"), options={"coverage": 0.9})
    asked, _ = job_of(named(*"abcd"), options={"coverage": 0.8})
    with pytest.raises(JobChangedError, match=r"pictures \(3 then, 4 now.*; coverage \(0\.9 then, 0\.8 now\)"):
        check_same(begun, asked)


def test_damage_of_a_job_is_noticed() -> None:
    job, destination = job_of(named(*"abcdef"))
    manifest = next(name for name in destination.files if name.startswith("manifest/"))
    for broken in (b"", b"{}\n" * 4, b"nonsense\n" * 4, destination.files[manifest].partition(b"\n")[2]):
        destination.files[manifest] = broken
        with pytest.raises(DamagedJobError):
            read_inputs(destination, job, 0)
    del destination.files[manifest]
    with pytest.raises(DamagedJobError, match="missing"):
        read_inputs(destination, job, 0)
    for broken in (b"", b"[]", b"{}", job.to_json().replace(b'"inputs": 6', b'"inputs": 7')):
        destination.files[JOB] = broken
        with pytest.raises(DamagedJobError):
            find_job(destination)
    del destination.files[JOB]
    assert find_job(destination) is None
    with pytest.raises(InputNotFoundError, match="no batch"):
        read_job(destination)


def test_records_that_were_cut_or_changed_are_not_taken_for_records() -> None:
    records = [{"source": "读", "status": "ok"}, {"source": "b", "status": "ok"}]
    data = encode(records, job="j", shard=3)
    assert decode(data, job="j", shard=3) == records
    assert decode(encode([], job="j", shard=0), job="j", shard=0) == []
    for broken in (
        *(data[:end] for end in range(len(data) - 1)),
        data.replace(b'"b"', b'"c"'),
        data + b"{}\n",
        b"",
        data[data.index(b"\n") + 1 :],
    ):
        with pytest.raises(DamagedJobError):
            decode(broken, job="j", shard=3)
    for job, shard in (("k", 3), ("j", 4)):
        with pytest.raises(DamagedJobError):
            decode(data, job=job, shard=shard)


def test_only_names_of_this_job_s_shards_count_as_committed() -> None:
    job, destination = job_of(named(*"abcdef"))
    for name in (
        name_of_shard(1),
        "records/0.jsonl",
        "records/999999.jsonl",
        "records/x.jsonl",
        "records/000000",
        "records/²²².jsonl",
    ):
        destination.files[name] = b""
    assert committed_shards(destination, job) == {1}
