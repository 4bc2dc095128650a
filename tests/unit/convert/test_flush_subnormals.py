from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dulian.convert import flush_subnormals
from dulian.errors import ConversionError
from dulian.models.networks import DLIB_AGE, DLIB_GENDER
from dulian.models.rows import ModelRow

TINY = np.finfo(np.float32).tiny
WEIGHTS = np.array([[1.5, 1e-39, -1e-45], [-TINY, TINY / 2, 0.0]], np.float32)
NORMAL = np.array([[1.5, 0.0, 0.0], [-TINY, 0.0, 0.0]], np.float32)


def small_net(*weights: onnx.TensorProto) -> bytes:
    shape = numpy_helper.from_array(np.array([-1, 3], np.int64), "shape")
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["rows"]), helper.make_node("MatMul", ["rows", "w"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], [shape, *weights])).SerializeToString()


def as_numbers(model: bytes) -> dict[str, np.ndarray]:
    return {one.name: numpy_helper.to_array(one) for one in onnx.load_from_string(model).graph.initializer}


@pytest.mark.parametrize("raw", [True, False])
def test_subnormal_weights_become_zero_and_nothing_else_changes(raw: bool) -> None:
    numbers = WEIGHTS.tobytes() if raw else WEIGHTS.ravel()
    flushed = flush_subnormals(small_net(helper.make_tensor("w", TensorProto.FLOAT, (2, 3), numbers, raw=raw)))
    onnx.checker.check_model(onnx.load_from_string(flushed), full_check=False)
    np.testing.assert_array_equal(as_numbers(flushed)["w"], NORMAL)
    np.testing.assert_array_equal(as_numbers(flushed)["shape"], [-1, 3])


def test_equal_bytes_come_out_and_twice_changes_nothing() -> None:
    once = flush_subnormals(small_net(numpy_helper.from_array(WEIGHTS, "w")))
    assert once == flush_subnormals(small_net(numpy_helper.from_array(WEIGHTS, "w")))
    assert once == flush_subnormals(once)


@pytest.mark.parametrize("data", [b"no model", b"\xff" * 20])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(ConversionError, match="no ONNX model"):
        flush_subnormals(data)


def test_weights_that_do_not_fill_their_shape_are_refused() -> None:
    weights = numpy_helper.from_array(WEIGHTS, "w")
    weights.raw_data = weights.raw_data[:-4]
    with pytest.raises(ConversionError, match="'w' of this model is damaged"):
        flush_subnormals(small_net(weights))


@pytest.mark.weights
@pytest.mark.parametrize("row", [DLIB_AGE, DLIB_GENDER], ids=lambda row: row.name)
def test_the_published_nets_answer_the_same_to_the_last_bit(original_files, run_onnx, row: ModelRow) -> None:  # type: ignore[no-untyped-def]
    path = original_files / row.originals[0].name
    if not path.is_file():
        pytest.skip(f"the folder of published files lacks {path.name}")
    original = path.read_bytes()
    assert any(((array != 0) & (np.abs(array) < TINY)).any() for array in as_numbers(original).values())
    width, height = row.input_wh
    tensor = np.random.default_rng(3).uniform(-0.5, 0.5, (4, 3, height, width)).astype(np.float32)
    expected, got = run_onnx(original, tensor), run_onnx(flush_subnormals(original), tensor)
    for name, answer in expected.items():
        np.testing.assert_array_equal(got[name], answer)
