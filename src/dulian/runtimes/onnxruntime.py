"""ONNX Runtime, CPU: one model object, which threads may share (its ``run`` is safe), a thin session each."""

from __future__ import annotations

from functools import cache

from dulian.errors import MissingDependencyError, WeightsError
from dulian.quiet import without_reports
from dulian.runtimes import Precision, Session, Tensor, Weights

with without_reports():
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as native

# ONNX Runtime's exceptions have no public home and no base class but Exception.
FAULTS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, Exception)),
)


class OnnxRuntimeSession(Session):
    """Runs a shared ``InferenceSession``; outputs are fresh arrays."""

    faults = FAULTS

    def __init__(self, model: ort.InferenceSession) -> None:
        super().__init__()
        self._model = model
        self._input = model.get_inputs()[0].name
        self._outputs = [output.name for output in model.get_outputs()]

    def _run(self, tensor: Tensor) -> dict[str, Tensor]:
        return dict(zip(self._outputs, self._model.run(self._outputs, {self._input: tensor}), strict=True))


class OnnxRuntimeFactory:
    """Holds the model that all sessions share."""

    def __init__(self, model: ort.InferenceSession) -> None:
        self._model = model

    def new_session(self) -> Session:
        return OnnxRuntimeSession(self._model)


@cache
def _make_common_arena() -> None:
    """One arena for all networks of one shape: it stays small, and is not torn by what else is allocated meanwhile."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, None)


def open_weights(
    weights: Weights, *, threads: int, workers: int = 1, precision: Precision = "f32"
) -> OnnxRuntimeFactory:
    """Load an ONNX model.

    Raises:
        WeightsError: ONNX Runtime cannot load these bytes.
        MissingDependencyError: Another precision than f32 is asked for.
    """
    del workers  # callers bring their own threads; one model serves them all
    if precision != "f32":
        raise MissingDependencyError(f"engine 'onnxruntime' runs f32 only, not {precision}; use engine 'openvino'")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if weights.one_shape:
        _make_common_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
    else:
        # An arena keeps the memory of the largest batch for ever; malloc is as fast and gives it back.
        options.enable_cpu_mem_arena = False
    # Spinning threads of several models fight for the same cores: 36 ms became 15 on two cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        model = ort.InferenceSession(weights.data[0], options, providers=["CPUExecutionProvider"])
    except FAULTS as error:
        raise WeightsError(f"ONNX Runtime cannot load {weights.name}: {error}") from error
    # The Python class keeps the file for a second try with other providers; there are none, and it is 102 MB (classic).
    model._model_bytes = None
    return OnnxRuntimeFactory(model)
