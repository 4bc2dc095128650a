"""The head of an SSD detector: prior boxes as a constant, decoded boxes and scores as outputs.

Suppression of overlapping boxes is not done here; it belongs to whoever runs the net.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dulian.convert.caffe_net import Layer
from dulian.convert.layers import add_reshape, add_slice
from dulian.convert.onnx_graph import OnnxGraph, Tensor
from dulian.convert.prototxt import Message

BOXES: Final = "boxes"
SCORES: Final = "scores"

_MAX_PRIORS: Final = 1 << 20
_PRIOR_FIELDS: Final = (
    *("min_size", "max_size", "aspect_ratio", "flip", "clip", "variance", "offset"),
    *("img_size", "img_h", "img_w", "step", "step_h", "step_w"),
)
_OUTPUT_FIELDS: Final = (
    *("num_classes", "share_location", "code_type", "variance_encoded_in_target", "clip"),
    *("background_label_id", "nms_param", "keep_top_k", "confidence_threshold"),  # the caller's business
)


def prior_box(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph) -> tuple[Tensor, ...]:
    """The prior boxes of one feature map and their variances: (1, 2, 4 * priors), relative xyxy."""
    param = layer.param("prior_box_param", _PRIOR_FIELDS)
    if len(bottoms) != 2 or len(layer.tops) != 1 or any(len(bottom.shape) != 4 for bottom in bottoms):
        raise layer.error("needs a feature map and the picture as inputs")
    rows, columns = bottoms[0].shape[2:]
    image_h, image_w = (
        param.integer(field, param.integer("img_size", side))
        for field, side in zip(("img_h", "img_w"), bottoms[1].shape[2:], strict=True)
    )
    step_h, step_w = (
        param.number(field, param.number("step", 0.0)) or image / cells
        for field, image, cells in (("step_h", image_h, rows), ("step_w", image_w, columns))
    )
    sizes = _prior_sizes(layer, param)
    if rows * columns * len(sizes) > _MAX_PRIORS or min(image_h, image_w) < 1 or not (step_h > 0 and step_w > 0):
        raise layer.error(f"{len(sizes)} boxes for each of {rows} by {columns} cells of {step_h} by {step_w}")
    offset = param.number("offset", 0.5)
    centre_x = ((np.arange(columns) + offset) * step_w)[None, :, None]
    centre_y = ((np.arange(rows) + offset) * step_h)[:, None, None]
    half_w, half_h = sizes[:, 0] / 2, sizes[:, 1] / 2
    sides = (
        (centre_x - half_w) / image_w,
        (centre_y - half_h) / image_h,
        (centre_x + half_w) / image_w,
        (centre_y + half_h) / image_h,
    )
    boxes = np.stack([np.broadcast_to(side, (rows, columns, len(sizes))) for side in sides], axis=-1)
    if param.flag("clip", False):
        boxes = np.clip(boxes, 0.0, 1.0)
    variances = np.broadcast_to(_variances(layer, param), boxes.shape)
    priors = np.stack([boxes.reshape(-1), variances.reshape(-1)])[None].astype(np.float32)
    graph.reserve(priors.nbytes)
    return (Tensor(layer.tops[0], priors.shape, priors),)


def _prior_sizes(layer: Layer, param: Message) -> NDArray[np.float64]:
    """Widths and heights in pixels of the picture, (boxes per cell, 2), in the order of prior_box_layer.cpp."""
    smallest, largest = param.numbers("min_size"), param.numbers("max_size")
    if not smallest or (largest and len(largest) != len(smallest)) or min((*smallest, *largest)) <= 0:
        raise layer.error(f"min_size {list(smallest)}, max_size {list(largest)}")
    ratios = [1.0]
    for ratio in param.numbers("aspect_ratio"):
        if ratio <= 0:
            raise layer.error(f"aspect_ratio is {ratio}")
        if all(abs(ratio - known) >= 1e-6 for known in ratios):
            ratios.extend((ratio, 1.0 / ratio) if param.flag("flip", True) else (ratio,))
    sizes: list[tuple[float, float]] = []
    for index, small in enumerate(smallest):
        sizes.append((small, small))
        if largest:
            sizes.append((math.sqrt(small * largest[index]),) * 2)
        sizes.extend((small * math.sqrt(ratio), small / math.sqrt(ratio)) for ratio in ratios[1:])
    return np.array(sizes)


def _variances(layer: Layer, param: Message) -> NDArray[np.float64]:
    given = param.numbers("variance") or (0.1,)
    if len(given) not in (1, 4) or min(given) <= 0:
        raise layer.error(f"variance {list(given)}; one or four positive numbers are supported")
    return np.array(given * 4 if len(given) == 1 else given)


def detection_output(layer: Layer, bottoms: Sequence[Tensor], graph: OnnxGraph) -> tuple[Tensor, ...]:
    """Declares the outputs ``boxes`` (1, P, 4), relative xyxy, and ``scores`` (1, P, classes), P priors.

    The net's own thresholds and overlap limits are the caller's business, as is suppression itself.
    """
    param = layer.param("detection_output_param", _OUTPUT_FIELDS)
    classes = param.integer("num_classes", 0)
    if len(bottoms) != 3 or len(layer.tops) != 1:
        raise layer.error(f"{len(bottoms)} inputs; locations, confidences and prior boxes are needed")
    locations, confidences, priors = bottoms
    if priors.constant is None or priors.constant.ndim != 3 or priors.shape[:2] != (1, 2):
        raise layer.error("the third input must come from PriorBox layers")
    if param.choice("code_type", "CORNER", numbered=("", "CORNER", "CENTER_SIZE", "CORNER_SIZE")) != "CENTER_SIZE":
        raise layer.error("only code_type CENTER_SIZE is supported")
    if not param.flag("share_location", True):
        raise layer.error("share_location: false is not supported")
    count = priors.shape[2] // 4
    if locations.shape != (1, count * 4) or classes < 1 or confidences.shape != (1, count * classes):
        raise layer.error(f"{locations.shape} locations, {confidences.shape} confidences, {count} prior boxes")
    corners = priors.constant[0].astype(np.float64).reshape(2, count, 4)
    boxes, variances = corners[0], corners[1]
    if param.flag("variance_encoded_in_target", False):
        variances = np.ones_like(variances)
    decoded = _decode(layer, locations, graph, boxes=boxes, variances=variances, clip=param.flag("clip", False))
    graph.output(decoded)
    graph.output(add_reshape(graph, confidences, SCORES, (1, count, classes)))
    return ()


def _decode(
    layer: Layer,
    locations: Tensor,
    graph: OnnxGraph,
    *,
    boxes: NDArray[np.float64],
    variances: NDArray[np.float64],
    clip: bool,
) -> Tensor:
    """Centre and size from offsets that are measured in prior boxes, then corners."""

    def add(op_type: str, left: str, right: str, what: str) -> str:
        return graph.add(op_type, [left, right], f"{layer.name}/{what}")

    def constant(what: str, values: NDArray[np.float64]) -> str:
        return graph.constant(f"{layer.name}.{what}", values[None])

    count = len(boxes)
    offsets = add_reshape(graph, locations, f"{layer.name}/offsets", (1, count, 4)).name
    moves = add_slice(graph, offsets, f"{layer.name}/moves", axis=2, start=0, end=2)
    growths = add_slice(graph, offsets, f"{layer.name}/growths", axis=2, start=2, end=4)
    prior_size = boxes[:, 2:] - boxes[:, :2]
    moved = add("Mul", moves, constant("reach", variances[:, :2] * prior_size), "moved")
    centre = add("Add", moved, constant("centre", (boxes[:, :2] + boxes[:, 2:]) / 2), "centre")
    grown = add("Mul", growths, constant("spread", variances[:, 2:]), "grown")
    factor = graph.add("Exp", [grown], f"{layer.name}/factor")
    half = add("Mul", factor, constant("half_size", prior_size / 2), "half")
    corners = [add("Sub", centre, half, "top_left"), add("Add", centre, half, "bottom_right")]
    joined = graph.add("Concat", corners, f"{layer.name}/corners" if clip else BOXES, attributes={"axis": 2})
    if clip:
        limits = [
            graph.constant(f"{layer.name}.{name}", np.array(value)) for name, value in (("min", 0.0), ("max", 1.0))
        ]
        graph.add("Clip", [joined, *limits], BOXES)
    return Tensor(BOXES, (1, count, 4))
