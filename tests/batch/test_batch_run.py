"""Whole batches over folders, with real files and real places, and a fake analysis in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from dulian.batch.destinations import open_destination
from dulian.batch.drivers.inline import InlineDriver
from dulian.batch.drivers.local import PROCESS_BYTES, THREAD_BYTES, lay_out
from dulian.batch.job import read_inputs, read_job
from dulian.batch.run import LARGE_SHARD_SIZE, MIN_SHARD_SIZE, SHARD_SIZE, Wish, fitting_shard_size, prepare, run
from dulian.batch.tally import Tally
from dulian.errors import JobChangedError, MalformedInputError
from tests.batch.fake_work import FakeAnalysis


def album(folder: Path, count: int = 20) -> Path:
    folder.mkdir()
    for index in range(count):
        (folder / f"{index:02d}.jpg").write_bytes(b"%d" % (index % 15))
    return folder


def compute(source: str, place: Path | str, **wishes: object) -> Tally:
    analysis = FakeAnalysis()
    destination = open_destination(place)
    job, _ = prepare(Wish(sources=[source], analysis=analysis, **wishes), destination)  # type: ignore[arg-type]
    return run(job, destination, analysis, driver=InlineDriver())


def listed(place: Path) -> list[str]:
    destination = open_destination(place)
    job = read_job(destination)
    return [one.source for shard in range(job.shards) for one in read_inputs(destination, job, shard)]


def test_another_run_of_the_same_is_the_same_job(tmp_path: Path) -> None:
    source = album(tmp_path / "in")
    assert compute(str(source), tmp_path / "out").computed == 20
    again = compute(str(source), tmp_path / "out")
    assert (again.before, again.computed) == (20, 0)


@pytest.mark.parametrize("change", ["another picture", "one less", "other bytes", "options"])
def test_a_changed_job_is_refused_and_nothing_is_mixed(tmp_path: Path, change: str) -> None:
    source = album(tmp_path / "in")
    compute(str(source), tmp_path / "out")
    before = sorted(path.name for path in (tmp_path / "out").rglob("*"))
    if change == "another picture":
        (source / "new.jpg").write_bytes(b"x")
    elif change == "one less":
        (source / "03.jpg").unlink()
    elif change == "other bytes":
        (source / "03.jpg").write_bytes(b"quite other bytes")
    wishes = {"limit": 7} if change == "options" else {}
    with pytest.raises(JobChangedError, match="begun with other pictures"):
        compute(str(source), tmp_path / "out", **wishes)
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == before


@pytest.mark.parametrize("source", ["{}", "{}/", ".", "{}/*", "{}/**/*.jpg"])
def test_what_a_batch_writes_below_its_source_is_no_input(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = album(tmp_path / "in")
    monkeypatch.chdir(folder)
    place = folder / "faces"
    named = source.format(folder)
    assert compute(named, place).computed == 20
    (place / "pictures").mkdir()
    (place / "pictures" / "000_00.jpg").write_bytes(b"a drawn picture")
    assert compute(named, place).computed == 0
    assert len(listed(place)) == 20


def test_equal_pictures_are_answered_once_when_asked_for(tmp_path: Path) -> None:
    source = album(tmp_path / "in")
    tally = compute(str(source), tmp_path / "out", dedupe=True)
    assert tally.kinds == {"ok": 15, "duplicate": 5}


def test_a_source_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(MalformedInputError, match="no picture found"):
        compute(str(tmp_path / "in"), tmp_path / "out")


@pytest.mark.parametrize(
    ("inputs", "size"),
    [(1, MIN_SHARD_SIZE), (3000, 46), (1_000_000, SHARD_SIZE), (100_000_000, LARGE_SHARD_SIZE)],
)
def test_shards_fit_the_number_of_inputs(inputs: int, size: int) -> None:
    assert fitting_shard_size(inputs) == size


def test_processes_fit_cores_and_memory() -> None:
    one = PROCESS_BYTES
    assert lay_out(4, None) == (4, 1)
    assert lay_out(4, 4 * one) == (4, 1)
    assert lay_out(4, 4 * one - 1) == (2, 2)
    assert lay_out(4, 2 * (one + THREAD_BYTES)) == (2, 2)
    assert lay_out(4, one + 3 * THREAD_BYTES) == (1, 4)
    assert lay_out(4, 1) == (1, 4)
    assert lay_out(1, None) == (1, 1)
