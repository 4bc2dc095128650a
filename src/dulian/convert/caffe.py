"""Caffe to ONNX: the table of layers that are known, and the walk over a net.

BatchNorm and Scale are first turned into affine maps and folded into the convolution before them, in
float64 and by IEEE-exact operations only (no pow, no dot products), so that the same files give the
same bytes on every machine.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dulian.convert import layers, layers_ssd, layers_window
from dulian.convert.caffe_net import Affine, Layer, read_net
from dulian.convert.layers_window import Convolution, Lrn
from dulian.convert.onnx_graph import OnnxGraph, Tensor
from dulian.errors import ConversionError

LayerWriter = Callable[[Layer, Sequence[Tensor], OnnxGraph], tuple[Tensor, ...]]

# All but LRN, which is written in one of two forms.
LAYERS: Final[Mapping[str, LayerWriter]] = MappingProxyType(
    {
        "Affine": layers.affine,
        "Concat": layers.concat,
        "Convolution": layers_window.convolution,
        "DetectionOutput": layers_ssd.detection_output,
        "Eltwise": layers.eltwise,
        "Flatten": layers.flatten,
        "InnerProduct": layers.inner_product,
        "Normalize": layers_window.normalize,
        "PReLU": layers.prelu,
        "Permute": layers.permute,
        "Pooling": layers_window.pooling,
        "Power": layers.power,
        "PriorBox": layers_ssd.prior_box,
        "ReLU": layers.relu,
        "Reshape": layers.reshape,
        "Scale": layers.scale,
        "Sigmoid": partial(layers.activation, op_type="Sigmoid"),
        "Slice": layers.slice_,
        "Softmax": layers.softmax,
        "TanH": partial(layers.activation, op_type="Tanh"),
    }
)
# Of one picture: 256 MiB, a thousand times what a face net needs.
MAX_TENSOR_NUMBERS: Final = 1 << 26
_DEFAULT_EPS: Final = 1e-5
# Layers that can take in the affine map after them.
_HOSTS: Final = ("Convolution", "Affine")
# Layers that make or take the prior boxes, which are numbers rather than tensors of the graph.
_CONSTANT_READERS: Final = ("Concat", "DetectionOutput")


def convert_caffe(
    prototxt: bytes, caffemodel: bytes, *, lrn: Lrn = "conv", convolution: Convolution = "direct"
) -> bytes:
    """Rewrites a Caffe net as a serialized ONNX model; equal input gives equal bytes.

    Outputs keep Caffe's blob names and a batch ``N``. A net that ends in DetectionOutput takes one
    picture at a time and gives ``boxes`` (1, P, 4), relative xyxy, and ``scores`` (1, P, classes) for
    each of its P prior boxes, before suppression. ``lrn`` "conv" writes local response normalisation
    as a convolution, "op" as the ONNX operator. ``convolution`` "winograd" writes large 5 × 5 ones with
    fewer multiplications: as exact in f32, but neither as small nor fit for half precision.

    Raises:
        ConversionError: a file cannot be read, or a layer or parameter is not supported; the message
            names the layer and its type.
    """
    net = read_net(prototxt, caffemodel)
    is_detector = any(layer.type == "DetectionOutput" for layer in net.layers)
    graph = OnnxGraph(net.name, symbolic_batch=not is_detector)
    writers: Mapping[str, LayerWriter] = {
        **LAYERS,
        "LRN": partial(layers_window.lrn, form=lrn),
        "Convolution": partial(layers_window.convolution, form=convolution),
    }
    tensors = {name: graph.input(name, shape) for name, shape in net.inputs}
    # Damaged numbers are found when they are stored, whatever arithmetic made of them on the way.
    with np.errstate(all="ignore"):
        for layer in _fold_affine(net.layers):
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


# ── folding ──────────────────────────────────────────────────────────────────────────────────────


def _fold_affine(unfolded: Sequence[Layer]) -> tuple[Layer, ...]:
    """Folds where the convolution's result is read by nothing else; the rest becomes ``Affine`` layers.

    Raises:
        ConversionError: the numbers of a BatchNorm or Scale layer do not fit together.
    """
    readers = Counter(bottom for layer in unfolded for bottom in layer.bottoms)
    folded: list[Layer] = []
    writer: dict[str, int] = {}
    for layer in unfolded:
        if _is_channel_affine(layer):
            affine = _batch_norm(layer) if layer.type == "BatchNorm" else _scale(layer)
            layer = replace(layer, type="Affine", affine=affine, blobs=())
            host = writer.get(layer.bottoms[0])
            if host is not None and readers[layer.bottoms[0]] == 1:
                folded[host] = _joined(folded[host], layer)
                writer[layer.tops[0]] = host
                continue
        folded.append(layer)
        if layer.type in _HOSTS and len(layer.tops) == 1:
            writer[layer.tops[0]] = len(folded) - 1
    return tuple(folded)


def _is_channel_affine(layer: Layer) -> bool:
    """Whether the layer multiplies and shifts per channel, which is axis 1."""
    if len(layer.bottoms) != 1 or len(layer.tops) != 1:
        return False
    if layer.type == "Scale":
        param = layer.message.child("scale_param")
        return param.integer("axis", 1) == 1 and param.integer("num_axes", 1) == 1
    return layer.type == "BatchNorm"


def _joined(host: Layer, after: Layer) -> Layer:
    assert after.affine is not None
    affine = after.affine
    if host.affine is not None:
        if host.affine.scale.shape != affine.scale.shape:
            raise after.error(f"has {affine.scale.size} channels after {host.affine.scale.size} in {host.name!r}")
        affine = host.affine.then(affine)
    return replace(host, affine=affine, tops=after.tops)


def _batch_norm(layer: Layer) -> Affine:
    """(x - mean) / sqrt(variance + eps), with both sums divided by the stored scale factor."""
    param = layer.param("batch_norm_param", ("eps", "use_global_stats", "moving_average_fraction"))
    if not param.flag("use_global_stats", True):
        raise layer.error("statistics of the batch itself are not supported")
    mean, variance = _doubles(layer, 0, "mean"), _doubles(layer, 1, "variance")
    factor = _doubles(layer, 2, "scale factor")
    if mean.shape != variance.shape or factor.size != 1:
        raise layer.error("mean and variance differ in size")
    # Caffe's rule for a net that was never trained: a factor of zero makes both sums zero.
    divisor = 0.0 if factor[0] == 0 else 1.0 / factor[0]
    spread = variance * divisor + param.number("eps", _DEFAULT_EPS)
    if not np.all(spread > 0):
        raise layer.error("a variance is negative or not a number")
    scale = 1.0 / np.sqrt(spread)
    return Affine(scale, -(mean * divisor) * scale)


def _scale(layer: Layer) -> Affine:
    param = layer.param("scale_param", ("axis", "num_axes", "filler", "bias_term", "bias_filler"))
    scale = _doubles(layer, 0, "scale")
    shift = _doubles(layer, 1, "bias") if param.flag("bias_term", False) else np.zeros_like(scale)
    if scale.shape != shift.shape:
        raise layer.error("scale and bias differ in size")
    return Affine(scale, shift)


def _doubles(layer: Layer, index: int, what: str) -> NDArray[np.float64]:
    return layer.blob(index, what).astype(np.float64).reshape(-1)
