"""Layers that slide a window over a picture: convolution, pooling, and normalisation written as convolution.

Every window is written with explicit pads, which all engines read the same way; Caffe's rounding up
of pooled sizes is in them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from dulian.convert import winograd
from dulian.convert.caffe_net import MAX_SIDE, Layer
from dulian.convert.layers import FILLERS, only, reshaped
from dulian.convert.onnx_graph import Attribute, OnnxGraph, Tensor
from dulian.convert.prototxt import Message

HeightWidth = tuple[int, int]
Lrn = Literal["conv", "op"]
Convolution = Literal["direct", "winograd"]

_WINDOW_FIELDS: Final = (
    *("kernel_size", "kernel_h", "kernel_w"),
    *("pad", "pad_h", "pad_w"),
    *("stride", "stride_h", "stride_w"),
)
_POOLING_FIELDS: Final = (*_WINDOW_FIELDS, "pool", "global_pooling", "round_mode", "ceil_mode", "engine")
_MAX_KERNEL_NUMBERS: Final = 1 << 22
# A band matrix has the square of this many numbers.
_MAX_LRN_CHANNELS: Final = 2_048


@dataclass(frozen=True, slots=True)
class _Window:
    """Sides in (height, width) order; ``pad`` lies on both sides of the picture."""

    kernel: HeightWidth
    stride: HeightWidth
    pad: HeightWidth
    dilation: HeightWidth = (1, 1)

    @property
    def extent(self) -> HeightWidth:
        """Pixels from the first to the last that the kernel touches."""
        height, width = (dilation * (side - 1) + 1 for side, dilation in zip(self.kernel, self.dilation, strict=True))
        return height, width


def _read_window(layer: Layer, param: Message) -> _Window:
    """Reads ``kernel_size: 3`` as well as ``kernel_h: 3 kernel_w: 1``.

    Raises:
        ConversionError: a side is missing, given twice or out of range.
    """
    return _Window(
        kernel=_pair(layer, param, ("kernel_size", "kernel_h", "kernel_w"), default=0, least=1),
        stride=_pair(layer, param, ("stride", "stride_h", "stride_w"), default=1, least=1),
        pad=_pair(layer, param, ("pad", "pad_h", "pad_w"), default=0, least=0),
        dilation=_pair(layer, param, ("dilation", "", ""), default=1, least=1),
    )


def _pair(layer: Layer, param: Message, fields: tuple[str, str, str], *, default: int, least: int) -> HeightWidth:
    both, height, width = fields
    given = param.integers(both)
    if param.has(height) or param.has(width):
        if given or not (param.has(height) and param.has(width)):
            raise layer.error(f"give either {both}, or both {height} and {width}")
        given = (param.integer(height, 0), param.integer(width, 0))
    if len(given) > 2:
        raise layer.error(f"{both} has {len(given)} values; nets over pictures have two")
    first, last = (given[0], given[-1]) if given else (default, default)
    if not (least <= first <= MAX_SIDE and least <= last <= MAX_SIDE):
        raise layer.error(f"{both} is {first} by {last}; {least} to {MAX_SIDE} is supported")
    return first, last


def convolution(
    layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph, *, form: Convolution = "direct"
) -> tuple[Tensor, ...]:
    """Convolution with groups and dilation; a folded affine map goes into weights and bias."""
    x = only(layer, bottoms, rank=4)
    known = (*_WINDOW_FIELDS, *FILLERS, "num_output", "bias_term", "dilation", "group", "axis", "force_nd_im2col")
    param = layer.param("convolution_param", known)
    window = _read_window(layer, param)
    channels, group, filters = x.shape[1], param.integer("group", 1), param.integer("num_output", 0)
    if param.integer("axis", 1) != 1 or group < 1 or filters < 1 or channels % group or filters % group:
        raise layer.error(f"{filters} filters in {group} groups over {channels} channels")
    weights = reshaped(layer, 0, "weights", (filters, channels // group, *window.kernel))
    bias: NDArray[np.float64] | None = None
    if param.flag("bias_term", True):
        bias = reshaped(layer, 1, "bias", (filters,))
    if layer.affine is not None:
        if layer.affine.scale.size != filters:
            raise layer.error(f"{filters} filters, but {layer.affine.scale.size} channels in the layer after it")
        shift = layer.affine.shift
        bias = shift if bias is None else bias * layer.affine.scale + shift
        weights = weights * layer.affine.scale.reshape(-1, 1, 1, 1)
    plain = group == 1 and window == _Window(window.kernel, (1, 1), (winograd.KERNEL // 2,) * 2)
    if form == "winograd" and plain and winograd.pays(weights.shape, x.shape[2:]):
        name = winograd.add_convolution(graph, x, weights, bias, name=layer.name, output=layer.tops[0])
        return (Tensor(name, (1, filters, *x.shape[2:])),)
    inputs = [x.name, graph.constant(f"{layer.name}.weight", weights)]
    if bias is not None:
        inputs.append(graph.constant(f"{layer.name}.bias", bias))
    sides = [
        (side + 2 * pad - extent) // stride + 1
        for side, pad, extent, stride in zip(x.shape[2:], window.pad, window.extent, window.stride, strict=True)
    ]
    if min(sides) < 1:
        raise layer.error(f"an input of {x.shape[2]} by {x.shape[3]} is smaller than the kernel")
    name = _add_conv(graph, inputs, layer.tops[0], window, group=group)
    return (Tensor(name, (1, filters, *sides)),)


def _add_conv(
    graph: OnnxGraph,
    inputs: Sequence[str],
    output: str,
    window: _Window,
    *,
    group: int,
    pads: tuple[int, ...] | None = None,
) -> str:
    """Adds the node; ``pads`` (top, left, bottom, right) stand in for pads that differ from side to side."""
    attributes: Mapping[str, Attribute] = {
        "dilations": window.dilation,
        "group": group,
        "kernel_shape": window.kernel,
        "pads": pads or window.pad * 2,
        "strides": window.stride,
    }
    return graph.add("Conv", inputs, output, attributes=attributes)


# ── pooling ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Axis:
    """One side of the picture: how many windows there are and how many pixels pad its far end."""

    outputs: int
    end_pad: int
    areas: NDArray[np.int64]


def pooling(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph) -> tuple[Tensor, ...]:
    """MAX or AVE pooling over windows or over the whole picture."""
    x = only(layer, bottoms, rank=4)
    param = layer.param("pooling_param", _POOLING_FIELDS)
    kind = param.choice("pool", "MAX", numbered=("MAX", "AVE", "STOCHASTIC"))
    if kind == "STOCHASTIC":
        raise layer.error("pool STOCHASTIC is not supported")
    if param.flag("global_pooling", False):
        op_type = "GlobalMaxPool" if kind == "MAX" else "GlobalAveragePool"
        return (Tensor(graph.add(op_type, [x.name], layer.tops[0]), (*x.shape[:2], 1, 1)),)
    window = _read_window(layer, param)
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


def _axis(layer: Layer, x: Tensor, window: _Window, *, axis: int, rounds_up: bool) -> _Axis:
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
    layer: Layer, x: Tensor, graph: OnnxGraph, *, window: _Window, pads: tuple[int, ...], areas: NDArray[np.int64]
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
    is_even = bool(np.all(areas == full_area))
    output = layer.tops[0] if is_even else f"{layer.name}/average"
    name = _add_conv(graph, [x.name, kernel], output, window, group=channels, pads=pads)
    if is_even:
        return name
    factor = graph.constant(f"{layer.name}.factor", (full_area / areas)[None, None])
    return graph.add("Mul", [name, factor], layer.tops[0])


# ── normalisation ────────────────────────────────────────────────────────────────────────────────


def lrn(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph, *, form: Lrn) -> tuple[Tensor, ...]:
    """Local response normalisation across channels, ``x / (k + alpha / n * sum of n squares) ** beta``.

    The ``conv`` form sums with a 1x1 convolution by a band matrix and builds the power 0.75 of two
    square roots: within 2.2e-6 of the op, and an age net takes 6.9 ms instead of 9.0. Another beta keeps the op.
    """
    x = only(layer, bottoms, rank=4)
    param = layer.param("lrn_param", ("local_size", "alpha", "beta", "k", "norm_region", "engine"))
    region = param.choice("norm_region", "ACROSS_CHANNELS", numbered=("ACROSS_CHANNELS", "WITHIN_CHANNEL"))
    if region != "ACROSS_CHANNELS":
        raise layer.error("norm_region WITHIN_CHANNEL is not supported")
    size, alpha = param.integer("local_size", 5), param.number("alpha", 1.0)
    beta, k = param.number("beta", 0.75), param.number("k", 1.0)
    if not 1 <= size <= MAX_SIDE or size % 2 == 0:
        raise layer.error(f"local_size is {size}; it must be odd and at most {MAX_SIDE}")
    if form == "op" or beta != 0.75 or x.shape[1] > _MAX_LRN_CHANNELS:
        settings = {"size": size, "alpha": alpha, "beta": beta, "bias": k}
        return (Tensor(graph.add("LRN", [x.name], layer.tops[0], attributes=settings), x.shape),)
    channel = np.arange(x.shape[1])
    band = np.abs(channel[:, None] - channel[None, :]) <= size // 2
    base = _squares_summed(layer, x, graph, weights=band * (alpha / size), offset=k)
    root = graph.add("Sqrt", [base], f"{layer.name}/root")
    fourth_root = graph.add("Sqrt", [root], f"{layer.name}/fourth_root")
    divisor = graph.add("Mul", [root, fourth_root], f"{layer.name}/divisor")
    return (Tensor(graph.add("Div", [x.name, divisor], layer.tops[0]), x.shape),)


def normalize(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph) -> tuple[Tensor, ...]:
    """SSD's Normalize: every pixel's channels divided by their L2 norm, then scaled per channel."""
    x = only(layer, bottoms, rank=4)
    param = layer.param("norm_param", ("across_spatial", "channel_shared", "scale_filler", "eps"))
    if param.flag("across_spatial", True):
        raise layer.error("across_spatial: true is not supported")
    channels = x.shape[1]
    gain = reshaped(layer, 0, "scale", (1, 1 if param.flag("channel_shared", True) else channels, 1, 1))
    ones = np.ones((1, channels))
    total = _squares_summed(layer, x, graph, weights=ones, offset=param.number("eps", 1e-10))
    norm = graph.add("Sqrt", [total], f"{layer.name}/norm")
    unit = graph.add("Div", [x.name, norm], f"{layer.name}/unit")
    name = graph.add("Mul", [unit, graph.constant(f"{layer.name}.scale", gain)], layer.tops[0])
    return (Tensor(name, x.shape),)


def _squares_summed(layer: Layer, x: Tensor, graph: OnnxGraph, *, weights: NDArray[np.float64], offset: float) -> str:
    """``offset + weights @ x**2`` at every pixel, as the 1x1 convolution every engine does fast and right."""
    squared = graph.add("Mul", [x.name, x.name], f"{layer.name}/squared")
    kernel = graph.constant(f"{layer.name}.weight", weights.reshape(*weights.shape, 1, 1))
    bias = graph.constant(f"{layer.name}.bias", np.full(len(weights), offset))
    pixel = _Window(kernel=(1, 1), stride=(1, 1), pad=(0, 0))
    return _add_conv(graph, [squared, kernel, bias], f"{layer.name}/sum", pixel, group=1)
