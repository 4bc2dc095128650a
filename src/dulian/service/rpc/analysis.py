"""``Analyze``: one picture, answered as ``/v1/analyze`` answers it, and out of the same cache."""

from __future__ import annotations

import json
import time

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from dulian.errors import DeadlineError, MalformedInputError
from dulian.service.admission import Hold
from dulian.service.analysis import AnalyzeEndpoint, answer_picture
from dulian.service.body import EMPTY
from dulian.service.cache import INLINE_BYTES, SharedResults
from dulian.service.compute import EXPIRED
from dulian.service.endpoint import look_at
from dulian.service.query import Asked
from dulian.service.rpc import dulian_pb2
from dulian.service.rpc.calls import Call
from dulian.service.rpc.messages import as_asked, as_message, fill

METHOD = "/dulian.v1.Dulian/Analyze"
NOT_READABLE = "the message is not what this method takes"


async def analyze(call: Call) -> bytes:
    """The answer to a call.

    Raises:
        DulianError: It is refused.
    """
    service = call.service
    caller = await call.admit(METHOD)
    hold = Hold(service.admission, caller)
    try:
        picture, asked = _open(await call.receive(caller, hold), deadline_s=service.limits.deadline_s)
        budget_s = min(asked.budget_s, call.remaining_s)
        if budget_s <= 0:
            raise DeadlineError(EXPIRED)
    except BaseException:
        hold.release()
        raise
    began = time.monotonic()
    if service.results is not None and not asked.annotate:
        answer = await _share(service.results, call, picture, asked, budget_s, hold)
    else:
        answer = await service.admission.perform(
            lambda: _work(call, picture, asked), budget_s=budget_s, hold=hold, receive=None
        )
    service.traffic.note_answer(time.monotonic() - began)
    return answer


def _open(message: bytes, *, deadline_s: float) -> tuple[bytes, Asked]:
    """The picture's file, and what is asked of it."""
    try:
        request = dulian_pb2.AnalyzeRequest.FromString(message)
    except DecodeError:
        raise MalformedInputError(NOT_READABLE) from None
    if not request.image:
        raise MalformedInputError(EMPTY)
    return request.image, as_asked(request.options, deadline_s=deadline_s)


def _work(call: Call, picture: bytes, asked: Asked) -> bytes:
    """From a picture's file to a message; runs in a compute thread."""
    result, drawn = look_at(call.service, picture, asked, draw=asked.annotate)
    with call.service.metrics.timed("encode"):
        message: bytes = as_message(result, drawn, call.request_id).SerializeToString()
        return message


async def _share(
    results: SharedResults, call: Call, picture: bytes, asked: Asked, budget_s: float, hold: Hold
) -> bytes:
    """The answer that was given to the same question, over HTTP or here, or will be."""
    text, _ = await results.perform(
        lambda: answer_picture(call.service, picture, asked, call.request_id).body,
        request_id=call.request_id,
        picture=lambda: picture,
        aside=len(picture) >= INLINE_BYTES,
        route=AnalyzeEndpoint.path,
        asked=asked,
        budget_s=budget_s,
        hold=hold,
        receive=None,
    )
    response = dulian_pb2.AnalyzeResponse()
    fill(response, json.loads(text))
    message: bytes = response.SerializeToString()
    return message
