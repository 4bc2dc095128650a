"""The convolution with fewer multiplications: exact as algebra, equal to the direct one in f32."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx
import pytest
from caffe_writer import caffemodel, layer, one_layer, prototxt

from dulian.convert import convert_caffe
from dulian.convert.winograd import KERNEL, SPAN, TILE, transforms

RANDOM = np.random.default_rng(11)
FIVE = "num_output: 70 kernel_size: 5 pad: 2"


def converted(param: str, shape: tuple[int, ...], weights: tuple[int, ...]) -> tuple[bytes, bytes]:
    """One convolution, written with fewer multiplications and directly."""
    blobs = [RANDOM.normal(0, 0.05, weights), RANDOM.normal(0, 1, weights[0])]
    trained = caffemodel(layer("convolution", "Convolution", blobs[: 1 if "bias_term" in param else 2]))
    text = prototxt(one_layer("Convolution", f"convolution_param {{ {param} }}"), shape)
    return convert_caffe(text, trained, convolution="winograd"), convert_caffe(text, trained)


def operators(model: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(model).graph.node]


def test_the_transforms_are_exact() -> None:
    interpolation, evaluation, tile_evaluation = transforms()
    kernel = [Fraction(int(n)) for n in RANDOM.integers(-9, 10, KERNEL)]
    tile = [Fraction(int(n)) for n in RANDOM.integers(-9, 10, SPAN)]

    def apply(matrix: list[list[Fraction]], vector: list[Fraction]) -> list[Fraction]:
        return [sum((a * b for a, b in zip(row, vector, strict=True)), Fraction(0)) for row in matrix]

    products = [a * b for a, b in zip(apply(evaluation, kernel), apply(tile_evaluation, tile), strict=True)]
    direct = [sum(kernel[j] * tile[i + j] for j in range(KERNEL)) for i in range(TILE)]
    assert apply(interpolation, products) == direct


@pytest.mark.parametrize("hw", [(12, 12), (13, 18), (28, 28)])
@pytest.mark.parametrize("bias", ["", " bias_term: false"])
def test_it_answers_as_the_direct_one(run_onnx, hw: tuple[int, int], bias: str) -> None:  # type: ignore[no-untyped-def]
    short, direct = converted(FIVE + bias, (1, 64, *hw), (70, 64, 5, 5))
    onnx.checker.check_model(onnx.load_from_string(short), full_check=True)
    assert "MatMul" in operators(short)
    tensor = RANDOM.normal(0, 1, (3, 64, *hw)).astype(np.float32)
    expected = run_onnx(direct, tensor)["out"]
    np.testing.assert_allclose(run_onnx(short, tensor)["out"], expected, atol=3e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("param", "shape", "weights"),
    [
        ("num_output: 70 kernel_size: 3 pad: 1", (1, 64, 16, 16), (70, 64, 3, 3)),
        (FIVE + " stride: 2", (1, 64, 16, 16), (70, 64, 5, 5)),
        ("num_output: 70 kernel_size: 5", (1, 64, 16, 16), (70, 64, 5, 5)),
        ("num_output: 64 kernel_size: 5 pad: 2 group: 2", (1, 128, 16, 16), (64, 64, 5, 5)),
        (FIVE, (1, 63, 16, 16), (70, 63, 5, 5)),
        (FIVE, (1, 64, 11, 16), (70, 64, 5, 5)),
    ],
)
def test_other_convolutions_stay_as_they_are(param: str, shape: tuple[int, ...], weights: tuple[int, ...]) -> None:
    short, direct = converted(param, shape, weights)
    assert short == direct
    assert operators(short) == ["Conv"]
