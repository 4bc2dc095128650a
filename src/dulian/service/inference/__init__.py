"""The Open Inference Protocol, version 2: what its tensors mean here. REST and gRPC carry them, each in its own file.

One model, one input, and the faces of all pictures of a request in outputs of equal length.
"""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from dulian import __version__
from dulian.errors import DeadlineError, InputError, InputNotFoundError, MalformedInputError
from dulian.faces import AnalysisResult, Attribute
from dulian.service.admission import Hold
from dulian.service.body import Receive
from dulian.service.compute import EXPIRED
from dulian.service.endpoint import look_at
from dulian.service.query import Asked
from dulian.service.state import Service
from dulian.service.stream.wishes import read_options

MODEL = "face-attributes"
# Of what the tensors mean; which networks answer is told by the other version, their digest.
VERSION = "1"
INPUT = "image"
ANY = -1
PARAMETERS = frozenset({"max_faces", "min_confidence", "order", "coverage", "max_ms"})
EXTENSION = "binary_tensor_data"

Datatype = Literal["BYTES", "INT32", "FP32"]
Values = list[Any]


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor of the answer: for each face one value, or a row of ``columns`` values."""

    name: str
    datatype: Datatype
    read: Callable[[int, Mapping[str, Any]], Any]
    columns: int = 0
    needs: frozenset[Attribute] = frozenset()

    @property
    def shape(self) -> list[int]:
        return self.shape_of(ANY)

    def shape_of(self, faces: int) -> list[int]:
        return [faces, self.columns] if self.columns else [faces]


_AGE: frozenset[Attribute] = frozenset({"age"})
_GENDER: frozenset[Attribute] = frozenset({"gender"})
OUTPUTS: tuple[Output, ...] = (
    Output("picture", "INT32", lambda picture, face: picture),
    Output("boxes", "FP32", lambda picture, face: face["bbox"], columns=4),
    Output("confidences", "FP32", lambda picture, face: face["confidence"]),
    Output("ages", "FP32", lambda picture, face: face["age"]["value"], needs=_AGE),
    Output("age_lows", "FP32", lambda picture, face: face["age"]["low"], needs=_AGE),
    Output("age_highs", "FP32", lambda picture, face: face["age"]["high"], needs=_AGE),
    Output("female_probabilities", "FP32", lambda picture, face: face["gender"]["female_probability"], needs=_GENDER),
    Output("genders", "BYTES", lambda picture, face: face["gender"]["value"] or "unknown", needs=_GENDER),
    Output("statuses", "BYTES", lambda picture, face: face["status"], needs=_AGE | _GENDER),
)
_BY_NAME = {output.name: output for output in OUTPUTS}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of an answer with its values, row after row."""

    name: str
    datatype: Datatype
    shape: list[int]
    values: Values

    def packed(self) -> bytes:
        """The values as bytes, the lowest first; each text after its length."""
        if self.datatype == "BYTES":
            texts = [value.encode() for value in self.values]
            return b"".join(struct.pack("<I", len(text)) + text for text in texts)
        return struct.pack(f"<{len(self.values)}{'i' if self.datatype == 'INT32' else 'f'}", *self.values)


@dataclass(frozen=True, slots=True)
class Inference:
    """A request that makes sense: its pictures, and which outputs are wanted."""

    pictures: Sequence[bytes]
    outputs: tuple[Output, ...]
    asked: Asked


# ── what there is ────────────────────────────────────────────────────────────────────────────────


def check_model(service: Service, name: str, version: str = "") -> None:
    """Whether this is the model that is served.

    Raises:
        InputNotFoundError: It is not.
    """
    if name != MODEL:
        raise InputNotFoundError(f"there is no model {name[:80]!r}; it is called {MODEL!r}")
    if version not in ("", *versions(service)):
        raise InputNotFoundError(
            f"there is no version {version[:80]!r} of it; choose from {', '.join(versions(service))}"
        )


def versions(service: Service) -> list[str]:
    """That of the tensors, and that of the networks behind them."""
    return [VERSION, service.model.digest]


def server_metadata() -> dict[str, Any]:
    """What this server is."""
    return {"name": "dulian", "version": __version__, "extensions": [EXTENSION]}


def model_metadata(service: Service) -> dict[str, Any]:
    """The model's versions and tensors."""
    return {
        "name": MODEL,
        "versions": versions(service),
        "platform": f"dulian_{service.model.engine}",
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [ANY]}],
        "outputs": [{"name": one.name, "datatype": one.datatype, "shape": one.shape} for one in OUTPUTS],
    }


# ── what is asked ────────────────────────────────────────────────────────────────────────────────


