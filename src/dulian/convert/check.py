"""Compares a converted net with OpenCV 4's own Caffe importer, number by number.

Needs opencv-python-headless 4: version 5 has no Caffe importer. onnxruntime runs the converted net.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dulian.convert.caffe_model import FloatArray
from dulian.convert.caffe_net import Layer, Net, read_net
from dulian.convert.layers_ssd import BOXES, SCORES
from dulian.errors import ConversionError, MissingDependencyError
from dulian.quiet import without_reports

if TYPE_CHECKING:
    from types import ModuleType

    from dulian.image import Image

PROBABILITY_TOLERANCE: Final = 1e-5
BOX_TOLERANCE: Final = 1e-4
# Of the largest number in an output that is no probability.
RELATIVE_TOLERANCE: Final = 1e-5

_PROBABILITY_LAYERS: Final = ("Softmax", "Sigmoid")
_SYNTHETIC_IMAGES: Final = 4
# Roughly the middle of the pixel range, so that the tensors look like those the nets were trained on.
_DEFAULT_MEAN: Final = (104.0, 117.0, 123.0)


@dataclass(frozen=True, slots=True)
class CheckRow:
    """The largest absolute difference in one output over all pictures."""

    output: str
    max_abs_diff: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the difference is a number and within the tolerance."""
        return self.max_abs_diff <= self.tolerance


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was compared; ``ok`` when every row is."""

    rows: tuple[CheckRow, ...]
    images: int
    reference: str

    @property
    def ok(self) -> bool:
        """Whether something was compared and all of it agrees."""
        return bool(self.rows) and all(row.ok for row in self.rows)


def check_against_opencv(
    prototxt: bytes,
    caffemodel: bytes,
    onnx_bytes: bytes,
    *,
    images: Sequence[Image] | None = None,
    mean: tuple[float, float, float] = _DEFAULT_MEAN,
    seed: int = 0,
) -> CheckReport:
    """Runs both nets on the same tensors: ``images`` (BGR, HWC, resized to the input) or synthetic ones.

    ``mean`` is subtracted where the input has three channels. A detector is compared by the scores of all
    prior boxes, by all boxes decoded from OpenCV's raw locations, and by the rows OpenCV itself gives
    after suppression, each with the nearest box of the converted net.

    Raises:
        MissingDependencyError: this OpenCV has no Caffe importer.
        ConversionError: one of the two nets cannot be loaded or run.
    """
    cv2 = _opencv_with_caffe()
    net = read_net(prototxt, caffemodel)
    if len(net.inputs) != 1 or len(net.inputs[0][1]) != 4:
        raise ConversionError("only nets with one input of four dimensions can be checked")
    converted = _load_onnx(onnx_bytes)
    try:
        reference = cv2.dnn.readNetFromCaffe(np.frombuffer(prototxt, np.uint8), np.frombuffer(caffemodel, np.uint8))
        # Winograd rounds differently from the plain convolution that Caffe defines.
        reference.enableWinograd(False)
        pictures = _synthetic_images(cv2, net.inputs[0][1], seed) if images is None else images
        tensors = [_tensor(cv2, picture, net.inputs[0][1], mean) for picture in pictures]
        rows: list[CheckRow] = []
        for tensor in tensors:
            rows.extend(_compare(net, reference, converted, tensor))
    except cv2.error as error:
        raise ConversionError(f"OpenCV cannot run the original net: {error}") from error
    return CheckReport(_worst(rows), len(tensors), f"OpenCV {cv2.__version__}")


def _opencv_with_caffe() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError("OpenCV is missing: pip install 'opencv-python-headless>=4.14,<5'") from error
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise MissingDependencyError(
            f"OpenCV {cv2.__version__} has no Caffe importer to compare with; OpenCV 4 is needed: "
            "pip install 'opencv-python-headless>=4.14,<5'"
        )
    return cv2


def _load_onnx(onnx_bytes: bytes) -> Any:
    try:
        with without_reports():
            import onnxruntime
    except ImportError as error:
        raise MissingDependencyError("onnxruntime is missing: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
    except _onnxruntime_errors() as error:
        raise ConversionError(f"onnxruntime cannot load the converted net: {error}") from error


def _onnxruntime_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises about a model or a tensor; the classes share no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
    return tuple(getattr(state, name) for name in names)


def _synthetic_images(cv2: ModuleType, shape: tuple[int, ...], seed: int) -> list[Image]:
    """Smooth noise at several scales with hard edges: gradients and corners, as in photos."""
    random = np.random.default_rng(seed)
    height, width = shape[2:]
    images = []
    for index in range(_SYNTHETIC_IMAGES):
        picture = np.zeros((height, width, 3), np.float32)
        for cells in (3, 9, 27):
            noise = random.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
            picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * (150 / math.sqrt(cells))
        left, top = random.integers(0, width // 2 + 1), random.integers(0, height // 2 + 1)
        picture[top : top + height // 3, left : left + width // 4] += 40 * (index + 1)
        images.append(np.clip(picture + 128, 0, 255).astype(np.uint8))
    return images


def _tensor(cv2: ModuleType, image: Image, shape: tuple[int, ...], mean: tuple[float, float, float]) -> FloatArray:
    """NCHW float32; a net with another number of channels than three sees the blue channel repeated."""
    _, channels, height, width = shape
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    if channels == 3:
        planes = (resized - np.array(mean, np.float32)).transpose(2, 0, 1)
    else:
        planes = np.repeat(resized[None, :, :, 0] - mean[0], channels, axis=0)
    return np.ascontiguousarray(planes[None], dtype=np.float32)


def _compare(net: Net, reference: Any, converted: Any, tensor: FloatArray) -> list[CheckRow]:
    names = [output.name for output in converted.get_outputs()]
    try:
        answers = dict(zip(names, converted.run(names, {converted.get_inputs()[0].name: tensor}), strict=True))
    except _onnxruntime_errors() as error:
        raise ConversionError(f"onnxruntime cannot run the converted net: {error}") from error
    head = next((layer for layer in net.layers if layer.type == "DetectionOutput"), None)
    writers = {top: layer for layer in net.layers for top in layer.tops}
    outputs = [name for name in net.outputs if head is None or name not in head.tops]
    if missing := [name for name in (*outputs, *((BOXES, SCORES) if head else ())) if name not in answers]:
        raise ConversionError(f"the converted net has no output {', '.join(missing)}")
    reference.setInput(tensor)
    wanted = [writers[name] for name in outputs]
    wanted += [writers[name] for name in head.bottoms] + [head] if head else []
    known = frozenset(reference.getLayerNames())
    expected = [np.asarray(answer) for answer in reference.forward([_opencv_name(layer, known) for layer in wanted])]
    rows = [
        _row(name, answers[name], answer, tolerance=_tolerance(writers[name], answer))
        for name, answer in zip(outputs, expected, strict=False)
    ]
    if head is not None:
        rows += _detector_rows(head, answers[BOXES], answers[SCORES], expected[len(outputs) :])
    return rows


def _opencv_name(layer: Layer, known: frozenset[str]) -> str:
    """OpenCV calls some layers by the blob they write."""
    candidates = [name for name in (layer.name, *layer.message.texts("top")) if name in known]
    if not candidates:
        raise layer.error("OpenCV has no layer of this name to compare with")
    return candidates[0]


def _tolerance(layer: Layer, answer: FloatArray) -> float:
    if layer.type in _PROBABILITY_LAYERS:
        return PROBABILITY_TOLERANCE
    return RELATIVE_TOLERANCE * max(1.0, float(np.abs(answer).max(initial=0.0)))


def _row(name: str, got: FloatArray, expected: FloatArray, *, tolerance: float) -> CheckRow:
    if got.size != expected.size:
        return CheckRow(name, math.inf, tolerance)
    difference = np.abs(got.reshape(-1).astype(np.float64) - expected.reshape(-1))
    return CheckRow(name, float(difference.max(initial=0.0)), tolerance)


def _detector_rows(head: Layer, boxes: FloatArray, scores: FloatArray, expected: list[FloatArray]) -> list[CheckRow]:
    """Compares scores and boxes of every prior, then the rows that OpenCV keeps after suppression."""
    locations, confidences, priors, found = expected
    clip = head.message.child("detection_output_param").flag("clip", False)
    rows = [
        _row(SCORES, scores, confidences, tolerance=PROBABILITY_TOLERANCE),
        _row(BOXES, boxes, _decoded(locations, priors, clip=clip), tolerance=BOX_TOLERANCE),
    ]
    for _, label, score, *corners in found.reshape(-1, 7):
        if score <= 0 or not 0 <= label < scores.shape[2]:
            continue  # OpenCV fills its table up with zeros
        box_diffs = np.abs(boxes[0] - np.array(corners, np.float32)).max(axis=1)
        score_diffs = np.abs(scores[0, :, int(label)] - score)
        nearest = int(np.argmin(np.maximum(box_diffs / BOX_TOLERANCE, score_diffs / PROBABILITY_TOLERANCE)))
        rows.append(CheckRow("detections: boxes", float(box_diffs[nearest]), BOX_TOLERANCE))
        rows.append(CheckRow("detections: scores", float(score_diffs[nearest]), PROBABILITY_TOLERANCE))
    return rows


def _decoded(locations: FloatArray, priors: FloatArray, *, clip: bool) -> FloatArray:
    """SSD's CENTER_SIZE decoding in float64: relative xyxy (P, 4)."""
    offsets = locations.astype(np.float64).reshape(-1, 4)
    corners, variances = priors.astype(np.float64).reshape(2, -1, 4)
    size = corners[:, 2:] - corners[:, :2]
    centre = (corners[:, :2] + corners[:, 2:]) / 2 + offsets[:, :2] * variances[:, :2] * size
    half = np.exp(offsets[:, 2:] * variances[:, 2:]) * size / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    return (np.clip(boxes, 0.0, 1.0) if clip else boxes).astype(np.float32)


def _worst(rows: Iterable[CheckRow]) -> tuple[CheckRow, ...]:
    """One row an output: the one furthest beyond its tolerance; a difference that is no number wins."""
    worst: dict[str, CheckRow] = {}
    for row in rows:
        known = worst.get(row.output)
        if (
            known is None
            or math.isnan(row.max_abs_diff)
            or row.max_abs_diff / row.tolerance > (known.max_abs_diff / known.tolerance)
        ):
            worst[row.output] = row
    return tuple(worst.values())
