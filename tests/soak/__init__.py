"""Scripts that measure promises of the service on this machine: ``python -m tests.soak.NAME --help``.

Each starts its own server on a free port of this machine, loads it for a bounded time, prints what it measured, as rows
of a Markdown table or as JSON, and ends with exit code 1 if a target was missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from dulian.store import ModelStore
from tests.promises.harness import ROOT


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured; without a target it only explains."""

    promise: str
    what: str
    measured: float
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool:
        return (self.at_least is None or self.measured >= self.at_least) and (
            self.at_most is None or self.measured <= self.at_most
        )

    @property
    def target(self) -> str:
        bounds = [f"≥ {self.at_least:g}"] if self.at_least is not None else []
        bounds += [f"≤ {self.at_most:g}"] if self.at_most is not None else []
        return " ".join(bounds) or "–"


def arguments(description: str | None) -> argparse.ArgumentParser:
    """What all scripts understand."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def report(figures: Sequence[Figure], *, as_json: bool) -> int:
    """Print the figures; the exit code."""
    if as_json:
        sys.stdout.write(json.dumps([{**asdict(figure), "met": figure.met} for figure in figures], indent=1) + "\n")
    else:
        for figure in figures:
            said = f"{figure.measured:.4g} {figure.unit}".strip()
            verdict = "" if figure.target == "–" else " met |" if figure.met else " **missed** |"
            sys.stdout.write(f"| {figure.promise} | {figure.what} | {figure.target} | {said} |{verdict or ' |'}\n")
    sys.stdout.flush()
    return int(not all(figure.met for figure in figures))


def note(text: str) -> None:
    """Something for whoever waits."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def quantile(values: Iterable[float], share: float) -> float:
    """Not a number where there are no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def filled_store() -> ModelStore:
    """The checkout's models, fetched if need be."""
    from dulian.models.catalog import all_rows

    store = ModelStore(model_dir=ROOT / ".cache" / "models")
    store.pull(all_rows())
    return store


def portraits(store: ModelStore) -> list[bytes]:
    """Photos of one face, as JPEG in several sizes."""
    import cv2

    from dulian.image import decode_image

    astronaut = decode_image((store.pull_samples() / "astronaut.png").read_bytes()).image
    sizes = (400, 450, 500, 550, 600, 650)
    resized = (cv2.resize(astronaut, (size, size), interpolation=cv2.INTER_AREA) for size in sizes)
    return [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes() for image in resized]


def processor_s(pid: int) -> float:
    """Seconds of processor time that a process and its children have used."""
    import psutil

    family = [psutil.Process(pid), *psutil.Process(pid).children()]
    return sum(sum(one.cpu_times()[:2]) for one in family)
