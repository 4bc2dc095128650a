"""Opens the fixed 640 x 640 input of the published YuNet, so that a picture keeps its own shape."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from dulian.convert.onnx_graph import PRODUCER
from dulian.errors import ConversionError

STRIDES: Final = (8, 16, 32)
# Numbers per anchor in each kind of output.
_KINDS: Final = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
_WIDTHS: Final = {f"{kind}_{stride}": width for kind, width in _KINDS.items() for stride in STRIDES}


def make_yunet_symbolic(model: bytes) -> bytes:
    """Makes height, width and the outputs' number of anchors symbolic; every weight stays as it is.

    The input becomes (1, 3, H, W), both multiples of 32, and an output of stride t (1, H/t * W/t, k).
    Equal input gives equal bytes.

    Raises:
        ConversionError: the bytes are no ONNX model, or not a YuNet with its twelve outputs.
    """
    try:
        net = onnx.ModelProto.FromString(model)
    except DecodeError as error:
        raise ConversionError(f"this is no ONNX model: {error}") from error
    graph = net.graph
    if {output.name for output in graph.output} != set(_WIDTHS) or len(graph.input) != 1:
        raise ConversionError("this ONNX model is not a YuNet: the twelve outputs cls_8 … kps_32 are expected")
    _set_shape(graph.input[0], (1, 3, "H", "W"))
    for output in graph.output:
        stride = output.name.rpartition("_")[2]
        _set_shape(output, (1, f"anchors_{stride}", _WIDTHS[output.name]))
    # The shapes in between were those of 640 x 640, and engines believe them.
    del graph.value_info[:]
    _open_reshapes(graph)
    net.producer_name = PRODUCER
    net.ClearField("producer_version")
    serialized: bytes = net.SerializeToString(deterministic=True)
    return serialized


def _set_shape(info: onnx.ValueInfoProto, shape: tuple[int | str, ...]) -> None:
    dims = info.type.tensor_type.shape.dim
    if len(dims) != len(shape):
        raise ConversionError(f"{info.name!r} of this YuNet has {len(dims)} dimensions instead of {len(shape)}")
    for dim, side in zip(dims, shape, strict=True):
        if isinstance(side, str):
            dim.dim_param = side
        else:
            dim.dim_value = side


def _open_reshapes(graph: onnx.GraphProto) -> None:
    """Lets every Reshape to (1, anchors, k) count the anchors itself."""
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape" and len(node.input) > 1}
    for stored in graph.initializer:
        if stored.name in shapes and list(stored.dims) == [3]:
            width = onnx.numpy_helper.to_array(stored)[-1]
            stored.ClearField("int64_data")
            stored.raw_data = np.array([1, -1, width], dtype="<i8").tobytes()
