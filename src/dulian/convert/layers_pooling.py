"""Pooling with Caffe's rounding up, written with explicit pads that every engine reads the same way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dulian.convert.caffe_net import Layer
from dulian.convert.layers_dense import only
from dulian.convert.onnx_graph import Attribute, OnnxGraph, Tensor
from dulian.convert.prototxt import Message
from dulian.convert.window import WINDOW_FIELDS, Window, read_window

_KNOWN: Final = (*WINDOW_FIELDS, "pool", "global_pooling", "round_mode", "ceil_mode", "engine")
_MAX_KERNEL_NUMBERS: Final = 1 << 22


@dataclass(frozen=True, slots=True)
class _Axis:
    """One side of the picture: how many windows there are and how many pixels pad its far end."""

    outputs: int
    end_pad: int
    areas: NDArray[np.int64]


def pooling(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph) -> tuple[Tensor, ...]:
    """MAX or AVE pooling over windows or over the whole picture."""
    x = only(layer, bottoms, rank=4)
    param = layer.param("pooling_param", _KNOWN)
    kind = param.choice("pool", "MAX", numbered=("MAX", "AVE", "STOCHASTIC"))
    if kind == "STOCHASTIC":
        raise layer.error("pool STOCHASTIC is not supported")
    if param.flag("global_pooling", False):
        op_type = "GlobalMaxPool" if kind == "MAX" else "GlobalAveragePool"
        return (Tensor(graph.add(op_type, [x.name], layer.tops[0]), (*x.shape[:2], 1, 1)),)
    window = read_window(layer, param)
    rounds_up = _rounds_up(param)
    rows, columns = (_axis(layer, x, window, axis=axis, rounds_up=rounds_up) for axis in (0, 1))
    pads = (*window.pad, rows.end_pad, columns.end_pad)
    shape = (*x.shape[:2], rows.outputs, columns.outputs)
    attributes = {"kernel_shape": window.kernel, "strides": window.stride, "pads": pads}
    if kind == "MAX" or not any(pads):
        op_type = "MaxPool" if kind == "MAX" else "AveragePool"
        return (Tensor(graph.add(op_type, [x.name], layer.tops[0], attributes=attributes), shape),)
    areas = np.outer(rows.areas, columns.areas)
    return (Tensor(_padded_average(layer, x, graph, window=window, pads=pads, areas=areas), shape),)


def _rounds_up(param: Message) -> bool:
    round_mode = param.choice("round_mode", "CEIL", numbered=("CEIL", "FLOOR"))
    return round_mode == "CEIL" and param.flag("ceil_mode", True)


def _axis(layer: Layer, x: Tensor, window: Window, *, axis: int, rounds_up: bool) -> _Axis:
    """Caffe's rules (pooling_layer.cpp): round up, but the last window starts inside picture and first pad."""
    side, kernel, stride, pad = x.shape[2 + axis], window.kernel[axis], window.stride[axis], window.pad[axis]
    if pad >= kernel:
        raise layer.error(f"pad {pad} is not smaller than the kernel of {kernel}")
    steps = side + 2 * pad - kernel
    outputs = (-(-steps // stride) if rounds_up else steps // stride) + 1
    if pad and (outputs - 1) * stride >= side + pad:
        outputs -= 1
    last_start = (outputs - 1) * stride - pad
    if outputs < 1 or last_start >= side:
        raise layer.error(f"a window of {kernel} with stride {stride} lies outside an input side of {side}")
    starts = np.arange(outputs, dtype=np.int64) * stride - pad
    # The divisor of AVE counts the declared pads, not what rounding up adds behind them.
    areas = np.minimum(starts + kernel, side + pad) - starts
    return _Axis(outputs, max(0, last_start + kernel - side), areas)


def _padded_average(
    layer: Layer, x: Tensor, graph: OnnxGraph, *, window: Window, pads: tuple[int, ...], areas: NDArray[np.int64]
) -> str:
    """An average over zero-padded windows as a depthwise convolution.

    Engines disagree on the divisor of a padded AveragePool, but not on a convolution. Windows that
    reach behind the declared pads have fewer pixels to divide by, which a constant factor puts right.
    """
    channels, full_area = x.shape[1], math.prod(window.kernel)
    if channels * full_area > _MAX_KERNEL_NUMBERS or areas.size > _MAX_KERNEL_NUMBERS:
        raise layer.error(f"an average over {full_area} pixels of {channels} channels is too large")
    weights = np.full((channels, 1, *window.kernel), 1.0 / full_area)
    kernel = graph.constant(f"{layer.name}.weight", weights)
    attributes: Mapping[str, Attribute] = {
        "dilations": (1, 1),
        "group": channels,
        "kernel_shape": window.kernel,
        "pads": pads,
        "strides": window.stride,
    }
    is_even = bool(np.all(areas == full_area))
    output = layer.tops[0] if is_even else f"{layer.name}/average"
    name = graph.add("Conv", [x.name, kernel], output, attributes=attributes)
    if is_even:
        return name
    factor = graph.constant(f"{layer.name}.factor", (full_area / areas)[None, None])
    return graph.add("Mul", [name, factor], layer.tops[0])
