from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from dulian.batch import ledger as ledger_module
from dulian.batch import work
from dulian.batch.drivers.inline import InlineDriver
from dulian.batch.job import Job
from dulian.batch.ledger import Ledger
from dulian.batch.records import Input, Record
from dulian.batch.run import run
from dulian.batch.schedule import DEATHS_OF_MANY, DEATHS_OF_ONE
from dulian.batch.shards import Range, decode, encode, name_of_piece, name_of_shard
from dulian.batch.tally import Tally, brief
from dulian.batch.work import OUT_OF_REACH, Orders, StoppedError, Worker
from dulian.errors import DestinationError, InputUnavailableError
from dulian.faces import AnalysisResult
from dulian.image import Image
from tests.batch.fake_work import FailingDestination, FakeAnalysis, StoreReader
from tests.batch.test_batch_manifest import job_of, named


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes | None]:
    """What readers find, by name."""
    found: dict[str, bytes | None] = {}
    monkeypatch.setattr(work, "open_reader", lambda *, base, max_bytes: StoreReader(found))
    return found


def records_of(destination: FailingDestination, job: Job) -> list[Record]:
    return [
        record
        for shard in range(job.shards)
        for record in decode(destination.files[name_of_shard(shard)], job=job.id, shard=shard)
    ]


def compute(ledger: Ledger, orders: Orders, parts: int) -> None:
    worker = Worker(orders)
    for _ in range(parts):
        given = ledger.next()
        assert given is not None
        worker.run(*given)
        ledger.done(given[0])
    worker.close()


def left_over(destination: FailingDestination) -> list[str]:
    return [name for name in destination.files if name.startswith(("staging/", "pieces/"))]


def test_every_input_has_one_record_in_order(files: dict[str, bytes | None]) -> None:
    names = [f"{index:04d}" for index in range(103)]
    files.update({name: name.encode() for name in names})
    files["0010"] = b"bad"
    del files["0020"]
    inputs = [
        *named(*names),
        Input(source="link", problem=("input_not_found", "a link")),
        Input(source="twin", same_as="0001"),
    ]
    job, destination = job_of(inputs, shard_size=10)
    tally = run(job, destination, FakeAnalysis(), driver=InlineDriver(), threads=3)
    records = records_of(destination, job)
    assert [record["source"] for record in records] == [one.source for one in inputs]
    by_name = {record["source"]: record for record in records}
    assert by_name["0010"]["error"] == {"code": "image_decode_failed", "message": "this picture is bad"}
    assert by_name["0010"]["bytes"] == 3
    assert by_name["0020"]["error"]["code"] == by_name["link"]["error"]["code"] == "input_not_found"
    assert "sha256" not in by_name["0020"]
    assert by_name["twin"] == {"source": "twin", "status": "duplicate", "same_as": "0001"}
    assert by_name["0000"]["status"] == "ok"
    assert by_name["0000"]["faces"] == []
    assert len(by_name["0000"]["sha256"]) == 64
    assert tally.kinds == Counter(ok=101, image_decode_failed=1, input_not_found=2, duplicate=1)
    assert (tally.inputs, tally.before, tally.computed) == (105, 0, 105)
    assert not left_over(destination)


def test_a_second_run_computes_nothing(files: dict[str, bytes | None]) -> None:
    files.update({name: name.encode() for name in "abcdef"})
    job, destination = job_of(named(*"abcdef"))
    run(job, destination, FakeAnalysis(), driver=InlineDriver())
    before = dict(destination.files)

    class NoDriver:
        def run(self, ledger: Ledger, orders: Orders) -> None:
            raise AssertionError("there is nothing to do")

    tally = run(job, destination, FakeAnalysis(), driver=NoDriver())
    assert (tally.before, tally.computed) == (6, 0)
    assert destination.files == before


def test_what_is_missing_is_computed_and_nothing_else(files: dict[str, bytes | None]) -> None:
    files.update({name: name.encode() for name in "abcdefghij"})
    job, destination = job_of(named(*"abcdefghij"), shard_size=2)
    orders = Orders(job=job, destination=destination, analysis=FakeAnalysis())
    compute(Ledger(job, destination), orders, 3)
    kept = {name: data for name, data in destination.files.items() if name.startswith("records/")}
    assert len(kept) == 3
    tally = run(job, destination, FakeAnalysis(), driver=InlineDriver())
    assert tally.computed == 4
    assert {name: destination.files[name] for name in kept} == kept


