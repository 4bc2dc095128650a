"""TensorFlow.js networks as ONNX, against the same sums done the slow way, N x H x W x 3 as TensorFlow has them."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from dulian.convert.face_api import convert_face_api
from dulian.convert.tfjs import convert_tfjs_graph, read_weights, same_padding
from dulian.errors import ConversionError

Floats = NDArray[np.float32]
SIDE = 9


# ── the slow way ─────────────────────────────────────────────────────────────────────────────────


def windows(picture: Floats, side: int, stride: int, fill: float) -> NDArray[np.float64]:
    """(N, H, W, side, side, C): what a window sees at each place, TensorFlow's SAME."""
    (top, left, bottom, right), (height, width) = same_padding(picture.shape[1:3], (side, side), stride)
    padded = np.pad(picture, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    seen = np.empty((picture.shape[0], height, width, side, side, picture.shape[3]))
    for y in range(height):
        for x in range(width):
            seen[:, y, x] = padded[:, y * stride : y * stride + side, x * stride : x * stride + side]
    return seen


def convolved(picture: Floats, kernel: Floats, stride: int = 1) -> Any:
    return np.einsum("nhwijc,ijco->nhwo", windows(picture, kernel.shape[0], stride, 0.0), kernel)


def convolved_alone(picture: Floats, kernel: Floats, stride: int = 1) -> Any:
    return np.einsum("nhwijc,ijc->nhwc", windows(picture, kernel.shape[0], stride, 0.0), kernel[..., 0])


def softmax(scores: Any) -> Any:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def run(model: bytes, picture: Floats) -> dict[str, Floats]:
    session = onnxruntime.InferenceSession(model)
    names = [output.name for output in session.get_outputs()]
    tensor = np.ascontiguousarray(picture.transpose(0, 3, 1, 2))
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: tensor}), strict=True))


# ── weights ──────────────────────────────────────────────────────────────────────────────────────


