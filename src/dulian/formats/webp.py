"""WebP by its RIFF chunks: size, transparency, orientation, profile, and whether the file is whole. RFC 9649."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from dulian.errors import ImageDecodeError, ImageTruncatedError
from dulian.formats.header import MAX_BLOCKS, Buffer, Header, orientation_of

_ALPHA_FLAG = 0x10


def read(data: bytes, max_metadata_bytes: int) -> Header:
    """Walk the chunks and rebuild a still picture of the first frame.

    Raises:
        ImageTruncatedError: the file is shorter than it says, or a chunk reaches beyond it.
        ImageDecodeError: no picture, or one whose size contradicts its canvas.
    """
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise ImageTruncatedError("the WebP file is shorter than it says")
    pixels: dict[bytes, memoryview] = {}
    canvas: tuple[int, int] | None = None
    frame: tuple[int, int, int, int] | None = None
    metadata: dict[bytes, bytes] = {}
    for kind, payload in _chunks(memoryview(data)[12 : size + 8]):
        if kind == b"VP8X":
            canvas = 1 + _uint24(payload, 4), 1 + _uint24(payload, 7)
        elif kind == b"ANMF" and not pixels:
            frame = 2 * _uint24(payload, 0), 2 * _uint24(payload, 3), 1 + _uint24(payload, 6), 1 + _uint24(payload, 9)
            pixels = {name: part for name, part in _chunks(payload[16:]) if name in (b"ALPH", b"VP8 ", b"VP8L")}
        elif kind in (b"ALPH", b"VP8 ", b"VP8L") and frame is None:
            pixels.setdefault(kind, payload)
        elif kind in (b"EXIF", b"ICCP") and len(payload) <= max_metadata_bytes:
            metadata.setdefault(kind, bytes(payload))
    return _header(pixels, canvas, frame, metadata)


def _chunks(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    position = 0
    for _ in range(MAX_BLOCKS):
        if len(view) - position < 8:
            return
        kind, length = struct.unpack_from("<4sI", view, position)
        if position + 8 + length > len(view):
            raise ImageTruncatedError("the WebP ends inside a chunk")
        yield kind, view[position + 8 : position + 8 + length]
        position += 8 + length + (length & 1)
    raise ImageDecodeError(f"the WebP has more than {MAX_BLOCKS} chunks")


def _uint24(view: memoryview, offset: int) -> int:
    if len(view) < offset + 3:
        raise ImageTruncatedError("the WebP ends inside its header")
    return int.from_bytes(view[offset : offset + 3], "little")


def _bitstream_size(pixels: dict[bytes, memoryview]) -> tuple[int, int, bool]:
    """Width, height and transparency as the coded picture itself states them."""
    if b"VP8L" in pixels:
        signature, bits = struct.unpack_from("<BI", pixels[b"VP8L"])
        if signature != 0x2F:
            raise ImageDecodeError("the WebP's lossless picture does not start as one")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), bool(bits >> 28 & 1)
    if b"VP8 " not in pixels:
        raise ImageDecodeError("the WebP holds no picture")
    signature, width, height = struct.unpack_from("<3sHH", pixels[b"VP8 "], 3)
    if signature != b"\x9d\x01\x2a":
        raise ImageDecodeError("the WebP's picture does not start as one")
    return width & 0x3FFF, height & 0x3FFF, b"ALPH" in pixels


def _header(
    pixels: dict[bytes, memoryview],
    canvas: tuple[int, int] | None,
    frame: tuple[int, int, int, int] | None,
    metadata: dict[bytes, bytes],
) -> Header:
    width, height, alpha = _bitstream_size(pixels)
    stated = frame[2:] if frame else canvas
    if not width or not height or (stated is not None and stated != (width, height)):
        raise ImageDecodeError("the WebP's picture has another size than its header states")
    canvas = canvas or (width, height)
    if frame and (frame[0] + width > canvas[0] or frame[1] + height > canvas[1]):
        raise ImageDecodeError("the WebP's first frame reaches beyond its canvas")
    return Header(
        "webp",
        *canvas,
        _still(pixels, width, height),
        orientation=orientation_of(metadata.get(b"EXIF", b"")),
        profile=metadata.get(b"ICCP"),
        heavy=alpha,
        alpha=alpha,
        placement=frame if frame and frame[2:] != canvas else None,
    )


def _still(pixels: dict[bytes, memoryview], width: int, height: int) -> tuple[Buffer, ...]:
    """A WebP file of one picture."""
    chunks: list[tuple[bytes, Buffer]] = []
    if b"VP8L" in pixels:
        chunks.append((b"VP8L", pixels[b"VP8L"]))
    else:
        if b"ALPH" in pixels:
            sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
            chunks += [(b"VP8X", bytes([_ALPHA_FLAG, 0, 0, 0]) + sizes), (b"ALPH", pixels[b"ALPH"])]
        chunks.append((b"VP8 ", pixels[b"VP8 "]))
    parts: list[Buffer] = []
    total = 4
    for kind, payload in chunks:
        length = len(memoryview(payload))
        parts += [struct.pack("<4sI", kind, length), payload, b"\0" * (length & 1)]
        total += 8 + length + (length & 1)
    return (b"RIFF" + struct.pack("<I", total) + b"WEBP", *parts)
