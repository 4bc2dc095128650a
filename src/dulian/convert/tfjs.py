"""TensorFlow.js networks as ONNX: quantised weights, and graphs as the tfjs converter writes them.

Read is what the few networks that dulian knows are made of; anything else is refused by its name. Pictures are
N x 3 x H x W here, as everywhere in dulian, and N x H x W x 3 in TensorFlow: weights are turned, and paddings written
out, because not all engines agree on what SAME means for a stride of 2.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dulian.convert.onnx_graph import Attribute, OnnxGraph, Tensor
from dulian.errors import ConversionError

Floats = NDArray[np.float32]

_DTYPES: Final = {"uint8": "u1", "uint16": "<u2", "float32": "<f4", "int32": "<i4"}


def read_weights(manifest: Sequence[Mapping[str, Any]], data: bytes) -> dict[str, NDArray[Any]]:
    """The tensors of a weights file, by name; quantised ones as ``number * scale + min`` in float32.

    ``manifest`` is the list of groups that stands in the model's JSON, ``data`` their files one after the other.

    Raises:
        ConversionError: The file is shorter or longer than the manifest says, or a kind of number is unknown.
    """
    found: dict[str, NDArray[Any]] = {}
    at = 0
    for entry in (entry for group in manifest for entry in group["weights"]):
        quantised = entry.get("quantization")
        kind = (quantised or entry)["dtype"]
        if kind not in _DTYPES:
            raise ConversionError(f"{entry['name']} holds numbers of an unknown kind, {kind}")
        stored = np.dtype(_DTYPES[kind])
        count = math.prod(entry["shape"])
        if at + count * stored.itemsize > len(data):
            raise ConversionError(f"the weights end inside {entry['name']}; is the file cut off?")
        numbers = np.frombuffer(data, stored, count, at).reshape(entry["shape"])
        if quantised:
            numbers = (numbers * quantised["scale"] + quantised["min"]).astype(np.float32)
        found[entry["name"]] = numbers
        at += count * stored.itemsize
    if at != len(data):
        raise ConversionError(f"the weights have {len(data)} bytes, and the manifest tells of {at}")
    return found


# ── layers ───────────────────────────────────────────────────────────────────────────────────────


class Layers:
    """The layers of both kinds of networks, put into a graph one after the other."""

    def __init__(self, graph: OnnxGraph) -> None:
        self._graph = graph

    def convolution(
        self, name: str, source: Tensor, kernel: Floats, bias: Floats | None = None, *, stride: int = 1, groups: int = 1
    ) -> Tensor:
        """A convolution with SAME padding; ``kernel`` is (out, in / groups, height, width)."""
        pads, out_hw = same_padding(source.shape[2:], kernel.shape[2:], stride)
        inputs = [source.name, self._graph.constant(f"{name}/kernel", np.asarray(kernel, np.float32))]
        if bias is not None:
            inputs.append(self._graph.constant(f"{name}/bias", np.asarray(bias, np.float32)))
        attributes: dict[str, Attribute] = {"kernel_shape": kernel.shape[2:], "pads": pads, "group": groups}
        attributes["strides"] = (stride, stride)
        return Tensor(self._graph.add("Conv", inputs, name, attributes=attributes), (1, kernel.shape[0], *out_hw))

    def max_pool(self, name: str, source: Tensor, *, side: int, stride: int) -> Tensor:
        """Max pooling with SAME padding."""
        pads, out_hw = same_padding(source.shape[2:], (side, side), stride)
        attributes = {"kernel_shape": (side, side), "strides": (stride, stride), "pads": pads}
        self._graph.add("MaxPool", [source.name], name, attributes=attributes)
        return Tensor(name, (*source.shape[:2], *out_hw))

    def average(self, name: str, source: Tensor) -> Tensor:
        """The mean over height and width, (N, channels)."""
        pooled = self._graph.add("GlobalAveragePool", [source.name], f"{name}/pooled")
        self._graph.add("Flatten", [pooled], name, attributes={"axis": 1})
        return Tensor(name, source.shape[:2])

    def dense(self, name: str, source: Tensor, kernel: Floats, bias: Floats) -> Tensor:
        """A fully connected layer; ``kernel`` is (in, out)."""
        weights = self._graph.constant(f"{name}/kernel", np.asarray(kernel, np.float32))
        shift = self._graph.constant(f"{name}/bias", np.asarray(bias, np.float32))
        return Tensor(self._graph.add("Gemm", [source.name, weights, shift], name), (1, kernel.shape[1]))

    def add(self, name: str, a: Tensor, b: Tensor) -> Tensor:
        """The sum of two tensors of the same shape."""
        return Tensor(self._graph.add("Add", [a.name, b.name], name), a.shape)

    def relu(self, name: str, source: Tensor) -> Tensor:
        """Nothing below zero."""
        return Tensor(self._graph.add("Relu", [source.name], name), source.shape)

    def clip(self, name: str, source: Tensor, low: float, high: float) -> Tensor:
        """Nothing below ``low`` and above ``high``."""
        bounds = [
            self._graph.constant(f"{name}/{word}", np.array(value, np.float32))
            for word, value in (("low", low), ("high", high))
        ]
        return Tensor(self._graph.add("Clip", [source.name, *bounds], name), source.shape)

    def softmax(self, name: str, source: Tensor) -> Tensor:
        """Probabilities along the last axis of (N, classes)."""
        self._graph.add("Softmax", [source.name], name, attributes={"axis": 1})
        return Tensor(name, source.shape)

    def sigmoid(self, name: str, source: Tensor) -> Tensor:
        """A probability for each number."""
        return Tensor(self._graph.add("Sigmoid", [source.name], name), source.shape)


def same_padding(
    in_hw: Sequence[int], kernel_hw: Sequence[int], stride: int
) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """TensorFlow's SAME: top, left, bottom, right, the odd pixel at the end; the height and width that come out."""
    out = [math.ceil(side / stride) for side in in_hw]
    missing = [max((o - 1) * stride + kernel - side, 0) for o, kernel, side in zip(out, kernel_hw, in_hw, strict=True)]
    top, left = (both // 2 for both in missing)
    return (top, left, missing[0] - top, missing[1] - left), (out[0], out[1])


def turned(kernel: Floats) -> Floats:
    """A kernel (height, width, in, out) as (out, in, height, width)."""
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))


