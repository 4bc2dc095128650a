"""Draws a result on a copy of an image: a box for each face and a label beside it. Where labels go is layout's task.

Lines are drawn by OpenCV on the copy; each label is a small plate made by Pillow and pasted, so that
a large picture costs little more than copying it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageDraw

from dulian.errors import MalformedInputError
from dulian.faces import AnalysisResult, BoundingBox, Face, GenderValue, Status
from dulian.fonts import find_cjk_font, find_latin_font, open_font
from dulian.image import Image
from dulian.layout import LabelledFace, Placement, place_labels
from dulian.messages import Language, display_label

Colour = tuple[int, int, int]  # BGR, as the image
Floats = NDArray[np.float64]

# Told apart by lightness too, so that they differ for colour-blind eyes; none is anybody's gender.
PALETTE: Mapping[Status, Colour] = {
    "ok": (196, 224, 108),  # aqua
    "uncertain": (92, 196, 255),  # amber
    "low_quality": (214, 205, 198),  # mist
}
INK: Colour = (38, 27, 18)  # the text of every plate, and the halo that keeps lines visible on bright ground

# Dash and gap in line widths; None is a solid line. The status must not hang on the colour alone.
_DASHES: Mapping[Status, tuple[float, float] | None] = {"ok": None, "uncertain": (5, 4), "low_quality": (2, 3.2)}

# How much a label says: reason and all, without the reason, in smaller text, in short, the face's id alone.
Detail = Literal["reason", "full", "small", "short", "index"]
_FOR_ALL: tuple[Detail, ...] = ("reason", "full", "small")
# With whether the label may then lie on a face; never on eyes.
_FOR_THE_REST: tuple[tuple[Detail, bool], ...] = (("short", False), ("short", True), ("index", True))

_INITIALS: Mapping[GenderValue | None, Mapping[Language, str]] = {
    "female": {"en": "F", "zh": "女"},
    "male": {"en": "M", "zh": "男"},
    None: {"en": "?", "zh": "?"},
}
# What follows the first clause of a message is advice, and too long for a label.
_CLAUSE_END = re.compile("[,，。;；:：!！]")

_MIN_TEXT_PX = 10
_RIM = 0.5  # how dark the edge of a plate is
_SUBPIXEL_BITS = 4  # OpenCV's fixed-point coordinates


@dataclass(frozen=True, slots=True)
class _Pen:
    """Sizes in pixels for one face."""

    line: int
    halo: int
    text: int

    @property
    def reach(self) -> float:
        """How far a stroke extends on either side of its middle."""
        return self.line / 2 + self.halo


@dataclass(frozen=True, slots=True)
class _Subject:
    """A face and the pen it is drawn with."""

    face: Face
    pen: _Pen


@dataclass(frozen=True, slots=True)
class _Typeface:
    """A font file and the language that it can write."""

    language: Language
    path: Path | None


@dataclass(frozen=True, slots=True)
class _Caption:
    """What a label may say about a face; any of it can be empty."""

    full: str
    short: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Plate:
    """A drawn label: colours (H, W, 3) and opacity (H, W, 1) in [0, 1]."""

    colour: Floats
    opacity: Floats

    @property
    def width(self) -> int:
        return int(self.opacity.shape[1])

    @property
    def height(self) -> int:
        return int(self.opacity.shape[0])


def annotate(image: Image, result: AnalysisResult, *, language: Language = "en") -> Image:
    """Draw boxes and labels of all faces on a copy of an image (H, W, 3), BGR; the image itself stays as it is.

    Chinese needs a font of the system; without one the labels are English. Where a crowd leaves no
    room for a label, it shrinks to an index, which is the face's ``id``, and then goes altogether.

    Raises:
        MalformedInputError: The image is no array of this kind, or the language is unknown.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise MalformedInputError(f"expected a uint8 image (H, W, 3), got {image.dtype} {image.shape}")
    if language not in get_args(Language):
        raise MalformedInputError(f"unknown language {language!r}; choose from {', '.join(get_args(Language))}")
    canvas = np.array(image, order="C")
    draw_on(canvas, result, language=language)
    return canvas


def draw_on(canvas: Image, result: AnalysisResult, *, language: Language = "en") -> None:
    """The same on the image itself, C-contiguous, for those who need it no longer: copies take up to 120 MB."""
    if not canvas.size:
        return
    # Big faces first: the box of a small face before a big one stays visible.
    faces = sorted(result.faces, key=lambda face: -face.box.area)
    subjects = [_Subject(face, _pen(face, canvas)) for face in faces]
    for subject in subjects:
        _draw_box(canvas, subject)
    labels = _labels((canvas.shape[1], canvas.shape[0]), subjects, _typeface(language))
    for index, (placement, _) in labels.items():
        if placement.leader is not None:
            _stroke(canvas, [np.array(placement.leader)], subjects[index])
    for placement, plate in labels.values():
        _paste(canvas, plate, placement.label)


