"""Shards: which inputs are computed together, what their files are called, and what these hold.

A file of records is one JSON object a line, and a last line that says how many there are and what they hash to. Without
that line, or with another hash, the file is torn, and nobody takes it for records.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from dulian.batch.records import Record
from dulian.errors import DamagedJobError

MANIFEST, RECORDS, PIECES, STAGING, PICTURES = "manifest", "records", "pieces", "staging", "pictures"


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """Inputs ``start`` to ``stop`` (not included) of a shard, counted from 0 within it."""

    shard: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def halves(self) -> tuple[Range, Range]:
        """Two ranges that make up this one, which has two inputs or more."""
        middle = (self.start + self.stop) // 2
        return Range(self.shard, self.start, middle), Range(self.shard, middle, self.stop)


def name_of_shard(shard: int) -> str:
    """The name of a shard's records, below the destination."""
    return f"{RECORDS}/{shard:06d}.jsonl"


def name_of_piece(part: Range) -> str:
    """The name of the records of a part of a shard, until all of it is there."""
    return f"{PIECES}/{part.shard:06d}.{part.start}-{part.stop}.jsonl"


def shard_of_name(name: str) -> int | None:
    """The shard whose records have this name in their folder, or None if it is no such name."""
    stem = name.removesuffix(".jsonl")
    shard = int(stem) if stem.isdecimal() and stem.isascii() else None
    return shard if shard is not None and name_of_shard(shard) == f"{RECORDS}/{name}" else None


def encode(records: Sequence[Record], *, job: str, shard: int) -> bytes:
    """The file of these records."""
    body = b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)
    last = {"shard": shard, "job": job, "records": len(records), "sha256": hashlib.sha256(body).hexdigest()}
    return body + json.dumps(last).encode() + b"\n"


def decode(data: bytes, *, job: str, shard: int) -> list[Record]:
    """The records of a file.

    Raises:
        DamagedJobError: It is torn, changed, or of another job or shard.
    """
    body, _, last_line = data.removesuffix(b"\n").rpartition(b"\n")
    body += b"\n" if body else b""
    try:
        last = json.loads(last_line)
        records: list[Record] = [json.loads(line) for line in body.splitlines()]
        said = (last["job"], last["shard"], last["records"], last["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedJobError(f"the records of shard {shard} are torn") from error
    if said != (job, shard, len(records), hashlib.sha256(body).hexdigest()):
        raise DamagedJobError(f"the records of shard {shard} are not what was committed")
    return records
