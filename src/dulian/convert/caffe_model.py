"""Reads a .caffemodel, both generations of it, into named layers of float32 blobs.

_Field numbers are those of ``caffe.proto`` of BVLC Caffe and, for half-precision blobs, of OpenCV's
``opencv-caffe.proto``; the protobuf wire format is read here too, so that no schema is needed. What a
layer computes is said by the prototxt and is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dulian.errors import ConversionError

FloatArray = NDArray[np.float32]

# Real nets have hundreds of layers, two or three blobs each and four dimensions at most.
MAX_LAYERS: Final = 10_000
MAX_BLOBS: Final = 64
MAX_DIMENSIONS: Final = 32

_NET_LAYERS_V1: Final = 2
_NET_LAYERS: Final = 100
_RAW_FLOAT: Final = 1
_RAW_FLOAT16: Final = 2

# Wire types of protobuf.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_LONGEST_VARINT = 10

# V1LayerParameter.LayerType, spelt as the string types that replaced it.
V1_TYPE_NAMES: Final = {
    1: "Accuracy",
    2: "BNLL",
    3: "Concat",
    4: "Convolution",
    5: "Data",
    6: "Dropout",
    7: "EuclideanLoss",
    8: "Flatten",
    9: "HDF5Data",
    10: "HDF5Output",
    11: "Im2col",
    12: "ImageData",
    13: "InfogainLoss",
    14: "InnerProduct",
    15: "LRN",
    16: "MultinomialLogisticLoss",
    17: "Pooling",
    18: "ReLU",
    19: "Sigmoid",
    20: "Softmax",
    21: "SoftmaxWithLoss",
    22: "Split",
    23: "TanH",
    24: "WindowData",
    25: "Eltwise",
    26: "Power",
    27: "SigmoidCrossEntropyLoss",
    28: "HingeLoss",
    29: "MemoryData",
    30: "ArgMax",
    31: "Threshold",
    32: "DummyData",
    33: "Slice",
    34: "MVN",
    35: "AbsVal",
    36: "Silence",
    37: "ContrastiveLoss",
    38: "Exp",
    39: "Deconvolution",
}


@dataclass(frozen=True, slots=True)
class TrainedLayer:
    """A layer as the training left it; ``type`` is the new spelling whichever generation wrote it."""

    name: str
    type: str
    blobs: tuple[FloatArray, ...]


@dataclass(frozen=True, slots=True)
class _LayerFields:
    """Where a generation of the format keeps a layer's name, type and blobs."""

    name: int
    type: int
    blobs: int


_V1_FIELDS: Final = _LayerFields(name=4, type=5, blobs=6)
_NEW_FIELDS: Final = _LayerFields(name=1, type=2, blobs=7)


def read_caffemodel(data: bytes) -> tuple[TrainedLayer, ...]:
    """Reads every layer in file order.

    Raises:
        ConversionError: the bytes are truncated, damaged, or hold no layer at all.
    """
    layers: list[TrainedLayer] = []
    for field in _read_fields(memoryview(data)):
        if field.number == _NET_LAYERS:
            layers.append(_read_layer(field.as_bytes(), _NEW_FIELDS))
        elif field.number == _NET_LAYERS_V1:
            layers.append(_read_layer(field.as_bytes(), _V1_FIELDS))
        if len(layers) > MAX_LAYERS:
            raise ConversionError(f"caffemodel has more than {MAX_LAYERS} layers")
    if not layers:
        raise ConversionError("caffemodel holds no layers: is it a .caffemodel at all?")
    return tuple(layers)


def _read_layer(data: memoryview, fields: _LayerFields) -> TrainedLayer:
    name, type_name = "", ""
    blobs: list[FloatArray] = []
    for field in _read_fields(data):
        if field.number == fields.name:
            name = field.as_text()
        elif field.number == fields.type:
            type_name = _type_name(field)
        elif field.number == fields.blobs:
            blobs.append(_read_blob(field.as_bytes(), f"blob {len(blobs)} of layer {name!r}"))
            if len(blobs) > MAX_BLOBS:
                raise ConversionError(f"layer {name!r} of the caffemodel has more than {MAX_BLOBS} blobs")
    return TrainedLayer(name, type_name, tuple(blobs))


def _type_name(field: _Field) -> str:
    if field.wire_type == _BYTES:
        return field.as_text()
    return V1_TYPE_NAMES.get(field.as_int(), f"V1 type {field.as_int()}")