def _pen(face: Face, image: Image) -> _Pen:
    """Sizes that suit picture and face: neither hair-thin in a large photo nor heavier than a small face bears."""
    side = min(image.shape[:2])
    face_side = min(face.box.width, face.box.height)
    # By the square root, as a large photo is mostly looked at reduced, but not by as much as it is larger.
    line = max(1, round(min(0.12 * math.sqrt(side), face_side / 14)))
    usual = min(max(side / 36, 13.0), 80.0)
    # A full label is about nine times as wide as its text is high, so this one is as wide as the face.
    text = min(max(face.box.width / 9, 0.8 * usual), 1.4 * usual)
    return _Pen(line, max(1, round(line * 0.35)), max(_MIN_TEXT_PX, round(text)))


# ── labels ───────────────────────────────────────────────────────────────────────────────────────


def _labels(
    frame_wh: tuple[int, int], subjects: Sequence[_Subject], typeface: _Typeface
) -> dict[int, tuple[Placement, _Plate]]:
    """The labels that find room, by index of the subject.

    All say equally much while that leaves room for everybody. In a crowd the text is small, and who
    is left without a label gets a shorter one, and at last an index.
    """
    found: dict[int, tuple[Placement, _Plate]] = {}
    talkative = sum(bool(_caption(subject.face, typeface).full) for subject in subjects)
    for detail in _FOR_ALL:
        found = _place(frame_wh, subjects, typeface, detail)
        if len(found) >= talkative:
            return found
    for detail, cover_faces in _FOR_THE_REST:
        found |= _place(frame_wh, subjects, typeface, detail, found=found, cover_faces=cover_faces)
    return found


def _place(
    frame_wh: tuple[int, int],
    subjects: Sequence[_Subject],
    typeface: _Typeface,
    detail: Detail,
    *,
    found: Mapping[int, tuple[Placement, _Plate]] = MappingProxyType({}),
    cover_faces: bool = False,
) -> dict[int, tuple[Placement, _Plate]]:
    """Labels of one detail for the faces that have none yet."""
    width, height = frame_wh
    offers: list[list[_Plate]] = [[] for _ in subjects]
    for index in set(range(len(subjects))).difference(found):
        if detail != "index" or len(subjects) > 1:
            plates = _plates(subjects[index], typeface, detail)
            offers[index] = [plate for plate in plates if plate.width <= width and plate.height <= height]
    wanted = [_as_layout_sees(subject.face, plates) for subject, plates in zip(subjects, offers, strict=True)]
    taken = [placement for placement, _ in found.values()]
    gap = math.ceil(max((subject.pen.reach for subject in subjects), default=0)) + 1
    placements = place_labels(frame_wh, wanted, gap_px=gap, cover_faces=cover_faces, taken=taken)
    return {i: (spot, offers[i][spot.size_index]) for i, spot in enumerate(placements) if spot is not None}


def _as_layout_sees(face: Face, plates: Sequence[_Plate]) -> LabelledFace:
    eyes = (face.landmarks.right_eye, face.landmarks.left_eye) if face.landmarks else None
    return LabelledFace(face.box, eyes, tuple((plate.width, plate.height) for plate in plates))


def _plates(subject: _Subject, typeface: _Typeface, detail: Detail) -> list[_Plate]:
    """The labels a face may have at one level of detail, the more telling one first."""
    caption = _caption(subject.face, typeface)
    options: Mapping[Detail, Sequence[tuple[str, ...]]] = {
        "reason": ((caption.full, caption.reason), (caption.full,)),
        "full": ((caption.full,),),
        "small": ((caption.full,),),
        "short": ((caption.short,),),
        "index": ((f"#{subject.face.id}",),),
    }
    text = subject.pen.text
    size = text if detail in ("reason", "full") else max(_MIN_TEXT_PX, round(text * 0.75))
    texts = dict.fromkeys(tuple(line for line in lines if line) for lines in options[detail])
    return [_plate(lines, size, subject.face.status, typeface) for lines in texts if lines]


def _caption(face: Face, typeface: _Typeface) -> _Caption:
    """The words for one face; none for a face whose attributes nobody asked for."""
    language = typeface.language
    full = display_label(face, language) if face.gender or face.age else ""
    if typeface.path is None:  # Pillow's own font has no en dash
        full = full.replace("–", "-")
    initial = _INITIALS[face.gender.value][language] if face.gender else ""
    years = f"{face.age.value:.0f}" if face.age else ""
    reason = ""
    if face.message is not None:
        reason = face.message.code.replace("_", " ") if language == "en" else _CLAUSE_END.split(face.message.zh)[0]
    return _Caption(full, f"{initial} {years}".strip(), reason)


# ── plates ───────────────────────────────────────────────────────────────────────────────────────


def _typeface(language: Language) -> _Typeface:
    """The font for a language, English where the system cannot write Chinese."""
    cjk = find_cjk_font() if language == "zh" else None
    return _Typeface("zh", cjk) if cjk else _Typeface("en", find_latin_font())


