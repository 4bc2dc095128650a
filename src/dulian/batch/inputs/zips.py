"""Members of zip archives: listed one by one from the directory at the end, read from where each of them begins.

:class:`zipfile.ZipFile` keeps the whole directory in memory, in every process that reads one member. Here it is passed
through once, and a member needs nothing but its place, its size and its checksum.
"""

from __future__ import annotations

import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from struct import Struct
from zipfile import BadZipFile

from dulian.batch.inputs.folders import LINK
from dulian.batch.inputs.members import Member

# APPNOTE.TXT 6.3.10 of PKWARE, sections 4.3.7, 4.3.12, 4.3.14 to 4.3.16 and 4.5.3.
_LOCAL = Struct("<4s5H3L2H")
_ENTRY = Struct("<4s6H3L5H2L")
_END = Struct("<4s4H2LH")
_LOCATOR_64 = Struct("<4sLQL")
_END_64 = Struct("<4sQ2H2L4Q")
_EXTRA = Struct("<2H")
_LONG = Struct("<Q")

_MAX_COMMENT = 0xFFFF
_SEE_64, _SEE_64_SHORT = 0xFFFFFFFF, 0xFFFF
_EXTRA_64 = 1
_ENCRYPTED, _UTF8 = 0x1, 0x800
_STORED, _DEFLATED = 0, 8
_UNIX = 3
_BLOCK = 64 * 2**10


@dataclass(frozen=True, slots=True)
class _Directory:
    start: int
    size: int
    shift: int
    """How much later everything lies than the directory says, because something stands before the archive."""


def zip_members(stream: BufferedReader) -> Iterator[Member]:
    """All files of an archive, in the order of its directory.

    Raises:
        BadZipFile: It has no directory, or that is damaged; members before the damage have been given.
    """
    directory = _find_directory(stream)
    stream.seek(directory.start)
    left = directory.size
    while left >= _ENTRY.size:
        fields = _ENTRY.unpack(_exactly(stream, _ENTRY.size))
        if fields[0] != b"PK\x01\x02":
            raise BadZipFile("its directory is damaged")
        name, extra, _ = (_exactly(stream, length) for length in fields[10:13])
        left -= _ENTRY.size + sum(fields[10:13])
        member = _member(fields, name, extra, directory.shift)
        if not member.name.endswith("/"):
            yield member
    if left:
        raise BadZipFile("its directory is damaged")


def read_zip_member(stream: BufferedReader, member: Member) -> bytes:
    """The bytes of a member of known size.

    Raises:
        BadZipFile: They are not what the directory says.
    """
    stream.seek(member.offset)
    fields = _LOCAL.unpack(_exactly(stream, _LOCAL.size))
    if fields[0] != b"PK\x03\x04" or fields[2] & _ENCRYPTED:
        raise BadZipFile("there is no readable member where the directory says")
    _exactly(stream, fields[9] + fields[10])
    method = fields[3]
    if method not in (_STORED, _DEFLATED):
        raise BadZipFile(_unknown(method))
    data = _exactly(stream, member.size) if method == _STORED else _inflate(stream, member.size)
    if f"{zlib.crc32(data):08x}" != member.version:
        raise BadZipFile("its checksum is wrong")
    return data


def _find_directory(stream: BufferedReader) -> _Directory:
    length = stream.seek(0, 2)
    begin = max(0, length - _END.size - _MAX_COMMENT)
    stream.seek(begin)
    tail = stream.read(length - begin)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise BadZipFile("no zip archive, or its end is missing")
    end = begin + at
    _, disk, _, _, count, size, start, _ = _END.unpack_from(tail, at)
    if disk not in (0, _SEE_64_SHORT):
        raise BadZipFile("one of several volumes")
    if _SEE_64 in (size, start) or count == _SEE_64_SHORT:
        wide = _find_directory_64(stream, end)
        end, size, start = (end, size, start) if wide is None else wide
    shift = end - size - start
    if shift < 0:
        raise BadZipFile("its beginning is missing")
    return _Directory(start + shift, size, shift)


def _find_directory_64(stream: BufferedReader, end: int) -> tuple[int, int, int] | None:
    """Where the wide form of the end stands, and the size and the start of the directory as it says."""
    if end < _LOCATOR_64.size + _END_64.size:
        return None
    stream.seek(end - _LOCATOR_64.size)
    if _LOCATOR_64.unpack(_exactly(stream, _LOCATOR_64.size))[0] != b"PK\x06\x07":
        return None
    wide = end - _LOCATOR_64.size - _END_64.size
    stream.seek(wide)
    fields = _END_64.unpack(_exactly(stream, _END_64.size))
    if fields[0] != b"PK\x06\x06":
        raise BadZipFile("its end is damaged")
    return wide, fields[8], fields[9]


def _member(fields: tuple[int, ...], name: bytes, extra: bytes, shift: int) -> Member:
    _, made_by, _, flags, method, _, _, checksum, packed, size, *_, attributes, offset = fields
    size, offset = _wide_fields(extra, packed=packed, size=size, offset=offset)
    return Member(
        name=_decoded(name, is_utf8=bool(flags & _UTF8)),
        size=size,
        offset=offset + shift,
        version=f"{checksum:08x}",
        problem=_problem(flags, method, mode=attributes >> 16 if made_by >> 8 == _UNIX else 0),
    )


def _problem(flags: int, method: int, *, mode: int) -> str | None:
    if stat.S_ISLNK(mode):
        return LINK
    if flags & _ENCRYPTED:
        return "it is encrypted"
    return None if method in (_STORED, _DEFLATED) else _unknown(method)


def _unknown(method: int) -> str:
    return f"it is compressed by method {method}; only 0 (stored) and 8 (deflate) are accepted"


def _wide_fields(extra: bytes, *, packed: int, size: int, offset: int) -> tuple[int, int]:
    """Size and offset, from the extra field with 64 bits where they have no room in 32."""
    at = 0
    while at + _EXTRA.size <= len(extra):
        kind, length = _EXTRA.unpack_from(extra, at)
        at += _EXTRA.size
        if kind == _EXTRA_64:
            values = [_LONG.unpack_from(extra, place)[0] for place in range(at, min(at + length, len(extra)) - 7, 8)]
            wide = [values.pop(0) if field == _SEE_64 and values else field for field in (size, packed, offset)]
            return wide[0], wide[2]
        at += length
    return size, offset


def _decoded(name: bytes, *, is_utf8: bool) -> str:
    """A name as text. Some packers write UTF-8 without saying so; the format's own alphabet is that of MS-DOS."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode(errors="surrogateescape") if is_utf8 else name.decode("cp437")


def _inflate(stream: BufferedReader, size: int) -> bytes:
    """What is unpacked, never more than is expected and one byte."""
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    pieces: list[bytes] = []
    left = size + 1
    while left and not unpacker.eof:
        packed = unpacker.unconsumed_tail or stream.read1(_BLOCK)
        if not packed:
            raise BadZipFile("the archive ends within it")
        pieces.append(unpacker.decompress(packed, left))
        left -= len(pieces[-1])
    if left != 1:
        raise BadZipFile("it has another size than the directory says")
    return b"".join(pieces)


def _exactly(stream: BufferedReader, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise BadZipFile("the archive is cut")
    return data
