"""What a batch is: which pictures, which networks, which options; one job in one destination, for ever.

``job.json`` is the last file written of a new job, and the first one read by whoever works on it. It is created only if
absent: of two that begin at once, one makes the job, and the other one either has the same or is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from dulian.batch.destinations import Destination
from dulian.batch.records import Input
from dulian.batch.shards import MANIFEST, RECORDS, Range, name_of_shard, shard_of_name
from dulian.errors import DamagedJobError, InputNotFoundError, JobChangedError

JOB = "job.json"
# Raise it when files of a job can no longer be read by what wrote earlier ones.
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Job:
    """The identity of a batch, and how it is cut.

    ``inputs`` are counted, ``manifest`` is the sha256 of all its lines in order. ``model`` says profile, engine and
    digest, ``options`` everything else that shapes a record or a picture; both JSON types. ``base`` is the folder that
    relative names were below when it was begun; it is not part of the identity.
    """

    inputs: int
    manifest: str
    model: Mapping[str, Any]
    options: Mapping[str, Any]
    shard_size: int
    base: str

    @cached_property
    def id(self) -> str:
        """What two jobs have in common if and only if their records may be mixed."""
        parts = {"format": FORMAT, **asdict(self)}
        del parts["base"]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def shards(self) -> int:
        """How many there are; all but the last one have ``shard_size`` inputs."""
        return -(-self.inputs // self.shard_size)

    def whole(self, shard: int) -> Range:
        """All inputs of a shard."""
        return Range(shard, 0, min(self.shard_size, self.inputs - shard * self.shard_size))

    def to_json(self) -> bytes:
        """``job.json``."""
        text = json.dumps({"format": FORMAT, "id": self.id, **asdict(self)}, indent=1, ensure_ascii=False)
        return text.encode(errors="backslashreplace") + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Job:
        """What :meth:`to_json` wrote.

        Raises:
            DamagedJobError: It is no such file, or of another format.
        """
        try:
            fields = json.loads(data)
            said, kind = fields.pop("id"), fields.pop("format")
            job = cls(**fields)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DamagedJobError(f"{JOB} is damaged: {error}") from error
        if kind != FORMAT or said != job.id:
            raise DamagedJobError(f"{JOB} is damaged, or of another version of dulian")
        return job


def find_job(destination: Destination) -> Job | None:
    """The job that lies there, if any.

    Raises:
        DamagedJobError: Something else lies there.
    """
    data = destination.read(JOB)
    return None if data is None else Job.from_json(data)


def read_job(destination: Destination) -> Job:
    """The job that lies there.

    Raises:
        InputNotFoundError: There is none.
        DamagedJobError: It is damaged.
    """
    job = find_job(destination)
    if job is None:
        raise InputNotFoundError(f"there is no batch in {destination.url}: no {JOB}")
    return job


def check_same(begun: Job, asked: Job) -> None:
    """Refuse to go on with a job that is not the one that was begun.

    Raises:
        JobChangedError: The message says what differs.
    """
    if begun.id == asked.id:
        return
    differences = [*_differences(begun, asked)]
    raise JobChangedError(
        f"this batch was begun with other {'; '.join(differences)}. Name another --output for a new one, or leave out"
        " the sources to go on with what was begun"
    )


def _differences(begun: Job, asked: Job) -> Iterator[str]:
    if begun.manifest != asked.manifest:
        yield f"pictures ({begun.inputs:,} then, {asked.inputs:,} now, or changed ones)"
    names = sorted({*begun.model, *begun.options, *asked.model, *asked.options})
    for name in names:
        then = begun.model.get(name, begun.options.get(name))
        now = asked.model.get(name, asked.options.get(name))
        if then != now:
            yield f"{name} ({then!r} then, {now!r} now)"
    if begun.shard_size != asked.shard_size:
        yield f"shard size ({begun.shard_size} then, {asked.shard_size} now)"


# ── what lies in the destination ─────────────────────────────────────────────────────────────────


def name_of_manifest(job: Job, shard: int) -> str:
    """Where the inputs of a shard are listed; by the manifest, so that two that begin at once do not mix theirs."""
    return f"{MANIFEST}/{job.manifest[:16]}/{shard:06d}.jsonl"


def read_inputs(destination: Destination, job: Job, shard: int) -> list[Input]:
    """The inputs of a shard, in order.

    Raises:
        DamagedJobError: The list is missing or damaged.
    """
    data = destination.read(name_of_manifest(job, shard))
    if data is None:
        raise DamagedJobError(f"the list of the inputs of shard {shard} is missing")
    try:
        inputs = [Input.from_line(line) for line in data.splitlines()]
    except (AttributeError, TypeError, ValueError) as error:
        raise DamagedJobError(f"the list of the inputs of shard {shard} is damaged: {error}") from error
    if len(inputs) != len(job.whole(shard)):
        raise DamagedJobError(f"the list of the inputs of shard {shard} has {len(inputs)} of {len(job.whole(shard))}")
    return inputs


def committed_shards(destination: Destination, job: Job) -> set[int]:
    """The shards whose records are there, by their names."""
    found = (shard_of_name(name) for name in destination.names(RECORDS))
    return {shard for shard in found if shard is not None and shard < job.shards}


def read_records(destination: Destination, job: Job, shard: int) -> bytes | None:
    """The file of a shard's records as it lies there; None if it is not committed."""
    return destination.read(name_of_shard(shard))