def _plate(lines: Sequence[str], text_px: int, status: Status, typeface: _Typeface) -> _Plate:
    """A label with its first line large and the others smaller; equal text sizes give equal heights."""
    fonts = [open_font(typeface.path, text_px if i == 0 else max(9, round(text_px * 0.78))) for i in range(len(lines))]
    tall = "国g(" if typeface.language == "zh" else "Hg("
    extents = [font.getbbox(tall, anchor="ls") for font in fonts]
    pad_x, pad_y = round(text_px * 0.45), round(text_px * 0.26)
    width = math.ceil(max(font.getlength(line) for font, line in zip(fonts, lines, strict=True))) + 2 * pad_x
    leading = round(text_px * 0.22)
    height = math.ceil(sum(box[3] - box[1] for box in extents)) + leading * (len(lines) - 1) + 2 * pad_y

    mask = PillowImage.new("L", (width, height), 0)
    draw = ImageDraw.Draw(mask)
    y: float = pad_y
    for line, font, (_, top, _, bottom) in zip(lines, fonts, extents, strict=True):
        draw.text((pad_x, y - top), line, fill=255, font=font, anchor="ls")
        y += bottom - top + leading
    shape = _rounded(width, height, text_px * 0.3)
    rim = shape - np.pad(_rounded(width - 2, height - 2, text_px * 0.3 - 1), 1)
    inked = np.maximum(np.asarray(mask, dtype=np.float64) / 255, rim * _RIM)[..., None]
    ground = np.array(PALETTE[status], dtype=np.float64)
    return _Plate(ground * (1 - inked) + np.array(INK) * inked, shape[..., None])


def _rounded(width: int, height: int, radius: float) -> Floats:
    """The opacity (H, W) of a rectangle with round corners, smooth along its edge."""
    x = np.abs(np.arange(width) + 0.5 - width / 2) - (width / 2 - radius)
    y = np.abs(np.arange(height) + 0.5 - height / 2) - (height / 2 - radius)
    beyond = np.hypot(np.maximum(x, 0)[None], np.maximum(y, 0)[:, None])
    return np.asarray(np.clip(radius + 0.5 - beyond, 0, 1), dtype=np.float64)


def _paste(canvas: Image, plate: _Plate, label: BoundingBox) -> None:
    x, y = int(label.x1), int(label.y1)
    region = canvas[y : y + plate.height, x : x + plate.width]
    region[:] = np.rint(region * (1 - plate.opacity) + plate.colour * plate.opacity)


# ── lines ────────────────────────────────────────────────────────────────────────────────────────


def _draw_box(canvas: Image, subject: _Subject) -> None:
    """The outline of a face, all of it inside the picture even where the face is not."""
    face, pen = subject.face, subject.pen
    height, width = canvas.shape[:2]
    inset = (pen.line - 1) / 2
    # A box ends before x2, so its last column of pixels is x2 - 1.
    x1, x2 = (min(max(x, inset), max(width - 1 - inset, 0)) for x in (face.box.x1, face.box.x2 - 1))
    y1, y2 = (min(max(y, inset), max(height - 1 - inset, 0)) for y in (face.box.y1, face.box.y2 - 1))
    path = _rounded_path(x1, y1, x2, y2, radius=min(0.08 * (x2 - x1), 0.08 * (y2 - y1), 5.0 * pen.line))
    dashes = _DASHES[face.status]
    unit = max(2, pen.line)
    strokes = [path] if dashes is None else _dashed(path, dashes[0] * unit, dashes[1] * unit)
    _stroke(canvas, strokes, subject)


def _stroke(canvas: Image, lines: Sequence[Floats], subject: _Subject) -> None:
    """Lines over a wider, dark copy of themselves: one of the two stands out from any ground."""
    fixed = [np.rint(line * (1 << _SUBPIXEL_BITS)).astype(np.int32) for line in lines]
    pen = subject.pen
    for tint, thickness in ((INK, pen.line + 2 * pen.halo), (PALETTE[subject.face.status], pen.line)):
        cv2.polylines(canvas, fixed, False, tint, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)


def _rounded_path(x1: float, y1: float, x2: float, y2: float, *, radius: float) -> Floats:
    """A closed path (N, 2), clockwise from the top left, with quarter circles at the corners."""
    centres = (
        (x1 + radius, y1 + radius),
        (x2 - radius, y1 + radius),
        (x2 - radius, y2 - radius),
        (x1 + radius, y2 - radius),
    )
    turn = np.linspace(0, np.pi / 2, 9)
    arcs = []
    for quarter, centre in enumerate(centres):
        angle = np.pi + quarter * np.pi / 2 + turn
        arcs.append(np.array(centre) + radius * np.column_stack((np.cos(angle), np.sin(angle))))
    return np.vstack((*arcs, arcs[0][:1]))


def _dashed(path: Floats, dash: float, gap: float) -> list[Floats]:
    """The dashes of a closed path, the gap stretched so that a whole number of them fits."""
    along = np.concatenate(([0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))))
    count = max(1, round(along[-1] / (dash + gap)))
    starts = np.arange(count) * along[-1] / count
    places = starts[:, None] + np.linspace(0, min(dash, along[-1] / count), 6)
    points = np.stack([np.interp(places, along, path[:, axis]) for axis in (0, 1)], axis=-1)
    return list(points)
