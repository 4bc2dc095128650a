"""Caffe to ONNX: the table of layers that are known, and the walk over a net."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final

import numpy as np

from dulian.convert import layers_dense, layers_pointwise, layers_pooling, layers_shape, layers_ssd
from dulian.convert.affine import fold_affine
from dulian.convert.caffe_net import Layer, read_net
from dulian.convert.layers_dense import Lrn
from dulian.convert.onnx_graph import OnnxGraph, Tensor
from dulian.errors import ConversionError

LayerWriter = Callable[[Layer, Sequence[Tensor], OnnxGraph], tuple[Tensor, ...]]

LAYERS: Final[Mapping[str, LayerWriter]] = MappingProxyType(
    {
        "Affine": layers_dense.affine,
        "Concat": layers_shape.concat,
        "Convolution": layers_dense.convolution,
        "DetectionOutput": layers_ssd.detection_output,
        "Eltwise": layers_pointwise.eltwise,
        "Flatten": layers_shape.flatten,
        "InnerProduct": layers_dense.inner_product,
        "LRN": partial(layers_dense.lrn, form="conv"),
        "Normalize": layers_dense.normalize,
        "PReLU": layers_pointwise.prelu,
        "Permute": layers_shape.permute,
        "Pooling": layers_pooling.pooling,
        "Power": layers_pointwise.power,
        "PriorBox": layers_ssd.prior_box,
        "ReLU": layers_pointwise.relu,
        "Reshape": layers_shape.reshape,
        "Scale": layers_dense.scale,
        "Sigmoid": layers_pointwise.sigmoid,
        "Slice": layers_shape.slice_,
        "Softmax": layers_pointwise.softmax,
        "TanH": layers_pointwise.tanh,
    }
)
# Of one picture: 256 MiB, a thousand times what a face net needs.
MAX_TENSOR_NUMBERS: Final = 1 << 26
# Layers that make or take the prior boxes, which are numbers rather than tensors of the graph.
_CONSTANT_READERS: Final = ("Concat", "DetectionOutput")


def convert_caffe(prototxt: bytes, caffemodel: bytes, *, lrn: Lrn = "conv") -> bytes:
    """Rewrites a Caffe net as a serialized ONNX model; equal input gives equal bytes.

    Outputs keep Caffe's blob names and a batch ``N``. A net that ends in DetectionOutput takes one
    picture at a time and gives ``boxes`` (1, P, 4), relative xyxy, and ``scores`` (1, P, classes) for
    each of its P prior boxes, before suppression. ``lrn`` "conv" writes local response normalisation
    as a convolution, "op" as the ONNX operator.

    Raises:
        ConversionError: a file cannot be read, or a layer or parameter is not supported; the message
            names the layer and its type.
    """
    net = read_net(prototxt, caffemodel)
    is_detector = any(layer.type == "DetectionOutput" for layer in net.layers)
    graph = OnnxGraph(net.name, symbolic_batch=not is_detector)
    writers: Mapping[str, LayerWriter] = {**LAYERS, "LRN": partial(layers_dense.lrn, form=lrn)}
    tensors = {name: graph.input(name, shape) for name, shape in net.inputs}
    # Damaged numbers are found when they are stored, whatever arithmetic made of them on the way.
    with np.errstate(all="ignore"):
        for layer in fold_affine(net.layers):
            for tensor in _written(layer, writers, tensors, graph):
                tensors[tensor.name] = tensor
    for name in net.outputs:
        # DetectionOutput has declared outputs of its own in place of its top.
        if name not in tensors:
            continue
        if tensors[name].constant is not None:
            raise ConversionError(f"output {name!r} holds prior boxes, which no layer reads")
        graph.output(tensors[name])
    return graph.serialize()


def _written(
    layer: Layer, writers: Mapping[str, LayerWriter], tensors: Mapping[str, Tensor], graph: OnnxGraph
) -> tuple[Tensor, ...]:
    writer = writers.get(layer.type)
    if writer is None:
        raise layer.error(f"this type of layer is not supported; supported are {', '.join(sorted(writers))}")
    bottoms = [tensors[name] for name in layer.bottoms if name in tensors]
    if len(bottoms) != len(layer.bottoms):
        raise layer.error("reads the rows of a DetectionOutput layer, which are left to the caller")
    if layer.type not in _CONSTANT_READERS and any(bottom.constant is not None for bottom in bottoms):
        raise layer.error("reads prior boxes, which only Concat and DetectionOutput can")
    written = writer(layer, bottoms, graph)
    if any(math.prod(tensor.shape) > MAX_TENSOR_NUMBERS for tensor in written):
        raise layer.error(f"writes {written[0].shape}, more than {MAX_TENSOR_NUMBERS} numbers")
    return written
