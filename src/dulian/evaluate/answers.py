"""What a profile says of labelled pictures: the published faces, and for each labelled one what the networks said.

The whole way of a picture is gone, from bytes to result, with the analyzer that serves it.
"""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from dulian.analyzer import AnalyzeOptions, Analyzer
from dulian.errors import DulianError
from dulian.evaluate.dataset import SUBJECT_KINDS, Person, Picture
from dulian.faces import BoundingBox, Face
from dulian.factory import AnalyzerFactory
from dulian.geometry import iou
from dulian.image import Image, ImageLimits, decode_image
from dulian.models import AgeScores, AttributeEstimator, AttributeScores
from dulian.pipeline import Pipeline

# A face is the labelled one from this overlap of boxes on.
SAME_FACE = 0.5


@dataclass(frozen=True, slots=True)
class Subject:
    """A labelled face, the published face that stands for it, and its own row of every network's scores."""

    picture: Picture
    person: Person
    face: Face | None
    scores: dict[str, AttributeScores]


@dataclass(frozen=True, slots=True)
class Answer:
    """One picture with the faces found in it, in pixels of the stored picture, or the code of an error."""

    picture: Picture
    faces: tuple[Face, ...]
    subjects: tuple[Subject, ...]
    error: str | None = None


class WatchedEstimator:
    """Passes on what an estimator says, and remembers the last of it; belongs to one thread, as its estimator does."""

    def __init__(self, estimator: AttributeEstimator, said: dict[str, AttributeScores]) -> None:
        self._estimator = estimator
        self._said = said
        self.name = estimator.name
        self.provides = estimator.provides
        self.crop = estimator.crop
        self.max_batch = estimator.max_batch

    def estimate(self, crops: Sequence[Image]) -> AttributeScores:
        """See :class:`dulian.models.AttributeEstimator`."""
        self._said[self.name] = scores = self._estimator.estimate(crops)
        return scores


def ask(
    factory: AnalyzerFactory,
    folder: Path,
    pictures: Sequence[Picture],
    *,
    workers: int,
    advance: Callable[[], None],
    shrinks: Mapping[str, float] | None = None,
) -> list[Answer]:
    """The answers to all pictures, in order; ``advance`` is called after each.

    With ``shrinks`` each picture is first made so much smaller as stands there by its file.
    """
    local = threading.local()

    def watched() -> Analyzer:
        local.said = {}
        return factory.new_analyzer(lambda estimator: WatchedEstimator(estimator, local.said))

    pipeline = Pipeline(watched, limits=ImageLimits())

    def one(picture: Picture) -> Answer:
        pipeline.prepare()
        local.said.clear()
        answer = _answer(pipeline, folder, picture, local.said, (shrinks or {}).get(picture.file, 1.0))
        advance()
        return answer

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, pictures))


def _answer(
    pipeline: Pipeline, folder: Path, picture: Picture, said: dict[str, AttributeScores], shrink: float
) -> Answer:
    try:
        data = (folder / picture.file).read_bytes()
        if picture.border or shrink != 1:
            data = _prepared(data, picture.border, shrink)
        result, _ = pipeline.analyze(data, AnalyzeOptions())
    except DulianError as error:
        return Answer(picture, (), (), error.code)
    except OSError as error:
        return Answer(picture, (), (), error.strerror or "unreadable")
    faces = tuple(_as_stored(face, picture.border, shrink) for face in result.faces)
    subjects = tuple(
        Subject(picture, person, None if index is None else faces[index], _row(said, index))
        for person, index in find_subjects(picture, faces, (result.image.width / shrink, result.image.height / shrink))
    )
    return Answer(picture, faces, subjects)


def _as_stored(face: Face, border: int, shrink: float) -> Face:
    return replace(face, box=BoundingBox(*(corner / shrink - border for corner in face.box)))


def _row(said: Mapping[str, AttributeScores], index: int | None) -> dict[str, AttributeScores]:
    """One face's scores out of those of all faces."""
    if index is None:
        return {}
    row = slice(index, index + 1)
    return {name: _part(scores, row) for name, scores in said.items()}


def _part(scores: AttributeScores, row: slice) -> AttributeScores:
    age = scores.age
    if age is not None:
        age = AgeScores(age.probabilities[row], age.years[row] if age.years.ndim == 2 else age.years)
    return AttributeScores(age, None if scores.female is None else scores.female[row])


# ── which face is which ──────────────────────────────────────────────────────────────────────────


def match(truth: Sequence[BoundingBox], faces: Sequence[Face]) -> dict[int, int]:
    """Greedily, the most confident face first, one face per true box: the index of the box by that of the face."""
    if not truth or not faces:
        return {}
    overlaps = iou(_corners([face.box for face in faces]), _corners(truth))
    pairs: dict[int, int] = {}
    for index in sorted(range(len(faces)), key=lambda index: -faces[index].confidence):
        free = [target for target in range(len(truth)) if target not in pairs.values()]
        best = max(free, key=lambda target: overlaps[index, target], default=None)
        if best is not None and overlaps[index, best] >= SAME_FACE:
            pairs[index] = best
    return pairs


def find_subjects(
    picture: Picture, faces: Sequence[Face], answer_wh: tuple[float, float]
) -> Iterator[tuple[Person, int | None]]:
    """The people whose attributes are labelled, each with the index of the face that is theirs.

    By its box where there is one; else, of somebody who is alone, the face nearest to the middle of the picture, or of
    the box that is noted.
    """
    if picture.kind not in SUBJECT_KINDS:
        return
    labelled = [person for person in picture.people if person.gender or person.youngest is not None]
    boxed = [person for person in picture.people if person.box]
    found = {target: index for index, target in match([p.box for p in boxed if p.box], faces).items()}
    for person in labelled:
        if person.box:
            yield person, found.get(boxed.index(person))
        elif len(picture.people) == 1:
            yield person, _central(picture, faces, answer_wh)


def _central(picture: Picture, faces: Sequence[Face], answer_wh: tuple[float, float]) -> int | None:
    mark = picture.centre
    if mark is None:
        x, y = answer_wh[0] / 2 - picture.border, answer_wh[1] / 2 - picture.border
        inside = range(len(faces))
    else:
        x, y = _middle(mark)
        boxes = [face.box for face in faces]
        inside = [i for i, box in enumerate(boxes) if box.x1 <= x <= box.x2 and box.y1 <= y <= box.y2]  # type: ignore[assignment]
    return min(inside, key=lambda index: math.dist(_middle(faces[index].box), (x, y)), default=None)


def _middle(box: BoundingBox) -> tuple[float, float]:
    return (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2


def _corners(boxes: Sequence[BoundingBox]) -> NDArray[np.float32]:
    return np.array([tuple(box) for box in boxes], np.float32).reshape(-1, 4)


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────


def _prepared(data: bytes, border: int, shrink: float) -> bytes:
    image = decode_image(data).image[..., ::-1]
    padded = PillowImage.fromarray(np.pad(image, ((border, border), (border, border), (0, 0)), mode="edge"))
    if shrink != 1:
        size = max(1, round(padded.width * shrink)), max(1, round(padded.height * shrink))
        padded = padded.resize(size, PillowImage.Resampling.BOX)
    out = io.BytesIO()
    padded.save(out, "PNG", compress_level=1)
    return out.getvalue()
