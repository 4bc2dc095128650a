"""Every layer against numpy, and against OpenCV 4's Caffe importer where it is there."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from caffe_writer import caffemodel, layer, one_layer, prototxt

from dulian.convert import convert_caffe
from dulian.errors import ConversionError

RANDOM = np.random.default_rng(7)
X = RANDOM.normal(0, 1, (1, 4, 6, 6)).astype(np.float32)
SHAPE = X.shape
EMPTY = caffemodel(layer("none", "Silence"))


def softmax(x, axis):
    powers = np.exp(x - x.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def lrn(x, *, size=5, alpha=1.0, beta=0.75, k=1.0):
    padded = np.pad(x.astype(np.float64) ** 2, ((0, 0), (size // 2,) * 2, (0, 0), (0, 0)))
    total = sum(padded[:, start : start + x.shape[1]] for start in range(size))
    return x / (k + alpha / size * total) ** beta


POINTWISE = [
    ("ReLU", "", lambda x: np.maximum(x, 0)),
    ("ReLU", "relu_param { negative_slope: 0.25 }", lambda x: np.where(x > 0, x, 0.25 * x)),
    ("Sigmoid", "", lambda x: 1 / (1 + np.exp(-x))),
    ("TanH", "", np.tanh),
    ("Softmax", "", lambda x: softmax(x, 1)),
    ("Softmax", "softmax_param { axis: -1 }", lambda x: softmax(x, 3)),
    ("Power", "power_param { scale: 2 shift: 9 power: 0.5 }", lambda x: np.sqrt(9 + 2 * x)),
    ("Power", "power_param { shift: -1 }", lambda x: x - 1),
    ("Power", "", lambda x: x),
    ("LRN", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 }", lambda x: lrn(x, size=3, alpha=0.5)),
    ("LRN", "lrn_param { local_size: 5 alpha: 0.5 beta: 0.5 k: 2 }", lambda x: lrn(x, alpha=0.5, beta=0.5, k=2)),
    ("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }", lambda x: x.transpose(0, 2, 3, 1)),
    ("Permute", "permute_param { order: 0 order: 3 }", lambda x: x.transpose(0, 3, 1, 2)),
    ("Flatten", "", lambda x: x.reshape(1, -1)),
    ("Flatten", "flatten_param { axis: 2 }", lambda x: x.reshape(1, 4, 36)),
    ("Flatten", "flatten_param { axis: 1 end_axis: 2 }", lambda x: x.reshape(1, 24, 6)),
    ("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 12 } }", lambda x: x.reshape(1, 12, 12)),
    ("Reshape", "reshape_param { shape { dim: -1 dim: 144 } }", lambda x: x.reshape(1, 144)),
]


@pytest.mark.parametrize(("kind", "param", "expected"), POINTWISE, ids=[f"{k} {p}" for k, p, _ in POINTWISE])
def test_a_layer_without_weights_matches_numpy(run_onnx, kind, param, expected):
    model = convert_caffe(prototxt(one_layer(kind, param), SHAPE), EMPTY)
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    np.testing.assert_allclose(run_onnx(model, X)["out"], expected(X), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("kind", "param"),
    [(kind, "") for kind in ("ReLU", "Softmax", "LRN", "Flatten", "Permute")]
    + [("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 12 } }"), ("Flatten", "flatten_param { axis: 2 }")],
)
def test_any_batch_gives_the_same_rows(run_onnx, kind, param):
    model = convert_caffe(prototxt(one_layer(kind, param), (10, *SHAPE[1:])), EMPTY)
    batch = np.concatenate([X, X * 0.5, -X])
    rows = run_onnx(model, batch)["out"]
    for index in range(3):
        np.testing.assert_allclose(rows[index : index + 1], run_onnx(model, batch[index : index + 1])["out"], atol=1e-6)


@pytest.mark.parametrize("form", ["conv", "op"])
def test_both_forms_of_lrn_agree_with_caffe(run_onnx, run_caffe, form):
    text = prototxt(one_layer("LRN", "lrn_param { local_size: 5 alpha: 0.01 beta: 0.75 }"), SHAPE)
    model = convert_caffe(text, EMPTY, lrn=form)
    used = {node.op_type for node in onnx.load_from_string(model).graph.node}
    assert ("LRN" in used) == (form == "op")
    np.testing.assert_allclose(run_onnx(model, X * 50)["out"], run_caffe(text, EMPTY, X * 50), atol=2e-5)


CONVOLUTIONS = {
    "plain": ("num_output: 6 kernel_size: 3", (6, 4, 3, 3)),
    "padded": ("num_output: 6 kernel_size: 3 pad: 1 stride: 2", (6, 4, 3, 3)),
    "groups": ("num_output: 6 kernel_size: 3 group: 2", (6, 2, 3, 3)),
    "depthwise": ("num_output: 4 kernel_size: 3 pad: 1 group: 4", (4, 1, 3, 3)),
    "dilated": ("num_output: 5 kernel_size: 3 pad: 2 dilation: 2", (5, 4, 3, 3)),
    "oblong": ("num_output: 5 kernel_h: 3 kernel_w: 1 pad_h: 1 pad_w: 0 stride_h: 2 stride_w: 1", (5, 4, 3, 1)),
    "two sizes": ("num_output: 5 kernel_size: 1 kernel_size: 3", (5, 4, 1, 3)),
    "no bias": ("num_output: 5 kernel_size: 1 bias_term: false", (5, 4, 1, 1)),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("version", ["new", "v1"])
def test_convolution_matches_caffe(run_onnx, run_caffe, case, version):
    param, shape = CONVOLUTIONS[case]
    blobs = [RANDOM.normal(0, 1, shape), RANDOM.normal(0, 1, shape[0])][: 1 if "bias_term" in param else 2]
    weights = caffemodel(layer("convolution", "Convolution", blobs, version=version))
    text = prototxt(one_layer("Convolution", f"convolution_param {{ {param} }}"), SHAPE)
    if version == "v1":
        text = text.replace(b"layer {", b"layers {").replace(b'"Convolution"', b"CONVOLUTION")
    model = convert_caffe(text, weights)
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    expected = run_caffe(text, weights, X)
    got = run_onnx(model, X)["out"]
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_no_node_leaves_its_padding_to_the_engine():
    text = prototxt(
        one_layer("Convolution", "convolution_param { num_output: 4 kernel_size: 3 }", top="a")
        + one_layer("Pooling", "pooling_param { kernel_size: 3 stride: 2 }", bottom="a"),
        SHAPE,
    )
    model = convert_caffe(text, caffemodel(layer("convolution", "Convolution", [np.ones((4, 4, 3, 3)), np.ones(4)])))
    for node in onnx.load_from_string(model).graph.node:
        names = {attribute.name for attribute in node.attribute}
        assert "auto_pad" not in names
        assert "pads" in names


@pytest.mark.parametrize("transpose", [False, True])
def test_inner_product_matches_numpy(run_onnx, transpose):
    weights, bias = RANDOM.normal(0, 1, (3, 144)).astype(np.float32), np.float32([1, 2, 3])
    stored = weights.T if transpose else weights[None, None]  # old files store (1, 1, out, in)
    text = one_layer("InnerProduct", f"inner_product_param {{ num_output: 3 transpose: {str(transpose).lower()} }}")
    trained = caffemodel(layer("innerproduct", "InnerProduct", [stored, bias]))
    model = convert_caffe(prototxt(text, SHAPE), trained)
    np.testing.assert_allclose(run_onnx(model, X)["out"], X.reshape(1, -1) @ weights.T + bias, atol=1e-4)


@pytest.mark.parametrize("shared", [False, True])
def test_prelu_matches_numpy(run_onnx, shared):
    slope = np.float32([0.5]) if shared else np.float32([0.1, 0.2, 0.3, -0.4])
    text = one_layer("PReLU", f"prelu_param {{ channel_shared: {str(shared).lower()} }}")
    model = convert_caffe(prototxt(text, SHAPE), caffemodel(layer("prelu", "PReLU", [slope])))
    np.testing.assert_allclose(run_onnx(model, X)["out"], np.where(X > 0, X, X * slope.reshape(1, -1, 1, 1)), atol=1e-6)


@pytest.mark.parametrize(
    ("param", "expected"),
    [
        ("", lambda a, b: a + b),
        ("eltwise_param { operation: SUM coeff: 2 coeff: -0.5 }", lambda a, b: 2 * a - 0.5 * b),
        ("eltwise_param { operation: PROD }", lambda a, b: a * b),
        ("eltwise_param { operation: MAX }", np.maximum),
    ],
)
def test_eltwise_matches_numpy(run_onnx, param, expected):
    text = one_layer("TanH", top="t") + (
        f'layer {{ name: "sum" type: "Eltwise" bottom: "data" bottom: "t" top: "out" {param} }}'
    )
    got = run_onnx(convert_caffe(prototxt(text, SHAPE), EMPTY), X)["out"]
    np.testing.assert_allclose(got, expected(X, np.tanh(X)), atol=1e-6)


@pytest.mark.parametrize(
    ("param", "edges"),
    [("", (0, 2, 4)), ("slice_param { slice_point: 1 }", (0, 1, 4)), ("slice_param { axis: 2 }", (0, 3, 6))],
)
def test_slice_and_concat_undo_each_other(run_onnx, param, edges):
    axis = 2 if "axis" in param else 1
    text = f"""
        layer {{ name: "cut" type: "Slice" bottom: "data" top: "first" top: "second" {param} }}
        layer {{ name: "swap" type: "Concat" bottom: "second" bottom: "first" top: "out"
                 concat_param {{ axis: {axis} }} }}"""
    got = run_onnx(convert_caffe(prototxt(text, SHAPE), EMPTY), X)["out"]
    first, second = np.split(X, [edges[1]], axis)
    np.testing.assert_array_equal(got, np.concatenate([second, first], axis))


def test_normalize_divides_by_the_norm_of_the_channels(run_onnx):
    gain = np.float32([1, 2, 3, 20])
    text = one_layer("Normalize", "norm_param { across_spatial: false channel_shared: false }")
    dark = X.copy()
    dark[:, :, 0, 0] = 0  # nothing to divide by
    got = run_onnx(convert_caffe(prototxt(text, SHAPE), caffemodel(layer("normalize", "Normalize", [gain]))), dark)
    norm = np.sqrt((dark.astype(np.float64) ** 2).sum(1, keepdims=True) + 1e-10)
    np.testing.assert_allclose(got["out"], dark / norm * gain.reshape(1, -1, 1, 1), atol=1e-5)


@pytest.mark.parametrize(
    ("body", "shape", "message"),
    [
        (one_layer("LRN", "lrn_param { local_size: 1000000000000000000000001 beta: 0.5 }"), (1, 3, 8, 8), "at most"),
        (one_layer("ReLU", "relu_param { negative_slope: 1e300 }"), (1, 3, 8, 8), "too large for a float32"),
        (
            one_layer("Reshape", "reshape_param { shape { dim: 1 } }", top="r") + one_layer("PReLU", bottom="r"),
            (1, 1),
            "cannot reshape",
        ),
    ],
)
def test_numbers_that_no_onnx_file_can_hold_are_refused(body, shape, message):
    with pytest.raises(ConversionError, match=message):
        convert_caffe(prototxt(body, shape), EMPTY)
