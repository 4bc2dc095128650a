"""Plain layers: fully connected, pointwise, and those that move numbers without changing them.

The batch always stays in front. What slides a window over a picture is in :mod:`dulian.convert.layers_window`,
the head of a detector in :mod:`dulian.convert.layers_ssd`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dulian.convert.caffe_net import Layer
from dulian.convert.onnx_graph import OnnxGraph, Tensor

FILLERS: Final = ("weight_filler", "bias_filler", "engine")
_ELTWISE_OPS: Final = {"PROD": "Mul", "SUM": "Add", "MAX": "Max"}


def only(layer: Layer, bottoms: Sequence[Tensor], *, rank: int | None = None) -> Tensor:
    """The one input of a layer with one output; ``rank`` 4 means NCHW.

    Raises:
        ConversionError: there are more or fewer, or the input has another rank.
    """
    if len(bottoms) != 1 or len(layer.tops) != 1:
        raise layer.error(f"{len(bottoms)} inputs and {len(layer.tops)} outputs; one of each is supported")
    if rank is not None and len(bottoms[0].shape) != rank:
        raise layer.error(f"input has {len(bottoms[0].shape)} dimensions instead of {rank}")
    return bottoms[0]


def reshaped(layer: Layer, index: int, what: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A blob in the shape it is used in; old files store a vector as (1, 1, 1, n)."""
    blob = layer.blob(index, what)
    if blob.size != math.prod(shape):
        raise layer.error(f"{what} in the caffemodel have shape {blob.shape}, the prototxt asks for {shape}")
    return blob.astype(np.float64).reshape(shape)


def inner_product(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph) -> tuple[Tensor, ...]:
    """A fully connected layer over everything behind the batch."""
    x = only(layer, bottoms)
    param = layer.param("inner_product_param", ("num_output", "bias_term", "axis", "transpose", *FILLERS))
    outputs, inputs = param.integer("num_output", 0), math.prod(x.shape[1:])
    if param.integer("axis", 1) != 1 or outputs < 1:
        raise layer.error(f"axis {param.integer('axis', 1)}, {outputs} outputs")
    if param.flag("transpose", False):
        weights = np.ascontiguousarray(reshaped(layer, 0, "weights", (inputs, outputs)).T)
    else:
        weights = reshaped(layer, 0, "weights", (outputs, inputs))
    flat = x.name
    if len(x.shape) > 2:
        flat = graph.add("Flatten", [x.name], f"{layer.name}/flat", attributes={"axis": 1})
    operands = [flat, graph.constant(f"{layer.name}.weight", weights)]
    if param.flag("bias_term", True):
        operands.append(graph.constant(f"{layer.name}.bias", reshaped(layer, 1, "bias", (outputs,))))
    name = graph.add("Gemm", operands, layer.tops[0], attributes={"transB": 1})
    return (Tensor(name, (1, outputs)),)


def affine(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph) -> tuple[Tensor, ...]:
    """A per-channel map that no convolution could take in."""
    x = only(layer, bottoms)
    if layer.affine is None or len(x.shape) < 2 or layer.affine.scale.size != x.shape[1]:
        raise layer.error(f"numbers per channel do not fit an input of shape {x.shape}")
    per_channel = (1, -1, *(1,) * (len(x.shape) - 2))
    scale = graph.constant(f"{layer.name}.scale", layer.affine.scale.reshape(per_channel))
    shift = graph.constant(f"{layer.name}.shift", layer.affine.shift.reshape(per_channel))
    scaled = graph.add("Mul", [x.name, scale], f"{layer.name}/scaled")
    return (Tensor(graph.add("Add", [scaled, shift], layer.tops[0]), x.shape),)


def scale(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph) -> tuple[Tensor, ...]:
    """A Scale layer over axes other than the channels alone."""
    x = only(layer, bottoms)
    param = layer.param("scale_param", ("axis", "num_axes", "filler", "bias_term", "bias_filler"))
    axis, span = param.integer("axis", 1), param.integer("num_axes", 1)
    axis += len(x.shape) if axis < 0 else 0
    span = len(x.shape) - axis if span == -1 else span
    if not 1 <= axis <= axis + span <= len(x.shape):
        raise layer.error(f"axis {axis} and num_axes {span} over an input of shape {x.shape}")
    shape = (1,) * axis + x.shape[axis : axis + span] + (1,) * (len(x.shape) - axis - span)
    has_bias = param.flag("bias_term", False)
    gain = graph.constant(f"{layer.name}.scale", reshaped(layer, 0, "scale", shape))
    name = graph.add("Mul", [x.name, gain], f"{layer.name}/scaled" if has_bias else layer.tops[0])
    if has_bias:
        shift = graph.constant(f"{layer.name}.shift", reshaped(layer, 1, "bias", shape))
        name = graph.add("Add", [name, shift], layer.tops[0])
    return (Tensor(name, x.shape),)


# ── every number alike ───────────────────────────────────────────────────────────────────────────


