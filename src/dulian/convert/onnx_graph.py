"""Builds an ONNX model node by node; the same calls give the same bytes.

The protobuf messages are filled here directly, so that neither a date nor a version of the onnx
package's helpers gets into the file. What Caffe is, is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from dulian.errors import ConversionError

# Opset 13 and IR 8 are read by onnxruntime 1.23+, OpenCV 4.14 and 5.0 and OpenVINO 2025+.
OPSET: Final = 13
IR_VERSION: Final = 8
PRODUCER: Final = "dulian"
BATCH: Final = "N"
# A protobuf file ends at 2 GiB; half of that is far beyond any face net.
MAX_CONSTANT_BYTES: Final = 1 << 30

Attribute = int | float | Sequence[int]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value on its way through the net; ``shape`` has 1 in place of a symbolic batch.

    ``constant`` holds the numbers where they depend on no input; such a tensor is not in the graph yet.
    """

    name: str
    shape: tuple[int, ...]
    constant: NDArray[np.float32] | None = None


class OnnxGraph:
    """A graph under construction.

    ``symbolic_batch`` leaves the first dimension of inputs and outputs open; otherwise it is 1.
    """

    def __init__(self, name: str, *, symbolic_batch: bool) -> None:
        self.symbolic_batch = symbolic_batch
        self._model = onnx.ModelProto(ir_version=IR_VERSION, producer_name=PRODUCER)
        self._model.opset_import.add(domain="", version=OPSET)
        self._graph = self._model.graph
        self._graph.name = name
        self._taken: set[str] = set()
        self._constant_bytes = 0

    def input(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Declares a float32 input."""
        self._take(name)
        self._graph.input.append(self._value_info(name, shape))
        return Tensor(name, shape)

    def output(self, tensor: Tensor) -> None:
        """Declares a float32 output with its shape, which OpenCV needs to load a net."""
        self._graph.output.append(self._value_info(tensor.name, tensor.shape))

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Stores float32 or int64 numbers; returns the name to read them by.

        Raises:
            ConversionError: a number is not finite as float32.
        """
        self._take(name)
        self.reserve(values.nbytes)
        data_type, dtype = onnx.TensorProto.FLOAT, "<f4"
        if values.dtype == np.int64:
            data_type, dtype = onnx.TensorProto.INT64, "<i8"
        stored = self._graph.initializer.add()
        stored.name = name
        stored.data_type = data_type
        stored.dims.extend(values.shape)
        with np.errstate(all="ignore"):
            numbers = np.ascontiguousarray(values, dtype=dtype)
        if not np.isfinite(numbers).all():
            raise ConversionError(f"{name} would hold an infinite number or none at all; is the caffemodel damaged?")
        stored.raw_data = numbers.tobytes()
        return name

    def reserve(self, size: int) -> None:
        """Counts bytes of numbers that the net keeps.

        Raises:
            ConversionError: together they are more than a model may hold.
        """
        self._constant_bytes += size
        if self._constant_bytes > MAX_CONSTANT_BYTES:
            raise ConversionError(f"the net needs more than {MAX_CONSTANT_BYTES >> 20} MiB of constants")

    def add(
        self, op_type: str, inputs: Sequence[str], output: str, *, attributes: Mapping[str, Attribute] | None = None
    ) -> str:
        """Adds a node with one output, named like it; returns that name.

        Raises:
            ConversionError: the name is taken, or a number is not finite as float32.
        """
        self._take(output)
        node = self._graph.node.add(op_type=op_type, name=output)
        node.input.extend(inputs)
        node.output.append(output)
        for name, value in sorted((attributes or {}).items()):
            attribute = node.attribute.add(name=name)
            if isinstance(value, int):
                attribute.type, attribute.i = onnx.AttributeProto.INT, value
            elif isinstance(value, float):
                with np.errstate(over="ignore"):
                    if not np.isfinite(np.float32(value)):
                        raise ConversionError(f"{output}: {name} is {value}, too large for a float32")
                attribute.type, attribute.f = onnx.AttributeProto.FLOAT, value
            else:
                attribute.type = onnx.AttributeProto.INTS
                attribute.ints.extend(value)
        return output

    def serialize(self) -> bytes:
        """The finished model."""
        serialized: bytes = self._model.SerializeToString(deterministic=True)
        return serialized

    def _take(self, name: str) -> None:
        if name in self._taken:
            raise ConversionError(f"two layers or blobs of the net would both be called {name!r}")
        self._taken.add(name)

    def _value_info(self, name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        info = onnx.ValueInfoProto(name=name)
        info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        for axis, side in enumerate(shape):
            dimension = info.type.tensor_type.shape.dim.add()
            if axis == 0 and self.symbolic_batch:
                dimension.dim_param = BATCH
            else:
                dimension.dim_value = side
        return info
