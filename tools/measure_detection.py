"""Measure every profile's detector on a folder of labelled pictures: python tools/measure_detection.py FOLDER.

Uses ``images.csv`` (kind, boxes_complete), ``manifest.csv`` (boxes) and, where it exists, ``wider_attrs.csv``, whose
invalid boxes are ignored. A face counts as found when a detection overlaps it by an IoU of at least one half;
detections on ignored or very small faces (under 10 px) count neither way. ``negative`` pictures have no face.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from dulian.api import FaceAnalyzer, load_analyzer
from dulian.errors import InputError
from dulian.geometry import iou
from dulian.models.catalog import PROFILES

MIN_HEIGHT = 10
BANDS = ((10, 16), (16, 32), (32, 64), (64, 128), (128, 10_000))


def main() -> None:
    folder = Path(sys.argv[1])
    images = list(csv.DictReader((folder / "images.csv").open()))
    truth, ignored = read_boxes(folder)
    for profile in PROFILES:
        analyzer = load_analyzer(profile, threads=2)
        found: dict[tuple[int, int], list[bool]] = defaultdict(list)
        right = wrong = 0
        boxed = [row["file"] for row in images if row["kind"] == "detect_photo" and row["boxes_complete"] == "1"]
        for name in boxed:
            boxes = detect(analyzer, folder / name)
            faces = truth[name]
            overlap = iou(faces, boxes)
            for face, best in zip(faces, overlap.max(axis=1, initial=0), strict=True):
                height = face[3] - face[1]
                band = next((band for band in BANDS if band[0] <= height < band[1]), None)
                if band:
                    found[band].append(best >= 0.5)
            on_face = overlap.max(axis=0, initial=0) >= 0.5
            on_ignored = iou(ignored[name], boxes).max(axis=0, initial=0) >= 0.3
            right += int(on_face.sum())
            wrong += int((~on_face & ~on_ignored).sum())
        negatives = [row["file"] for row in images if row["kind"] == "negative"]
        haunted = [name for name in negatives if len(detect(analyzer, folder / name))]
        print(f"{profile}: {len(boxed)} photos, precision {right / (right + wrong):.1%}", end="; ")
        print("recall", ", ".join(f"{low}-{high} px {np.mean(found[low, high]):.1%}" for low, high in BANDS))
        large = [hit for band, hits in found.items() if band[0] >= 32 for hit in hits]
        print(f"  recall from 32 px {np.mean(large):.1%} of {len(large)}; ", end="")
        print(f"faces in {len(haunted)} of {len(negatives)} pictures without: {', '.join(map(short, haunted))}")


def detect(analyzer: FaceAnalyzer, path: Path) -> np.ndarray:
    try:
        result = analyzer.analyze(path, attributes=())
    except InputError:
        return np.zeros((0, 4), np.float32)
    return np.array([tuple(face.box) for face in result.faces], np.float32).reshape(-1, 4)


def read_boxes(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Labelled boxes, and those to be ignored, by file, both xyxy."""
    valid, ignored = defaultdict(list), defaultdict(list)
    for row in csv.DictReader((folder / "manifest.csv").open()):
        if row["x"]:
            box = corners(row)
            (valid if box[3] - box[1] >= MIN_HEIGHT else ignored)[row["file"]].append(box)
    extra = folder / "wider_attrs.csv"
    for row in csv.DictReader(extra.open()) if extra.is_file() else ():
        if row["invalid"] == "1":
            ignored[row["file"]].append(corners(row))
    return as_arrays(valid), as_arrays(ignored)


def corners(row: dict[str, str]) -> tuple[float, float, float, float]:
    x, y, w, h = (float(row[key]) for key in ("x", "y", "w", "h"))
    return x, y, x + w, y + h


def as_arrays(boxes: dict[str, list[tuple[float, float, float, float]]]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((0, 4), np.float32))
    arrays.update({name: np.array(rows, np.float32).reshape(-1, 4) for name, rows in boxes.items()})
    return arrays


def short(name: str) -> str:
    return Path(name).stem


if __name__ == "__main__":
    main()
