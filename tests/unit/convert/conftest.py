from __future__ import annotations

import cv2
import numpy as np
import onnxruntime
import pytest


@pytest.fixture(scope="session")
def run_onnx():
    """Runs a converted net: ``run_onnx(model, tensor)`` gives {output: array}."""

    def run(model: bytes, tensor: np.ndarray) -> dict[str, np.ndarray]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, {session.get_inputs()[0].name: tensor}), strict=True))

    return run


@pytest.fixture(scope="session")
def run_caffe():
    """Runs the original net with OpenCV 4's own importer: ``run_caffe(prototxt, caffemodel, tensor)``."""
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip(f"OpenCV {cv2.__version__} has no Caffe importer")

    def run(prototxt: bytes, caffemodel: bytes, tensor: np.ndarray) -> np.ndarray:
        net = cv2.dnn.readNetFromCaffe(np.frombuffer(prototxt, np.uint8), np.frombuffer(caffemodel, np.uint8))
        net.enableWinograd(False)
        net.setInput(tensor)
        return net.forward()

    return run