def check_input(name: str, datatype: str, shape: Sequence[int], *, most: int) -> int:
    """How many pictures the only input says that it has.

    Raises:
        MalformedInputError: It is another input, of another type or shape.
    """
    if name != INPUT:
        raise MalformedInputError(f"there is no input {name[:80]!r}; the only one is {INPUT!r}")
    if datatype != "BYTES":
        raise MalformedInputError(f"input {INPUT!r} is of datatype BYTES: the file of a picture in each element")
    if len(shape) != 1 or not 1 <= shape[0] <= most:
        raise MalformedInputError(f"the shape of input {INPUT!r} is [N], with N from 1 to {most} pictures")
    return shape[0]


def unpack(raw: bytes | memoryview, count: int) -> list[bytes]:
    """The elements of a tensor of BYTES, each after its length.

    Raises:
        MalformedInputError: There are not exactly so many.
    """
    elements: list[bytes] = []
    at = 0
    while at + 4 <= len(raw) and len(elements) < count:
        (size,) = struct.unpack_from("<I", raw, at)
        elements.append(bytes(raw[at + 4 : at + 4 + size]))
        at += 4 + size
    if at != len(raw) or len(elements) != count:
        raise MalformedInputError(f"the binary data of input {INPUT!r} is not {count} elements, each after its length")
    return elements


def make_inference(
    pictures: Sequence[bytes], outputs: Iterable[str], parameters: Mapping[str, object], asked: Asked
) -> Inference:
    """A request of these pictures; without outputs all are wanted, and only what they need is computed.

    Raises:
        MalformedInputError: A picture is empty, an output unknown, or a parameter makes no sense.
    """
    if not all(pictures):
        raise MalformedInputError("an element of the input is empty; send a picture")
    names = tuple(dict.fromkeys(outputs))
    if unknown := [name for name in names if name not in _BY_NAME]:
        raise MalformedInputError(f"there is no output {unknown[0][:80]!r}; choose from {', '.join(_BY_NAME)}")
    if strange := parameters.keys() - PARAMETERS:
        raise MalformedInputError(
            f"unknown parameter {min(strange)[:80]!r}; choose from {', '.join(sorted(PARAMETERS))}"
        )
    wanted = tuple(_BY_NAME[name] for name in names) or OUTPUTS
    given = read_options(dict(parameters), deadline_s=asked.budget_s)
    needs = frozenset[Attribute]().union(*(one.needs for one in wanted))
    return Inference(pictures, wanted, replace(given, options=replace(given.options, attributes=needs)))


# ── what is answered ─────────────────────────────────────────────────────────────────────────────


async def infer(service: Service, inference: Inference, hold: Hold, receive: Receive | None) -> list[Tensor]:
    """The tensors of all pictures' faces; ``hold`` is the request's, and released by its owner.

    Each picture is a job of its own, as those of a batch are.

    Raises:
        DulianError: A picture is refused, and with it all of them: an answer has no place for errors.
    """
    await service.access.charge(hold.caller, len(inference.pictures) - 1)  # the request counted as one
    until = asyncio.get_running_loop().time() + inference.asked.budget_s
    tasks = [
        asyncio.create_task(_look(service, inference, number, hold, receive, until))
        for number in range(len(inference.pictures))
    ]
    try:
        results = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return tensors_of(results, inference.outputs)


async def _look(
    service: Service, inference: Inference, number: int, hold: Hold, receive: Receive | None, until: float
) -> AnalysisResult:
    several = len(inference.pictures) > 1
    try:
        async with asyncio.timeout_at(until):
            await service.batch_places.acquire()
    except TimeoutError:
        raise DeadlineError(EXPIRED) from None
    hold.keep()
    try:
        result, _ = await service.admission.perform(
            lambda: look_at(service, inference.pictures[number], inference.asked, draw=False),
            budget_s=until - asyncio.get_running_loop().time(),
            hold=hold,
            receive=receive,
            foresee=not several,
        )
        return result
    except InputError as error:
        raise type(error)(f"picture {number}: {error}") from None if several else error
    finally:
        service.batch_places.release()


def tensors_of(results: Sequence[AnalysisResult], outputs: Sequence[Output]) -> list[Tensor]:
    """The faces of all pictures, picture after picture."""
    faces = [(number, face) for number, result in enumerate(results) for face in result.to_dict()["faces"]]
    return [_tensor(output, faces) for output in outputs]


def _tensor(output: Output, faces: Sequence[tuple[int, Mapping[str, Any]]]) -> Tensor:
    rows = [output.read(picture, face) for picture, face in faces]
    values = [value for row in rows for value in row] if output.columns else rows
    shape = output.shape_of(len(faces))
    assert len(values) == math.prod(shape)
    return Tensor(output.name, output.datatype, shape, values)
