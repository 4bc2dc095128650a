"""All records of a job as one file, or those of them that are asked for; the job's own files stay as they are."""

from __future__ import annotations

import stat
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TypeVar

from dulian.batch.destinations import Destination, open_destination
from dulian.batch.destinations.addresses import path_of, scheme_of
from dulian.batch.job import JOB, Job, committed_shards, read_inputs, read_records
from dulian.batch.records import Input, Record
from dulian.batch.shards import MANIFEST, PICTURES, PIECES, RECORDS, STAGING, decode, name_of_shard
from dulian.batch.where import parse_where
from dulian.batch.writers import Form, find_writer, open_writer
from dulian.errors import DamagedJobError, DestinationError, MalformedInputError
from dulian.files import shown, writing_atomically
from dulian.sources import printable

STDOUT = "-"
# Shards, and records, that are fetched while earlier ones are written: a store answers after a while.
READERS = 8
READ_AHEAD = 4096

_OF_THE_JOB = frozenset({MANIFEST, RECORDS, PIECES, STAGING, PICTURES})

Found = TypeVar("Found")
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Merged:
    """How many records were looked at, and how many of them were written."""

    records: int
    written: int


def merged(destination: Destination, job: Job) -> Iterator[Record]:
    """One record per input, in the order of the manifest.

    Raises:
        DamagedJobError: Records are missing or damaged; the message says what to do.
    """
    return (record for record, _ in _pairs(destination, job, locate=False))


def merge(
    destination: Destination,
    job: Job,
    output: Path | str,
    *,
    kind: str | None = None,
    where: Sequence[str] = (),
    form: Form | None = None,
    progress: Progress = lambda records: None,
) -> Merged:
    """Write the records that meet all conditions of ``where`` into one file, whose kind is said by its suffix.

    ``output`` is a local path, an address in a store, below the destination or elsewhere, or ``-`` for standard output
    with a ``kind`` (``csv``). Where there is a file already, it is replaced when all is written. ``progress`` hears
    after every shard how many records have been looked at.

    Raises:
        DamagedJobError: As :func:`merged`; nothing is written.
        MalformedInputError: A condition, a kind or an output makes no sense.
        MissingDependencyError: This kind needs a package that is not installed.
        DestinationError: The output cannot be written.
    """
    meets = parse_where(where)
    row = find_writer(_suffix(output, kind))
    opened = _open(destination, output)
    pairs = _pairs(destination, job, locate=row.locates)
    seen = written = 0
    with opened as stream:
        writer = open_writer(row, stream, job=job, form=form or Form())
        try:
            for record, source in pairs:
                seen += 1
                if meets(record):
                    writer.write(record, source)
                    written += 1
                if seen % job.shard_size == 0:
                    progress(seen)
            progress(seen)
            writer.close()
        except BaseException:
            writer.abandon()
            raise
    return Merged(seen, written)


# ── what is read ─────────────────────────────────────────────────────────────────────────────────


def shard_records(destination: Destination, job: Job, shard: int) -> list[Record]:
    """The records of a shard, one per input.

    Raises:
        DamagedJobError: They are missing or damaged.
    """
    data = read_records(destination, job, shard)
    if data is None:
        raise DamagedJobError(f"the records of shard {shard} are missing; `dulian batch run` goes on with them")
    try:
        records = decode(data, job=job.id, shard=shard)
    except DamagedJobError as error:
        raise DamagedJobError(f"{error}; {_cure(shard)}") from error
    if len(records) != len(job.whole(shard)):
        raise DamagedJobError(
            f"there are {len(records)} records of the {len(job.whole(shard))} of shard {shard}; {_cure(shard)}"
        )
    return records


def read_ahead(read: Callable[[int], Found], job: Job) -> Iterator[Found]:
    """What is read of each shard, in order, while those behind are read already."""
    ahead = min(max(READ_AHEAD // job.shard_size, 1), READERS)
    with ThreadPoolExecutor(ahead, thread_name_prefix="dulian-shards") as pool:
        running: deque[Future[Found]] = deque()
        try:
            for shard in range(job.shards):
                running.append(pool.submit(read, shard))
                if len(running) > ahead:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def _pairs(destination: Destination, job: Job, *, locate: bool) -> Iterator[tuple[Record, Input]]:
    """Records with their inputs, of which no more than the names are known unless they are to be located."""
    missing = job.shards - len(committed_shards(destination, job))
    if missing:
        raise DamagedJobError(f"{missing:,} of {job.shards:,} shards are missing; `dulian batch run` goes on with them")

    def read(shard: int) -> list[tuple[Record, Input]]:
        records = shard_records(destination, job, shard)
        if not locate:
            return [(record, Input(source=record["source"])) for record in records]
        inputs = read_inputs(destination, job, shard)
        if [one.source for one in inputs] != [record["source"] for record in records]:
            raise DamagedJobError(f"the records of shard {shard} are not those of its inputs; {_cure(shard)}")
        return list(zip(records, inputs, strict=True))

    return chain.from_iterable(read_ahead(read, job))


def _cure(shard: int) -> str:
    return f"remove {name_of_shard(shard)}, and `dulian batch run` makes it again"


# ── where it is written ──────────────────────────────────────────────────────────────────────────


def _suffix(output: Path | str, kind: str | None) -> str:
    if kind is not None:
        return f".{kind.removeprefix('.')}"
    if str(output) == STDOUT:
        raise MalformedInputError("standard output has no suffix; say of which kind it is to be, such as jsonl or csv")
    return Path(str(output)).suffix


def _open(destination: Destination, output: Path | str) -> AbstractContextManager[BinaryIO]:
    """The stream of an output, not opened yet; what would harm is refused."""
    text = str(output)
    if text == STDOUT:
        return _standard_output()
    root = f"{destination.url.rstrip('/')}/"
    if text.startswith(root):
        return _inside(destination, _check_name(text.removeprefix(root)))
    if scheme_of(text) in (None, "file"):
        return _local(path_of(text), destination)
    folder, _, name = text.rpartition("/")
    return _inside(open_destination(folder), name)


def _check_name(name: str) -> str:
    if name == JOB or name.partition("/")[0] in _OF_THE_JOB:
        raise MalformedInputError(f"{printable(name)} would lie among the job's own files; choose another --output")
    return name


@contextmanager
def _standard_output() -> Iterator[BinaryIO]:
    if sys.stdout is None:
        raise DestinationError("standard output is closed")
    sys.stdout.flush()
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()


@contextmanager
def _inside(destination: Destination, name: str) -> Iterator[BinaryIO]:
    with _failing(printable(name)), destination.writing(name) as stream:
        yield stream


@contextmanager
def _local(path: Path, destination: Destination) -> Iterator[BinaryIO]:
    if scheme_of(destination.url) is None:
        root, target = Path(destination.url).resolve(), path.parent.resolve() / path.name
        if target.is_relative_to(root):
            _check_name(target.relative_to(root).as_posix())
    with _failing(shown(path)):
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise DestinationError(f"cannot write {shown(path)}: it is no file; '-' is standard output")
        with writing_atomically(path) as stream:
            yield stream


@contextmanager
def _failing(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DestinationError(f"cannot write {name}: {error.strerror or error}") from error
