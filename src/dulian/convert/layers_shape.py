"""Layers that move numbers without changing them; the batch always stays in front."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from dulian.convert.caffe_net import Layer
from dulian.convert.layers_dense import only
from dulian.convert.onnx_graph import OnnxGraph, Tensor


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
    if math.prod(shape) != total or not shape or shape[0] != 1:
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
