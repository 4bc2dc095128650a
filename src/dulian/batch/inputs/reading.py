"""From inputs to bytes: bounded, from wherever they lie, following no link."""

from __future__ import annotations

import os
from io import BufferedReader
from pathlib import Path

from dulian.batch.inputs.archives import ArchiveReader
from dulian.batch.inputs.names import Place, place_of
from dulian.batch.inputs.stores import Stores
from dulian.batch.records import Input
from dulian.errors import InputNotFoundError, InputTooLargeError
from dulian.sources import open_file, read_file


class SourceReader:
    """Opens inputs; made in the process that reads, used by any number of its threads."""

    def __init__(self, *, base: str, max_bytes: int) -> None:
        self._base, self._max_bytes = base, max_bytes
        self._stores = Stores()
        self._archives = ArchiveReader(self._open)

    def read(self, wanted: Input) -> bytes:
        """The bytes of an input.

        Raises:
            InputNotFoundError: It is not there (any more), no regular file, a link, or may not be read.
            InputTooLargeError: It is larger than is accepted.
            InputUnavailableError: A store failed to give it, after several tries.
        """
        if wanted.problem is not None:
            raise InputNotFoundError(wanted.problem[1])
        place = place_of(wanted.location)
        if place.member is not None:
            return self._archives.read(place, wanted, self._max_bytes)
        if place.scheme is None:
            return read_file(self._path(place), max_bytes=self._max_bytes, follow_links=False)
        if wanted.size is not None and wanted.size > self._max_bytes:
            raise InputTooLargeError(f"more than {self._max_bytes:,} bytes are not accepted")
        return self._stores.of(place).read(place, wanted.size, self._max_bytes)

    def close(self) -> None:
        """Let go of what is open."""
        self._archives.close()
        self._stores.close()

    def _open(self, place: Place, buffer: int) -> BufferedReader:
        if place.scheme is None:
            return open_file(self._path(place), follow_links=False)
        return self._stores.of(place).stream(place, buffer=buffer)

    def _path(self, place: Place) -> Path:
        return Path(os.path.join(self._base, place.path))
