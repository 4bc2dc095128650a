"""Where labels go: rectangles in, rectangles out. Nothing here draws, or knows what a label says.

Every face is offered the same spots round its box, sorted into tiers from the classic one above the
box to one far away on a leader line. A whole tier is dealt out, big faces first, before the next one
opens, so that a makeshift spot of one face never costs another its good one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dulian.faces import BoundingBox, Point

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Tier = Literal["beside", "inside", "afar", "beside_over_face", "afar_over_face"]

# Where the eyes are when the detector has no landmarks, as shares of the box height.
EYE_BAND = (0.25, 0.5)
# Half width and half height of the zone round one eye, in eye distances: lids, lashes, brow.
_EYE_ZONE = (0.42, 0.34)
# Seen from the side, eyes lie close together: their distance counts for at least this share of the box.
_MIN_EYE_DISTANCE = 0.3
# A label on its own face may take this share of the box height, and no more.
_INSIDE_HEIGHT = 0.3
# Rings round the box on which labels with a leader line stand, in label heights.
_RINGS = (0.8, 1.6, 2.6, 4.0)
# Positions along a side of the box: 0 and 1 are flush with its ends, others hang over them.
_FLUSH = (0.0, 1.0, 0.5)
_HANGING = (-0.45, 1.45, -0.9, 1.9)
# Spots are rounded to whole pixels, away from the box.
_ROUNDING_PX = 1.0


@dataclass(frozen=True, slots=True)
class LabelledFace:
    """A face as the layout sees it: box, eyes where a detector found them, and the sizes its label may have.

    ``label_sizes_wh`` is in order of preference; empty means that the face only has to be kept clear.
    """

    box: BoundingBox
    eyes: tuple[Point, Point] | None = None
    label_sizes_wh: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a label stands, which of the offered sizes it has, and the line from its edge to that of the box.

    There is no line when the label touches its box or lies in it.
    """

    label: BoundingBox
    size_index: int = 0
    leader: tuple[Point, Point] | None = None


@dataclass(frozen=True, slots=True)
class _Scene:
    """What all labels of one picture have to respect."""

    frame_wh: tuple[float, float]
    boxes: Floats
    eyes: Floats
    gap_px: float


def place_labels(
    frame_wh: tuple[float, float],
    faces: Sequence[LabelledFace],
    *,
    gap_px: float = 0.0,
    cover_faces: bool = True,
    taken: Sequence[Placement] = (),
) -> tuple[Placement | None, ...]:
    """Find a spot for the label of each face, None where none is free: the caller may then offer smaller labels.

    A label never leaves the frame (one larger than the frame starts at its origin), never overlaps
    another label or one of ``taken``, and never covers an eye of any face. Leader lines cross neither
    labels nor eyes nor each other. Without ``cover_faces`` no label lies on a face, except on the
    lower part of its own. ``gap_px`` is kept between a label and boxes, and between labels. Labels
    start on whole pixels.
    """
    scene = _Scene(
        frame_wh,
        _rectangles([face.box.clipped(frame_wh) for face in faces]),
        _rectangles([zone for face in faces for zone in eye_zones(face.box, face.eyes)]),
        gap_px,
    )
    tiers: tuple[Tier, ...] = ("beside", "inside", "afar")
    if cover_faces:
        tiers += ("beside_over_face", "afar_over_face")
    standing = list(taken)
    placements: list[Placement | None] = [None] * len(faces)
    for tier in tiers:
        for index in _big_first(faces):
            if placements[index] is None:
                placement = _serve(scene, index, faces[index].label_sizes_wh, tier, standing)
                placements[index] = placement
                standing += [placement] if placement else []
    return tuple(placements)


def eye_zones(box: BoundingBox, eyes: tuple[Point, Point] | None) -> list[BoundingBox]:
    """What no label may cover: a rectangle round each eye, or the band they are likely in when they are unknown."""
    if eyes is None or not all(math.isfinite(value) for eye in eyes for value in eye):
        top, bottom = (box.y1 + share * box.height for share in EYE_BAND)
        return [BoundingBox(box.x1, top, box.x2, bottom)]
    distance = max(math.dist(*eyes), _MIN_EYE_DISTANCE * min(box.width, box.height))
    across, down = (share * distance for share in _EYE_ZONE)
    return [BoundingBox(x - across, y - down, x + across, y + down) for x, y in eyes]


def _big_first(faces: Sequence[LabelledFace]) -> list[int]:
    """Indices by size, equal sizes by position: the order of the input does not matter."""
    return sorted(range(len(faces)), key=lambda i: (-faces[i].box.area, *faces[i].box))


