"""Whether a job is what it says it is: every input has exactly one record, whole, in its place."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dulian.batch.destinations import Destination
from dulian.batch.inputs import Reader
from dulian.batch.job import Job, read_inputs, read_job
from dulian.batch.merge import Progress, read_ahead, shard_records
from dulian.batch.records import DUPLICATE, ERROR, OK, Input, Record
from dulian.batch.shards import PICTURES, PIECES, RECORDS, STAGING, name_of_shard, shard_of_name
from dulian.errors import DamagedJobError, InputError
from dulian.sources import printable

State = Literal["complete", "incomplete", "damaged"]

MAX_LISTED = 100
"""Of whatever is wrong so many are named; all are counted."""
_READERS = 8


@dataclass(slots=True)
class Findings:
    """Sentences or names, the first of them kept and all of them counted."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, *found: str) -> None:
        """Take some more."""
        self.count += len(found)
        self.first += found[: MAX_LISTED - len(self.first)]

    def __bool__(self) -> bool:
        return bool(self.count)


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What :func:`verify` found.

    ``missing`` are names of shards without records, ``damage`` sentences about what must not be. What is ``foreign``
    among the records, and ``left_over`` of attempts that died and of shards in pieces, does no harm. ``changed`` are
    inputs that are no longer what was analysed; that is known only if they were read again.
    """

    job: str
    inputs: int
    shards: int
    committed: int = 0
    records: Counter[str] = field(default_factory=Counter)
    missing: Findings = field(default_factory=Findings)
    damage: Findings = field(default_factory=Findings)
    foreign: Findings = field(default_factory=Findings)
    left_over: dict[str, int] = field(default_factory=dict)
    reread: int = 0
    changed: Findings = field(default_factory=Findings)

    @property
    def state(self) -> State:
        """Damaged if anything is wrong; incomplete if only something is missing."""
        if self.damage:
            return "damaged"
        return "incomplete" if self.missing else "complete"

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON types."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        parts = {name: asdict(value) for name, value in found.items() if isinstance(value, Findings)}
        return {"state": self.state, **found, **parts}


def verify(
    destination: Destination, *, reader: Reader | None = None, progress: Progress = lambda records: None
) -> Verdict:
    """Check all files of the job in a destination.

    With a ``reader`` the inputs themselves are read once more, to see whether they still hold what was analysed; that
    takes as long as reading all of them does. Memory grows by 40 bytes an input. ``progress`` hears after every shard
    how many inputs have been looked at.

    Raises:
        InputNotFoundError: There is no job.
        DamagedJobError: ``job.json`` itself is damaged.
    """
    job = read_job(destination)
    verdict = Verdict(job=job.id, inputs=job.inputs, shards=job.shards)
    committed = _committed(destination, job, verdict)
    names = _Names()
    manifest, listed = hashlib.sha256(), True
    with ThreadPoolExecutor(_READERS, thread_name_prefix="dulian-reread") as pool:
        seen = 0
        for part in read_ahead(lambda shard: _read(destination, job, shard, shard in committed), job):
            verdict.damage.add(*part.damage)
            listed &= part.inputs is not None
            for one in part.inputs or ():
                manifest.update(one.to_line())
                names.add(one)
            verdict.records.update(record["status"] for record in part.records)
            if reader is not None:
                _reread(verdict, part, reader, pool)
            seen += len(job.whole(part.shard))
            progress(seen)
    if listed and manifest.hexdigest() != job.manifest:
        verdict.damage.add("the lists of the inputs are not those that job.json was made for")
    verdict.damage.add(*names.problems(destination, job))
    for folder in (STAGING, PIECES):
        verdict.left_over[folder] = sum(1 for _ in destination.names(folder))
    return verdict


def _committed(destination: Destination, job: Job, verdict: Verdict) -> set[int]:
    """The shards that have records; says of which there are none, and what else lies there."""
    committed = set()
    for name in destination.names(RECORDS):
        shard = shard_of_name(name)
        if shard is not None and shard < job.shards and name_of_shard(shard) == f"{RECORDS}/{name}":
            committed.add(shard)
        else:
            verdict.foreign.add(f"{RECORDS}/{printable(name)}")
    verdict.committed = len(committed)
    verdict.missing.add(*(name_of_shard(shard) for shard in range(job.shards) if shard not in committed))
    return committed


# ── one shard ────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Part:
    """A shard as it lies there; ``inputs`` are None if their list does not read."""

    shard: int
    inputs: Sequence[Input] | None = None
    records: Sequence[Record] = ()
    damage: list[str] = field(default_factory=list)


def _read(destination: Destination, job: Job, shard: int, is_committed: bool) -> _Part:
    part = _Part(shard)
    try:
        part.inputs = read_inputs(destination, job, shard)
    except DamagedJobError as error:
        part.damage.append(str(error))
    if not is_committed:
        return part
    try:
        records = shard_records(destination, job, shard)
    except DamagedJobError as error:
        part.damage.append(str(error))
        return part
    if malformed := [place for place, record in enumerate(records) if not _is_record(record)]:
        part.damage.append(f"records {malformed[:10]} of {name_of_shard(shard)} are none")
        return part
    part.records = records
    if part.inputs is not None:
        part.damage += _differences(shard, part.inputs, records)
    part.damage += _missing_pictures(destination, shard, records)
    return part


def _is_record(record: Any) -> bool:
    """Whether it has what all records of its status have."""
    needed = {OK: ("sha256", "image", "faces", "timings_ms"), ERROR: ("error",), DUPLICATE: ("same_as",)}
    return (
        isinstance(record, dict)
        and isinstance(record.get("source"), str)
        and record.get("status") in needed
        and all(name in record for name in needed[record["status"]])
    )


def _differences(shard: int, inputs: Sequence[Input], records: Sequence[Record]) -> Iterator[str]:
    """Inputs without a record and records without an input, which is all that can be wrong but for their order."""
    wanted, found = Counter(one.source for one in inputs), Counter(record["source"] for record in records)
    name = name_of_shard(shard)
    for source in wanted - found:
        yield f"{name} has no record of {source}"
    for source in found - wanted:
        yield f"{name} has {found[source]} records of {source}, and the shard {wanted[source]} inputs of that name"
    if wanted != found:
        return
    if [one.source for one in inputs] != [record["source"] for record in records]:
        yield f"{name} is not in the order of its inputs"
        return
    for one, record in zip(inputs, records, strict=True):
        if one.same_as != record.get("same_as"):
            yield f"{name} says of {one.source} that it is the same as {record.get('same_as')}, not {one.same_as}"


def _missing_pictures(destination: Destination, shard: int, records: Iterable[Record]) -> Iterator[str]:
    """Annotated pictures that records name and that are not there."""
    named = [record["annotated_image"] for record in records if record.get("annotated_image")]
    if named:
        folder = f"{PICTURES}/{shard:06d}"
        there = {f"{folder}/{name}" for name in destination.names(folder)}
        yield from (f"the picture {name} is missing" for name in named if name not in there)


def _reread(verdict: Verdict, part: _Part, reader: Reader, pool: ThreadPoolExecutor) -> None:
    """Compare what inputs hold now with what was analysed."""

    def compare(pair: tuple[Input, Record]) -> str | None:
        one, record = pair
        try:
            same = hashlib.sha256(reader.read(one)).hexdigest() == record["sha256"]
        except InputError as error:
            return f"{one.source} cannot be read any more: {printable(str(error))}"
        return None if same else f"{one.source} has changed"

    pairs = zip(part.inputs or (), part.records, strict=False)
    known = [(one, record) for one, record in pairs if record.get("sha256") and record["source"] == one.source]
    verdict.reread += len(known)
    verdict.changed.add(*(found for found in pool.map(compare, known) if found is not None))


# ── names across shards ──────────────────────────────────────────────────────────────────────────


class _Names:
    """Every input's name, and those that duplicates refer to, as short hashes: millions of names fit."""

    def __init__(self) -> None:
        self._own, self._others = array("Q"), array("Q")

    def add(self, one: Input) -> None:
        self._own.append(_key(one.source))
        if one.same_as is not None:
            self._others.append(_key(one.same_as))

    def problems(self, destination: Destination, job: Job) -> Iterator[str]:
        """Names that inputs of different shards share, and duplicates of nothing."""
        own, counts = np.unique(_as_numbers(self._own), return_counts=True)
        twice = own[counts > 1]
        lost = np.setdiff1d(_as_numbers(self._others), own)
        if not len(twice) and not len(lost):
            return
        # Different names may have the same hash, so those in question are looked at once more.
        suspects, missing = {int(key) for key in twice}, {int(key) for key in lost}
        seen: Counter[str] = Counter()
        for inputs in _readable(destination, job):
            for one in inputs:
                seen.update([one.source] if _key(one.source) in suspects else [])
                if one.same_as is not None and _key(one.same_as) in missing:
                    yield f"{one.source} is said to be the same as {one.same_as}, which is no input"
        yield from (f"{source} is {count} times among the inputs" for source, count in seen.items() if count > 1)


def _readable(destination: Destination, job: Job) -> Iterator[list[Input]]:
    for shard in range(job.shards):
        try:
            yield read_inputs(destination, job, shard)
        except DamagedJobError:
            continue


def _as_numbers(keys: array[int]) -> NDArray[np.uint64]:
    return np.frombuffer(keys, np.uint64) if keys else np.empty(0, np.uint64)


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest())
