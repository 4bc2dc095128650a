"""Pictures in archives: each is listed as ``ARCHIVE::MEMBER`` and read from its place, never unpacked to disk."""

from __future__ import annotations

import lzma
import tarfile
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import closing
from io import BufferedReader

from dulian.batch.inputs.folders import SPECIAL, Tally
from dulian.batch.inputs.members import Member
from dulian.batch.inputs.names import (
    MEMBER,
    ZIP_SUFFIXES,
    Place,
    is_hidden,
    is_picture,
    member_input,
    place_of,
    refused_input,
    refused_member,
)
from dulian.batch.inputs.tars import Unpacked, compression_of, read_tar_member, tar_members
from dulian.batch.inputs.zips import read_zip_member, zip_members
from dulian.batch.records import Input
from dulian.errors import InputNotFoundError, InputTooLargeError
from dulian.sources import printable

# What damaged and hostile archives make of the libraries that read them.
DAMAGE = (
    *(OSError, EOFError, ValueError, OverflowError, RecursionError),
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)

_BUFFER = 2**20
# More than what stands before a member's data in a zip archive, as a rule, and than what does not shrink grows by.
_HEADER, _GROWTH = 2**10, 2**10
_KEPT_INDEXES = 4
_KEPT_STREAMS = 2


def list_archive(name: str, open_archive: Callable[[], BufferedReader], tally: Tally) -> Iterator[Input]:
    """The pictures of an archive; and the archive itself, as refused, if it is damaged or unpacks too far."""
    if place_of(f"{name}{MEMBER}x").member != "x":
        yield refused_input(name, f"its name has another {MEMBER} in it; rename it")
        return
    try:
        with closing(open_archive()) as stream:
            for member in _members(name, stream):
                if not is_hidden(member.name):
                    yield from _listed(name, member, tally)
    except DAMAGE as error:
        yield refused_input(name, str(error))
    except InputNotFoundError as error:
        yield refused_input(name, str(error).removeprefix(f"cannot read {printable(name)}: "))


class ArchiveReader:
    """Reads members, from any number of threads.

    Whatever has an offset is read from there. Members without one, out of lists, are looked for in an index of their
    archive that is made once. Streams of compressed archives are kept open. ``open_archive`` opens any archive, and
    is told how many bytes are worth fetching at once.
    """

    def __init__(self, open_archive: Callable[[Place, int], BufferedReader]) -> None:
        self._open = open_archive
        self._lock = threading.Lock()
        self._indexes: OrderedDict[str, dict[str, Member]] = OrderedDict()
        self._streams: OrderedDict[str, Unpacked] = OrderedDict()

    def read(self, place: Place, wanted: Input, max_bytes: int) -> bytes:
        """The bytes of a member.

        Raises:
            InputNotFoundError: There is no such member, or it cannot be read.
            InputTooLargeError: It is larger than is accepted.
            InputUnavailableError: A store did not give the archive.
        """
        try:
            member = self._find(place, wanted)
            if member.problem is not None:
                raise InputNotFoundError(f"cannot read {printable(wanted.source)}: {member.problem}")
            if member.size > max_bytes:
                raise InputTooLargeError(f"more than {max_bytes:,} bytes are not accepted")
            return self._read_member(place, member)
        except DAMAGE as error:
            raise InputNotFoundError(f"cannot read {printable(wanted.source)}: {error}") from error

    def close(self) -> None:
        """Let go of what is open."""
        with self._lock:
            while self._streams:
                self._streams.popitem()[1].close()

    def _find(self, place: Place, wanted: Input) -> Member:
        name = place.member or ""
        if wanted.offset is not None and wanted.size is not None and wanted.version is not None:
            return Member(name=name, size=wanted.size, offset=wanted.offset, version=wanted.version)
        with self._lock:
            index = self._indexes.get(place.address)
            if index is None:
                index = self._indexes[place.address] = self._index(place)
            self._indexes.move_to_end(place.address)
            while len(self._indexes) > _KEPT_INDEXES:
                self._indexes.popitem(last=False)
        if name not in index:
            raise InputNotFoundError(f"cannot read {printable(wanted.source)}: the archive has no such member")
        return index[name]

    def _index(self, place: Place) -> dict[str, Member]:
        """All members, as far as the archive can be listed; of several with one name the last, as unpackers do."""
        index: dict[str, Member] = {}
        with closing(self._open(place, _BUFFER)) as stream:
            try:
                index.update((member.name, member) for member in _members(place.path, stream))
            except DAMAGE:
                if not index:
                    raise
        return index

    def _read_member(self, place: Place, member: Member) -> bytes:
        compression = compression_of(place.path)
        if compression is not None:
            return self._read_packed(place, compression, member)
        with closing(self._open(place, member.size + member.size // _GROWTH + _HEADER)) as stream:
            is_zip = place.path.lower().endswith(ZIP_SUFFIXES)
            return read_zip_member(stream, member) if is_zip else read_tar_member(stream, member)

    def _read_packed(self, place: Place, compression: str, member: Member) -> bytes:
        with self._lock:
            stream = self._stream(place, compression)
            try:
                return read_tar_member(stream, member)
            except DAMAGE:
                # It may stand anywhere now.
                self._streams.pop(place.address).close()
                raise

    def _stream(self, place: Place, compression: str) -> Unpacked:
        if place.address not in self._streams:
            self._streams[place.address] = Unpacked(self._open(place, _BUFFER), compression)
        self._streams.move_to_end(place.address)
        while len(self._streams) > _KEPT_STREAMS:
            self._streams.popitem(last=False)[1].close()
        return self._streams[place.address]


def _members(name: str, stream: BufferedReader) -> Iterator[Member]:
    if name.lower().endswith(ZIP_SUFFIXES):
        return zip_members(stream)
    compression = compression_of(name)
    return tar_members(stream if compression is None else Unpacked(stream, compression))


def _listed(archive: str, member: Member, tally: Tally) -> Iterator[Input]:
    if member.problem != SPECIAL and not is_picture(member.name):
        tally.left_alone += 1
    elif member.problem is not None:
        yield refused_member(archive, member.name, member.problem)
    else:
        yield member_input(archive, member.name, size=member.size, version=member.version, offset=member.offset)
