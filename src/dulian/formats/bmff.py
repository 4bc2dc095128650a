"""AVIF and HEIC by their boxes: size, and whether the pictures are all there. ISO/IEC 14496-12 and 23008-12.

The size that an AV1 stream itself states, in its sequence headers, is read too. AV1 specification, 5.5.1.
Orientation (``irot``, ``imir``) is left to their decoders; EXIF orientation does not count in these formats.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from dulian.errors import ImageDecodeError, ImageTruncatedError
from dulian.formats.header import MAX_BLOCKS, Buffer, Header

AVIF_BRANDS = frozenset({b"avif", b"avis"})
HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_STILL_BRANDS = {b"avis": b"avif", b"hevc": b"heic", b"hevx": b"heix", b"msf1": b"mif1"}
_MAX_META_BYTES = 2**22
_SEQUENCE_HEADER = 1


@dataclass(slots=True)
class _Meta:
    """The picture items: (width, height) of every ``ispe``, extents by item, and the ids of AV1-coded items."""

    sizes: list[tuple[int, int]] = field(default_factory=list)
    extents: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    coded: set[int] = field(default_factory=set)
    in_meta: set[int] = field(default_factory=set)
    extents_left: int = MAX_BLOCKS


def brands(data: bytes) -> frozenset[bytes]:
    """Major and compatible brands of the leading ``ftyp`` box; empty when there is none."""
    if data[4:8] != b"ftyp":
        return frozenset()
    size = min(struct.unpack_from(">I", data)[0], 4096)
    return frozenset({data[8:12], *(data[i : i + 4] for i in range(16, size, 4))}) - {b""}


def read_avif(data: bytes, max_metadata_bytes: int) -> Header:
    """Read the boxes; an image sequence is shown as its still picture.

    The AV1 sequence headers are read too: the decoder allocates by them before it compares them with the boxes.

    Raises:
        ImageTruncatedError: a box or an item reaches beyond the file.
        ImageDecodeError: no picture.
    """
    meta, parts = _walk(data)
    sizes = list(meta.sizes)
    for extents in {tuple(meta.extents.get(item, [])) for item in meta.coded - meta.in_meta}:
        sizes += sequence_sizes(b"".join(data[start : start + length] for start, length in extents))
    width, height = _largest(sizes)
    return Header("avif", width, height, parts, decoder="pillow", heavy=True)


def read_heif(data: bytes, max_metadata_bytes: int) -> Header:
    """Read the boxes; libheif itself refuses a coded picture larger than the boxes state.

    Raises:
        ImageTruncatedError: a box or an item reaches beyond the file.
        ImageDecodeError: no picture.
    """
    meta, parts = _walk(data)
    width, height = _largest(meta.sizes)
    return Header("heif", width, height, parts, decoder="heif")


def _largest(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """The size of the item with most pixels: the whole picture, where others are thumbnails or tiles of it."""
    if not sizes:
        raise ImageDecodeError("the file holds no still picture")
    if min(min(size) for size in sizes) == 0:
        raise ImageDecodeError("the file states a size of nothing")
    return max(sizes, key=lambda size: (size[0] * size[1], size))


def _walk(data: bytes) -> tuple[_Meta, tuple[Buffer, ...]]:
    """Read ``meta``, and rename ``moov`` and the sequence brand so that no decoder follows a track."""
    meta = _Meta()
    view = memoryview(data)
    parts: list[Buffer] = []
    has_meta = False
    for kind, start, body, end in _boxes(data, 0, len(data)):
        if kind == b"moov":
            parts += [view[start : start + 4], b"free", view[start + 8 : end]]
        elif kind == b"ftyp":
            parts += [view[start:body], _still_brands(data[body:end])]
        else:
            parts.append(view[start:end])
        if kind == b"meta":
            if has_meta:
                raise ImageDecodeError("the file has more than one item table")
            has_meta = True
            _read_meta(data, body + 4, end, meta)
    _check_extents(meta, len(data))
    return meta, tuple(parts)


def _check_extents(meta: _Meta, file_bytes: int) -> None:
    """Every item lies inside the file, and all together are no more than it: who joins extents copies them.

    Items may share all of their extents, as an encoder that saw equal ones writes them.
    """
    items = set(map(tuple, meta.extents.values()))
    if any(start + length > file_bytes for item in items for start, length in item):
        raise ImageTruncatedError("the file ends before its picture does")
    if sum(length for item in items for _, length in item) > file_bytes:
        raise ImageDecodeError("the file's items overlap")


def _still_brands(payload: bytes) -> bytes:
    """The brands with those of sequences replaced by those of still pictures."""
    brands = [payload[i : i + 4] for i in range(0, len(payload), 4)]
    return b"".join(_STILL_BRANDS.get(brand, brand) for brand in brands)


def _boxes(data: bytes, position: int, limit: int) -> Iterator[tuple[bytes, int, int, int]]:
    """(type, start, start of the body, end) of each box between two offsets."""
    for _ in range(MAX_BLOCKS):
        if position == limit:
            return
        size, kind = struct.unpack_from(">I4s", data, position)
        body = position + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, body)
            body += 8
        end = limit if size == 0 else position + size
        if end < body:
            raise ImageDecodeError("the file has a box of impossible length")
        if end > limit:
            raise ImageTruncatedError("the file ends inside a box")
        yield kind, position, body, end
        position = end
    raise ImageDecodeError(f"the file has more than {MAX_BLOCKS} boxes")


def _read_meta(data: bytes, start: int, end: int, meta: _Meta) -> None:
    if end - start > _MAX_META_BYTES:
        raise ImageDecodeError("the file's item table is larger than is accepted")
    for kind, _, body, stop in _boxes(data, start, end):
        if kind == b"iprp":
            _read_properties(data, body, stop, meta)
        elif kind == b"iloc":
            _read_locations(data, body, meta)
        elif kind == b"iinf":
            _read_items(data, body, stop, meta)


def _read_properties(data: bytes, start: int, end: int, meta: _Meta) -> None:
    for kind, _, body, stop in _boxes(data, start, end):
        if kind == b"ipco":
            for name, _, inner, _ in _boxes(data, body, stop):
                if name == b"ispe":
                    meta.sizes.append(struct.unpack_from(">II", data, inner + 4))


def _read_items(data: bytes, start: int, end: int, meta: _Meta) -> None:
    wide = data[start] != 0
    for kind, _, body, _ in _boxes(data, start + (8 if wide else 6), end):
        if kind == b"infe":
            item, name = (
                struct.unpack_from(">IxxH4s", data, body + 4)[::2]
                if data[body] == 3
                else struct.unpack_from(">HH4s", data, body + 4)[::2]
            )
            if name == b"av01":
                meta.coded.add(item)


def _read_locations(data: bytes, start: int, meta: _Meta) -> None:
    """Extents of every item that lies in the file itself. The widths of the fields are stated by the box."""
    version, sizes = data[start], struct.unpack_from(">H", data, start + 4)[0]
    widths = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15, (sizes & 15 if version else 0)
    if not set(widths) <= {0, 4, 8}:
        raise ImageDecodeError("the file's item table has fields of impossible width")
    offset_width, length_width, base_width, index_width = widths
    id_width = 4 if version >= 2 else 2
    count, position = _uint(data, start + 6, id_width)
    for _ in range(count):
        item, position = _uint(data, position, id_width)
        method = 0
        if version:
            method, position = _uint(data, position, 2)
        _, position = _uint(data, position, 2)
        base, position = _uint(data, position, base_width)
        extents, position = _uint(data, position, 2)
        # Counted for the whole file: an extent may be stated in no bytes at all.
        meta.extents_left -= 1 + extents
        if meta.extents_left < 0:
            raise ImageDecodeError(f"the file has more than {MAX_BLOCKS} extents")
        for _ in range(extents):
            position += index_width
            offset, position = _uint(data, position, offset_width)
            length, position = _uint(data, position, length_width)
            if method & 15 == 0:
                meta.extents.setdefault(item, []).append((base + offset, length))
            else:
                meta.in_meta.add(item)


def _uint(data: bytes, position: int, width: int) -> tuple[int, int]:
    if position + width > len(data):
        raise ImageTruncatedError("the file ends inside its item table")
    return int.from_bytes(data[position : position + width], "big"), position + width


# ── AV1 ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Bits:
    """Big-endian bits of a few bytes; beyond the end there are zeros, the decoder will refuse such a stream."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        return (self._value >> self._left if self._left >= 0 else 0) & ((1 << count) - 1)

    def take_uvlc(self) -> int:
        zeros = 0
        while zeros < 32 and self._left > 0 and not self.take(1):
            zeros += 1
        return self.take(zeros) + (1 << zeros) - 1 if zeros < 32 else 0


