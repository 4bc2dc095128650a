"""A file that is written before it has its name."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from dulian.errors import DestinationError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class PartFile(io.FileIO):
    """Says what has failed to whoever writes; may be closed by them, as many do with what they write to."""

    def __init__(self, descriptor: int, doing: str) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.given_up = False
        self._doing = doing

    def write(self, data: ReadableBuffer, /) -> int:
        if self.given_up:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            raise DestinationError(f"{self._doing}: {error.strerror}") from error
