"""A list of names alone, for a run over some inputs of another one; a list file as ``inputs`` reads it."""

from __future__ import annotations

import shutil
import tempfile
from typing import BinaryIO

from dulian.batch.job import Job
from dulian.batch.records import Input, Record
from dulian.batch.writers import Form

_MEMORY_BYTES = 8 * 2**20
_BLOCK = 2**20


class NamesWriter:
    """``.txt``: a name a line, or, if any name holds a line's end, all of them ended by NUL instead.

    Names are what was opened, also where that is no text and the record's ``source`` shows it with escapes. Which of
    the two forms it is becomes clear with the last name, so they wait in a temporary file.
    """

    def __init__(self, stream: BinaryIO, job: Job, form: Form) -> None:
        self._stream = stream
        self._waiting = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES)  # noqa: SIM115 closed below
        self._by_lines = True

    def write(self, record: Record, source: Input) -> None:
        name = source.location
        # A reader of lists takes these for comments, and drops blanks at the ends.
        if name.startswith("#"):
            name = f"./{name}"
        if name != name.strip() or len(name.splitlines()) > 1:
            self._by_lines = False
        self._waiting.write(name.encode(errors="surrogateescape") + b"\0")

    def close(self) -> None:
        with self._waiting as waiting:
            waiting.seek(0)
            if not self._by_lines:
                shutil.copyfileobj(waiting, self._stream)
            while block := waiting.read(_BLOCK):
                self._stream.write(block.replace(b"\0", b"\n"))

    def abandon(self) -> None:
        self._waiting.close()
