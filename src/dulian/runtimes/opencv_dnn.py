"""OpenCV's DNN module: one ``Net`` per session; reads ONNX everywhere and Caffe where OpenCV still can (4.x)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dulian.errors import MissingDependencyError, WeightsError
from dulian.runtimes import Precision, Session, Tensor, Weights

Bytes = NDArray[np.uint8]


class OpenCvSession(Session):
    """Owns a ``Net``; two threads in one ``Net`` get each other's answers without an exception."""

    faults = (cv2.error,)

    def __init__(self, net: cv2.dnn.Net) -> None:
        super().__init__()
        self._net = net
        self._outputs = list(net.getUnconnectedOutLayersNames())

    def _run(self, tensor: Tensor) -> dict[str, Tensor]:
        self._net.setInput(tensor)
        outputs = self._net.forward(self._outputs)
        # The net reuses its output buffers, so the caller gets copies. The ONNX importer prefixes names.
        return {
            name.rpartition("!")[2]: np.array(output, np.float32)
            for name, output in zip(self._outputs, outputs, strict=True)
        }


class OpenCvFactory:
    """Holds the bytes from which every session reads its own net."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def new_session(self) -> Session:
        return OpenCvSession(_read_net(self._weights))


def open_weights(weights: Weights, *, threads: int, workers: int = 1, precision: Precision = "f32") -> OpenCvFactory:
    """Check that OpenCV reads these weights. Its thread pool belongs to the process; whoever owns that sets it.

    Raises:
        WeightsError: OpenCV cannot read these bytes.
        MissingDependencyError: Caffe weights under OpenCV 5, or another precision than f32.
    """
    del threads, workers
    if precision != "f32":
        raise MissingDependencyError(f"engine 'opencv' runs f32 only, not {precision}; use engine 'openvino'")
    _read_net(weights)
    return OpenCvFactory(weights)


def _read_net(weights: Weights) -> cv2.dnn.Net:
    check_dnn()
    try:
        if weights.format == "caffe":
            prototxt, caffemodel = weights.data
            return _read_caffe(_as_array(prototxt), _as_array(caffemodel))
        return cv2.dnn.readNetFromONNX(_as_array(weights.data[0]))
    except cv2.error as error:
        raise WeightsError(f"OpenCV {cv2.__version__} cannot load {weights.name}: {error}") from error


def check_dnn() -> None:
    """Refuse an OpenCV that was built without its networks, as that of a slim container is.

    Raises:
        MissingDependencyError: It was.
    """
    if not hasattr(cv2, "dnn"):
        raise MissingDependencyError(
            f"this OpenCV {cv2.__version__} was built without networks; use another engine, or the published"
            " opencv-python-headless"
        )


def check_caffe() -> None:
    """Refuse Caffe where OpenCV no longer reads it.

    Raises:
        MissingDependencyError: OpenCV is 5 or newer.
    """
    if int(cv2.__version__.partition(".")[0]) >= 5:
        raise MissingDependencyError(
            f"OpenCV {cv2.__version__} has no Caffe importer; use another engine, which runs the converted ONNX, "
            "or pip install 'opencv-python-headless>=4.14,<5'"
        )


def _read_caffe(prototxt: Bytes, caffemodel: Bytes) -> cv2.dnn.Net:
    check_caffe()
    return cv2.dnn.readNetFromCaffe(prototxt, caffemodel)


def _as_array(data: bytes) -> Bytes:
    return np.frombuffer(data, np.uint8)
