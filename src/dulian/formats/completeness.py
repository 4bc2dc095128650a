"""Whether a JPEG holds less picture than its header claims.

A decoder that runs out of coded data leaves the remaining blocks flat and calls it a success. A picture with a flat
lower part, a letterbox bar, looks the same, yet its coded data gives it away: there every block is coded alike, so the
data ends in a short pattern that repeats, where the data of a cut picture ends in the midst of its texture.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from dulian.formats.header import JpegScan

_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_MIN_FLAT_PART = 1 / 10
_MIN_FLAT_UNITS = 24
_WINDOW_BITS = 768
_MIN_INTERVAL_BYTES = 24


def holds_less_than_claimed(stored: NDArray[np.uint8], scan: JpegScan, reduction: int = 1) -> bool:
    """Judge by the decoded picture (H, W, 3), as it is stored, and its first scan.

    ``reduction`` says by how much the picture was reduced while it was decoded. A lying header whose true data ends in
    a flat area is not noticed, nor is one that adds less than a tenth.
    """
    flat_rows = _flat_rows(stored) * reduction
    # the row of blocks where the flat part begins is only partly flat, and smoothing reaches into the next
    units = (flat_rows // scan.mcu_height - 1) * scan.mcus_per_row
    if flat_rows < stored.shape[0] * reduction * _MIN_FLAT_PART or units < _MIN_FLAT_UNITS:
        return False
    return not _ends_in_a_pattern(scan.entropy, min(_WINDOW_BITS, units * scan.blocks_per_mcu))


def _flat_rows(image: NDArray[np.uint8]) -> int:
    """How many rows at the bottom are exactly the colour of the last pixel."""
    colour = image[-1, -1]
    height = int(image.shape[0])
    if not (image[-1] == colour).all():  # nearly every picture: not worth looking at 64 rows
        return 0
    for bottom in range(height, 0, -64):
        top = max(bottom - 64, 0)
        same = (image[top:bottom] == colour).all(axis=(1, 2))
        if not same.all():
            return height - bottom + int(np.argmin(same[::-1]))
    return height


def _ends_in_a_pattern(entropy: memoryview, window: int) -> bool:
    """Whether the last ``window`` bits repeat with some period of at most half of them.

    ``window`` is no more than the flat part must have taken: a block costs one bit at least. Half of it holds one
    coding unit (MCU) of up to twelve bits per block, which flat ones never reach.
    """
    tail = bytes(entropy[-65536:])
    intervals = _RESTART.split(tail)
    if len(intervals) > 3 and intervals[-2] == intervals[-3]:
        return True
    last = intervals[-1]
    if len(last) < _MIN_INTERVAL_BYTES and len(intervals) > 1:
        last = intervals[-2]
    # the last byte is filled up with ones; a stuffed zero is no data
    data = np.frombuffer(last.replace(b"\xff\x00", b"\xff")[:-1], np.uint8)
    bits = np.unpackbits(data[-(window // 8) :])
    return any(np.array_equal(bits[period:], bits[:-period]) for period in range(1, bits.size // 2 + 1))
