"""Members of tar archives, and a compressed archive as a stream that can be read from any place, best going forward."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol, cast

from dulian.batch.inputs.folders import LINK, SPECIAL
from dulian.batch.inputs.members import Member

# What a compressed archive may unpack to. Pictures hardly shrink: whatever grows like that is made to fill memory.
MIN_UNPACKED_BYTES = 2**30
MAX_GROWTH = 100
# How far a stream can be read backwards without beginning again: several threads are never quite in order.
WINDOW_BYTES = 32 * 2**20

_MAX_HEADER_BYTES = 2**20
_BLOCK = 256 * 2**10
_OPENERS: dict[str, Callable[[BinaryIO], object]] = {
    "gz": lambda stream: gzip.GzipFile(fileobj=stream),
    "bz2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}
_COMPRESSIONS = {".gz": "gz", ".tgz": "gz", ".bz2": "bz2", ".tbz2": "bz2", ".xz": "xz", ".txz": "xz"}


class Seekable(Protocol):
    """What members are read from."""

    def read(self, size: int, /) -> bytes: ...
    def seek(self, position: int, /) -> int: ...
    def tell(self) -> int: ...


def compression_of(name: str) -> str | None:
    """How an archive of this name is compressed."""
    lower = name.lower()
    return next((kind for suffix, kind in _COMPRESSIONS.items() if lower.endswith(suffix)), None)


class Unpacked:
    """What a compressed archive holds, as a stream. It goes forward; to go far back is to begin again.

    Raises:
        ReadError: On reading, where it unpacks to more than is accepted.
    """

    def __init__(self, packed: BinaryIO, compression: str) -> None:
        self._packed, self._compression = packed, compression
        self._limit = max(MIN_UNPACKED_BYTES, MAX_GROWTH * packed.seek(0, 2))
        self._begin()

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, /) -> int:
        if position < self._end - len(self._window):
            self._begin()
        self._position = position
        return position

    def read(self, size: int, /) -> bytes:
        # In two steps, so that no more than the window is ever kept of what is passed over.
        while self._end < self._position and self._advance():
            pass
        pieces = []
        while size > 0 and (self._position < self._end or self._advance()):
            at = len(self._window) - (self._end - self._position)
            pieces.append(bytes(self._window[at : at + size]))
            self._position += len(pieces[-1])
            size -= len(pieces[-1])
        return b"".join(pieces)

    def close(self) -> None:
        self._packed.close()

    def _begin(self) -> None:
        self._packed.seek(0)
        self._stream = cast(io.BufferedIOBase, _OPENERS[self._compression](self._packed))
        self._window = bytearray()
        self._position = self._end = 0

    def _advance(self) -> bool:
        """Unpack one more block; False at the end."""
        block = self._stream.read1(_BLOCK)
        self._end += len(block)
        if self._end > self._limit:
            raise tarfile.ReadError(f"it unpacks to more than {self._limit:,} bytes")
        self._window += block
        if len(self._window) > WINDOW_BYTES:
            del self._window[:-WINDOW_BYTES]
        return bool(block)


class _Headers:
    """A stream that :mod:`tarfile` reads headers from; one that claims to be huge, or less than nothing, is refused."""

    def __init__(self, stream: Seekable) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._stream.read(size)


def tar_members(stream: Seekable) -> Iterator[Member]:
    """All files of an archive, in order.

    Raises:
        TarError: It is damaged; members before the damage have been given.
    """
    headers = cast(BinaryIO, _Headers(stream))
    archive = tarfile.TarFile(fileobj=headers, mode="r", encoding="utf-8", errors="surrogateescape")
    behind = 0
    while (info := archive.next()) is not None:
        if info.offset_data <= behind or info.size < 0:
            raise tarfile.ReadError("a member that ends before it begins")
        behind = info.offset_data
        # Otherwise all members ever seen would stay in memory.
        archive.members.clear()  # type: ignore[attr-defined]
        if not info.isdir():
            yield Member(
                name=info.name,
                size=info.size,
                offset=info.offset_data,
                version=str(int(info.mtime)),
                problem=_problem(info),
            )
    _check_end(stream, archive.offset)


def read_tar_member(stream: Seekable, member: Member) -> bytes:
    """The bytes of a member.

    Raises:
        ReadError: The archive ends before.
    """
    stream.seek(member.offset)
    data = stream.read(member.size)
    if len(data) < member.size:
        raise tarfile.ReadError("the archive ends within it")
    return data


def _problem(info: tarfile.TarInfo) -> str | None:
    if info.issym() or info.islnk():
        return LINK
    if info.issparse():
        return "it is stored with gaps"
    return None if info.isreg() else SPECIAL


def _check_end(stream: Seekable, offset: int) -> None:
    """Find the empty block that ends an archive; :mod:`tarfile` takes any damaged header for the end."""
    stream.seek(offset)
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("its end is missing")
    if block.strip(b"\0"):
        raise tarfile.ReadError("a header is damaged")
