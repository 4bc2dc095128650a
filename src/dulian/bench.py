"""How long each step takes on this machine: medians and spread, per profile, engine and thread count.

Pictures are encoded bytes; what is measured is what :class:`dulian.pipeline.Pipeline` does with them, in this process,
one picture at a time. Absolute times drift on shared machines: compare runs made side by side.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dulian.errors import MalformedInputError
from dulian.factory import open_profile
from dulian.image import ImageLimits, decode_image, encode_jpeg
from dulian.models.catalog import find_profile
from dulian.pipeline import Pipeline
from dulian.render import annotate
from dulian.runtimes import Precision
from dulian.store import ModelStore

STAGES = ("decode", "detect", "attributes", "whole", "draw", "encode")
WARM_UP = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One step of one configuration on one picture; times in milliseconds, ``p10`` and ``p90`` their spread."""

    profile: str
    engine: str
    threads: int
    picture: str
    faces: int
    stage: str
    median: float
    p10: float
    p90: float
    runs: int

    @property
    def key(self) -> tuple[str, str, int, str, str]:
        """What makes two timings comparable."""
        return self.profile, self.engine, self.threads, self.picture, self.stage


def measure(
    store: ModelStore,
    pictures: Mapping[str, bytes],
    *,
    profile: str,
    engine: str,
    threads: int,
    runs: int,
    precision: Precision = "f32",
) -> Iterator[Timing]:
    """Time every stage of one configuration on every picture, after a warm-up."""
    opened = open_profile(find_profile(profile), store, engine=engine, threads=threads, precision=precision)
    pipeline = Pipeline(opened.new_analyzer, limits=ImageLimits())
    for name, data in pictures.items():
        result, load = pipeline.analyze(data)
        image = load()
        for _ in range(WARM_UP):
            pipeline.analyze(data)
        spent: dict[str, list[float]] = {stage: [] for stage in STAGES}
        for _ in range(runs):
            timings = pipeline.analyze(data)[0].timings_ms
            for stage, value in zip(
                STAGES, (timings.decode, timings.detect, timings.attributes, timings.total), strict=False
            ):
                spent[stage].append(value)
            started = time.perf_counter()
            drawn = annotate(image, result)
            between = time.perf_counter()
            encode_jpeg(drawn)
            spent["draw"].append((between - started) * 1000)
            spent["encode"].append((time.perf_counter() - between) * 1000)
        for stage, values in spent.items():
            p10, median, p90 = np.percentile(values, (10, 50, 90)).tolist()
            yield Timing(
                profile=profile,
                engine=opened.model.engine if precision == "f32" else f"{opened.model.engine} {precision}",
                threads=threads,
                picture=name,
                faces=len(result.faces) + result.skipped,
                stage=stage,
                median=median,
                p10=p10,
                p90=p90,
                runs=runs,
            )


def sample_pictures(store: ModelStore) -> dict[str, bytes]:
    """Three JPEG pictures made of the public-domain portrait: one face, eight faces, one face in 12 megapixels."""
    portrait = decode_image((store.pull_samples() / "astronaut.png").read_bytes()).image
    face = portrait[:260, 100:350]
    large = cv2.resize(portrait, (3464, 3464), interpolation=cv2.INTER_CUBIC)
    return {
        "portrait 0.26 MP": encode_jpeg(portrait),
        "group 0.52 MP": encode_jpeg(np.ascontiguousarray(np.tile(face, (2, 4, 1)))),
        "portrait 12 MP": encode_jpeg(np.asarray(large, np.uint8)),
    }


def one_portrait(store: ModelStore, side: int) -> bytes:
    """A JPEG of one face, so many pixels wide and high, made of the public-domain portrait."""
    portrait = decode_image((store.pull_samples() / "astronaut.png").read_bytes()).image
    return encode_jpeg(np.asarray(cv2.resize(portrait, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8))


def folder_pictures(folder: Path) -> dict[str, bytes]:
    """The files of a folder, sorted, by their names.

    Raises:
        MalformedInputError: There are none.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    if not files:
        raise MalformedInputError(f"no picture in {folder}")
    return {path.name: path.read_bytes() for path in files}
