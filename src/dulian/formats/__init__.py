"""Picture formats by their bytes: which one it is, and what its header says. Pixels are decoded elsewhere.

A format is accepted by its leading bytes alone, never by a name. To add one: a module with ``read``, a row in
``READERS`` and its signature in :func:`sniff`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from dulian.errors import ImageTruncatedError, UnsupportedImageError
from dulian.formats import bmff, bmp, gif, jpeg, png, tiff, webp
from dulian.formats.header import Header

__all__ = ["READERS", "Header", "read_header", "sniff"]

READERS: Final[dict[str, Callable[[bytes, int], Header]]] = {
    "avif": bmff.read_avif,
    "bmp": bmp.read,
    "gif": gif.read,
    "heif": bmff.read_heif,
    "jpeg": jpeg.read,
    "png": png.read,
    "tiff": tiff.read,
    "webp": webp.read,
}

_SIGNATURES: Final = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
)


def sniff(data: bytes) -> str:
    """The format's name by its leading bytes.

    Raises:
        UnsupportedImageError: they belong to none that is accepted.
    """
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in bmp.HEADER_SIZES:
        return "bmp"
    brands = bmff.brands(data)
    if brands & bmff.AVIF_BRANDS and data[8:12] not in bmff.HEIF_BRANDS - {b"mif1", b"msf1"}:
        return "avif"
    if brands & bmff.HEIF_BRANDS:
        return "heif"
    raise UnsupportedImageError("not an accepted image: JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF and HEIC are")


def read_header(data: bytes, *, max_metadata_bytes: int) -> Header:
    """What the picture's header says, without decoding anything.

    Raises:
        UnsupportedImageError: no accepted format.
        ImageDecodeError: a broken or unsupported header.
        ImageTruncatedError: the file ends too early.
    """
    name = sniff(data)
    try:
        return READERS[name](data, max_metadata_bytes)
    except (struct.error, IndexError):
        raise ImageTruncatedError(f"the file ends inside its {name.upper()} header") from None