def relu(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph) -> tuple[Tensor, ...]:
    """ReLU, leaky where ``negative_slope`` says so."""
    x = only(layer, bottoms)
    slope = layer.param("relu_param", ("negative_slope", "engine")).number("negative_slope", 0.0)
    if slope == 0.0:
        return (Tensor(graph.add("Relu", [x.name], layer.tops[0]), x.shape),)
    return (Tensor(graph.add("LeakyRelu", [x.name], layer.tops[0], attributes={"alpha": slope}), x.shape),)


def prelu(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph) -> tuple[Tensor, ...]:
    """ReLU with a trained slope, one for all or one per channel."""
    x = only(layer, bottoms)
    shared = layer.param("prelu_param", ("filler", "channel_shared")).flag("channel_shared", False)
    slope = layer.blob(0, "slope")
    if slope.size != (1 if shared else x.shape[1]):
        raise layer.error(f"{slope.size} slopes for {x.shape[1]} channels")
    # One slope per channel even when shared: the only form that every engine reads.
    slopes = np.broadcast_to(slope.reshape(-1), (x.shape[1],)).reshape(-1, *(1,) * (len(x.shape) - 2))
    name = graph.add("PRelu", [x.name, graph.constant(f"{layer.name}.slope", slopes)], layer.tops[0])
    return (Tensor(name, x.shape),)


def activation(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph, *, op_type: str) -> tuple[Tensor, ...]:
    """A function without parameters: Sigmoid or Tanh."""
    x = only(layer, bottoms)
    layer.param(f"{op_type.lower()}_param", ("engine",))
    return (Tensor(graph.add(op_type, [x.name], layer.tops[0]), x.shape),)


def softmax(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph) -> tuple[Tensor, ...]:
    """Softmax along one axis."""
    x = only(layer, bottoms)
    axis = _axis(layer, x, layer.param("softmax_param", ("axis", "engine")).integer("axis", 1))
    return (Tensor(graph.add("Softmax", [x.name], layer.tops[0], attributes={"axis": axis}), x.shape),)


def power(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph) -> tuple[Tensor, ...]:
    """``(shift + scale * x) ** power``, without the steps that change nothing."""
    x = only(layer, bottoms)
    param = layer.param("power_param", ("power", "scale", "shift"))
    steps = [
        (op_type, field, value)
        for op_type, field, neutral in (("Mul", "scale", 1.0), ("Add", "shift", 0.0), ("Pow", "power", 1.0))
        if (value := param.number(field, neutral)) != neutral
    ]
    name = x.name
    for index, (op_type, field, value) in enumerate(steps):
        output = layer.tops[0] if index == len(steps) - 1 else f"{layer.name}/{field}"
        name = graph.add(op_type, [name, graph.constant(f"{layer.name}.{field}", np.full(1, value))], output)
    if not steps:
        name = graph.add("Identity", [name], layer.tops[0])
    return (Tensor(name, x.shape),)


def eltwise(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph) -> tuple[Tensor, ...]:
    """Sum (with coefficients), product or maximum of tensors of one shape."""
    param = layer.param("eltwise_param", ("operation", "coeff", "stable_prod_grad"))
    operation = param.choice("operation", "SUM", numbered=("PROD", "SUM", "MAX"))
    coefficients = param.numbers("coeff")
    if len(bottoms) < 2 or len(layer.tops) != 1 or len({bottom.shape for bottom in bottoms}) != 1:
        raise layer.error(f"inputs of shapes {', '.join(str(bottom.shape) for bottom in bottoms)}")
    if coefficients and (operation != "SUM" or len(coefficients) != len(bottoms)):
        raise layer.error(f"{len(coefficients)} coefficients for {operation} of {len(bottoms)} inputs")
    terms = [bottom.name for bottom in bottoms]
    for index, factor in enumerate(coefficients):
        if factor != 1.0:
            stored = graph.constant(f"{layer.name}.coeff{index}", np.full(1, factor))
            terms[index] = graph.add("Mul", [terms[index], stored], f"{layer.name}/term{index}")
    result = terms[0]
    for index, term in enumerate(terms[1:], start=1):
        output = layer.tops[0] if index == len(terms) - 1 else f"{layer.name}/partial{index}"
        result = graph.add(_ELTWISE_OPS[operation], [result, term], output)
    return (Tensor(result, bottoms[0].shape),)


# ── moving numbers ───────────────────────────────────────────────────────────────────────────────


def concat(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph) -> tuple[Tensor, ...]:
    """Joins tensors along an axis; constants are joined here and now."""
    param = layer.param("concat_param", ("axis", "concat_dim"))
    if not bottoms or len(layer.tops) != 1:
        raise layer.error(f"{len(bottoms)} inputs and {len(layer.tops)} outputs")
    axis = _axis(layer, bottoms[0], param.integer("concat_dim", param.integer("axis", 1)))
    others = {(len(bottom.shape), bottom.shape[:axis], bottom.shape[axis + 1 :]) for bottom in bottoms}
    if len(others) != 1:
        raise layer.error(f"inputs of shapes {', '.join(str(bottom.shape) for bottom in bottoms)}")
    first = bottoms[0].shape
    shape = (*first[:axis], sum(bottom.shape[axis] for bottom in bottoms), *first[axis + 1 :])
    constants = [bottom.constant for bottom in bottoms if bottom.constant is not None]
    if constants:
        if len(constants) != len(bottoms):
            raise layer.error("joins prior boxes with something else")
        return (Tensor(layer.tops[0], shape, np.concatenate(constants, axis)),)
    names = [bottom.name for bottom in bottoms]
    return (Tensor(graph.add("Concat", names, layer.tops[0], attributes={"axis": axis}), shape),)