def turned_depthwise(kernel: Floats) -> Floats:
    """A kernel (height, width, channels, 1) as (channels, 1, height, width)."""
    if kernel.shape[3] != 1:
        raise ConversionError("a depthwise convolution that makes several channels of one is not supported")
    return np.ascontiguousarray(kernel.transpose(2, 3, 0, 1))


# ── graphs ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Convolution:
    """A convolution that is not in the graph yet: factors and shifts of its channels may become part of it."""

    source: Tensor
    kernel: Floats
    bias: Floats | None
    stride: int
    groups: int


@dataclass(frozen=True, slots=True)
class _Bounded:
    """A tensor with bounds that are not in the graph yet: TensorFlow.js spells one clipping as three steps."""

    source: Tensor
    low: float = -math.inf
    high: float = math.inf


_Value = Tensor | _Convolution | _Bounded | NDArray[Any]


def convert_tfjs_graph(model: bytes, weights: bytes, *, outputs: Mapping[str, str], side: int) -> bytes:
    """A graph model with one input, a picture of ``side`` pixels, as ONNX; ``outputs`` are new names by node.

    What leads to no output is left out.

    Raises:
        ConversionError: The files do not belong together, or hold what is not supported.
    """
    try:
        described = json.loads(model)
        nodes = {node["name"]: node for node in described["modelTopology"]["node"]}
        constants = read_weights(described["weightsManifest"], weights)
    except (KeyError, TypeError, ValueError) as error:
        raise ConversionError(f"this is no TensorFlow.js graph model: {type(error).__name__} {error}") from error
    graph = OnnxGraph("tfjs", symbolic_batch=True)
    reader = _GraphReader(graph, nodes, constants, side)
    for node, name in outputs.items():
        if node not in nodes:
            raise ConversionError(f"the graph has no node {node!r}")
        made = reader.settled(node)
        graph.output(Tensor(graph.add("Identity", [made.name], name), made.shape))
    return graph.serialize()


