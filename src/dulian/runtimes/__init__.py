"""Runtimes: libraries that run a network. They know tensors and weights, nothing about faces or wires.

A runtime is one module with ``open_weights(weights, *, threads, workers, precision) -> SessionFactory``
and one row in :data:`RUNTIMES`. The factory holds what threads may share; every thread makes its own
session from it. A session refuses to run outside the thread that made it, because a network object
shared by two threads answers wrongly and silently (OpenCV, OpenVINO).
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from dulian.errors import InferenceError, MissingDependencyError, SharedSessionError, UnknownNameError

Tensor = NDArray[np.float32]
Precision = Literal["f32", "bf16"]
WeightsFormat = Literal["onnx", "caffe"]


@dataclass(frozen=True, slots=True)
class Weights:
    """Verified bytes of one network: ``(onnx,)`` or ``(prototxt, caffemodel)``; ``sha256`` of the last one.

    ``one_shape`` says that all its inputs will have the same shape, so that its buffers may be kept.
    """

    name: str
    sha256: str
    data: tuple[bytes, ...]
    format: WeightsFormat = "onnx"
    one_shape: bool = False


class Session(ABC):
    """A loaded network that belongs to the thread that made it."""

    faults: ClassVar[tuple[type[Exception], ...]] = ()
    """What the library raises when a network fails on a tensor."""

    def __init__(self) -> None:
        self._owner = threading.get_ident()

    def run(self, tensor: Tensor) -> dict[str, Tensor]:
        """Feed the network's only input, NCHW float32; all outputs by name, owned by the caller.

        Raises:
            SharedSessionError: Another thread than the owner calls.
            InferenceError: The network fails on this tensor.
        """
        if threading.get_ident() != self._owner:
            raise SharedSessionError("a session runs only in the thread that made it; make one per thread")
        try:
            return self._run(tensor)
        except self.faults as error:
            raise InferenceError(f"the network failed on a tensor {tensor.shape}: {error}") from error

    @abstractmethod
    def _run(self, tensor: Tensor) -> dict[str, Tensor]: ...


class SessionFactory(Protocol):
    """Opened weights; safe to share between threads."""

    def new_session(self) -> Session:
        """A session for the calling thread."""
        ...


class Runtime(Protocol):
    """What a runtime's module offers."""

    def open_weights(
        self, weights: Weights, *, threads: int, workers: int = 1, precision: Precision = "f32"
    ) -> SessionFactory:
        """Prepare weights for sessions of ``threads`` threads each, of which ``workers`` run at once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeRow:
    """Where a runtime lives, the module it needs and what to install for it, and which file format it is given."""

    module: str
    requires: str
    install: str
    format: WeightsFormat = "onnx"


RUNTIMES: dict[str, RuntimeRow] = {
    "onnxruntime": RuntimeRow(module="dulian.runtimes.onnxruntime", requires="onnxruntime", install="onnxruntime"),
    "openvino": RuntimeRow(module="dulian.runtimes.openvino", requires="openvino", install="dulian[openvino]"),
    "opencv": RuntimeRow(module="dulian.runtimes.opencv_dnn", requires="cv2", install="opencv-python-headless>=4.14"),
    "opencv-caffe": RuntimeRow(
        module="dulian.runtimes.opencv_dnn", requires="cv2", install="opencv-python-headless>=4.14,<5", format="caffe"
    ),
}


def choose_engine(name: str, precision: Precision) -> str:
    """What ``auto`` stands for: ONNX Runtime, and OpenVINO for bf16, which ONNX Runtime does not do.

    In f32 OpenVINO is up to a tenth faster on the Caffe trio and slower on the rest, for 220 MB more.
    """
    if name != "auto":
        return name
    return "openvino" if precision == "bf16" else "onnxruntime"


def find_runtime(name: str) -> RuntimeRow:
    """The row of a runtime.

    Raises:
        UnknownNameError: There is no such runtime.
        MissingDependencyError: Its library is not installed.
    """
    row = RUNTIMES.get(name)
    if row is None:
        raise UnknownNameError(f"unknown engine {name!r}; choose from auto, {', '.join(RUNTIMES)}")
    if importlib.util.find_spec(row.requires) is None:
        raise MissingDependencyError(f"engine {name!r} is not installed; pip install '{row.install}'")
    return row


def load_runtime(row: RuntimeRow) -> Runtime:
    """Import a runtime's module, and with it the library it stands for."""
    return cast(Runtime, importlib.import_module(row.module))