def _read_blob(data: memoryview, where: str) -> FloatArray:
    """Numbers and shape of one BlobProto; gradients, if any were saved, are passed over."""
    singles, doubles, raw = bytearray(), bytearray(), bytearray()
    raw_type = 0
    shape: list[int] | None = None
    legacy = {1: 1, 2: 1, 3: 1, 4: 1}
    is_legacy = False
    for field in _read_fields(data):
        if field.number in legacy:
            legacy[field.number], is_legacy = field.as_int(), True
        elif field.number == 5:
            singles += field.as_scalars(4)
        elif field.number == 7:
            shape = _read_shape(field.as_bytes(), where)
        elif field.number == 8:
            doubles += field.as_scalars(8)
        elif field.number == 10:
            raw_type = field.as_int()
        elif field.number == 12:
            raw += field.as_bytes()
    values = _values(singles, doubles, raw, raw_type=raw_type, where=where)
    if shape is None:
        shape = list(legacy.values()) if is_legacy else [values.size]
    if any(side < 0 for side in shape) or math.prod(shape) != values.size:
        raise ConversionError(f"{where} has {values.size} numbers, which do not fill its shape {tuple(shape)}")
    return values.reshape(shape)


def _read_shape(data: memoryview, where: str) -> list[int]:
    dims: list[int] = []
    for field in _read_fields(data):
        if field.number != 1:
            continue
        if field.wire_type == _BYTES:
            # Counted before it is read: a dimension is at least one byte.
            if len(field.as_bytes()) > MAX_DIMENSIONS * 10:
                raise ConversionError(f"{where} has more than {MAX_DIMENSIONS} dimensions")
            dims.extend(_read_varints(field.as_bytes()))
        else:
            dims.append(field.as_int())
        if len(dims) > MAX_DIMENSIONS:
            raise ConversionError(f"{where} has more than {MAX_DIMENSIONS} dimensions")
    return dims


def _values(singles: bytearray, doubles: bytearray, raw: bytearray, *, raw_type: int, where: str) -> FloatArray:
    if raw and not singles and not doubles:
        if raw_type not in (_RAW_FLOAT, _RAW_FLOAT16):
            raise ConversionError(f"{where} has raw data of type {raw_type}; only float32 and float16 are known")
        dtype = "<f4" if raw_type == _RAW_FLOAT else "<f2"
        if len(raw) % np.dtype(dtype).itemsize:
            raise ConversionError(f"{where} ends inside a number")
        with np.errstate(all="ignore"):
            return np.frombuffer(raw, dtype).astype(np.float32)
    if doubles and not singles:
        with np.errstate(all="ignore"):
            return np.frombuffer(doubles, "<f8").astype(np.float32)
    return np.frombuffer(singles, "<f4").astype(np.float32)


# ── the protobuf wire format, field by field ─────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Field:
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
        if self.wire_type != _BYTES or isinstance(self.value, int):
            raise ConversionError(f"caffemodel is damaged: field {self.number} should hold bytes")
        return self.value

    def as_text(self) -> str:
        """The text of a string field; bytes that are no UTF-8 are replaced, for names only identify."""
        return bytes(self.as_bytes()).decode("utf-8", errors="replace")

    def as_scalars(self, size: int) -> memoryview:
        """The little-endian bytes of a packed or single ``size``-byte number."""
        if isinstance(self.value, int) or self.wire_type not in (_BYTES, _FIXED64 if size == 8 else _FIXED32):
            raise ConversionError(f"caffemodel is damaged: field {self.number} should hold numbers")
        if len(self.value) % size:
            raise ConversionError(f"caffemodel is damaged: field {self.number} ends inside a number")
        return self.value


def _read_fields(data: memoryview) -> Iterator[_Field]:
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
        if wire_type == _VARINT:
            value, position = _varint(data, position)
            yield _Field(number, wire_type, value)
            continue
        if wire_type == _BYTES:
            size, position = _varint(data, position)
        elif wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        else:
            raise ConversionError(f"caffemodel is damaged: field {number} has unknown wire type {wire_type}")
        if size > end - position:
            raise ConversionError(
                f"caffemodel is truncated: field {number} needs {size} bytes, {end - position} are left"
            )
        yield _Field(number, wire_type, data[position : position + size])
        position += size


def _read_varints(data: memoryview) -> Iterator[int]:
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
