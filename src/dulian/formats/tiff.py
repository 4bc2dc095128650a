"""TIFF by its first directory: size, orientation, profile, and whether the pixel data is all there. TIFF 6.0."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dulian.errors import ImageDecodeError, ImageTruncatedError
from dulian.formats.header import Header

_MAX_ENTRIES = 1000
_MAX_STRIPS = 100_000
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I"}

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _STRIP_BYTES, _PLANAR = 273, 274, 277, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES, _PROFILE = 322, 323, 324, 325, 34675
_KEPT = frozenset(
    {_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, 266, _STRIP_OFFSETS, _SAMPLES, 278, _STRIP_BYTES, _PLANAR}
    | {
        292,
        293,
        317,
        320,
        _TILE_WIDTH,
        _TILE_HEIGHT,
        _TILE_OFFSETS,
        _TILE_BYTES,
        332,
        338,
        339,
        347,
        529,
        530,
        531,
        532,
    }
)
_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946})
_MAX_TILE_SIDE = 16_384
_MAX_TILE_PIXELS = 2**24


@dataclass(frozen=True, slots=True)
class _Entry:
    """One tag: its twelve bytes, its type and count, and where its value lies in the file."""

    raw: bytes
    kind: int
    count: int
    start: int
    end: int


def read(data: bytes, max_metadata_bytes: int) -> Header:
    """Read the first directory and write one with the tags that make pixels behind the file.

    So a decoder never walks other pages, nor a directory whose tags each claim the whole file.

    Raises:
        ImageTruncatedError: the directory, a tag, a strip or a tile reaches beyond the file.
        ImageDecodeError: an impossible header, or a coding that is not supported.
    """
    order = "<" if data[:2] == b"II" else ">"
    tags = _read_directory(data, order)
    width, height = _number(data, order, tags, _WIDTH), _number(data, order, tags, _HEIGHT)
    if not width or not height:
        raise ImageDecodeError("the TIFF states a size of nothing")
    if _number(data, order, tags, _COMPRESSION, 1) not in _COMPRESSIONS:
        raise ImageDecodeError("the TIFF's compression is not supported")
    _check_tiles(data, order, tags)
    _check_extents(data, order, tags, width * height)
    profile = tags.get(_PROFILE)
    small = profile is not None and profile.end - profile.start <= max_metadata_bytes
    orientation = _number(data, order, tags, _ORIENTATION, 1)
    view = memoryview(data)
    kept = b"".join(tags[tag].raw for tag in sorted(tags) if tag in _KEPT)
    directory = struct.pack(order + "H", len(kept) // 12) + kept + b"\0\0\0\0"
    padding = bytes(len(data) & 1)
    return Header(
        "tiff",
        width,
        height,
        (data[:4], struct.pack(order + "I", len(data) + len(padding)), view[8:], padding, directory),
        decoder="pillow",
        orientation=orientation if 1 <= orientation <= 8 else 1,
        white_is_zero=_number(data, order, tags, _PHOTOMETRIC, 1) == 0,
        profile=data[profile.start : profile.end] if profile and small else None,
    )


def _read_directory(data: bytes, order: str) -> dict[int, _Entry]:
    (offset,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, offset)
    if not 0 < count <= _MAX_ENTRIES:
        raise ImageDecodeError(f"the TIFF has a directory of {count} tags")
    tags: dict[int, _Entry] = {}
    for position in range(offset + 2, offset + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, position)
        length = _TYPE_BYTES.get(kind, 0) * number
        start = position + 8 if length <= 4 else struct.unpack_from(order + "I", data, position + 8)[0]
        raw = data[position : position + 12]
        if len(raw) < 12 or (tag in _KEPT and start + length > len(data)):
            raise ImageTruncatedError("the TIFF ends inside its directory")
        tags.setdefault(tag, _Entry(raw, kind, number, start, min(start + length, len(data))))
    return tags


def _numbers(data: bytes, order: str, tags: dict[int, _Entry], tag: int) -> tuple[int, ...]:
    entry = tags.get(tag)
    if entry is None:
        return ()
    if entry.kind not in _INTEGERS or entry.count > _MAX_STRIPS:
        raise ImageDecodeError(f"the TIFF's tag {tag} has an impossible type or length")
    return struct.unpack_from(f"{order}{entry.count}{_INTEGERS[entry.kind]}", data, entry.start)


def _number(data: bytes, order: str, tags: dict[int, _Entry], tag: int, default: int = 0) -> int:
    numbers = _numbers(data, order, tags, tag)
    return numbers[0] if numbers else default


def _check_tiles(data: bytes, order: str, tags: dict[int, _Entry]) -> None:
    """A decoder allocates whole tiles, however small the picture is."""
    if _TILE_WIDTH not in tags and _TILE_HEIGHT not in tags:
        return
    width, height = _number(data, order, tags, _TILE_WIDTH), _number(data, order, tags, _TILE_HEIGHT)
    if not (0 < width <= _MAX_TILE_SIDE and 0 < height <= _MAX_TILE_SIDE and width * height <= _MAX_TILE_PIXELS):
        raise ImageDecodeError(f"the TIFF has tiles of {width} x {height} pixels")


def _check_extents(data: bytes, order: str, tags: dict[int, _Entry], pixels: int) -> None:
    """Every strip or tile lies inside the file, and uncompressed ones hold the picture."""
    offsets = _numbers(data, order, tags, _STRIP_OFFSETS) or _numbers(data, order, tags, _TILE_OFFSETS)
    lengths = _numbers(data, order, tags, _STRIP_BYTES) or _numbers(data, order, tags, _TILE_BYTES)
    if not offsets or len(offsets) != len(lengths):
        raise ImageDecodeError("the TIFF does not say where its picture is")
    if any(start + length > len(data) for start, length in zip(offsets, lengths, strict=True)):
        raise ImageTruncatedError("the TIFF ends before its picture does")
    bits = sum(_numbers(data, order, tags, _BITS)) or 1
    subsampled = _number(data, order, tags, _PHOTOMETRIC) == 6
    if _number(data, order, tags, _COMPRESSION, 1) == 1 and not subsampled and sum(lengths) * 8 < pixels * bits:
        raise ImageTruncatedError("the TIFF holds less picture than its header claims")
