"""BMP by its header: size, and whether the pixel data is all there."""

from __future__ import annotations

import struct

from dulian.errors import ImageDecodeError, ImageTruncatedError
from dulian.formats.header import Header

HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})
_UNCOMPRESSED = frozenset({0, 3, 6})


def read(data: bytes, max_metadata_bytes: int) -> Header:
    """Read the header; a BMP carries no metadata that matters, and its alpha byte is ignored, as it is by viewers.

    Raises:
        ImageTruncatedError: the pixel data reaches beyond the file.
        ImageDecodeError: a run-length or embedded coding, or an impossible header.
    """
    (offset, header_size) = struct.unpack_from("<II", data, 10)
    compression = 0
    if header_size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression not in _UNCOMPRESSED:
        raise ImageDecodeError("run-length coded BMP is not supported")
    if width <= 0 or height == 0 or bits not in (1, 4, 8, 16, 24, 32) or offset < 14 + header_size:
        raise ImageDecodeError("the BMP has an impossible header")
    stride = (width * bits + 31) // 32 * 4
    if offset + stride * abs(height) > len(data):
        raise ImageTruncatedError("the BMP ends before its picture does")
    return Header("bmp", width, abs(height), (data,))