def sequence_sizes(stream: bytes) -> list[tuple[int, int]]:
    """Greatest (width, height) of every sequence header in a stream of OBUs; a malformed stream ends the list."""
    sizes = []
    position = 0
    for _ in range(MAX_BLOCKS):
        if position >= len(stream):
            break
        first = stream[position]
        position += 2 if first & 4 else 1
        length = len(stream) - position
        if first & 2:
            length, position = _leb128(stream, position)
        if first >> 3 & 15 == _SEQUENCE_HEADER:
            sizes.append(_sequence_size(_Bits(stream[position : position + min(length, 512)])))
        position += length
    return sizes


def _leb128(stream: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(stream[position : position + 8]):
        value |= (byte & 127) << 7 * index
        if not byte & 128:
            return value, position + index + 1
    return len(stream), len(stream)


def _sequence_size(bits: _Bits) -> tuple[int, int]:
    bits.take(4)
    if bits.take(1):
        bits.take(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(width_bits) + 1, bits.take(height_bits) + 1


def _skip_operating_points(bits: _Bits) -> None:
    """Timing, decoder model and operating points: the part between the profile and the size."""
    delay_bits = 0
    decoder_model = False
    if bits.take(1):
        bits.take(64)
        if bits.take(1):
            bits.take_uvlc()
        decoder_model = bool(bits.take(1))
        if decoder_model:
            delay_bits = bits.take(5) + 1
            bits.take(42)
    display_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if decoder_model and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if display_delay and bits.take(1):
            bits.take(4)
