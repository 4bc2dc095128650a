"""What is known of a picture before it is decoded. How it is read from the bytes lives in the module of each format.

Of EXIF only the one value that changes pixels is read: the orientation.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

Buffer = bytes | memoryview
Decoder = Literal["turbojpeg", "opencv", "pillow", "heif"]

MAX_BLOCKS = 50_000
"""Segments, chunks or boxes of one file: a real one has some hundred, an abusive one millions."""

_ORIENTATION_TAG = 0x0112
_MAX_EXIF_ENTRIES = 1000


@dataclass(frozen=True, slots=True)
class JpegScan:
    """The first scan of a JPEG: its entropy-coded bytes, and the geometry of its blocks."""

    entropy: memoryview
    mcu_height: int
    mcus_per_row: int
    blocks_per_mcu: int


@dataclass(frozen=True, slots=True)
class Header:
    """A picture by its header.

    ``width`` and ``height`` are those of the stored picture, before ``orientation`` (EXIF, 1 to 8) is applied. Joined,
    ``parts`` are a file of the same format that holds what makes the pixels and no metadata: no decoder ever sees more.
    ``heavy`` marks an encoding whose decoder holds the whole picture more than twice. ``placement`` is the x and y of
    a first frame smaller than its canvas, with the size of that frame. ``grey_key`` is the one grey value that stands
    for transparency; ``white_is_zero`` tells of grey stored as a negative.
    """

    format: str
    width: int
    height: int
    parts: tuple[Buffer, ...]
    decoder: Decoder = "opencv"
    orientation: int = 1
    profile: bytes | None = None
    heavy: bool = False
    alpha: bool = False
    grey_key: int | None = None
    white_is_zero: bool = False
    placement: tuple[int, int, int, int] | None = None
    scan: JpegScan | None = None

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def frame_shape_hw(self) -> tuple[int, int]:
        """Height and width that the decoder must answer with."""
        if self.placement is not None:
            return self.placement[3], self.placement[2]
        return self.height, self.width

    @property
    def reductions(self) -> tuple[int, ...]:
        """The factors by which the decoder can make the picture smaller while it decodes, at less than full cost."""
        return (1, 2, 4, 8) if self.decoder == "turbojpeg" else (1,)

    def picture_bytes(self) -> bytes:
        """The file that a decoder is given."""
        return b"".join(self.parts)


def inflate(data: Buffer, max_bytes: int) -> bytes | None:
    """Zlib data inflated, or None when that gives more than ``max_bytes``; broken data gives what came before."""
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data, max_bytes + 1)
    except zlib.error:
        return b""
    return None if len(plain) > max_bytes else plain


def orientation_of(exif: bytes) -> int:
    """EXIF orientation 1 to 8 of an EXIF block, with or without its ``Exif`` prefix; 1 where it says nothing sane."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (offset,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, offset)
        for index in range(min(count, _MAX_EXIF_ENTRIES)):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, offset + 2 + 12 * index)
            if tag == _ORIENTATION_TAG:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