def _serve(
    scene: _Scene,
    index: int,
    sizes_wh: Sequence[tuple[float, float]],
    tier: Tier,
    standing: Sequence[Placement],
) -> Placement | None:
    """The best free spot that one tier has for one face, trying the sizes in turn."""
    own = scene.boxes[index]
    for size_index, size_wh in enumerate(sizes_wh):
        spots = _spots(scene, index, size_wh, tier)
        spots = spots[_is_free(scene, spots, own, standing)]
        if len(spots):
            x, y, to_x, to_y = _leaders(spots[:1], own)[0].tolist()
            near = math.hypot(to_x - x, to_y - y) <= scene.gap_px + _ROUNDING_PX
            label = BoundingBox(*spots[0].tolist())
            return Placement(label, size_index, None if near else ((x, y), (to_x, to_y)))
    return None


# ── spots ────────────────────────────────────────────────────────────────────────────────────────


def _spots(scene: _Scene, index: int, size_wh: tuple[float, float], tier: Tier) -> Floats:
    """The spots of one tier, best first: inside the frame and off all eyes, whatever other labels do."""
    own = scene.boxes[index]
    propose = _inside if tier == "inside" else _afar if tier.startswith("afar") else _beside
    corners = np.array(list(propose(BoundingBox(*own.tolist()), size_wh, scene.gap_px)), dtype=np.float64)
    if not len(corners):
        return np.empty((0, 4))
    corners = np.clip(corners, 0, np.maximum(np.floor(np.subtract(scene.frame_wh, size_wh)), 0))
    spots = np.hstack((corners, corners + size_wh))

    # Most faces of a crowd are too far away to matter.
    reach = np.vstack((spots, own))
    region = _grown(np.hstack((reach[:, :2].min(axis=0), reach[:, 2:].max(axis=0)))[None], scene.gap_px)
    eyes = scene.eyes[_overlap(region, scene.eyes)[0]]
    near = _overlap(region, scene.boxes)[0]
    near[index] = False
    others = scene.boxes[near]

    spots = spots[~_overlap(spots, eyes).any(axis=1)]
    leaders = _leaders(spots, own)
    on_faces = _shared_area(spots, _grown(others, scene.gap_px)).sum(axis=1)
    if tier != "inside":
        on_faces += _shared_area(spots, own[None])[:, 0]
    length = np.hypot(leaders[:, 2] - leaders[:, 0], leaders[:, 3] - leaders[:, 1])
    crossed = _crosses(leaders, others).sum(axis=1)
    clear = (on_faces == 0) & (crossed == 0)
    if tier in ("beside", "inside"):
        chosen = np.flatnonzero(clear)
    elif tier == "afar":
        chosen = np.flatnonzero(clear)[np.argsort(length[clear], kind="stable")]
    else:
        chosen = np.lexsort((length, on_faces, crossed))
    return spots.take(chosen, axis=0)


def _beside(box: BoundingBox, size_wh: tuple[float, float], gap: float) -> Iterator[Point]:
    """Top left corners of labels that touch the box: above, below, at its sides, hanging over its corners."""
    w, h = size_wh
    above, below = math.floor(box.y1 - gap - h), math.ceil(box.y2 + gap)
    left, right = math.floor(box.x1 - gap - w), math.ceil(box.x2 + gap)
    xs = [round(box.x1 + along * (box.width - w)) for along in _FLUSH]
    ys = [round(box.y1 + along * (box.height - h)) for along in _FLUSH]
    hanging = [round(x) for x in (box.x1 - 0.3 * w, box.x2 - 0.7 * w, box.x1 - 0.7 * w, box.x2 - 0.3 * w)]
    yield from ((x, y) for y in (above, below) for x in xs)
    yield from ((x, y) for y in ys for x in (right, left))
    yield from ((x, y) for y in (above, below) for x in hanging)


def _inside(box: BoundingBox, size_wh: tuple[float, float], gap: float) -> Iterator[Point]:
    """Top left corners at the bottom of the box, none where the label would hide too much of it."""
    w, h = size_wh
    if h + gap <= _INSIDE_HEIGHT * box.height and w + 2 * gap <= box.width - 2 * _ROUNDING_PX:
        y = math.floor(box.y2 - gap - h)
        yield from ((round(x), y) for x in (box.x1 + gap, box.x2 - gap - w, (box.x1 + box.x2 - w) / 2))


