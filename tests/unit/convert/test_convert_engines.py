"""The same bytes in every engine that is installed: the forms that were chosen because all of them read them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from caffe_writer import caffemodel, layer, one_layer, prototxt
from test_convert_ssd_head import TEXT, TRAINED

from dulian.convert import convert_caffe

RANDOM = np.random.default_rng(5)
X = RANDOM.normal(0, 1, (1, 4, 9, 9)).astype(np.float32)
SLOPES = caffemodel(
    layer("prelu", "PReLU", [[0.1, 0.2, 0.3, 0.4]]),
    layer("normalize", "Normalize", [[1, 2, 3, 20]]),
    layer("batchnorm", "BatchNorm", [[0.1, 0.2, 0.3, 0.4], [1, 2, 3, 4], [1]]),
)
NETS = {
    "max pooling": one_layer("Pooling", "pooling_param { kernel_size: 2 stride: 2 }"),
    "padded max pooling": one_layer("Pooling", "pooling_param { kernel_size: 4 stride: 2 pad: 1 }"),
    "average pooling": one_layer("Pooling", "pooling_param { pool: AVE kernel_size: 2 stride: 2 }"),
    "padded average pooling": one_layer("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }"),
    "even average pooling": one_layer("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 3 }"),
    "global pooling": one_layer("Pooling", "pooling_param { pool: AVE global_pooling: true }"),
    "lrn": one_layer("LRN", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 }"),
    "lrn op": one_layer("LRN", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.5 }"),
    "prelu": one_layer("PReLU"),
    "leaky relu": one_layer("ReLU", "relu_param { negative_slope: 0.1 }"),
    "normalize": one_layer("Normalize", "norm_param { across_spatial: false channel_shared: false }"),
    "batch norm": one_layer("BatchNorm"),
    "power": one_layer("Power", "power_param { scale: 0.1 shift: 2 power: 0.5 }"),
    "slice": one_layer("Slice", 'top: "rest" slice_param { slice_point: 1 }'),
    "reshape": one_layer("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 27 } }"),
    "flatten": one_layer("Flatten", "flatten_param { axis: 2 }"),
    "softmax": one_layer("Softmax"),
    "coefficients": one_layer("TanH", top="t")
    + 'layer { name: "e" type: "Eltwise" bottom: "data" bottom: "t" top: "out" eltwise_param { coeff: [2, -1] } }',
}


def by_opencv(model, tensor, names):
    net = cv2.dnn.readNetFromONNX(np.frombuffer(model, np.uint8))
    net.setInput(tensor)
    return [np.array(answer) for answer in net.forward(names)]


def by_openvino(model, tensor, names):
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answers = compiled({0: tensor})
    return [answers[name] for name in names]


def assert_agrees(run_onnx, engine, model, tensor):
    expected = run_onnx(model, tensor)
    for name, answer in zip(expected, engine(model, tensor, list(expected)), strict=True):
        assert answer.size == expected[name].size
        np.testing.assert_allclose(answer.reshape(expected[name].shape), expected[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("engine", [by_opencv, by_openvino])
@pytest.mark.parametrize("net", NETS)
def test_engines_agree_on_a_layer(run_onnx, engine, net):
    model = convert_caffe(prototxt(NETS[net], X.shape), SLOPES)
    assert_agrees(run_onnx, engine, model, X)


@pytest.mark.parametrize("engine", [by_opencv, by_openvino])
def test_engines_agree_on_a_batch(run_onnx, engine):
    body = (
        one_layer("LRN", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 }", top="a")
        + one_layer("Pooling", "pooling_param { pool: AVE kernel_size: 2 stride: 2 }", bottom="a", top="b")
        + one_layer("Softmax", bottom="b")
    )
    assert_agrees(run_onnx, engine, convert_caffe(prototxt(body, X.shape), SLOPES), np.concatenate([X, -X, X * 2]))


@pytest.mark.parametrize("engine", [by_opencv, by_openvino])
def test_engines_agree_on_a_detector(run_onnx, engine):
    tensor = RANDOM.normal(0, 1, (1, 3, 12, 12)).astype(np.float32)
    assert_agrees(run_onnx, engine, convert_caffe(TEXT, TRAINED), tensor)
