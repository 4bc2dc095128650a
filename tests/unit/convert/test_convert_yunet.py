from __future__ import annotations

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dulian.convert import make_yunet_symbolic
from dulian.convert.published import YUNET_STRIDES
from dulian.errors import ConversionError

KINDS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
NAMES = [f"{kind}_{stride}" for kind in KINDS for stride in YUNET_STRIDES]
SIDE = 64


def small_yunet(*, fixed_reshape: bool = False) -> bytes:
    """Twelve strided convolutions with YuNet's names, fixed at 64 x 64, with stale shapes in between."""
    random = np.random.default_rng(2)
    nodes, initializers, outputs, stale = [], [], [], []
    for name in NAMES:
        kind, stride = name.split("_")
        width, stride = KINDS[kind], int(stride)
        anchors = (SIDE // stride) ** 2
        weights = random.normal(0, 0.1, (width, 3, stride, stride)).astype(np.float32)
        target = np.array([1, anchors if fixed_reshape else -1, width], np.int64)
        initializers += [numpy_helper.from_array(weights, f"w_{name}"), numpy_helper.from_array(target, f"s_{name}")]
        nodes += [
            helper.make_node("Conv", ["input", f"w_{name}"], [f"c_{name}"], strides=[stride, stride]),
            helper.make_node("Transpose", [f"c_{name}"], [f"t_{name}"], perm=[0, 2, 3, 1]),
            helper.make_node("Reshape", [f"t_{name}", f"s_{name}"], [name]),
        ]
        cells = SIDE // stride
        stale.append(helper.make_tensor_value_info(f"c_{name}", TensorProto.FLOAT, [1, width, cells, cells]))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, anchors, width]))
    tensor = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    graph = helper.make_graph(nodes, "g", [tensor], outputs, initializers, value_info=stale)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    return model.SerializeToString()


def picture(width, height):
    return np.random.default_rng(width).uniform(0, 255, (1, 3, height, width)).astype(np.float32)


@pytest.mark.parametrize("fixed_reshape", [False, True])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 64), (32, 160)])
def test_any_multiple_of_32_runs(run_onnx, fixed_reshape, width, height):
    answers = run_onnx(make_yunet_symbolic(small_yunet(fixed_reshape=fixed_reshape)), picture(width, height))
    for name in NAMES:
        kind, stride = name.split("_")
        assert answers[name].shape == (1, width // int(stride) * (height // int(stride)), KINDS[kind])


def test_numbers_at_the_old_size_are_the_same(run_onnx):
    original = small_yunet()
    tensor = picture(SIDE, SIDE)
    expected, got = run_onnx(original, tensor), run_onnx(make_yunet_symbolic(original), tensor)
    for name in NAMES:
        np.testing.assert_array_equal(got[name], expected[name])


def test_shapes_are_open_and_nothing_stale_is_left():
    model = onnx.load_from_string(make_yunet_symbolic(small_yunet()))
    onnx.checker.check_model(model, full_check=True)
    assert not model.graph.value_info
    shapes = {
        info.name: [dim.dim_param or dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in (*model.graph.input, *model.graph.output)
    }
    assert shapes["input"] == [1, 3, "H", "W"]
    assert shapes["kps_16"] == [1, "anchors_16", 10]
    assert model.producer_name == "dulian"


def test_equal_bytes_come_out_and_twice_changes_nothing():
    once = make_yunet_symbolic(small_yunet())
    assert once == make_yunet_symbolic(small_yunet())
    assert once == make_yunet_symbolic(once)


@pytest.mark.parametrize("data", [b"", b"no model", b"\xff" * 20])
def test_what_is_no_yunet_is_refused(data):
    with pytest.raises(ConversionError, match=r"no ONNX model|not a YuNet"):
        make_yunet_symbolic(data)


def test_an_input_of_another_rank_is_refused():
    model = onnx.load_from_string(small_yunet())
    model.graph.input[0].type.tensor_type.shape.dim.pop()
    with pytest.raises(ConversionError, match="3 dimensions instead of 4"):
        make_yunet_symbolic(model.SerializeToString())


def published(folder):
    path = folder / "face_detection_yunet_2023mar.onnx"
    if not path.is_file():
        pytest.skip("the folder of published files lacks face_detection_yunet_2023mar.onnx")
    return path.read_bytes()


@pytest.mark.weights
def test_the_published_net_is_the_same_at_640(original_files, run_onnx):
    original, tensor = published(original_files), picture(640, 640)
    expected, got = run_onnx(original, tensor), run_onnx(make_yunet_symbolic(original), tensor)
    for name in NAMES:
        np.testing.assert_array_equal(got[name], expected[name])


@pytest.mark.weights
@pytest.mark.parametrize(("width", "height"), [(320, 320), (640, 480), (960, 736)])
def test_engines_agree_on_the_published_net_at_other_sizes(original_files, run_onnx, width, height):
    model = make_yunet_symbolic(published(original_files))
    tensor = cv2.GaussianBlur(picture(width, height)[0].transpose(1, 2, 0), (0, 0), 8).transpose(2, 0, 1)[None]
    expected = run_onnx(model, tensor)
    net = cv2.dnn.readNetFromONNX(np.frombuffer(model, np.uint8))
    net.setInput(tensor)
    for name, answer in zip(NAMES, net.forward(NAMES), strict=True):
        np.testing.assert_allclose(answer.reshape(expected[name].shape), expected[name], atol=2e-5)
