"""What comes out of a job, for people and programs: a writer for each kind of file.

A writer is a class with ``write`` and ``close``, and one row in :data:`WRITERS`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

from dulian.batch.inputs import Reader
from dulian.batch.job import Job
from dulian.batch.records import Input, Record
from dulian.errors import MalformedInputError, MissingDependencyError
from dulian.messages import Language


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How an output is to look; each writer takes from it what concerns it.

    ``per_face`` makes tables of faces instead of pictures. ``filters`` are the texts of what was asked for, which a
    report shows. Of the report's pictures ``thumbnails`` are shown at most, which ``reader`` opens once more.
    """

    per_face: bool = False
    language: Language = "en"
    filters: tuple[str, ...] = ()
    thumbnails: int = 0
    reader: Reader | None = None


class Writer(Protocol):
    """Takes a job's records, one after the other, into a stream that somebody else opens and closes."""

    def write(self, record: Record, source: Input) -> None:
        """Take the next record, and the input that it is of."""
        ...

    def close(self) -> None:
        """Write what is still to be written."""
        ...

    def abandon(self) -> None:
        """Let go without writing any more, after a failure."""
        ...


class WriterType(Protocol):
    """What a writer's class offers."""

    def __call__(self, stream: BinaryIO, job: Job, form: Form) -> Writer: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterRow:
    """Where a writer lives, and the module it needs with the extra that brings it.

    ``locates`` says that it needs inputs as the manifest has them; others are given no more than their names.
    """

    module: str
    name: str
    requires: str | None = None
    extra: str | None = None
    locates: bool = False


WRITERS: Mapping[str, WriterRow] = {
    ".jsonl": WriterRow(module="dulian.batch.writers.lines", name="LinesWriter"),
    ".csv": WriterRow(module="dulian.batch.writers.csv_table", name="CsvWriter"),
    ".parquet": WriterRow(
        module="dulian.batch.writers.parquet", name="ParquetWriter", requires="pyarrow", extra="parquet"
    ),
    ".txt": WriterRow(module="dulian.batch.writers.names", name="NamesWriter", locates=True),
    ".html": WriterRow(module="dulian.batch.writers.report", name="ReportWriter", locates=True),
}


def find_writer(suffix: str) -> WriterRow:
    """The row of a kind of file, by its suffix.

    Raises:
        MalformedInputError: There is no such kind.
        MissingDependencyError: What it needs is not installed.
    """
    row = WRITERS.get(suffix.lower())
    if row is None:
        raise MalformedInputError(f"unknown kind of output {suffix!r}; choose from {', '.join(WRITERS)}")
    if row.requires is not None and importlib.util.find_spec(row.requires) is None:
        raise MissingDependencyError(f"writing {suffix} needs {row.requires}; pip install 'dulian[{row.extra}]'")
    return row


def open_writer(row: WriterRow, stream: BinaryIO, *, job: Job, form: Form) -> Writer:
    """A writer into a stream."""
    kind = cast(WriterType, getattr(importlib.import_module(row.module), row.name))
    return kind(stream, job, form)