def test_shares_are_disjoint_and_make_up_the_job(files: dict[str, bytes | None]) -> None:
    names = [f"{index:02d}" for index in range(23)]
    files.update(dict.fromkeys(names, b"x"))
    job, destination = job_of(named(*names), shard_size=2)
    tallies = [
        run(job, destination, FakeAnalysis(), driver=InlineDriver(), share=(share, 5)) for share in (3, 0, 4, 1, 2)
    ]
    assert sum(tally.inputs for tally in tallies) == 23
    assert all(tally.computed == tally.inputs for tally in tallies)
    assert [record["source"] for record in records_of(destination, job)] == names


def test_whoever_commits_first_stays(files: dict[str, bytes | None]) -> None:
    files.update({name: name.encode() for name in "abcd"})
    job, destination = job_of(named(*"abcd"))
    first, second = Ledger(job, destination), Ledger(job, destination)
    orders = Orders(job=job, destination=destination, analysis=FakeAnalysis())
    compute(first, orders, 1)
    committed = destination.files[name_of_shard(0)]
    compute(second, orders, 1)
    assert destination.files[name_of_shard(0)] is committed
    assert second.finished


def test_drivers_that_run_at_once_help_each_other(
    files: dict[str, bytes | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one begins elsewhere, and neither takes what the other has committed."""
    monkeypatch.setattr(ledger_module, "LOOK_AGAIN_S", -1.0)
    monkeypatch.setattr("random.randrange", lambda stop: stop // 2)
    names = [f"{index:02d}" for index in range(20)]
    files.update(dict.fromkeys(names, b"x"))
    job, destination = job_of(named(*names), shard_size=2)
    orders = Orders(job=job, destination=destination, analysis=FakeAnalysis())
    first = Ledger(job, destination)
    compute(first, orders, 1)
    destination.files["staging/attempt_000001_0-2_elsewhere_7_aa"] = b""
    second = Ledger(job, destination)
    compute(second, orders, 5)
    assert {name_of_shard(shard) for shard in (0, 5, 6, 7, 8, 9)} <= destination.files.keys()
    compute(first, orders, 4)
    assert first.next() is None
    assert first.finished
    assert second.next() is None
    assert second.finished
    assert [record["source"] for record in records_of(destination, job)] == names
    assert (first.tally.before, second.tally.before) == (10, 10)


# ── deaths ───────────────────────────────────────────────────────────────────────────────────────


def drive(
    job: Job, destination: FailingDestination, deadly: Mapping[str, str], sources: list[str], *, lives: int = 1000
) -> Tally:
    """A driver whose processes die of deadly inputs, without cleaning up; it dies itself after so many of them."""
    ledger = Ledger(job, destination)
    orders = Orders(job=job, destination=destination, analysis=FakeAnalysis())
    worker = Worker(orders)
    while not ledger.finished and lives:
        given = ledger.next()
        if given is None:
            continue
        part, attempt = given
        at = part.shard * job.shard_size
        kills = [deadly[name] for name in sources[at + part.start : at + part.stop] if name in deadly]
        if not kills:
            worker.run(part, attempt, lambda record, part=part: ledger.told(part, brief(record)))  # type: ignore[misc]
            ledger.done(part)
            continue
        destination.files[attempt] = b""
        lives -= 1
        if lives:
            ledger.died(part, kills[0])
    worker.close()
    return ledger.tally


def test_what_kills_is_quarantined_and_all_others_are_answered(files: dict[str, bytes | None]) -> None:
    names = [f"{index:02d}" for index in range(50)]
    files.update(dict.fromkeys(names, b"x"))
    job, destination = job_of(named(*names), shard_size=16)
    deadly = {"05": "the process was ended by SIGSEGV", "06": "the process was ended by SIGKILL", "49": "it hung"}
    tally = drive(job, destination, deadly, names)
    records = {record["source"]: record for record in records_of(destination, job)}
    assert [*records] == names
    assert {name for name, record in records.items() if record["status"] == "error"} == set(deadly)
    assert records["05"]["error"]["code"] == "process_died"
    assert records["05"]["error"]["message"].startswith("the process was ended by SIGSEGV whenever this picture")
    assert tally.quarantined == 3
    assert tally.kinds == Counter(ok=47, process_died=3)
    assert not left_over(destination)


def test_deaths_are_remembered_by_drivers_that_die_too(
    files: dict[str, bytes | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{index:02d}" for index in range(16)]
    files.update(dict.fromkeys(names, b"x"))
    job, destination = job_of(named(*names), shard_size=8)
    runs = 0
    while len([name for name in destination.files if name.startswith("records/")]) < job.shards:
        runs += 1
        drive(job, destination, {"03": "killed"}, names, lives=1)
        assert runs < 30
    assert runs == DEATHS_OF_MANY * 3 + DEATHS_OF_ONE + 1
    bad = [record for record in records_of(destination, job) if record["status"] == "error"]
    assert [record["source"] for record in bad] == ["03"]
    assert not left_over(destination)


def test_pieces_that_are_damaged_are_computed_again(files: dict[str, bytes | None]) -> None:
    files.update({name: name.encode() for name in "abcdefgh"})
    job, destination = job_of(named(*"abcdefgh"), shard_size=8)
    whole = run(job, FailingDestination(dict(destination.files)), FakeAnalysis(), driver=InlineDriver())
    assert whole.computed == 8
    good = encode([{"source": name, "status": "ok"} for name in "abcd"], job=job.id, shard=0)
    destination.files[name_of_piece(Range(0, 0, 4))] = good
    destination.files[name_of_piece(Range(0, 4, 8))] = good[:-20]
    destination.files[name_of_piece(Range(0, 4, 9))] = b"beyond"
    tally = run(job, destination, FakeAnalysis(), driver=InlineDriver())
    assert [record["source"] for record in records_of(destination, job)] == [*"abcdefgh"]
    assert tally.computed == 4


def test_pieces_of_committed_shards_are_swept(files: dict[str, bytes | None]) -> None:
    files.update({name: name.encode() for name in "abcd"})
    job, destination = job_of(named(*"abcd"))
    run(job, destination, FakeAnalysis(), driver=InlineDriver())
    destination.files[name_of_piece(Range(0, 0, 2))] = b""
    run(job, destination, FakeAnalysis(), driver=InlineDriver())
    assert not left_over(destination)


# ── places that fail ─────────────────────────────────────────────────────────────────────────────


def test_a_full_destination_ends_the_run_and_the_next_one_goes_on(files: dict[str, bytes | None]) -> None:
    files.update({name: name.encode() for name in "abcdefgh"})
    job, destination = job_of(named(*"abcdefgh"), shard_size=2)
    destination.fails = lambda name: name == name_of_shard(2)
    with pytest.raises(DestinationError, match="no space left"):
        run(job, destination, FakeAnalysis(), driver=InlineDriver())
    assert not left_over(destination)
    destination.fails = lambda name: False
    tally = run(job, destination, FakeAnalysis(), driver=InlineDriver())
    assert tally.before == 4
    assert [record["source"] for record in records_of(destination, job)] == [*"abcdefgh"]


def test_a_store_that_is_out_of_reach_makes_no_records(files: dict[str, bytes | None]) -> None:
    names = [f"{index:02d}" for index in range(60)]
    files.update({name: (None if int(name) >= 20 else b"x") for name in names})
    job, destination = job_of(named(*names), shard_size=20)
    with pytest.raises(InputUnavailableError, match=f"{OUT_OF_REACH} inputs one after the other"):
        run(job, destination, FakeAnalysis(), driver=InlineDriver())
    files.update(dict.fromkeys(names, b"x"))
    tally = run(job, destination, FakeAnalysis(), driver=InlineDriver())
    assert tally.kinds == Counter(ok=40)


def test_a_single_input_that_does_not_come_has_an_error(files: dict[str, bytes | None]) -> None:
    files.update({"a": b"x", "b": None, "c": b"x"})
    job, destination = job_of(named(*"abc"))
    assert run(job, destination, FakeAnalysis(), driver=InlineDriver()).kinds == Counter(ok=2, input_unavailable=1)


def test_a_worker_that_is_stopped_commits_nothing_and_leaves_nothing(files: dict[str, bytes | None]) -> None:
    files.update({name: name.encode() for name in "abcd"})
    job, destination = job_of(named(*"abcd"))
    ledger = Ledger(job, destination)
    worker = Worker(Orders(job=job, destination=destination, analysis=FakeAnalysis()))
    given = ledger.next()
    assert given is not None
    with pytest.raises(StoppedError):
        worker.run(*given, lambda record: worker.stop())
    worker.close()
    ledger.back(given[0])
    assert not left_over(destination)
    assert not any(name.startswith("records/") for name in destination.files)
    assert run(job, destination, FakeAnalysis(), driver=InlineDriver()).computed == 4


# ── memory ───────────────────────────────────────────────────────────────────────────────────────


def test_what_is_read_ahead_is_bounded_by_bytes(
    files: dict[str, bytes | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never more ahead than the bound, and always at least one, however large it says that it is."""
    monkeypatch.setattr(work, "READ_AHEAD_BYTES", 100)
    names = [f"{index:02d}" for index in range(40)]
    files.update(dict.fromkeys(names, b"x"))
    sizes = [30, 200, 10, 50]
    inputs = [Input(source=name, size=sizes[index % 4]) for index, name in enumerate(names)]
    job, destination = job_of(inputs, shard_size=40)
    worker = Worker(Orders(job=job, destination=destination, analysis=FakeAnalysis()))
    ahead: list[int] = []
    submit = worker._submit

    def watched(at: Range, one: Input):  # type: ignore[no-untyped-def]
        ahead.append(one.size or 0)
        return submit(at, one)

    monkeypatch.setattr(worker, "_submit", watched)
    most = 0

    def told(record: Record) -> None:
        nonlocal most
        most = max(most, sum(ahead))
        ahead.pop(0)

    worker.run(job.whole(0), "staging/x", told)
    worker.close()
    assert most <= 200
    assert len(records_of(destination, job)) == 40


@dataclass(frozen=True)
class WaitingAnalysis(FakeAnalysis):
    """Computes the first picture only when it hears that later ones are being read."""

    heard: threading.Event = field(default_factory=threading.Event)

    def analyze(self, data: bytes) -> tuple[AnalysisResult, Callable[[], Image]]:
        assert self.heard.wait(30), "nothing is read while this is computed"
        return super().analyze(data)


def test_later_pictures_are_read_while_earlier_ones_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{index:02d}" for index in range(30)]
    analysis = WaitingAnalysis()

    class Reader(StoreReader):
        def read(self, wanted: Input) -> bytes:
            if wanted.source == f"{work.READERS:02d}":
                analysis.heard.set()
            return super().read(wanted)

    files: dict[str, bytes | None] = dict.fromkeys(names, b"x")
    monkeypatch.setattr(work, "open_reader", lambda *, base, max_bytes: Reader(files))
    job, destination = job_of(named(*names), shard_size=30)
    assert run(job, destination, analysis, driver=InlineDriver()).kinds == Counter(ok=30)


def test_another_range_is_begun_when_all_of_one_is_read(files: dict[str, bytes | None]) -> None:
    """Not before, and while its last pictures are still computed."""
    names = [f"{index:03d}" for index in range(100)]
    files.update(dict.fromkeys(names, b"x"))
    job, destination = job_of(named(*names), shard_size=100)
    worker = Worker(Orders(job=job, destination=destination, analysis=FakeAnalysis()))
    told: list[str] = []
    at: list[int] = []
    worker.run(
        job.whole(0), "staging/x", lambda record: told.append(record["source"]), read=lambda: at.append(len(told))
    )
    worker.close()
    assert at == [100 - work.READERS - 1]


def test_a_hundred_thousand_tiny_records(files: dict[str, bytes | None]) -> None:
    """Set equality over a whole job in shares, with an interruption in each."""
    names = [f"{index:06d}" for index in range(100_000)]
    files.update(dict.fromkeys(names, b"x"))
    job, destination = job_of(named(*names), shard_size=500)
    for share in ((0, 3), (1, 3), (2, 3)):
        compute(
            Ledger(job, destination, share=share),
            Orders(job=job, destination=destination, analysis=FakeAnalysis()),
            20,
        )
        run(job, destination, FakeAnalysis(), driver=InlineDriver(), share=share)
    assert [record["source"] for record in records_of(destination, job)] == names
    assert run(job, destination, FakeAnalysis(), driver=InlineDriver()).computed == 0


def test_tallies_count_what_is_lost_only_once() -> None:
    seen: list[int] = []
    tally = Tally(changed=lambda tally: seen.append(tally.computed))
    part = Range(0, 0, 2)
    for _ in range(2):
        tally.told(part, ("ok", 3))
        tally.undone(part, by_death=True)
    tally.told(part, ("ok", 1))
    tally.told(part, ("image_truncated", 0))
    tally.committed(part)
    assert (tally.computed, tally.faces, tally.deaths) == (2, 1, 2)
    assert tally.kinds == Counter(ok=1, image_truncated=1)
    assert seen == [1, 0, 1, 0, 1, 2, 2]