class _GraphReader:
    """Follows a graph from its outputs back to its input, each node once."""

    def __init__(
        self, graph: OnnxGraph, nodes: Mapping[str, Any], constants: Mapping[str, NDArray[Any]], side: int
    ) -> None:
        self._graph = graph
        self._layers = Layers(graph)
        self._nodes = nodes
        self._constants = constants
        self._side = side
        self._values: dict[str, _Value] = {}
        self._readers: dict[str, Callable[[str, Any], _Value]] = {
            "Placeholder": self._read_placeholder,
            "Const": lambda name, node: self._constants[name],
            "Conv2D": self._read_convolution,
            "DepthwiseConv2dNative": self._read_convolution,
            "Mul": self._read_factor,
            "Add": self._read_shift,
            "AddV2": self._read_shift,
            "Relu": lambda name, node: self._read_bound(node, low=0.0),
            "Minimum": self._read_minimum,
            "Maximum": self._read_maximum,
            "Mean": self._read_mean,
            "_FusedMatMul": self._read_dense,
            "Sigmoid": lambda name, node: self._layers.sigmoid(name, self.settled(node["input"][0])),
            "Softmax": lambda name, node: self._layers.softmax(name, self.settled(node["input"][0])),
        }

    def settled(self, name: str) -> Tensor:
        """A node's value as a tensor of the graph."""
        value = self._value(name)
        if isinstance(value, _Convolution):
            value = self._layers.convolution(
                name, value.source, value.kernel, value.bias, stride=value.stride, groups=value.groups
            )
        elif isinstance(value, _Bounded):
            if (value.low, value.high) == (0.0, math.inf):
                value = self._layers.relu(name, value.source)
            else:
                value = self._layers.clip(name, value.source, value.low, value.high)
        elif not isinstance(value, Tensor):
            raise ConversionError(f"{name} is a constant where a picture's tensor is wanted")
        self._values[name] = value
        return value

    def _value(self, name: str) -> _Value:
        if name not in self._values:
            # From the input on, and not by recursion: graphs are deeper than Python's stack is meant to be.
            for each in self._order(name):
                node = self._nodes[each]
                if node["op"] not in self._readers:
                    raise ConversionError(f"{each} is a {node['op']}, which is not supported")
                self._values[each] = self._readers[node["op"]](each, node)
        return self._values[name]

    def _order(self, name: str) -> list[str]:
        """The nodes that are needed for one and not read yet, each after its inputs."""
        order: list[str] = []
        begun: set[str] = set()
        done: set[str] = set()
        stack = [(name, False)]
        while stack:
            current, inputs_done = stack.pop()
            if inputs_done:
                order.append(current)
                done.add(current)
                continue
            if current in self._values or current in done:
                continue
            if current in begun:
                raise ConversionError(f"the graph goes round in a circle at {current!r}")
            if current not in self._nodes:
                raise ConversionError(f"the graph names {current!r} and has no such node")
            begun.add(current)
            stack.append((current, True))
            stack += [(source, False) for source in reversed(self._nodes[current].get("input", ()))]
        return order

    def _read_placeholder(self, name: str, node: Any) -> Tensor:
        del node
        return self._graph.input(name, (1, 3, self._side, self._side))

    def _read_convolution(self, name: str, node: Any) -> _Convolution:
        attributes = node["attr"]
        strides = [int(step) for step in attributes["strides"]["list"]["i"]]
        if strides[1] != strides[2] or {int(one) for one in attributes["dilations"]["list"]["i"]} != {1}:
            raise ConversionError(f"{name} has strides or dilations that are not supported")
        if _text(attributes["padding"]) != "SAME" or _text(attributes["data_format"]) != "NHWC":
            raise ConversionError(f"{name} has a padding or a layout that is not supported")
        source, kernel = self.settled(node["input"][0]), self._constant(node["input"][1])
        if node["op"] == "Conv2D":
            return _Convolution(source, turned(kernel), None, strides[1], 1)
        return _Convolution(source, turned_depthwise(kernel), None, strides[1], source.shape[1])

    def _read_factor(self, name: str, node: Any) -> _Convolution:
        convolution, factor = self._convolution_and_constant(name, node)
        bias = None if convolution.bias is None else convolution.bias * factor
        return replace(convolution, kernel=convolution.kernel * factor[:, None, None, None], bias=bias)

    def _read_shift(self, name: str, node: Any) -> _Convolution:
        convolution, shift = self._convolution_and_constant(name, node)
        return replace(convolution, bias=shift if convolution.bias is None else convolution.bias + shift)

    def _convolution_and_constant(self, name: str, node: Any) -> tuple[_Convolution, Floats]:
        convolution = self._value(node["input"][0])
        if not isinstance(convolution, _Convolution):
            raise ConversionError(f"{name} does not follow a convolution")
        return convolution, self._constant(node["input"][1]).reshape(-1)

    def _read_minimum(self, name: str, node: Any) -> _Bounded:
        del name
        return self._read_bound(node, high=float(self._constant(node["input"][1]).item()))

    def _read_maximum(self, name: str, node: Any) -> _Bounded:
        del name
        return self._read_bound(node, low=float(self._constant(node["input"][1]).item()))

    def _read_bound(self, node: Any, *, low: float = -math.inf, high: float = math.inf) -> _Bounded:
        source = self._value(node["input"][0])
        if isinstance(source, _Bounded):
            return _Bounded(source.source, max(source.low, low), min(source.high, high))
        return _Bounded(self.settled(node["input"][0]), low, high)

    def _read_mean(self, name: str, node: Any) -> Tensor:
        if sorted(self._constant(node["input"][1]).reshape(-1).tolist()) != [1, 2]:
            raise ConversionError(f"{name} is a mean over something else than height and width")
        return self._layers.average(name, self.settled(node["input"][0]))

    def _read_dense(self, name: str, node: Any) -> Tensor | _Bounded:
        source, kernel, bias = node["input"]
        steps = [base64.b64decode(step).decode() for step in node["attr"]["fused_ops"]["list"]["s"]]
        made = self._layers.dense(f"{name}/linear", self.settled(source), self._constant(kernel), self._constant(bias))
        if steps == ["BiasAdd"]:
            return made
        if steps == ["BiasAdd", "Relu"]:
            return _Bounded(made, low=0.0)
        raise ConversionError(f"{name} is followed by {', '.join(steps)}, which is not supported")

    def _constant(self, name: str) -> NDArray[Any]:
        if name not in self._constants:
            raise ConversionError(f"{name} is no constant")
        return self._constants[name]


def _text(attribute: Any) -> str:
    """An attribute's word, which JSON carries as Base64."""
    return base64.b64decode(attribute["s"]).decode()
