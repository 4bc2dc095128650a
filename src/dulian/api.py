"""The library's front door: ``load_analyzer`` and what goes with it. A facade; the work is done below.

This is the one place where a path may stand for a picture. Below, there are only bytes and arrays.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from dulian.analyzer import ALL_ATTRIBUTES, MAX_FACES, AnalyzeOptions
from dulian.errors import MalformedInputError, MissingDependencyError
from dulian.faces import AnalysisResult, Attribute, FaceOrder
from dulian.factory import open_profile
from dulian.image import Image, ImageLimits, decode_image
from dulian.messages import Language
from dulian.models.catalog import DEFAULT_PROFILE, find_profile
from dulian.pipeline import Pipeline
from dulian.render import annotate as draw
from dulian.runtimes import Precision
from dulian.serialize import FACE_COLUMNS, face_row
from dulian.sources import read_file
from dulian.store import ModelStore

if TYPE_CHECKING:
    import pandas as pd

Picture = str | os.PathLike[str] | bytes | bytearray | memoryview | Image


class FaceAnalyzer:
    """Analyses pictures; may be called from any number of threads."""

    def __init__(self, pipeline: Pipeline, limits: ImageLimits) -> None:
        self._pipeline = pipeline
        self._limits = limits

    def analyze(
        self,
        picture: Picture,
        *,
        max_faces: int = MAX_FACES,
        min_confidence: float | None = None,
        attributes: Iterable[Attribute] | str = ALL_ATTRIBUTES,
        order: FaceOrder = "size",
        coverage: float = 0.9,
    ) -> AnalysisResult:
        """Analyse one picture: a path, an encoded file's bytes, or a ``(H, W, 3)`` BGR uint8 array.

        Arrays are taken as upright. An empty ``attributes`` only detects; ``"age,gender"`` is understood too.

        Raises:
            InputError: The picture or an option cannot be used; the subclass says why.
        """
        options = AnalyzeOptions(
            max_faces=max_faces,
            min_confidence=min_confidence,
            attributes=_attributes(attributes),
            order=order,
            coverage=coverage,
        )
        if isinstance(picture, np.ndarray):
            return self._pipeline.analyze_image(_check_array(picture), options)
        return self._pipeline.analyze(_read(picture, self._limits), options)[0]


def load_analyzer(
    profile: str = DEFAULT_PROFILE,
    *,
    engine: str = "auto",
    model_dir: str | os.PathLike[str] | None = None,
    offline: bool = False,
    threads: int = 1,
    precision: Precision = "f32",
    tiles: bool = False,
    limits: ImageLimits | None = None,
) -> FaceAnalyzer:
    """Open a profile; the first use of a profile fetches its models unless ``offline``.

    ``threads`` is what one picture may use. For throughput call :meth:`FaceAnalyzer.analyze` from
    several threads instead, each with one. ``precision`` bf16 needs the extra ``openvino``
    and a processor that has it: faster, and answers move a little (docs/decisions.md, "bf16"). With ``tiles`` large
    pictures are also looked at in parts, for faces too small in the whole: slower.

    Raises:
        BackendError: Unknown profile or engine, missing library, missing or damaged weights.
    """
    chosen = limits or ImageLimits()
    store = ModelStore(model_dir=Path(model_dir).expanduser() if model_dir else None, offline=offline)
    factory = open_profile(
        find_profile(profile), store, engine=engine, threads=threads, precision=precision, tiles=tiles
    )
    pipeline = Pipeline(factory.new_analyzer, limits=chosen, warm=True)
    pipeline.analyzer()
    return FaceAnalyzer(pipeline, chosen)


def annotate(picture: Picture, result: AnalysisResult, *, language: Language = "en") -> Image:
    """A copy of the picture, ``(H, W, 3)`` BGR uint8, with boxes and labels drawn."""
    if isinstance(picture, np.ndarray):
        return draw(_check_array(picture), result, language=language)
    return draw(decode_image(_read(picture, ImageLimits())).image, result, language=language)


def to_dataframe(results: AnalysisResult | Iterable[AnalysisResult]) -> pd.DataFrame:
    """One row per face with flat columns (``image`` counts the results from 0); needs pandas.

    Raises:
        MissingDependencyError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingDependencyError("to_dataframe needs pandas; pip install pandas") from error
    if isinstance(results, AnalysisResult):
        results = [results]
    rows = [(index, *face_row(face)) for index, result in enumerate(results) for face in result.to_dict()["faces"]]
    return pd.DataFrame(rows, columns=["image", *FACE_COLUMNS])


def _attributes(attributes: Iterable[Attribute] | str) -> frozenset[Attribute]:
    if isinstance(attributes, str):
        words = {word.strip() for word in attributes.split(",") if word.strip()}
        return frozenset(cast(set[Attribute], words))
    try:
        return frozenset(attributes)
    except TypeError as error:
        raise MalformedInputError(f"attributes must be a list such as ['age'], not {attributes!r}") from error


def _read(picture: str | os.PathLike[str] | bytes | bytearray | memoryview, limits: ImageLimits) -> bytes:
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture)
    if not isinstance(picture, str | os.PathLike):
        raise MalformedInputError(
            f"a picture is a path, bytes or a (H, W, 3) BGR uint8 array, not {type(picture).__name__}"
        )
    return read_file(Path(picture), max_bytes=limits.max_bytes)


def _check_array(picture: Any) -> Image:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
        raise MalformedInputError(
            f"a picture array must be (H, W, 3) uint8 in BGR order and not empty, not {picture.shape} {picture.dtype}"
        )
    return np.ascontiguousarray(picture)
