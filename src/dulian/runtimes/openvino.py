"""OpenVINO, CPU (extra ``openvino``): one compiled model, one ``InferRequest`` per thread."""

from __future__ import annotations

import numpy as np

from dulian.errors import WeightsError
from dulian.quiet import without_reports
from dulian.runtimes import Precision, Session, Tensor, Weights

with without_reports():
    import openvino as ov

# The first who asks makes OpenVINO's table of types; two threads that are first at once wait for each other for ever.
ov.Type.f32.to_dtype()


class OpenVinoSession(Session):
    """Owns an ``InferRequest``: a compiled model called directly by several threads answers wrongly."""

    faults = (RuntimeError,)

    def __init__(self, model: ov.CompiledModel) -> None:
        super().__init__()
        self._request = model.create_infer_request()
        # A tensor may go by several names, of which the graph's output name is one.
        self._names = [sorted(output.get_names()) for output in model.outputs]

    def _run(self, tensor: Tensor) -> dict[str, Tensor]:
        self._request.infer([tensor], share_inputs=True)
        # The request reuses its output buffers, so the caller gets copies.
        copies = [np.array(tensor.data) for tensor in self._request.output_tensors]
        return {name: copy for names, copy in zip(self._names, copies, strict=True) for name in names}


class OpenVinoFactory:
    """Holds the compiled model that all sessions share."""

    def __init__(self, model: ov.CompiledModel) -> None:
        self._model = model

    def new_session(self) -> Session:
        return OpenVinoSession(self._model)


def open_weights(weights: Weights, *, threads: int, workers: int = 1, precision: Precision = "f32") -> OpenVinoFactory:
    """Compile an ONNX model.

    Raises:
        WeightsError: OpenVINO cannot read these bytes.
    """
    config = {
        # Without the hint OpenVINO silently computes in bf16 where the processor has it.
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": str(threads * workers),
        "NUM_STREAMS": str(workers),
        # Pinning puts the one-thread models of a process on the same core.
        "ENABLE_CPU_PINNING": "NO",
    }
    core = ov.Core()
    try:
        model = core.compile_model(core.read_model(weights.data[0]), "CPU", config)
    except RuntimeError as error:
        raise WeightsError(f"OpenVINO cannot load {weights.name}: {error}") from error
    return OpenVinoFactory(model)
