"""How far a job is: by the names of its files, which is quick however large it is, and by its records if asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any

from dulian.batch.attempts import PREFIX
from dulian.batch.destinations import Destination
from dulian.batch.job import Job, committed_shards, read_job, read_records
from dulian.batch.records import ERROR, Record
from dulian.batch.shards import PIECES, STAGING, decode
from dulian.errors import DamagedJobError

# Records of so many shards are read without being asked for: a moment's work.
READ_UP_TO = 64


@dataclass(slots=True, kw_only=True)
class Details:
    """What the records say that are committed."""

    statuses: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    faces: int = 0
    with_faces: int = 0
    input_bytes: int = 0
    record_bytes: int = 0
    damaged_shards: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The counts as JSON types."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How far a job is. ``attempts`` are under way or were cut off; ``details`` are None if no record was read."""

    url: str
    job: str
    model: dict[str, Any]
    inputs: int
    inputs_done: int
    shards: int
    shards_done: int
    pieces: int
    attempts: int
    details: Details | None

    @property
    def finished(self) -> bool:
        """Whether every input has its record."""
        return self.shards_done == self.shards

    def to_dict(self) -> dict[str, Any]:
        """The status as JSON types."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**found, "details": self.details and self.details.to_dict(), "finished": self.finished}


def status(destination: Destination, *, details: bool | None = None) -> Status:
    """Look at a job; ``details`` reads all records, or never does, or, by default, while they are few.

    Raises:
        InputNotFoundError: There is no job.
        DamagedJobError: ``job.json`` is damaged.
    """
    job = read_job(destination)
    committed = committed_shards(destination, job)
    wanted = len(committed) <= READ_UP_TO if details is None else details
    return Status(
        url=destination.url,
        job=job.id,
        model=dict(job.model),
        inputs=job.inputs,
        inputs_done=sum(len(job.whole(shard)) for shard in committed),
        shards=job.shards,
        shards_done=len(committed),
        pieces=sum(1 for _ in destination.names(PIECES)),
        attempts=sum(name.startswith(PREFIX) for name in destination.names(STAGING)),
        details=_details(destination, job, committed) if wanted else None,
    )


def _details(destination: Destination, job: Job, committed: set[int]) -> Details:
    found = Details()
    for shard in sorted(committed):
        data = read_records(destination, job, shard)
        if data is None:
            continue
        found.record_bytes += len(data)
        try:
            records = decode(data, job=job.id, shard=shard)
        except DamagedJobError:
            found.damaged_shards += 1
            continue
        for record in records:
            _count(found, record)
    return found


def _count(found: Details, record: Record) -> None:
    found.statuses[record["status"]] += 1
    found.input_bytes += record.get("bytes") or 0
    if record["status"] == ERROR:
        found.errors[record["error"]["code"]] += 1
    faces = len(record.get("faces", ()))
    found.faces += faces
    found.with_faces += bool(faces)
