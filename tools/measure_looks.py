"""Measure what other ways of looking at a picture find: python tools/measure_looks.py FOLDER.

FOLDER is one as tools/measure_detection.py describes it. *filling*: faces of ``face_context`` pictures cut out closely
and enlarged to 1000 pixels, lying in four ways, with and without a shrunk look. *tiles*: photos with all faces boxed,
24 at a time on a canvas of 24 or 6 megapixels, with and without tiles. *empty*: the pictures without faces, with and
without the rule for lone doubtful faces. Everything is deterministic.
"""

from __future__ import annotations

import csv
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from measure_detection import read_boxes

from dulian.errors import InputError
from dulian.factory import make_detector, open_profile
from dulian.geometry import iou
from dulian.image import Image, decode_image
from dulian.models import DetectionOutcome, Detector
from dulian.models.catalog import PROFILES
from dulian.models.looks import TiledDetector
from dulian.models.rows import Profile
from dulian.store import ModelStore
from dulian.turning import RETRY_TURNS, TurnRules, look_from_all_sides
from dulian.views import Turn, turned

MARGINS = (0.05, -0.10, -0.15, -0.20, -0.25)
RIGHTS: tuple[Turn, ...] = (0, *RETRY_TURNS)
PHOTOS_PER_CANVAS, CLOSE_UPS = 24, 60
FILLING = 0.8
LONE = {"standard": 0.66, "classic": 0.54}


def main() -> None:
    folder = Path(sys.argv[1])
    rows = list(csv.DictReader((folder / "images.csv").open()))
    close_ups = list(cut_closely(folder, [row["file"] for row in rows if row["kind"] == "face_context"]))
    for name in ("standard", "classic"):
        profile, detector = PROFILES[name], open_detector(PROFILES[name])
        rules = TurnRules(sure=profile.sure_confidence, retry=profile.retry_confidence, glance=profile.glance)
        for label, chosen in (("as before", rules), ("with a shrunk look", replace(rules, filling=FILLING))):
            print(f"{name}, filling, {label}: {filling(detector, close_ups, profile, chosen)}", flush=True)
        tiled = TiledDetector(detector, profile.nms_iou_threshold)
        for width in (6000, 3000):
            for label, one in (("whole", detector), ("tiles", tiled)):
                print(f"{name}, tiles, {width} px, {label}: {mosaics(one, folder, rows, profile, width)}", flush=True)
        for label, chosen in (("any", rules), ("lone ones", replace(rules, filling=FILLING, lone=LONE[name]))):
            print(f"{name}, empty, {label}: {', '.join(haunted(detector, folder, rows, profile, chosen))}", flush=True)


def open_detector(profile: Profile) -> Detector:
    opened = open_profile(profile, ModelStore(), engine="onnxruntime", threads=1)
    return make_detector(profile, opened.sessions[profile.detector.name].new_session())


def cut_closely(folder: Path, names: list[str]) -> Iterator[tuple[float, Image]]:
    """Faces with a margin round their boxes, or with less than all of them."""
    detector = open_detector(PROFILES["standard"])
    for name in names[:: max(1, len(names) // CLOSE_UPS)]:
        image = decode_image((folder / name).read_bytes()).image
        found = detector.detect(image, min_confidence=0.85).detections
        box = max((face.box for face in found), key=lambda box: box.area, default=None)
        if box is None or min(box.width, box.height) < 60:
            continue
        for margin in MARGINS:
            dx, dy = margin * box.width, margin * box.height
            top, left = max(0, int(box.y1 - dy)), max(0, int(box.x1 - dx))
            cut = image[top : int(box.y2 + dy), left : int(box.x2 + dx)]
            scale = 1000 / max(cut.shape)
            yield margin, np.asarray(cv2.resize(cut, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC), np.uint8)


def filling(detector: Detector, close_ups: list[tuple[float, Image]], profile: Profile, rules: TurnRules) -> str:
    seen: Counter[tuple[float, bool, str]] = Counter()
    for margin, image in close_ups:
        for lies in RIGHTS:
            _, outcome, turn = look_from_all_sides(detector, turned(image, lies), profile.min_confidence, rules)
            righted = "right" if (lies + turn) % 360 == 0 else "wrong"
            seen[margin, lies == 0, righted if outcome.detections else "none"] += 1
    return "; ".join(
        f"{margin:+.0%} {'upright' if upright else 'lying'} "
        + "/".join(str(seen[margin, upright, kind]) for kind in ("right", "wrong", "none"))
        for margin in MARGINS
        for upright in (True, False)
    )


def mosaics(detector: Detector, folder: Path, rows: list[dict[str, str]], profile: Profile, width: int) -> str:
    truth, ignored = read_boxes(folder)
    names = [row["file"] for row in rows if row["kind"] == "detect_photo" and row["boxes_complete"] == "1"]
    hits = faces = wrong = 0
    spent = 0.0
    starts = range(0, len(names) - PHOTOS_PER_CANVAS + 1, PHOTOS_PER_CANVAS)
    for start in starts:
        canvas, places = paste(folder, names[start : start + PHOTOS_PER_CANVAS], width)
        boxes = {kind: np.concatenate([of[name] * scale + at for name, scale, at in places]) for kind, of in
                 (("truth", truth), ("ignored", ignored))}  # fmt: skip
        started = time.process_time()
        found = as_boxes(detector.detect(canvas, min_confidence=profile.min_confidence))
        spent += time.process_time() - started
        overlap = iou(boxes["truth"].astype(np.float32), found)
        on_ignored = iou(boxes["ignored"].astype(np.float32), found).max(axis=0, initial=0) >= 0.3
        hits += int((overlap.max(axis=1, initial=0) >= 0.5).sum())
        faces += len(overlap)
        wrong += int(((overlap.max(axis=0, initial=0) < 0.5) & ~on_ignored).sum())
    return f"{hits} of {faces} faces, {wrong} wrong, {spent / len(starts) * 1000:.0f} ms of processor time"


def paste(folder: Path, names: list[str], width: int) -> tuple[Image, list[tuple[str, float, np.ndarray]]]:
    cell = width // 6
    canvas = np.full((4 * cell, width, 3), 110, np.uint8)
    places = []
    for index, name in enumerate(names):
        image = decode_image((folder / name).read_bytes()).image
        scale = min(1.0, cell / max(image.shape))
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        x, y = index % 6 * cell, index // 6 * cell
        canvas[y : y + small.shape[0], x : x + small.shape[1]] = small
        places.append((name, scale, np.array([x, y, x, y])))
    return canvas, places


def as_boxes(outcome: DetectionOutcome) -> np.ndarray:
    return np.array([tuple(found.box) for found in outcome.detections], np.float32).reshape(-1, 4)


def haunted(
    detector: Detector, folder: Path, rows: list[dict[str, str]], profile: Profile, rules: TurnRules
) -> Iterator[str]:
    for row in rows:
        if row["kind"] != "negative":
            continue
        try:
            image = decode_image((folder / row["file"]).read_bytes()).image
        except InputError:
            continue
        found = look_from_all_sides(detector, image, profile.min_confidence, rules)[1].detections
        if found:
            yield f"{Path(row['file']).stem} {max(face.confidence for face in found):.2f}"


if __name__ == "__main__":
    main()
