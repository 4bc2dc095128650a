"""Convolution with fewer multiplications, after Winograd, written in operators that every engine has.

Tiles of 4 × 4 outputs are computed from tiles of 8 × 8 inputs: both tile and 5 × 5 kernel are evaluated as
polynomials at eight points, multiplied there, and interpolated (Lavin and Gray, "Fast Algorithms for Convolutional
Neural Networks", CVPR 2016, after Toom and Cook). 64 multiplications stand for 400. In exact arithmetic the result is
the same; in f32 it differs in the sixth digit.
"""

from __future__ import annotations

from fractions import Fraction
from math import prod
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dulian.convert.onnx_graph import Attribute, OnnxGraph, Tensor

KERNEL: Final = 5
TILE: Final = 4
SPAN: Final = TILE + KERNEL - 1
# The eighth point is infinity. Small ones keep the numbers near each other.
POINTS: Final = tuple(Fraction(point) for point in ("0", "1", "-1", "2", "-2", "1/2", "-1/2"))
# Fewer channels or tiles do not earn the transforms.
LEAST_CHANNELS: Final = 64
LEAST_SIDE: Final = 12

Matrix = list[list[Fraction]]


def pays(weights_shape: tuple[int, ...], image_hw: tuple[int, ...]) -> bool:
    """Whether a dense convolution of stride 1 that keeps the picture's size is large enough for it."""
    filters, channels, *kernel = weights_shape
    return kernel == [KERNEL, KERNEL] and min(filters, channels) >= LEAST_CHANNELS and min(image_hw) >= LEAST_SIDE


def add_convolution(
    graph: OnnxGraph,
    x: Tensor,
    weights: NDArray[np.float64],
    bias: NDArray[np.float64] | None,
    *,
    name: str,
    output: str,
) -> str:
    """Adds the nodes for a convolution with pads of half a kernel; returns the name of what comes out."""
    filters, channels = weights.shape[:2]
    height, width = x.shape[2:]
    rows, columns = -(-height // TILE), -(-width // TILE)
    interpolation, evaluation, tile_evaluation = transforms()
    points, pad = SPAN * SPAN, KERNEL // 2
    taken_apart = _kronecker(tile_evaluation).reshape(points, 1, SPAN, SPAN)

    def shape(part: str, *sides: int) -> str:
        return graph.constant(f"{name}.{part}", np.array(sides, np.int64))

    def add(op_type: str, inputs: list[str], part: str, **attributes: Attribute) -> str:
        return graph.add(op_type, inputs, f"{name}/{part}", attributes=attributes)

    # Every channel by itself is cut into overlapping tiles and evaluated: one convolution with 64 filters.
    planes = add("Reshape", [x.name, shape("planes", -1, 1, height, width)], "planes")
    tiles = add(
        "Conv",
        [planes, graph.constant(f"{name}.evaluation", taken_apart)],
        "tiles",
        kernel_shape=[SPAN, SPAN],
        strides=[TILE, TILE],
        pads=[pad, pad, rows * TILE + pad - height, columns * TILE + pad - width],
    )
    by_channel = add("Reshape", [tiles, shape("by_channel", -1, channels, points, rows * columns)], "by_channel")
    by_point = add("Transpose", [by_channel], "by_point", perm=[2, 1, 0, 3])
    values = add("Reshape", [by_point, shape("values", points, channels, -1)], "values")
    products = add("MatMul", [graph.constant(f"{name}.weight", _evaluated(weights, evaluation)), values], "products")
    # Interpolated along columns of points, then along rows: less work than both at once. OpenCV wants two constants.
    by_row = add("Reshape", [products, shape("by_row", SPAN, -1)], "by_row")
    half = add("MatMul", [graph.constant(f"{name}.columns", _floats(interpolation)), by_row], "half")
    halves = add("Reshape", [half, shape("halves", TILE, SPAN, -1)], "halves")
    outputs = add("MatMul", [graph.constant(f"{name}.rows", _floats(interpolation)), halves], "outputs")
    # A tile's sixteen outputs are channels still; they become its rows and columns, picture by picture.
    by_place = add("Reshape", [outputs, shape("by_place", TILE * TILE * filters, -1, rows * columns)], "by_place")
    by_picture = add("Transpose", [by_place], "by_picture", perm=[1, 0, 2])
    apart = add("Reshape", [by_picture, shape("apart", -1, TILE * TILE * filters, rows, columns)], "apart")
    last = add("DepthToSpace", [apart], "in_place", blocksize=TILE)
    if (rows * TILE, columns * TILE) != (height, width):
        cut = [shape("from", 0, 0), shape("to", height, width), shape("axes", 2, 3)]
        last = add("Slice", [last, *cut], "cut")
    shift = np.zeros(filters) if bias is None else bias
    return graph.add("Add", [last, graph.constant(f"{name}.bias", shift.reshape(1, -1, 1, 1))], output)


def transforms() -> tuple[Matrix, Matrix, Matrix]:
    """Interpolation (4 × 8), evaluation of a kernel (8 × 5), and evaluation of a tile (8 × 8), exactly."""
    zero, one = Fraction(0), Fraction(1)
    interpolation = [[point**power for point in POINTS] + [one if power == TILE - 1 else zero] for power in range(TILE)]
    others = [[other for other in POINTS if other != point] for point in POINTS]
    scales = [prod(point - other for other in rest) for point, rest in zip(POINTS, others, strict=True)]
    evaluation = [
        [point**power / scale for power in range(KERNEL)] for point, scale in zip(POINTS, scales, strict=True)
    ]
    evaluation.append([zero] * (KERNEL - 1) + [one])
    tile_evaluation = [[*_polynomial(rest), zero] for rest in others]
    tile_evaluation.append(_polynomial(list(POINTS)))
    return interpolation, evaluation, tile_evaluation


def _polynomial(roots: list[Fraction]) -> list[Fraction]:
    """Coefficients, lowest first, of the polynomial with these roots."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [a - root * b for a, b in zip(shifted, [*coefficients, Fraction(0)], strict=True)]
    return coefficients


def _floats(matrix: Matrix) -> NDArray[np.float64]:
    return np.array([[float(number) for number in row] for row in matrix])


def _kronecker(matrix: Matrix) -> NDArray[np.float64]:
    """The matrix for both directions of a picture at once: (rows², columns²)."""
    return _floats([[a * b for a in row for b in column] for row in matrix for column in matrix])


def _evaluated(weights: NDArray[np.float64], evaluation: Matrix) -> NDArray[np.float64]:
    """Kernels (filters, channels, 5, 5) at all pairs of points: (64, filters, channels).

    Summed one by one in a fixed order, so that every machine writes the same bytes.
    """
    values = np.zeros((SPAN * SPAN, *weights.shape[:2]))
    for row, by_row in enumerate(evaluation):
        for column, by_column in enumerate(evaluation):
            for i, a in enumerate(by_row):
                for j, b in enumerate(by_column):
                    if a * b:
                        values[row * SPAN + column] += float(a * b) * weights[:, :, i, j]
    return values
