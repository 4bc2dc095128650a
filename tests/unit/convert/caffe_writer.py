"""Writes .caffemodel bytes for tests, in both generations of the format, without a schema."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

V1_NUMBERS = {"Convolution": 4, "InnerProduct": 14, "LRN": 15, "Pooling": 17, "ReLU": 18, "Softmax": 20}


def varint(number: int) -> bytes:
    number &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def number_field(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def bytes_field(field: int, value: bytes | str) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(value)) + value


def blob(values, *, shape: str = "new", data: str = "packed") -> bytes:
    """``shape`` is new, legacy or none; ``data`` is packed, single, double or half."""
    values = np.asarray(values, np.float32)
    out = b""
    if shape == "new":
        dims = b"".join(varint(side) for side in values.shape)
        out += bytes_field(7, bytes_field(1, dims))
    elif shape == "legacy":
        sides = (1,) * (4 - values.ndim) + values.shape
        out += b"".join(number_field(index + 1, side) for index, side in enumerate(sides))
    flat = values.reshape(-1)
    if data == "packed":
        out += bytes_field(5, flat.astype("<f4").tobytes())
    elif data == "single":
        out += b"".join(varint(5 << 3 | 5) + struct.pack("<f", value) for value in flat)
    elif data == "double":
        out += bytes_field(8, flat.astype("<f8").tobytes())
    else:
        out += number_field(10, 2) + bytes_field(12, flat.astype("<f2").tobytes())
    return out


def layer(name: str, kind: str, blobs: Sequence = (), *, version: str = "new", **options: str) -> bytes:
    """One layer with its field number; blobs are arrays or ready bytes."""
    encoded = [item if isinstance(item, bytes) else blob(item, **options) for item in blobs]
    if version == "new":
        body = bytes_field(1, name) + bytes_field(2, kind) + b"".join(bytes_field(7, item) for item in encoded)
        return bytes_field(100, body)
    body = bytes_field(4, name) + number_field(5, V1_NUMBERS[kind])
    return bytes_field(2, body + b"".join(bytes_field(6, item) for item in encoded))


def caffemodel(*layers: bytes) -> bytes:
    return bytes_field(1, "net") + b"".join(layers)


def prototxt(body: str, shape: Sequence[int] = (1, 3, 8, 8)) -> bytes:
    dims = " ".join(f"dim: {side}" for side in shape)
    return f'name: "net" input: "data" input_shape {{ {dims} }}\n{body}\n'.encode()


def one_layer(kind: str, param: str = "", *, bottom: str = "data", top: str = "out") -> str:
    return f'layer {{ name: "{kind.lower()}" type: "{kind}" bottom: "{bottom}" top: "{top}" {param} }}\n'
