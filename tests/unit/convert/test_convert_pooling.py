from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from caffe_writer import caffemodel, layer, one_layer, prototxt
from hypothesis import given, settings
from hypothesis import strategies as st

from dulian.convert import convert_caffe
from dulian.errors import ConversionError

EMPTY = caffemodel(layer("none", "Silence"))


def caffe_pool(x, *, kernel, stride, pad, average):
    """pooling_layer.cpp, window by window."""
    side = x.shape[2]
    outputs = math.ceil((side + 2 * pad - kernel) / stride) + 1
    if pad and (outputs - 1) * stride >= side + pad:
        outputs -= 1
    result = np.zeros((*x.shape[:2], outputs, outputs))
    for row in range(outputs):
        for column in range(outputs):
            starts = [index * stride - pad for index in (row, column)]
            ends = [min(start + kernel, side + pad) for start in starts]
            area = (ends[0] - starts[0]) * (ends[1] - starts[1])
            window = x[:, :, max(starts[0], 0) : min(ends[0], side), max(starts[1], 0) : min(ends[1], side)]
            result[:, :, row, column] = window.sum((2, 3)) / area if average else window.max((2, 3))
    return result


def pool_text(kind, side, *, kernel, stride, pad):
    param = f"pooling_param {{ pool: {kind} kernel_size: {kernel} stride: {stride} pad: {pad} }}"
    return prototxt(one_layer("Pooling", param), (1, 2, side, side))


CASES = [
    # side, kernel, stride, pad, outputs
    (6, 3, 2, 0, 3),  # rounds up: 2.5 steps become 3 windows
    (7, 3, 2, 0, 3),
    (5, 2, 2, 1, 3),
    (4, 2, 2, 1, 3),
    (3, 2, 3, 1, 2),
    (5, 2, 3, 1, 2),  # a third window would start behind picture and pad: it is dropped
    (6, 4, 3, 2, 3),
    (6, 7, 2, 0, 1),  # a kernel larger than the picture is cut
    (10, 3, 3, 1, 4),
]


@pytest.mark.parametrize(("side", "kernel", "stride", "pad", "outputs"), CASES)
@pytest.mark.parametrize("kind", ["MAX", "AVE"])
def test_sizes_and_numbers_follow_caffe(run_onnx, kind, side, kernel, stride, pad, outputs):
    x = np.random.default_rng(side).normal(-3, 1, (1, 2, side, side)).astype(np.float32)
    model = convert_caffe(pool_text(kind, side, kernel=kernel, stride=stride, pad=pad), EMPTY)
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    got = run_onnx(model, x)["out"]
    assert got.shape == (1, 2, outputs, outputs)
    expected = caffe_pool(x, kernel=kernel, stride=stride, pad=pad, average=kind == "AVE")
    np.testing.assert_allclose(got, expected, atol=2e-6)


@pytest.mark.parametrize(("side", "kernel", "stride", "pad"), [(6, 3, 2, 0), (7, 3, 2, 1), (5, 2, 3, 1), (8, 3, 2, 1)])
@pytest.mark.parametrize("kind", ["MAX", "AVE"])
def test_opencv_reads_the_original_the_same_way(run_onnx, run_caffe, kind, side, kernel, stride, pad):
    x = np.random.default_rng(side).normal(3, 1, (1, 2, side, side)).astype(np.float32)
    text = pool_text(kind, side, kernel=kernel, stride=stride, pad=pad)
    expected = run_caffe(text, EMPTY, x)
    np.testing.assert_allclose(run_onnx(convert_caffe(text, EMPTY), x)["out"], expected, atol=2e-6)


def test_the_divisor_counts_declared_pads_but_not_what_rounding_adds(run_onnx):
    text = pool_text("AVE", 4, kernel=3, stride=2, pad=1)
    got = run_onnx(convert_caffe(text, EMPTY), np.ones((1, 2, 4, 4), np.float32))["out"]
    # Side 4, pad 1: windows of 3, 3 and 2 (padded) pixels, of which 2, 3 and 1 are in the picture.
    along = np.array([2 / 3, 1, 1 / 2])
    np.testing.assert_allclose(got[0, 0], np.outer(along, along), atol=1e-6)


@pytest.mark.parametrize("mode", ["round_mode: FLOOR", "ceil_mode: false", "round_mode: 1"])
def test_rounding_down_where_the_text_asks_for_it(run_onnx, mode):
    text = prototxt(one_layer("Pooling", f"pooling_param {{ kernel_size: 3 stride: 2 {mode} }}"), (1, 2, 6, 6))
    assert run_onnx(convert_caffe(text, EMPTY), np.zeros((1, 2, 6, 6), np.float32))["out"].shape == (1, 2, 2, 2)


@pytest.mark.parametrize(("kind", "reduce"), [("MAX", np.max), ("AVE", np.mean)])
def test_global_pooling(run_onnx, kind, reduce):
    x = np.random.default_rng(1).normal(0, 1, (1, 2, 5, 7)).astype(np.float32)
    text = prototxt(one_layer("Pooling", f"pooling_param {{ pool: {kind} global_pooling: true }}"), x.shape)
    got = run_onnx(convert_caffe(text, EMPTY), x)["out"]
    np.testing.assert_allclose(got, reduce(x, axis=(2, 3), keepdims=True), atol=1e-6)


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("kernel_size: 2 stride: 5 pool: MAX", "outside an input side of 8"),
        ("kernel_size: 3 pad: 3", "pad 3 is not smaller"),
        ("kernel_size: 3 pool: STOCHASTIC", "STOCHASTIC"),
        ("kernel_size: 0", "kernel_size is 0 by 0"),
        ("pool: MAX", "kernel_size is 0 by 0"),
        ("kernel_size: 3 stride: -1", "stride is -1"),
        ("kernel_size: 3 kernel_h: 3 kernel_w: 3", "either kernel_size"),
        ("kernel_h: 3", "both kernel_h and kernel_w"),
    ],
)
def test_what_cannot_be_pooled_names_the_layer(param, message):
    text = prototxt(one_layer("Pooling", f"pooling_param {{ {param} }}"), (1, 2, 8, 8))
    with pytest.raises(ConversionError, match=rf"layer 'pooling' \(Pooling\): .*{message}"):
        convert_caffe(text, EMPTY)


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 5), st.integers(0, 4), st.sampled_from(["MAX", "AVE"]))
def test_any_window_is_right_or_refused(run_onnx, side, kernel, stride, pad, kind):
    x = np.random.default_rng(side).normal(0, 1, (1, 2, side, side)).astype(np.float32)
    try:
        model = convert_caffe(pool_text(kind, side, kernel=kernel, stride=stride, pad=pad), EMPTY)
    except ConversionError:
        assert pad >= kernel or stride > kernel or side + 2 * pad < kernel
        return
    expected = caffe_pool(x, kernel=kernel, stride=stride, pad=pad, average=kind == "AVE")
    np.testing.assert_allclose(run_onnx(model, x)["out"], expected, atol=2e-6)
