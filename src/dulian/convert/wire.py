"""The protobuf wire format, read field by field; what a field means is not known here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dulian.errors import ConversionError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
_LONGEST_VARINT = 10


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message: its number and either a whole number or the bytes it holds."""

    number: int
    wire_type: int
    value: int | memoryview

    def as_int(self) -> int:
        """The value of a varint field, read as a signed 64-bit number."""
        if not isinstance(self.value, int):
            raise ConversionError(f"caffemodel is damaged: field {self.number} should hold a whole number")
        return self.value - (1 << 64) if self.value >> 63 else self.value

    def as_bytes(self) -> memoryview:
        """The bytes of a length-delimited field."""
        if self.wire_type != BYTES or isinstance(self.value, int):
            raise ConversionError(f"caffemodel is damaged: field {self.number} should hold bytes")
        return self.value

    def as_text(self) -> str:
        """The text of a string field; bytes that are no UTF-8 are replaced, for names only identify."""
        return bytes(self.as_bytes()).decode("utf-8", errors="replace")

    def as_scalars(self, size: int) -> memoryview:
        """The little-endian bytes of a packed or single ``size``-byte number."""
        if isinstance(self.value, int) or self.wire_type not in (BYTES, FIXED64 if size == 8 else FIXED32):
            raise ConversionError(f"caffemodel is damaged: field {self.number} should hold numbers")
        if len(self.value) % size:
            raise ConversionError(f"caffemodel is damaged: field {self.number} ends inside a number")
        return self.value


def read_fields(data: memoryview) -> Iterator[Field]:
    """Walks one message; work and memory are bounded by the number of bytes.

    Raises:
        ConversionError: the bytes end inside a field, or hold something that is no field.
    """
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise ConversionError("caffemodel is damaged: a field has number 0")
        if wire_type == VARINT:
            value, position = _varint(data, position)
            yield Field(number, wire_type, value)
            continue
        if wire_type == BYTES:
            size, position = _varint(data, position)
        elif wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        else:
            raise ConversionError(f"caffemodel is damaged: field {number} has unknown wire type {wire_type}")
        if size > end - position:
            raise ConversionError(
                f"caffemodel is truncated: field {number} needs {size} bytes, {end - position} are left"
            )
        yield Field(number, wire_type, data[position : position + size])
        position += size


def read_varints(data: memoryview) -> Iterator[int]:
    """The unsigned numbers of a packed varint field."""
    position = 0
    while position < len(data):
        value, position = _varint(data, position)
        yield value


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """Reads seven bits a byte, lowest first; returns the number and the position behind it."""
    value = 0
    for shift in range(0, 7 * _LONGEST_VARINT, 7):
        if position >= len(data):
            raise ConversionError("caffemodel is truncated: it ends inside a number")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
    raise ConversionError(f"caffemodel is damaged: a number is longer than {_LONGEST_VARINT} bytes")
