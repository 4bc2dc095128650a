"""Layers that treat every number alike: activations, softmax, powers and sums of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from dulian.convert.caffe_net import Layer
from dulian.convert.layers_dense import only
from dulian.convert.onnx_graph import OnnxGraph, Tensor

_ELTWISE_OPS: Final = {"PROD": "Mul", "SUM": "Add", "MAX": "Max"}


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


def sigmoid(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph) -> tuple[Tensor, ...]:
    """Logistic function."""
    x = only(layer, bottoms)
    layer.param("sigmoid_param", ("engine",))
    return (Tensor(graph.add("Sigmoid", [x.name], layer.tops[0]), x.shape),)


def tanh(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph) -> tuple[Tensor, ...]:
    """Hyperbolic tangent."""
    x = only(layer, bottoms)
    layer.param("tanh_param", ("engine",))
    return (Tensor(graph.add("Tanh", [x.name], layer.tops[0]), x.shape),)


def softmax(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph) -> tuple[Tensor, ...]:
    """Softmax along one axis."""
    x = only(layer, bottoms)
    axis = layer.param("softmax_param", ("axis", "engine")).integer("axis", 1)
    axis += len(x.shape) if axis < 0 else 0
    if not 1 <= axis < len(x.shape):
        raise layer.error(f"axis {axis} over an input of shape {x.shape}")
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
