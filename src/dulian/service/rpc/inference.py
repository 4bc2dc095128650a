"""The calls of the Open Inference Protocol; what its tensors mean is said in :mod:`dulian.service.inference`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from dulian.errors import DeadlineError, MalformedInputError
from dulian.service import inference
from dulian.service.admission import Hold
from dulian.service.compute import EXPIRED
from dulian.service.inference import Inference, Tensor
from dulian.service.query import Asked
from dulian.service.rpc import open_inference_pb2 as pb
from dulian.service.rpc.analysis import NOT_READABLE
from dulian.service.rpc.calls import Answer, Call
from dulian.service.rpc.messages import fill
from dulian.service.state import Service

_SERVICE = "/inference.GRPCInferenceService/"
INFER = f"{_SERVICE}ModelInfer"


async def model_infer(call: Call) -> bytes:
    """The faces of a request's pictures.

    Raises:
        DulianError: It is refused.
    """
    service = call.service
    hold = Hold(service.admission, await call.admit(INFER))
    try:
        received = [await call.receive(hold.caller, hold)]
        budget_s = min(service.limits.deadline_s, call.remaining_s)
        if budget_s <= 0:
            raise DeadlineError(EXPIRED)
        hold.keep()
        # A message of many small things takes long to read, and much room: one of them at a time in each thread.
        request, asked = await service.admission.perform(
            lambda: _open(service, received.pop(), budget_s), budget_s=budget_s, hold=hold, receive=None, measure=False
        )
        tensors = await inference.infer(service, asked, hold, None)
    finally:
        hold.release()
    return _answer(service, request, tensors)


def _open(service: Service, message: bytes, budget_s: float) -> tuple[pb.ModelInferRequest, Inference]:
    """What is asked, and what of it comes back; in a compute thread."""
    request = _parsed(pb.ModelInferRequest, message)
    inference.check_model(service, request.model_name, request.model_version)
    if len(request.inputs) != 1:
        raise MalformedInputError(f"there is one input, {inference.INPUT!r}, and it is needed")
    (given,) = request.inputs
    most = service.limits.max_batch_parts
    count = inference.check_input(given.name, given.datatype, given.shape, most=most)
    pictures = _pictures(request, count)
    parameters = {**_plain(request.parameters), **_plain(given.parameters)}
    outputs = [output.name for output in request.outputs]
    asked = inference.make_inference(pictures, outputs, parameters, Asked(budget_s=budget_s))
    return pb.ModelInferRequest(id=request.id), asked


def _pictures(request: Any, count: int) -> list[bytes]:
    contents = request.inputs[0].contents.bytes_contents
    if not request.raw_input_contents:
        if len(contents) != count:
            raise MalformedInputError(f"the input has {len(contents)} elements, its shape says {count}")
        return list(contents)
    if len(request.raw_input_contents) != 1 or len(contents):
        raise MalformedInputError("the data of the one input is either in raw_input_contents or in its contents")
    return inference.unpack(request.raw_input_contents[0], count)


def _plain(parameters: Mapping[str, Any]) -> dict[str, object]:
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "bool_param") for name, value in parameters.items()
    }


def _answer(service: Service, request: Any, tensors: list[Tensor]) -> bytes:
    response = pb.ModelInferResponse(model_name=inference.MODEL, model_version=service.model.digest, id=request.id)
    for tensor in tensors:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        response.raw_output_contents.append(tensor.packed())
    return _spelled(response)


# ── what there is ────────────────────────────────────────────────────────────────────────────────


async def server_live(call: Call) -> bytes:
    """Whether the process answers, as ``/livez``."""
    return _spelled(pb.ServerLiveResponse(live=not call.service.hung))


async def server_ready(call: Call) -> bytes:
    """Whether new work is welcome, as ``/readyz``."""
    return _spelled(pb.ServerReadyResponse(ready=call.service.unready is None))


async def server_metadata(call: Call) -> bytes:
    """What this is."""
    await call.admit(f"{_SERVICE}ServerMetadata")
    return _filled(pb.ServerMetadataResponse(), inference.server_metadata())


async def model_ready(call: Call) -> bytes:
    """Whether new work for the model is welcome."""
    await call.admit(f"{_SERVICE}ModelReady")
    request = _parsed(pb.ModelReadyRequest, await call.short_message())
    inference.check_model(call.service, request.name, request.version)
    return _spelled(pb.ModelReadyResponse(ready=call.service.unready is None))


async def model_metadata(call: Call) -> bytes:
    """The model's versions and tensors."""
    await call.admit(f"{_SERVICE}ModelMetadata")
    request = _parsed(pb.ModelMetadataRequest, await call.short_message())
    inference.check_model(call.service, request.name, request.version)
    return _filled(pb.ModelMetadataResponse(), inference.model_metadata(call.service))


ANSWERS: dict[str, Answer] = {
    INFER: model_infer,
    f"{_SERVICE}ServerLive": server_live,
    f"{_SERVICE}ServerReady": server_ready,
    f"{_SERVICE}ServerMetadata": server_metadata,
    f"{_SERVICE}ModelReady": model_ready,
    f"{_SERVICE}ModelMetadata": model_metadata,
}


def _parsed(kind: Any, message: bytes) -> Any:
    try:
        return kind.FromString(message)
    except DecodeError:
        raise MalformedInputError(NOT_READABLE) from None


def _filled(message: Message, data: Mapping[str, Any]) -> bytes:
    fill(message, data)
    return _spelled(message)


def _spelled(message: Message) -> bytes:
    data: bytes = message.SerializeToString()
    return data
