"""Results as messages, and wishes out of messages: the dictionaries of the wire contract, carried another way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message  # type: ignore[import-untyped]

from dulian.faces import AnalysisResult
from dulian.service.query import Asked
from dulian.service.rpc import dulian_pb2
from dulian.service.stream.wishes import read_options


def fill(message: Message, data: Mapping[str, Any]) -> None:
    """Set a message's fields from a dictionary that has their names; null is not set.

    A name that the message does not have raises: what the wire contract says must not get lost here.
    """
    for name, value in data.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            part = getattr(message, name)
            part.SetInParent()
            fill(part, value)
        elif isinstance(value, list):
            _extend(getattr(message, name), value)
        else:
            setattr(message, name, value)


def _extend(field: Any, values: list[Any]) -> None:
    for value in values:
        if isinstance(value, Mapping):
            fill(field.add(), value)
        else:
            field.append(value)


def as_message(result: AnalysisResult, drawn: bytes | None, request_id: str) -> dulian_pb2.AnalyzeResponse:
    """A result as the service answers it, with the JPEG of a drawn copy if there is one."""
    response = dulian_pb2.AnalyzeResponse()
    fill(response, result.to_dict() | {"request_id": request_id, "annotated_image": drawn})
    return response


def as_asked(options: dulian_pb2.Options, *, deadline_s: float) -> Asked:
    """What is asked by these options, by the rules for those of a query.

    Raises:
        MalformedInputError: A value makes no sense.
    """
    return read_options({field.name: value for field, value in options.ListFields()}, deadline_s=deadline_s)
