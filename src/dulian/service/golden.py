"""Whether networks still answer as they must: one fixed input through each, compared with answers that are shipped.

A processor, a library or memory that computes wrongly does so without an exception. This finds what is wrong with every
answer, before the first one is given. The shipped answers, ``data/golden.json``, are written by
``python -m tests.golden.networks``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from dulian.errors import GoldenError
from dulian.factory import AnalyzerFactory
from dulian.image import Image, to_tensor
from dulian.models.rows import ModelRow
from dulian.runtimes import Precision, Session, Tensor

# Of an input whose size a network leaves open.
OPEN_WH = (96, 96)
# How much of each output is compared: so many values, spread over it, after its mean and its deviation.
VALUES = 16
# How far an answer may be from the shipped one, as a share of the output's largest shipped value, which counts as
# ``SMALLEST`` at least. In f32 the engines (OpenCV 4 and 5 among them) were seen to differ by 8e-6, bf16 to cost 0.08.
TOLERANCES: Mapping[Precision, float] = {"f32": 1e-3, "bf16": 0.25}
SMALLEST = 0.01


def check_factory(factory: AnalyzerFactory, precision: Precision) -> None:
    """Try every network that is open, those for pictures that come alone included.

    Raises:
        GoldenError: One of them does not answer as it must.
        InferenceError: One of them fails.
    """
    seen: list[object] = []
    for row in factory.profile.rows:
        for sessions in (factory.sessions, factory.solo_sessions or {}):
            opened = sessions.get(row.name)
            if opened is not None and all(opened is not one for one in seen):
                seen.append(opened)
                check_session(row, opened.new_session(), factory.model.engine, precision)


def check_session(row: ModelRow, session: Session, engine: str, precision: Precision) -> None:
    """Try one network in the calling thread. Of a network without shipped answers only numbers are asked.

    Raises:
        GoldenError: It does not answer as it must.
    """
    answers = {name: sample(output) for name, output in session.run(fixed_input(row)).items()}
    expected = _expected(row, answers)
    for name, values in answers.items() if expected is None else ():
        if not np.isfinite(values).all():
            raise GoldenError(f"{engine} answers {name!r} of {row.name} with something that is no number")
    for name, wanted in (expected or {}).items():
        off = deviation(answers.get(name), wanted)
        if not off <= TOLERANCES[precision]:  # nor if it is no number
            raise GoldenError(
                f"{engine} computes wrongly on this machine: {name!r} of {row.name} is off by {off:.1e} of its size,"
                f" {TOLERANCES[precision]:.0e} is allowed in {precision}; try another --engine"
            )


def _expected(row: ModelRow, answers: Mapping[str, object]) -> dict[str, Any] | None:
    """Shipped answers of the network, or of the original that it was made from, whose outputs may be others."""
    hashes = (row.weights.sha256, *(file.sha256 for file in row.originals))
    known = [golden_answers()[sha256] for sha256 in hashes if sha256 in golden_answers()]
    return next((one for one in known if one.keys() & answers.keys()), known[0] if known else None)


def fixed_input(row: ModelRow) -> Tensor:
    """What a network is tried with, in the range that it is fed with: the same numbers on every machine."""
    image = fixed_picture(*(row.input_wh or OPEN_WH))
    return to_tensor([image], colour_order=row.colour_order, mean=row.mean, scale=row.scale)


def fixed_picture(width: int, height: int) -> Image:
    """A BGR picture of soft stripes and a bright patch, made of whole numbers alone."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [(x * a * 256 // width + y * b * 256 // height + c) % 512 for a, b, c in ((3, 1, 0), (1, 2, 90), (2, 5, 7))]
    picture = np.stack([40 + abs(wave - 255) * 5 // 8 for wave in waves], axis=-1)
    picture[height // 4 : height // 2, width // 3 : width * 2 // 3] += 40
    return np.ascontiguousarray(picture.clip(0, 255).astype(np.uint8))


def sample(output: Tensor) -> list[float]:
    """Mean, deviation, and values spread over an output of any shape."""
    flat = output.reshape(-1).astype(np.float64)
    places = np.linspace(0, len(flat) - 1, min(VALUES, len(flat))).astype(int)
    with np.errstate(invalid="ignore"):  # infinite ones are found later
        return [float(flat.mean()), float(flat.std()), *flat[places].tolist()]


def deviation(answer: list[float] | None, wanted: list[float]) -> float:
    """The largest difference, as a share of the largest value that is wanted; infinite where the shapes differ."""
    if answer is None or len(answer) != len(wanted):
        return float("inf")
    return float(np.abs(np.subtract(answer, wanted)).max() / max(np.abs(wanted).max(), SMALLEST))


@cache
def golden_answers() -> dict[str, dict[str, Any]]:
    """Shipped samples of each output, by the sha256 of a network's weights and the output's name."""
    text = resources.files("dulian").joinpath("data", "golden.json").read_text("utf-8")
    answers: dict[str, dict[str, Any]] = json.loads(text)
    return answers
