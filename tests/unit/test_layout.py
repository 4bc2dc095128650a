"""The promises of label placement, as properties of random crowds and as pictures one can imagine."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dulian.faces import BoundingBox
from dulian.layout import LabelledFace, Placement, eye_zones, place_labels

FRAME = (640, 480)


def overlap(a: BoundingBox, b: BoundingBox, gap: float = 0.0) -> bool:
    return a.x1 < b.x2 + gap and b.x1 < a.x2 + gap and a.y1 < b.y2 + gap and b.y1 < a.y2 + gap


def distance(a: BoundingBox, b: BoundingBox) -> float:
    return math.hypot(max(a.x1 - b.x2, b.x1 - a.x2, 0), max(a.y1 - b.y2, b.y1 - a.y2, 0))


def visible(box: BoundingBox, frame: tuple[float, float]) -> BoundingBox:
    x1, x2 = (min(max(x, 0), frame[0]) for x in (box.x1, box.x2))
    y1, y2 = (min(max(y, 0), frame[1]) for y in (box.y1, box.y2))
    return BoundingBox(x1, y1, x2, y2)


def samples(leader: tuple[tuple[float, float], tuple[float, float]]) -> list[tuple[float, float]]:
    (x1, y1), (x2, y2) = leader
    return [(x1 + (x2 - x1) * t / 40, y1 + (y2 - y1) * t / 40) for t in range(41)]


def contains(box: BoundingBox, point: tuple[float, float], margin: float = 0.01) -> bool:
    x, y = point
    return box.x1 + margin < x < box.x2 - margin and box.y1 + margin < y < box.y2 - margin


def all_eyes(faces: Sequence[LabelledFace]) -> list[BoundingBox]:
    return [zone for face in faces for zone in eye_zones(face.box, face.eyes)]


def face(x1: float, y1: float, x2: float, y2: float, *sizes: tuple[int, int], eyes: bool = False) -> LabelledFace:
    box = BoundingBox(x1, y1, x2, y2)
    points = ((x1 + 0.3 * box.width, y1 + 0.4 * box.height), (x1 + 0.7 * box.width, y1 + 0.4 * box.height))
    return LabelledFace(box, points if eyes else None, sizes or ((120, 20),))


# ── properties ───────────────────────────────────────────────────────────────────────────────────


@st.composite
def scenes(draw: st.DrawFn) -> tuple[tuple[int, int], list[LabelledFace], float]:
    frame = draw(st.tuples(st.integers(20, 700), st.integers(20, 500)))
    faces = []
    for _ in range(draw(st.integers(0, 14))):
        w, h = draw(st.floats(4, 200)), draw(st.floats(4, 200))
        x, y = draw(st.floats(-w, frame[0])), draw(st.floats(-h, frame[1]))
        sizes = draw(st.lists(st.tuples(st.integers(8, 160), st.integers(8, 40)), max_size=2))
        made = face(x, y, x + w, y + h, eyes=draw(st.booleans()))
        faces.append(LabelledFace(made.box, made.eyes, tuple(sizes)))
    return frame, faces, draw(st.sampled_from((0.0, 3.0)))


@given(scenes(), st.booleans())
@settings(max_examples=150)
def test_the_promises_hold_for_any_crowd(scene, cover_faces):
    frame, faces, gap = scene
    placements = place_labels(frame, faces, gap_px=gap, cover_faces=cover_faces)
    assert len(placements) == len(faces)
    standing = [(i, p) for i, p in enumerate(placements) if p is not None]
    for i, placement in standing:
        label, size = placement.label, faces[i].label_sizes_wh[placement.size_index]
        assert (label.width, label.height) == size
        assert label.x1 == int(label.x1) >= 0
        assert label.y1 == int(label.y1) >= 0
        assert label.x2 <= max(frame[0], size[0])
        assert label.y2 <= max(frame[1], size[1])
        assert not any(overlap(label, eye) for eye in all_eyes(faces))
        assert not any(overlap(label, other.label, gap - 1e-6) for j, other in standing if j != i)
        if not cover_faces:
            assert not any(overlap(label, visible(f.box, frame)) for j, f in enumerate(faces) if j != i)


@given(scenes())
@settings(max_examples=150)
def test_leader_lines_join_label_and_box_and_cross_nothing(scene):
    frame, faces, gap = scene
    placements = place_labels(frame, faces, gap_px=gap)
    labels = [p.label for p in placements if p]
    for placement, own in zip(placements, faces, strict=True):
        if placement is None:
            continue
        box = visible(own.box, frame)
        apart = distance(placement.label, box)
        if placement.leader is None:
            assert apart <= gap + 1
            continue
        start, end = placement.leader
        assert math.dist(start, end) == pytest.approx(apart)
        assert distance(BoundingBox(*start, *start), placement.label) == pytest.approx(0)
        assert distance(BoundingBox(*end, *end), box) == pytest.approx(0)
        for point in samples(placement.leader):
            assert not any(contains(label, point) for label in labels)
            assert not any(contains(eye, point) for eye in all_eyes(faces))


@given(scenes())
@settings(max_examples=150)
def test_a_face_goes_without_a_label_only_when_every_spot_beside_it_is_blocked(scene):
    frame, faces, gap = scene
    placements = place_labels(frame, faces, gap_px=gap)
    standing = [p for p in placements if p is not None]
    for placement, own in zip(placements, faces, strict=True):
        for w, h in () if placement else own.label_sizes_wh:
            assert all(_blocked(spot, frame, faces, standing, gap) for spot in _flush_spots(own, (w, h), frame, gap))


@given(scenes())
@settings(max_examples=150)
def test_a_free_classic_spot_is_taken(scene):
    frame, faces, gap = scene
    placements = place_labels(frame, faces, gap_px=gap)
    for i, own in enumerate(faces):
        if not own.label_sizes_wh:
            continue
        spot = _flush_spots(own, own.label_sizes_wh[0], frame, gap)[0]
        others = [p for j, p in enumerate(placements) if p is not None and j != i]
        on_a_face = any(overlap(spot, visible(f.box, frame), gap) for j, f in enumerate(faces) if j != i)
        if not on_a_face and not _blocked(spot, frame, faces, others, gap):
            assert placements[i] == Placement(spot)


def _flush_spots(own: LabelledFace, size: tuple[int, int], frame: tuple[int, int], gap: float) -> list[BoundingBox]:
    """Above and below the box, left-aligned, and right and left of it at its top."""
    (w, h), box = size, visible(own.box, frame)
    above, below = math.floor(box.y1 - gap - h), math.ceil(box.y2 + gap)
    right, left = math.ceil(box.x2 + gap), math.floor(box.x1 - gap - w)
    corners = ((round(box.x1), above), (round(box.x1), below), (right, round(box.y1)), (left, round(box.y1)))
    return [BoundingBox(x, y, x + w, y + h) for x, y in corners]


def _blocked(
    spot: BoundingBox,
    frame: tuple[int, int],
    faces: Sequence[LabelledFace],
    standing: Sequence[Placement],
    gap: float,
) -> bool:
    """Generously: also where a leader line passes close by, or a line of its own could matter."""
    if spot.x1 < 0 or spot.y1 < 0 or spot.x2 > frame[0] or spot.y2 > frame[1]:
        return True
    if any(overlap(spot, p.label, gap + 1) for p in standing) or any(
        overlap(spot, eye, gap + 1) for eye in all_eyes(faces)
    ):
        return True
    wide = BoundingBox(spot.x1 - 4, spot.y1 - 4, spot.x2 + 4, spot.y2 + 4)
    return any(contains(wide, point) for p in standing if p.leader for point in samples(p.leader))


@given(scenes(), st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_the_order_of_faces_does_not_matter(scene, random):
    frame, faces, gap = scene
    assume(len({f.box for f in faces}) == len(faces))
    order = list(range(len(faces)))
    random.shuffle(order)
    placements = place_labels(frame, faces, gap_px=gap)
    shuffled = place_labels(frame, [faces[i] for i in order], gap_px=gap)
    assert shuffled == tuple(placements[i] for i in order)
    assert place_labels(frame, faces, gap_px=gap) == placements


@given(
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(2, 40),
    st.integers(2, 40),
    st.integers(1, 8),
    st.integers(8, 30),
)
@settings(max_examples=100)
def test_a_mirrored_picture_has_its_label_at_the_same_height(x, y, w, h, label_w, label_h):
    x, w, label_w = 10 * x, 10 * w, 20 * label_w
    straight = place_labels((800, 300), [face(x, 7 * y, x + w, 7 * y + 6 * h, (label_w, label_h))])[0]
    mirrored = place_labels((800, 300), [face(800 - x - w, 7 * y, 800 - x, 7 * y + 6 * h, (label_w, label_h))])[0]
    assert (straight is None) == (mirrored is None)
    if straight and mirrored:
        assert (straight.label.y1, straight.leader is None) == (mirrored.label.y1, mirrored.leader is None)


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────


def test_no_faces_no_labels():
    assert place_labels(FRAME, []) == ()


def test_a_label_stands_on_its_box_at_the_left():
    assert place_labels(FRAME, [face(100, 100, 200, 220)])[0] == Placement(BoundingBox(100, 80, 220, 100))


def test_the_gap_is_kept():
    assert place_labels(FRAME, [face(100, 100, 200, 220)], gap_px=4)[0].label.y2 == 96


def test_fractions_are_rounded_away_from_the_box():
    label = place_labels(FRAME, [face(100.6, 100.4, 200, 220)])[0].label
    assert (label.x1, label.y1) == (101, 80)


def test_a_face_at_the_top_has_its_label_below():
    assert place_labels(FRAME, [face(100, 5, 200, 120)])[0].label == BoundingBox(100, 120, 220, 140)


def test_a_face_at_the_right_edge_keeps_its_label_in_the_frame():
    assert place_labels(FRAME, [face(590, 100, 640, 160)])[0].label == BoundingBox(520, 80, 640, 100)


def test_a_face_as_high_as_the_frame_has_its_label_at_a_side():
    label = place_labels(FRAME, [face(200, 0, 400, 480)])[0].label
    assert label.x1 >= 400


def test_a_face_that_fills_the_frame_has_its_label_on_the_chin():
    placement = place_labels(FRAME, [face(0, 0, 640, 480)])[0]
    assert placement == Placement(BoundingBox(0, 460, 120, 480))


def test_a_crowded_face_gets_a_leader_line_between_its_neighbours():
    neighbours = [
        (150, 150, 290, 215),
        (310, 150, 450, 215),
        (150, 218, 278, 330),
        (322, 218, 450, 330),
        (280, 262, 320, 330),
    ]
    placements = place_labels(FRAME, [face(280, 220, 320, 260), *(LabelledFace(BoundingBox(*b)) for b in neighbours)])
    assert placements[0].label.y2 <= 150
    assert placements[0].leader == ((300, 140), (300, 220))


def test_a_label_lies_on_a_neighbour_only_if_it_may():
    ring = [(x, y, x + 40, y + 40) for x in (190, 235, 280, 325, 370) for y in (175, 220, 265) if (x, y) != (280, 220)]
    faces = [face(280, 220, 320, 260), *(LabelledFace(BoundingBox(*b)) for b in ring)]
    assert place_labels(FRAME, faces)[0] is not None
    assert place_labels(FRAME, faces, cover_faces=False)[0] is None


def test_a_label_too_far_is_none_rather_than_on_eyes():
    assert place_labels((60, 20), [face(0, 0, 60, 20, (60, 16))]) == (None,)


def test_a_label_larger_than_the_frame_starts_at_its_origin():
    label = place_labels((100, 300), [face(20, 100, 80, 200, (150, 20))])[0].label
    assert (label.x1, label.width) == (0, 150)


def test_the_second_size_is_used_when_only_it_has_a_good_spot():
    placement = place_labels((200, 100), [face(50, 30, 150, 100, (120, 40), (120, 20))])[0]
    assert placement == Placement(BoundingBox(50, 10, 170, 30), size_index=1)


def test_labels_that_stand_already_are_respected():
    standing = Placement(BoundingBox(90, 60, 230, 99))
    placement = place_labels(FRAME, [face(100, 100, 200, 220)], taken=[standing])[0]
    assert placement.label.y1 == 220


def test_a_leader_line_that_stands_already_is_not_covered():
    standing = Placement(BoundingBox(400, 10, 500, 30), leader=((400.0, 20.0), (110.0, 90.0)))
    placement = place_labels(FRAME, [face(100, 100, 200, 220)], taken=[standing])[0]
    assert placement.label.y1 == 220


def test_a_face_without_sizes_is_only_kept_clear():
    neighbour = LabelledFace(BoundingBox(90, 40, 240, 98))
    placements = place_labels(FRAME, [face(100, 100, 200, 220), neighbour])
    assert placements[1] is None
    assert not overlap(placements[0].label, neighbour.box)


def test_a_face_outside_the_frame_has_its_label_at_the_edge():
    placement = place_labels(FRAME, [face(-300, 100, -200, 200)])[0]
    assert placement.label.x1 == 0


def test_bad_landmarks_fall_back_to_the_eye_band():
    box = BoundingBox(0, 0, 100, 200)
    assert eye_zones(box, ((math.nan, 1.0), (2.0, 3.0))) == eye_zones(box, None) == [BoundingBox(0, 50, 100, 100)]


def test_eye_zones_do_not_vanish_in_profile():
    zone = eye_zones(BoundingBox(0, 0, 100, 120), ((20.0, 50.0), (21.0, 50.0)))[0]
    assert zone.width > 20
    assert zone.height > 15


def test_two_hundred_faces_take_bounded_time():
    faces = [face(x, y, x + 28, y + 34, (110, 18)) for x in range(0, 640, 32) for y in range(0, 480, 48)]
    start = time.perf_counter()
    placements = place_labels(FRAME, faces)
    assert len(placements) == 200
    assert time.perf_counter() - start < 10  # well below a second on an idle machine
