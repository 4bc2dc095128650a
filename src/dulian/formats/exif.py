"""The one EXIF value that changes pixels: the orientation. Nothing else of it is read, kept or echoed."""

from __future__ import annotations

import struct

_ORIENTATION_TAG = 0x0112
_MAX_ENTRIES = 1000


def orientation_of(exif: bytes) -> int:
    """EXIF orientation 1 to 8 of an EXIF block, with or without its ``Exif`` prefix; 1 where it says nothing sane."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (offset,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, offset)
        for index in range(min(count, _MAX_ENTRIES)):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, offset + 2 + 12 * index)
            if tag == _ORIENTATION_TAG:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
