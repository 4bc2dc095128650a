"""The list of a job's inputs: each named once, in a fixed order, cut into shards, in bounded memory.

What is listed goes through a temporary file, because it may be larger than memory; that holds names, never pictures.
"""

from __future__ import annotations

import hashlib
import tempfile
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from typing import BinaryIO

import numpy as np

from dulian.batch.destinations import Destination
from dulian.batch.inputs import Reader
from dulian.batch.job import Job, name_of_manifest
from dulian.batch.records import Input
from dulian.errors import InputError

_READERS = 8
_READ_AHEAD = 64
_UNKNOWN_SIZE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A list that was made: lines in a temporary file that is gone when the block is left (:func:`listed`)."""

    inputs: int
    sha256: str
    spool: BinaryIO

    def read(self) -> Iterator[Input]:
        """The inputs, in order."""
        return map(Input.from_line, _lines(self.spool))

    def write(self, destination: Destination, job: Job) -> None:
        """Put it where the job's workers read it, a file for each shard."""
        lines = _lines(self.spool)
        for shard in range(job.shards):
            destination.create(name_of_manifest(job, shard), b"".join(islice(lines, job.shard_size)))


@contextmanager
def listed(
    inputs: Iterable[Input],
    *,
    limit: int | None = None,
    same_bytes: Reader | None = None,
    told: Callable[[int], None] = lambda count: None,
) -> Iterator[Manifest]:
    """List inputs, at most ``limit`` of them; what is listed twice counts once.

    With a reader for ``same_bytes`` inputs that have the same bytes as an earlier one say so. Only those are read whose
    size another one has too, or whose size the listing does not tell. ``told`` hears how many have been listed.
    """
    with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
        spool: BinaryIO = first
        keys = _spool(islice(inputs, limit), spool, told)
        if repeated := _repeated(keys):
            _each_once(spool, second, keys, repeated)
            spool = second
        if same_bytes is not None:
            with tempfile.TemporaryFile() as third:
                _mark_duplicates(spool, third, same_bytes)
                yield _finished(third)
            return
        yield _finished(spool)


def _spool(inputs: Iterable[Input], spool: BinaryIO, told: Callable[[int], None]) -> array[int]:
    """Write the lines; a short hash of every name stays in memory."""
    keys = array("Q")
    for number, one in enumerate(inputs, 1):
        spool.write(one.to_line())
        keys.append(_key(one.source))
        if number % 1000 == 0:
            told(number)
    told(len(keys))
    return keys


def _repeated(keys: array[int]) -> set[int]:
    """Hashes that more than one name has; the names may still differ."""
    values, counts = np.unique(np.frombuffer(keys, np.uint64), return_counts=True)
    return {int(value) for value in values[counts > 1]}


def _each_once(spool: BinaryIO, target: BinaryIO, keys: array[int], repeated: Collection[int]) -> None:
    """Leave out what is there already; where different files have one printable name, number the names."""
    given = np.unique(np.frombuffer(keys, np.uint64))
    locations: dict[str, str] = {}

    def is_free(name: str, one: Input) -> bool:
        """Whether no other file has the name, or will have it."""
        at = int(np.searchsorted(given, np.uint64(_key(name))))
        is_given = at < len(given) and int(given[at]) == _key(name)
        return locations.get(name, one.location) == one.location and (name == one.source or not is_given)

    for line in _lines(spool):
        one = Input.from_line(line)
        if _key(one.source) not in repeated:
            target.write(line)
            continue
        names = (f"{one.source} ({number})" for number in count(2))
        name = next(name for name in chain([one.source], names) if is_free(name, one))
        if name not in locations:
            locations[name] = one.location
            target.write(line if name == one.source else replace(one, source=name, path=one.location).to_line())


def _mark_duplicates(spool: BinaryIO, target: BinaryIO, reader: Reader) -> None:
    """Have inputs name an earlier one with the same bytes; those that cannot be read stay as they are."""
    sizes = array("q", (_UNKNOWN_SIZE if one.size is None else one.size for one in map(Input.from_line, _lines(spool))))
    values, counts = np.unique(np.frombuffer(sizes, np.int64), return_counts=True)
    shared = {_UNKNOWN_SIZE, *(int(value) for value in values[counts > 1])}
    first: dict[bytes, str] = {}

    def digest(one: Input) -> tuple[Input, bytes | None]:
        size = _UNKNOWN_SIZE if one.size is None else one.size
        if one.problem or size not in shared:
            return one, None
        try:
            return one, hashlib.sha256(reader.read(one)).digest()
        except InputError:
            return one, None

    with ThreadPoolExecutor(_READERS, thread_name_prefix="dulian-dedupe") as pool:
        inputs = map(Input.from_line, _lines(spool))
        while chunk := [*islice(inputs, _READ_AHEAD)]:
            for one, found in pool.map(digest, chunk):
                known = None if found is None else first.setdefault(found, one.source)
                target.write((one if known in (None, one.source) else replace(one, same_as=known)).to_line())


def _finished(spool: BinaryIO) -> Manifest:
    total, digest = 0, hashlib.sha256()
    for line in _lines(spool):
        total += 1
        digest.update(line)
    return Manifest(inputs=total, sha256=digest.hexdigest(), spool=spool)


def _lines(spool: BinaryIO) -> Iterator[bytes]:
    spool.flush()
    spool.seek(0)
    return iter(spool)


def _key(source: str) -> int:
    return int.from_bytes(hashlib.blake2b(source.encode(errors="surrogatepass"), digest_size=8).digest())