def _afar(box: BoundingBox, size_wh: tuple[float, float], gap: float) -> Iterator[Point]:
    """Top left corners on rings round the box."""
    w, h = size_wh
    xs = [round(box.x1 + along * (box.width - w)) for along in _FLUSH]
    xs += [round(x) for x in (box.x1 - 0.6 * w, box.x2 - 0.4 * w)]
    ys = [round(box.y1 + along * (box.height - h)) for along in _FLUSH + _HANGING]
    for ring in _RINGS:
        away = gap + ring * h
        above, below = round(box.y1 - away - h), round(box.y2 + away)
        left, right = round(box.x1 - away - w), round(box.x2 + away)
        yield from ((x, y) for y in (above, below) for x in (*xs, left, right))
        yield from ((x, y) for y in ys for x in (right, left))


# ── arrays of rectangles (x1, y1, x2, y2) and of lines (from x, y to x, y) ───────────────────────


def _is_free(scene: _Scene, spots: Floats, own: Floats, standing: Sequence[Placement]) -> Flags:
    """Which spots, with their leader lines, disturb neither the labels and lines that stand nor any eye."""
    labels = _rectangles([placement.label for placement in standing])
    lines = np.array([sum(p.leader, ()) for p in standing if p.leader], dtype=np.float64).reshape(-1, 4)
    leaders = _leaders(spots, own)
    disturbing = np.hstack(
        (
            _overlap(spots, _grown(labels, scene.gap_px)),
            _crosses(lines, spots).T,
            _crosses(leaders, labels),
            _intersect(leaders, lines),
            _crosses(leaders, scene.eyes),
        )
    )
    return np.logical_not(disturbing.any(axis=1))


def _rectangles(boxes: Sequence[BoundingBox]) -> Floats:
    return np.array([tuple(box) for box in boxes], dtype=np.float64).reshape(-1, 4)


def _grown(boxes: Floats, margin: float) -> Floats:
    grown: Floats = boxes + np.array((-margin, -margin, margin, margin))
    return grown


def _shared_sides(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Widths and heights (A, B) of what two sets of rectangles share; not above 0 where they do not."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = high - low
    return sides[..., 0], sides[..., 1]


def _overlap(a: Floats, b: Floats) -> Flags:
    width, height = _shared_sides(a, b)
    return (width > 0) & (height > 0)


def _shared_area(a: Floats, b: Floats) -> Floats:
    width, height = _shared_sides(a, b)
    return np.multiply(np.maximum(width, 0), np.maximum(height, 0))


def _leaders(spots: Floats, box: Floats) -> Floats:
    """The shortest line from each spot to the box, through the middle of what they share along an axis."""
    low, high = np.maximum(spots[:, :2], box[:2]), np.minimum(spots[:, 2:], box[2:])
    shared, middle = low <= high, (low + high) / 2
    # Where nothing is shared, low and high have changed places: they are the two ends that face each other.
    after = spots[:, :2] > box[2:]
    start = np.where(shared, middle, np.where(after, low, high))
    end = np.where(shared, middle, np.where(after, high, low))
    return np.hstack((start, end))


def _crosses(lines: Floats, boxes: Floats) -> Flags:
    """Which lines (rows) pass through the inside of which rectangles (columns)."""
    start = lines[:, None, :2]
    step = lines[:, None, 2:] - start
    step = np.where(np.abs(step) < 1e-9, 1e-9, step)
    to_low, to_high = (boxes[None, :, :2] - start) / step, (boxes[None, :, 2:] - start) / step
    enter = np.minimum(to_low, to_high).max(axis=2)
    leave = np.maximum(to_low, to_high).min(axis=2)
    crosses: Flags = np.less(np.maximum(enter, 0), np.minimum(leave, 1))
    return crosses


def _intersect(a: Floats, b: Floats) -> Flags:
    """Which lines (rows) cross which others (columns): the ends of each lie on both sides of the other."""
    a, b = a[:, None], b[None]
    a_divides = _side(a, b[..., :2]) * _side(a, b[..., 2:]) < 0
    b_divides = _side(b, a[..., :2]) * _side(b, a[..., 2:]) < 0
    return np.logical_and(a_divides, b_divides)


def _side(lines: Floats, points: Floats) -> Floats:
    """Positive for points on one side of a line, negative on the other, 0 on it."""
    along, to_point = lines[..., 2:] - lines[..., :2], points - lines[..., :2]
    return np.subtract(along[..., 0] * to_point[..., 1], along[..., 1] * to_point[..., 0])
