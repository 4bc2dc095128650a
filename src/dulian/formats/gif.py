"""GIF by its blocks, as far as the end of the first frame."""

from __future__ import annotations

import struct

from dulian.errors import ImageDecodeError, ImageTruncatedError
from dulian.formats.header import Header

_MAX_SUB_BLOCKS = 400_000
_EXTENSION, _IMAGE, _TRAILER, _GRAPHIC_CONTROL = 0x21, 0x2C, 0x3B, 0xF9


def read(data: bytes, max_metadata_bytes: int) -> Header:
    """Walk to the end of the first frame; comments, other frames and what follows are left out.

    Raises:
        ImageTruncatedError: the first frame is missing or not complete.
        ImageDecodeError: an unknown block.
    """
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = head_end = 13 + _colour_table_bytes(flags)
    control = b""
    view = memoryview(data)
    sub_blocks_left = _MAX_SUB_BLOCKS
    while True:
        start, kind = position, data[position]
        if kind == _EXTENSION:
            position, sub_blocks_left = _skip_sub_blocks(data, start + 2, sub_blocks_left)
            if data[start + 1] == _GRAPHIC_CONTROL:
                control = data[start:position]
        elif kind == _IMAGE:
            left, top, frame_width, frame_height, flags = struct.unpack_from("<HHHHB", data, start + 1)
            end, _ = _skip_sub_blocks(data, start + 11 + _colour_table_bytes(flags), sub_blocks_left)
            size = max(width, left + frame_width), max(height, top + frame_height)
            if not frame_width or not frame_height:
                raise ImageDecodeError("the GIF's first frame states a size of nothing")
            return Header("gif", *size, (view[:head_end], control, view[start:end], b";"), decoder="pillow")
        elif kind == _TRAILER:
            raise ImageTruncatedError("the GIF ends before its first frame")
        else:
            raise ImageDecodeError("the GIF has an unknown block")


def _colour_table_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_sub_blocks(data: bytes, position: int, left: int) -> tuple[int, int]:
    """Where the next block starts, and how many sub-blocks are still accepted; the chain ends with an empty one."""
    while left:
        left -= 1
        length = data[position]
        position += 1 + length
        if not length:
            return position, left
    raise ImageDecodeError(f"the GIF has more than {_MAX_SUB_BLOCKS} sub-blocks")
