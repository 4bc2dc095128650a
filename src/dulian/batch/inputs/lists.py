"""Names out of lists: lines of text, a column of a table, a field of JSON lines; read piece by piece."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from dulian.errors import MalformedInputError, MissingDependencyError
from dulian.sources import printable

# Which column is meant if none is named: the first of these that there is.
COLUMNS = ("source", "file", "path", "image", "url", "uri", "filename")

_MAX_LINE = 2**20
_BLOCK = 64 * 2**10
_ROWS = 8192
_TOO_LONG = "a line of more than 1 MiB"


@dataclass(frozen=True, slots=True)
class Entry:
    """A name, or where one should be and why there is none."""

    name: str
    problem: str | None = None


def read_list(name: str, stream: BinaryIO, column: str | None) -> Iterator[Entry]:
    """The names in a list whose kind its own name tells; lines of text without a suffix that says otherwise.

    Raises:
        MalformedInputError: It has no column of this name, or none of those in :data:`COLUMNS`.
        MissingDependencyError: A Parquet file needs pyarrow.
        OSError, ValueError: It is damaged; names before the damage have been given.
    """
    suffix = os.path.splitext(name)[1].lower()
    if suffix in (".csv", ".tsv"):
        return _of_table(name, stream, column, delimiter="," if suffix == ".csv" else "\t")
    if suffix == ".parquet":
        return _of_parquet(name, stream, column)
    return _of_json_lines(name, stream, column) if suffix == ".jsonl" else _of_lines(name, stream)


def _of_lines(name: str, stream: BinaryIO) -> Iterator[Entry]:
    first = stream.read(_BLOCK)
    if b"\0" in first:
        for number, line in _split(first, stream, b"\0"):
            if line is None or line:
                yield _entry(name, f"name {number}", line)
        return
    for number, line in _split(first.removeprefix(b"\xef\xbb\xbf"), stream, b"\n"):
        line = line and line.removesuffix(b"\r")
        if line is None or (line.strip() and not line.startswith(b"#")):
            yield _entry(name, f"line {number}", line)


def _of_json_lines(name: str, stream: BinaryIO, column: str | None) -> Iterator[Entry]:
    for number, line in _split(b"", stream, b"\n"):
        if line is None:
            yield _bad(name, f"line {number}", _TOO_LONG)
        elif line.strip():
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield _bad(name, f"line {number}", f"no JSON: {error}")
                continue
            if not isinstance(fields, dict):
                yield _bad(name, f"line {number}", "no JSON object")
                continue
            column = column or _chosen(name, list(fields), None)
            yield _cell(name, f"line {number}", fields.get(column), column)


def _of_table(name: str, stream: BinaryIO, column: str | None, *, delimiter: str) -> Iterator[Entry]:
    text = io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="")
    try:
        rows = csv.reader(_BoundedLines(text), delimiter=delimiter)
        header: list[str] | None = None
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield _bad(name, f"line {rows.line_num}", str(error))
                continue
            if header is None:
                header, index = row, row.index(_chosen(name, row, column))
            elif row:
                value = row[index] if index < len(row) else None
                yield _cell(name, f"line {rows.line_num}", value, header[index])
    finally:
        text.detach()


def _of_parquet(name: str, stream: BinaryIO, column: str | None) -> Iterator[Entry]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("Parquet files need pyarrow: pip install 'dulian[parquet]'") from error
    try:
        # In buffers of this size, not a whole column of a row group at once.
        file = pyarrow.parquet.ParquetFile(stream, buffer_size=_MAX_LINE, pre_buffer=False)
        chosen = _chosen(name, file.schema_arrow.names, column)
        batches = file.iter_batches(batch_size=_ROWS, columns=[chosen], use_threads=False)
        values = (value for batch in batches for value in batch.column(0).to_pylist())
        for row, value in enumerate(values, 1):
            yield _cell(name, f"row {row}", value, chosen)
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error


def _chosen(name: str, columns: Sequence[str], wanted: str | None) -> str:
    if wanted is not None:
        if wanted in columns:
            return wanted
        problem = f"has no column {wanted!r}"
    else:
        known = {column.strip().lower(): column for column in reversed(columns)}
        found = next((known[column] for column in COLUMNS if column in known), None)
        if found is not None:
            return found
        problem = "has no column of a name that is known to hold pictures; name it with --column"
    has = ", ".join(map(printable, columns)) or "none"
    raise MalformedInputError(f"{printable(name)} {problem}; it has: {has}")


def _cell(name: str, where: str, value: Any, column: str) -> Entry:
    if value is None or value == "":
        return _bad(name, where, f"nothing in {column!r}")
    if not isinstance(value, str):
        return _bad(name, where, f"no text in {column!r}")
    return Entry(value)


def _entry(name: str, where: str, line: bytes | None) -> Entry:
    return _bad(name, where, _TOO_LONG) if line is None else Entry(line.decode(errors="surrogateescape"))


def _bad(name: str, where: str, problem: str) -> Entry:
    return Entry(f"{name}, {where}", problem)


def _split(first: bytes, stream: BinaryIO, separator: bytes) -> Iterator[tuple[int, bytes | None]]:
    """Pieces between separators with their numbers from 1; None for one that is too long, which is passed over."""
    number, rest, is_skipping = 1, first, False
    for block in _blocks(stream):
        *whole, rest = (rest + block).split(separator)
        for piece in whole:
            if not is_skipping:
                yield number, piece
            number, is_skipping = number + 1, False
        if len(rest) > _MAX_LINE:
            if not is_skipping:
                yield number, None
            rest, is_skipping = b"", True
    if rest and not is_skipping:
        yield number, rest


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    yield b""
    yield from iter(partial(stream.read, _BLOCK), b"")


class _BoundedLines:
    """Lines of text; one that is too long is passed over with an error, after which it goes on, as no generator can."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(_MAX_LINE)
        if not line:
            raise StopIteration
        if not _is_cut(line):
            return line
        while _is_cut(line):
            line = self._text.readline(_MAX_LINE)
        raise csv.Error(_TOO_LONG)


def _is_cut(line: str) -> bool:
    return len(line) == _MAX_LINE and not line.endswith("\n")