class Weights:
    """A weights file and its manifest, put together one tensor after the other."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.data = b""
        self.values: dict[str, Any] = {}
        self._random = np.random.default_rng(3)

    def add(self, name: str, values: NDArray[Any]) -> None:
        self.entries.append({"name": name, "shape": list(values.shape), "dtype": values.dtype.name})
        self.data += values.tobytes()
        self.values[name] = values

    def add_quantised(self, name: str, *shape: int, spread: float = 1.0) -> None:
        numbers = self._random.integers(0, 256, shape, dtype=np.uint8)
        scale, low = spread / 128, -spread
        rule = {"dtype": "uint8", "scale": scale, "min": low}
        self.entries.append({"name": name, "shape": list(shape), "dtype": "float32", "quantization": rule})
        self.data += numbers.tobytes()
        self.values[name] = (numbers * scale + low).astype(np.float32)

    @property
    def manifest(self) -> list[dict[str, Any]]:
        return [{"paths": ["weights.bin"], "weights": self.entries}]


def test_weights_are_read_by_kind_and_quantised_ones_spread_out() -> None:
    weights = Weights()
    weights.add("a", np.array([[1.5, -2.0]], np.float32))
    weights.add_quantised("b", 2, 3)
    weights.add("c", np.array(7, np.int32))
    found = read_weights(weights.manifest, weights.data)
    assert list(found) == ["a", "b", "c"]
    for name, values in weights.values.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize(("change", "words"), [(-1, "end inside b"), (1, "manifest tells of")])
def test_weights_of_another_length_are_refused(change: int, words: str) -> None:
    weights = Weights()
    weights.add_quantised("b", 4)
    data = weights.data[:change] if change < 0 else weights.data + bytes(change)
    with pytest.raises(ConversionError, match=words):
        read_weights(weights.manifest, data)


def test_numbers_of_an_unknown_kind_are_refused() -> None:
    with pytest.raises(ConversionError, match="unknown kind, complex64"):
        read_weights([{"weights": [{"name": "a", "shape": [1], "dtype": "complex64"}]}], bytes(8))


@pytest.mark.parametrize("side", range(1, 12))
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_same_padding_gives_as_many_as_strides_fit(side: int, kernel: int, stride: int) -> None:
    (top, left, bottom, right), (height, width) = same_padding((side, side), (kernel, kernel), stride)
    assert height == width == math.ceil(side / stride)
    assert (top, bottom) == (left, right)
    assert 0 <= bottom - top <= 1  # the odd pixel at the end
    assert top + side + bottom >= (height - 1) * stride + kernel


# ── graphs ───────────────────────────────────────────────────────────────────────────────────────


def encoded(word: str) -> dict[str, str]:
    return {"s": base64.b64encode(word.encode()).decode()}


def ints(*numbers: int) -> dict[str, Any]:
    return {"list": {"i": [str(number) for number in numbers]}}


def small_graph(weights: Weights) -> list[dict[str, Any]]:
    """A convolution, shifted and clipped in three steps, one of each channel with a factor and a shift, two heads."""

    def window(name: str, op: str, source: str, kernel: str, stride: int) -> dict[str, Any]:
        attributes = {"strides": ints(1, stride, stride, 1), "dilations": ints(1, 1, 1, 1)}
        return {
            "name": name,
            "op": op,
            "input": [source, kernel],
            "attr": attributes | {"padding": encoded("SAME"), "data_format": encoded("NHWC")},
        }

    def dense(name: str, *steps: str) -> dict[str, Any]:
        fused = {"list": {"s": [encoded(step)["s"] for step in steps]}}
        return {"op": "_FusedMatMul", "attr": {"fused_ops": fused}, "name": name, "input": []}

    weights.add_quantised("conv/kernel", 3, 3, 3, 4, spread=0.5)
    weights.add_quantised("conv/shift", 4)
    weights.add("six", np.array(1.5, np.float32))
    weights.add("nil", np.array(0.0, np.float32))
    weights.add_quantised("alone/kernel", 3, 3, 4, 1)
    weights.add_quantised("alone/factor", 4)
    weights.add_quantised("alone/shift", 4)
    weights.add("axes", np.array([1, 2], np.int32))
    weights.add_quantised("features/kernel", 4, 6)
    weights.add_quantised("features/bias", 6)
    weights.add_quantised("classes/kernel", 6, 5)
    weights.add_quantised("classes/bias", 5)
    weights.add_quantised("one/kernel", 6, 1)
    weights.add_quantised("one/bias", 1)
    nodes = [{"name": name, "op": "Const"} for name in weights.values]
    return [
        *nodes,
        {"name": "picture", "op": "Placeholder"},
        window("conv", "Conv2D", "picture", "conv/kernel", 2),
        {"name": "shifted", "op": "Add", "input": ["conv", "conv/shift"]},
        {"name": "relu", "op": "Relu", "input": ["shifted"]},
        {"name": "below", "op": "Minimum", "input": ["relu", "six"]},
        {"name": "above", "op": "Maximum", "input": ["below", "nil"]},
        window("alone", "DepthwiseConv2dNative", "above", "alone/kernel", 1),
        {"name": "times", "op": "Mul", "input": ["alone", "alone/factor"]},
        {"name": "plus", "op": "AddV2", "input": ["times", "alone/shift"]},
        {"name": "positive", "op": "Relu", "input": ["plus"]},
        {"name": "mean", "op": "Mean", "input": ["positive", "axes"]},
        dense("features", "BiasAdd", "Relu") | {"input": ["mean", "features/kernel", "features/bias"]},
        dense("scores", "BiasAdd") | {"input": ["features", "classes/kernel", "classes/bias"]},
        {"name": "classes", "op": "Softmax", "input": ["scores"]},
        dense("score", "BiasAdd") | {"input": ["features", "one/kernel", "one/bias"]},
        {"name": "one", "op": "Sigmoid", "input": ["score"]},
        {"name": "elsewhere", "op": "Embedding", "input": ["features"]},
    ]


def as_model(nodes: list[dict[str, Any]], weights: Weights) -> bytes:
    return json.dumps({"modelTopology": {"node": nodes}, "weightsManifest": weights.manifest}).encode()


OUTPUTS = {"classes": "age", "one": "gender"}


def test_a_graph_answers_as_the_slow_way() -> None:
    weights = Weights()
    nodes = small_graph(weights)
    model = convert_tfjs_graph(as_model(nodes, weights), weights.data, outputs=OUTPUTS, side=SIDE)
    picture = np.random.default_rng(5).normal(0, 1, (2, SIDE, SIDE, 3)).astype(np.float32)
    known = weights.values
    flow = np.clip(convolved(picture, known["conv/kernel"], 2) + known["conv/shift"], 0, 1.5)
    flow = convolved_alone(flow, known["alone/kernel"]) * known["alone/factor"] + known["alone/shift"]
    mean = np.maximum(flow, 0).mean(axis=(1, 2))
    features = np.maximum(mean @ known["features/kernel"] + known["features/bias"], 0)
    answer = run(model, picture)
    assert answer["age"].shape == (2, 5)
    classes = softmax(features @ known["classes/kernel"] + known["classes/bias"])
    np.testing.assert_allclose(answer["age"], classes, atol=2e-6)
    one = 1 / (1 + np.exp(-(features @ known["one/kernel"] + known["one/bias"])))
    np.testing.assert_allclose(answer["gender"], one, atol=2e-6)
    assert model == convert_tfjs_graph(as_model(nodes, weights), weights.data, outputs=OUTPUTS, side=SIDE)


def test_factors_and_shifts_become_part_of_the_convolution() -> None:
    import onnx

    weights = Weights()
    model = convert_tfjs_graph(as_model(small_graph(weights), weights), weights.data, outputs=OUTPUTS, side=SIDE)
    kinds = [node.op_type for node in onnx.load_from_string(model).graph.node]
    assert kinds.count("Conv") == 2
    assert kinds.count("Clip") == 1
    assert not {"Mul", "Add", "Min", "Max"} & set(kinds)


@pytest.mark.parametrize(
    ("node", "change", "words"),
    [
        ("mean", {"op": "Median"}, "is a Median, which is not supported"),
        ("mean", {"input": ["positive", "conv/shift"]}, "something else than height and width"),
        ("times", {"input": ["picture", "alone/factor"]}, "does not follow a convolution"),
        ("plus", {"input": ["classes", "alone/shift"]}, "goes round in a circle"),
        ("below", {"input": ["relu", "conv"]}, "is no constant"),
        ("relu", {"input": ["nowhere"]}, "no such node"),
        ("classes", {"name": "elsewhere else"}, "no node 'classes'"),
    ],
)
def test_what_is_not_supported_is_named(node: str, change: dict[str, Any], words: str) -> None:
    weights = Weights()
    nodes = [one | change if one["name"] == node else one for one in small_graph(weights)]
    with pytest.raises(ConversionError, match=words):
        convert_tfjs_graph(as_model(nodes, weights), weights.data, outputs=OUTPUTS, side=SIDE)


@pytest.mark.parametrize(
    ("attribute", "value", "words"),
    [
        ("padding", encoded("VALID"), "a padding or a layout"),
        ("data_format", encoded("NCHW"), "a padding or a layout"),
        ("strides", ints(1, 1, 2, 1), "strides or dilations"),
        ("dilations", ints(1, 2, 2, 1), "strides or dilations"),
    ],
)
def test_convolutions_of_other_kinds_are_refused(attribute: str, value: Any, words: str) -> None:
    weights = Weights()
    nodes = small_graph(weights)
    next(node for node in nodes if node["name"] == "conv")["attr"][attribute] = value
    with pytest.raises(ConversionError, match=words):
        convert_tfjs_graph(as_model(nodes, weights), weights.data, outputs=OUTPUTS, side=SIDE)


@pytest.mark.parametrize("model", [b"", b"{}", b"[]", b'{"modelTopology": {"node": 3}, "weightsManifest": []}'])
def test_what_is_no_model_is_refused(model: bytes) -> None:
    with pytest.raises(ConversionError, match="no TensorFlow.js graph model"):
        convert_tfjs_graph(model, b"", outputs=OUTPUTS, side=SIDE)


# ── face-api ─────────────────────────────────────────────────────────────────────────────────────


def face_api_weights() -> Weights:
    """Weights of the published shapes, with other numbers."""
    weights = Weights()

    def separable(name: str, before: int, after: int) -> None:
        weights.add_quantised(f"{name}/depthwise_filter", 3, 3, before, 1, spread=0.4)
        weights.add_quantised(f"{name}/pointwise_filter", 1, 1, before, after, spread=0.3)
        weights.add(f"{name}/bias", np.linspace(-0.2, 0.2, after, dtype=np.float32))

    def reduction(name: str, before: int, after: int) -> None:
        separable(f"{name}/separable_conv0", before, after)
        separable(f"{name}/separable_conv1", after, after)
        weights.add_quantised(f"{name}/expansion_conv/filters", 1, 1, before, after, spread=0.3)
        weights.add(f"{name}/expansion_conv/bias", np.linspace(-0.1, 0.1, after, dtype=np.float32))

    weights.add_quantised("entry_flow/conv_in/filters", 3, 3, 3, 32, spread=0.4)
    weights.add("entry_flow/conv_in/bias", np.linspace(-0.2, 0.2, 32, dtype=np.float32))
    reduction("entry_flow/reduction_block_0", 32, 64)
    reduction("entry_flow/reduction_block_1", 64, 128)
    for block in range(2):
        for number in range(3):
            separable(f"middle_flow/main_block_{block}/separable_conv{number}", 128, 128)
    reduction("exit_flow/reduction_block", 128, 256)
    separable("exit_flow/separable_conv", 256, 512)
    weights.add_quantised("fc/age/weights", 512, 1, spread=0.1)
    weights.add("fc/age/bias", np.array([30.0], np.float32))
    weights.add_quantised("fc/gender/weights", 512, 2, spread=0.02)
    weights.add("fc/gender/bias", np.array([0.1, -0.1], np.float32))
    return weights


def slow_face_api(picture: Floats, known: dict[str, Any]) -> tuple[Any, Any]:
    def relu(flow: Any) -> Any:
        return np.maximum(flow, 0)

    def separable(name: str, flow: Any) -> Any:
        alone = convolved_alone(flow, known[f"{name}/depthwise_filter"])
        return convolved(alone, known[f"{name}/pointwise_filter"]) + known[f"{name}/bias"]

    def convolution(name: str, flow: Any) -> Any:
        return convolved(flow, known[f"{name}/filters"], 2) + known[f"{name}/bias"]

    def reduction(name: str, source: Any, start: Any) -> Any:
        flow = separable(f"{name}/separable_conv1", relu(separable(f"{name}/separable_conv0", start)))
        return windows(flow, 3, 2, -np.inf).max(axis=(3, 4)) + convolution(f"{name}/expansion_conv", source)

    flow = relu(convolution("entry_flow/conv_in", picture))
    flow = reduction("entry_flow/reduction_block_0", flow, flow)
    flow = reduction("entry_flow/reduction_block_1", flow, relu(flow))
    for block in range(2):
        way = flow
        for number in range(3):
            way = separable(f"middle_flow/main_block_{block}/separable_conv{number}", relu(way))
        flow = way + flow
    flow = reduction("exit_flow/reduction_block", flow, relu(flow))
    features = relu(separable("exit_flow/separable_conv", flow)).mean(axis=(1, 2))
    age = features @ known["fc/age/weights"] + known["fc/age/bias"]
    return age, softmax(features @ known["fc/gender/weights"] + known["fc/gender/bias"])


def test_face_apis_network_answers_as_the_slow_way() -> None:
    weights = face_api_weights()
    model = convert_face_api(json.dumps(weights.manifest).encode(), weights.data)
    picture = np.random.default_rng(9).normal(0, 0.3, (1, 112, 112, 3)).astype(np.float32)
    age, gender = slow_face_api(picture, weights.values)
    answer = run(model, picture)
    np.testing.assert_allclose(answer["age"], age, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(answer["gender"], gender, atol=1e-4)
    assert abs(float(age[0, 0]) - 30) > 0.5  # the picture has a say


@pytest.mark.parametrize("manifest", [b"", b"[]", b"{}", b'[{"weights": []}]'])
def test_other_weights_are_not_taken_for_face_apis(manifest: bytes) -> None:
    with pytest.raises(ConversionError):
        convert_face_api(manifest, b"")
