"""The picture size that an AV1 stream itself states: its sequence headers. AV1 specification, 5.5.1."""

from __future__ import annotations

from dulian.formats.header import MAX_BLOCKS

_SEQUENCE_HEADER = 1


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
