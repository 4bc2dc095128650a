"""PNG by its chunks: size, transparency, orientation, profile, and whether the file is whole. W3C PNG 3."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

from dulian.errors import ImageDecodeError, ImageTruncatedError
from dulian.formats.header import MAX_BLOCKS, Buffer, Header, inflate, orientation_of

_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_DEFLATED = frozenset({b"iCCP", b"zTXt", b"iTXt"})


@dataclass(slots=True)
class _Walk:
    """What one pass over the chunks gathers."""

    data: bytes
    metadata_left: int
    parts: list[Buffer] = field(default_factory=list)
    header: tuple[int, int, int, int, int] | None = None
    orientation: int = 1
    profile: bytes | None = None
    transparency: bytes | None = None


def read(data: bytes, max_metadata_bytes: int) -> Header:
    """Walk from the signature to IEND; the frames of an animated PNG are left out, its still picture stays.

    Raises:
        ImageTruncatedError: no IEND, or a chunk that reaches beyond the file.
        ImageDecodeError: a wrong checksum of a chunk that makes pixels, or metadata that inflates without end.
    """
    walk = _Walk(data, max_metadata_bytes, parts=[data[:8]])
    position = 8
    for _ in range(MAX_BLOCKS):
        length, kind = struct.unpack_from(">I4s", data, position)
        start, end = position + 8, position + 8 + length
        if end + 4 > len(data):
            raise ImageTruncatedError("the PNG ends inside a chunk")
        if kind in _PIXEL_CHUNKS:
            _take_pixels(walk, kind, start, end)
        else:
            _take_metadata(walk, kind, start, end)
        if kind == b"IEND":
            return _header(walk)
        position = end + 4
    raise ImageDecodeError(f"the PNG has more than {MAX_BLOCKS} chunks")


def _take_pixels(walk: _Walk, kind: bytes, start: int, end: int) -> None:
    view = memoryview(walk.data)
    if zlib.crc32(view[start - 4 : end]) != struct.unpack_from(">I", walk.data, end)[0]:
        raise ImageDecodeError(f"the PNG has a wrong checksum in its {kind.decode()} chunk")
    if (kind == b"IHDR") != (walk.header is None):
        raise ImageDecodeError("the PNG does not start with its one header")
    if kind == b"IHDR":
        width, height, depth, colour, _, _, interlace = struct.unpack_from(">IIBBBBB", walk.data, start)
        walk.header = width, height, depth, colour, interlace
    elif kind == b"tRNS":
        walk.transparency = walk.data[start:end]
    walk.parts.append(view[start - 8 : end + 4])


def _take_metadata(walk: _Walk, kind: bytes, start: int, end: int) -> None:
    """Read orientation and profile within the budget; text is only measured, to refuse what inflates without end."""
    if kind in _DEFLATED:
        plain = inflate(_deflated_part(kind, walk.data[start:end]), max(walk.metadata_left, 0))
        if plain is None:
            raise ImageDecodeError(f"the PNG's {kind.decode()} metadata inflates to more than is accepted")
        walk.metadata_left -= len(plain)
        if kind == b"iCCP":
            walk.profile = plain or None
    elif kind == b"eXIf" and end - start <= walk.metadata_left:
        walk.metadata_left -= end - start
        walk.orientation = orientation_of(walk.data[start:end])


def _deflated_part(kind: bytes, payload: bytes) -> bytes:
    """The zlib stream behind the keyword, a method byte and, in iTXt, a flag and two more strings."""
    rest = payload.partition(b"\0")[2]
    if kind != b"iTXt":
        return rest[1:]
    return rest[2:].partition(b"\0")[2].partition(b"\0")[2] if rest[:1] == b"\x01" else b""


def _header(walk: _Walk) -> Header:
    if walk.header is None:
        raise ImageDecodeError("the PNG has no header")
    width, height, depth, colour, interlace = walk.header
    if not width or not height:
        raise ImageDecodeError("the PNG states a size of nothing")
    key = None
    if colour == 0 and walk.transparency is not None and len(walk.transparency) >= 2 and depth in (1, 2, 4, 8, 16):
        (key,) = struct.unpack_from(">H", walk.transparency)
        key = key if depth == 16 else (key & ((1 << depth) - 1)) * 255 // ((1 << depth) - 1)
    alpha = colour in (4, 6) or walk.transparency is not None
    return Header(
        "png",
        width,
        height,
        tuple(walk.parts),
        orientation=walk.orientation,
        profile=walk.profile,
        heavy=interlace != 0 or alpha,
        alpha=alpha,
        grey_key=key,
    )
