"""face-api's age and gender network, which is published as weights without a graph: its layers stand here.

A small Xception (Mühler, face-api.js, MIT): separable convolutions in blocks with a way round them, and two linear
heads, the age in years and two scores for the genders. What goes in are faces of 112 x 112, N x 3 x H x W.
"""

from __future__ import annotations

import json
from typing import Any, Final

from numpy.typing import NDArray

from dulian.convert.onnx_graph import OnnxGraph, Tensor
from dulian.convert.tfjs import Layers, read_weights, turned, turned_depthwise
from dulian.errors import ConversionError

SIDE: Final = 112
_MIDDLE_BLOCKS: Final = 2


def convert_face_api(manifest: bytes, weights: bytes) -> bytes:
    """The network as ONNX: ``age`` (N, 1) in years, ``gender`` (N, 2) as probabilities of male and female.

    Raises:
        ConversionError: The files do not belong together, or are another network's.
    """
    try:
        tensors = read_weights(json.loads(manifest), weights)
        return _Network(tensors).build()
    except (KeyError, TypeError, ValueError) as error:
        raise ConversionError(
            f"these are not face-api's age and gender weights: {type(error).__name__} {error}"
        ) from error


class _Network:
    """Puts the layers together; names are those of the weights."""

    def __init__(self, tensors: dict[str, NDArray[Any]]) -> None:
        self._graph = OnnxGraph("face_api", symbolic_batch=True)
        self._layers = Layers(self._graph)
        self._tensors = tensors

    def build(self) -> bytes:
        picture = self._graph.input("input", (1, 3, SIDE, SIDE))
        flow = self._relu(self._convolution("entry_flow/conv_in", picture, stride=2))
        flow = self._reduction("entry_flow/reduction_block_0", flow, starts_with_relu=False)
        flow = self._reduction("entry_flow/reduction_block_1", flow)
        for number in range(_MIDDLE_BLOCKS):
            flow = self._middle(f"middle_flow/main_block_{number}", flow)
        flow = self._reduction("exit_flow/reduction_block", flow)
        flow = self._relu(self._separable("exit_flow/separable_conv", flow))
        features = self._layers.average("features", flow)
        self._graph.output(self._head("age", features))
        self._graph.output(self._layers.softmax("gender", self._head("gender", features, name="gender/scores")))
        return self._graph.serialize()

    def _reduction(self, block: str, source: Tensor, *, starts_with_relu: bool = True) -> Tensor:
        """Two separable convolutions and a pooling, beside a way round them; half the height and width."""
        flow = self._relu(source, f"{block}/relu") if starts_with_relu else source
        flow = self._separable(f"{block}/separable_conv0", flow)
        flow = self._separable(f"{block}/separable_conv1", self._relu(flow))
        flow = self._layers.max_pool(f"{block}/pool", flow, side=3, stride=2)
        return self._layers.add(f"{block}/sum", flow, self._convolution(f"{block}/expansion_conv", source, stride=2))

    def _middle(self, block: str, source: Tensor) -> Tensor:
        """Three separable convolutions beside a way round them."""
        flow = source
        for number in range(3):
            flow = self._separable(f"{block}/separable_conv{number}", self._relu(flow, f"{block}/relu{number}"))
        return self._layers.add(f"{block}/sum", flow, source)

    def _separable(self, name: str, source: Tensor) -> Tensor:
        """A convolution of each channel alone, then one across channels."""
        depthwise = turned_depthwise(self._tensors[f"{name}/depthwise_filter"])
        alone = self._layers.convolution(f"{name}/depthwise", source, depthwise, groups=source.shape[1])
        across = turned(self._tensors[f"{name}/pointwise_filter"])
        return self._layers.convolution(name, alone, across, self._tensors[f"{name}/bias"])

    def _convolution(self, name: str, source: Tensor, *, stride: int) -> Tensor:
        kernel = turned(self._tensors[f"{name}/filters"])
        return self._layers.convolution(name, source, kernel, self._tensors[f"{name}/bias"], stride=stride)

    def _relu(self, source: Tensor, name: str = "") -> Tensor:
        return self._layers.relu(name or f"{source.name}/relu", source)

    def _head(self, attribute: str, features: Tensor, *, name: str = "") -> Tensor:
        weights, bias = self._tensors[f"fc/{attribute}/weights"], self._tensors[f"fc/{attribute}/bias"]
        return self._layers.dense(name or attribute, features, weights, bias)