def slice_(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph) -> tuple[Tensor, ...]:
    """Cuts a tensor along an axis, at ``slice_point`` or into equal parts."""
    param = layer.param("slice_param", ("axis", "slice_dim", "slice_point"))
    if len(bottoms) != 1:
        raise layer.error(f"{len(bottoms)} inputs; one is supported")
    x = bottoms[0]
    axis = _axis(layer, x, param.integer("slice_dim", param.integer("axis", 1)))
    side, parts = x.shape[axis], len(layer.tops)
    points = list(param.integers("slice_point"))
    if not points and side % parts == 0:
        points = [side // parts * index for index in range(1, parts)]
    edges = [0, *points, side]
    if len(edges) != parts + 1 or any(start >= end for start, end in itertools.pairwise(edges)):
        raise layer.error(f"{parts} outputs cannot be cut at {points} from {side}")
    results = []
    for top, start, end in zip(layer.tops, edges, edges[1:], strict=False):
        name = add_slice(graph, x.name, top, axis=axis, start=start, end=end)
        results.append(Tensor(name, (*x.shape[:axis], end - start, *x.shape[axis + 1 :])))
    return tuple(results)


def add_slice(graph: OnnxGraph, source: str, output: str, *, axis: int, start: int, end: int) -> str:
    """Adds the node that takes ``[start, end)`` along an axis."""
    bounds = [
        graph.constant(f"{output}.{field}", np.array([value], dtype=np.int64))
        for field, value in (("start", start), ("end", end), ("axis", axis))
    ]
    return graph.add("Slice", [source, *bounds], output)


def flatten(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph) -> tuple[Tensor, ...]:
    """Joins the axes from ``axis`` to ``end_axis``."""
    x = only(layer, bottoms)
    param = layer.param("flatten_param", ("axis", "end_axis"))
    first = _axis(layer, x, param.integer("axis", 1))
    last = _axis(layer, x, param.integer("end_axis", -1))
    if first > last:
        raise layer.error(f"axis {first} lies behind end_axis {last}")
    shape = (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :])
    if len(shape) == 2:
        return (Tensor(graph.add("Flatten", [x.name], layer.tops[0], attributes={"axis": 1}), shape),)
    return (add_reshape(graph, x, layer.tops[0], shape),)


def reshape(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph) -> tuple[Tensor, ...]:
    """Caffe's Reshape: 0 keeps a side, -1 takes what is left."""
    x = only(layer, bottoms)
    param = layer.param("reshape_param", ("shape", "axis", "num_axes"))
    if param.integer("axis", 0) != 0 or param.integer("num_axes", -1) != -1:
        raise layer.error("axis and num_axes are not supported")
    asked = list(param.child("shape").integers("dim"))
    if any(side < -1 for side in asked) or asked.count(-1) > 1 or 0 in asked[len(x.shape) :]:
        raise layer.error(f"cannot reshape to {asked}")
    shape = [x.shape[index] if side == 0 else side for index, side in enumerate(asked)]
    total, known = math.prod(x.shape), math.prod(side for side in shape if side != -1)
    shape = [total // known if side == -1 else side for side in shape]
    if math.prod(shape) != total or len(shape) < 2 or shape[0] != 1:
        raise layer.error(f"cannot reshape {x.shape} to {asked}")
    return (add_reshape(graph, x, layer.tops[0], tuple(shape)),)


def add_reshape(graph: OnnxGraph, x: Tensor, output: str, shape: tuple[int, ...]) -> Tensor:
    """Adds a Reshape that copies the batch where it is open."""
    target = np.array([0 if graph.symbolic_batch else 1, *shape[1:]], dtype=np.int64)
    return Tensor(graph.add("Reshape", [x.name, graph.constant(f"{output}.shape", target)], output), shape)


def permute(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph) -> tuple[Tensor, ...]:
    """Reorders axes; those that are not named follow in their old order."""
    x = only(layer, bottoms)
    order = list(layer.param("permute_param", ("order",)).integers("order"))
    order += [axis for axis in range(len(x.shape)) if axis not in order]
    if sorted(order) != list(range(len(x.shape))) or order[0] != 0:
        raise layer.error(f"order {order} over {len(x.shape)} axes")
    name = graph.add("Transpose", [x.name], layer.tops[0], attributes={"perm": order})
    return (Tensor(name, tuple(x.shape[axis] for axis in order)),)


def _axis(layer: Layer, x: Tensor, axis: int) -> int:
    """The axis counted from the front; the batch is none."""
    positive = axis + len(x.shape) if axis < 0 else axis
    if not 1 <= positive < len(x.shape):
        raise layer.error(f"axis {axis} over an input of shape {x.shape}")
    return positive
