from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dulian.faces import BoundingBox
from dulian.geometry import (
    Fit,
    aligned_template,
    iou,
    nms,
    similarity_transform,
    square_around,
    turn_points,
)

coordinates = st.floats(-500, 1500, width=32)


@st.composite
def boxes(draw: st.DrawFn, max_count: int = 12) -> np.ndarray:
    count = draw(st.integers(0, max_count))
    corners = draw(arrays(np.float32, (count, 2, 2), elements=coordinates))
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


@given(boxes(), boxes())
def test_iou_is_symmetric_and_a_share(a: np.ndarray, b: np.ndarray) -> None:
    overlap = iou(a, b)
    assert overlap.shape == (len(a), len(b))
    assert ((overlap >= 0) & (overlap <= 1 + 1e-5)).all()
    np.testing.assert_allclose(overlap, iou(b, a).T, rtol=1e-5)


def test_iou_of_known_boxes() -> None:
    a = np.array([[0, 0, 10, 10]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 3]], np.float32)
    np.testing.assert_allclose(iou(a, b)[0], [1, 1 / 3, 0, 0], rtol=1e-6)


@given(boxes(), st.integers(0, 2**32 - 1), st.floats(0.1, 0.9))
def test_nms_keeps_a_sorted_subset_without_overlaps(candidates: np.ndarray, seed: int, threshold: float) -> None:
    scores = np.random.default_rng(seed).random(len(candidates), np.float32)
    kept = nms(candidates, scores, threshold)
    assert len(set(kept.tolist())) == len(kept)
    assert (np.diff(scores[kept]) <= 0).all()
    overlap = iou(candidates[kept], candidates[kept])
    assert (overlap[~np.eye(len(kept), dtype=bool)] <= threshold).all()
    for left_out in set(range(len(candidates))) - set(kept.tolist()):
        better = [k for k in kept if scores[k] >= scores[left_out]]
        assert (iou(candidates[[left_out]], candidates[better]) > threshold).any()


def test_nms_breaks_ties_by_input_order() -> None:
    same = np.array([[0, 0, 10, 10]] * 3, np.float32)
    assert nms(same, np.float32([0.5, 0.5, 0.5]), 0.3).tolist() == [0]


@given(boxes(), st.integers(1, 2000), st.integers(1, 2000))
def test_clipped_boxes_lie_inside(candidates: np.ndarray, width: int, height: int) -> None:
    for row in candidates.tolist():
        box = BoundingBox(*row).clipped((width, height))
        assert 0 <= box.x1 <= box.x2 <= width
        assert 0 <= box.y1 <= box.y2 <= height
        assert box.clipped((width, height)) == box


sides = st.integers(1, 20_000)


@given(sides, sides, st.sampled_from([320, 640, 960]), boxes())
def test_fit_undoes_what_it_applies(width: int, height: int, side: int, candidates: np.ndarray) -> None:
    fit = Fit.long_side((width, height), side, multiple_of=32, at_least=64)
    points = candidates.reshape(-1, 2)
    np.testing.assert_allclose(fit.undo(fit.apply(points)), points, rtol=1e-4, atol=1e-2)
    assert fit.input_wh[0] % 32 == fit.input_wh[1] % 32 == 0
    assert all(s <= padded < max(s + 32, 65) for s, padded in zip(fit.scaled_wh, fit.input_wh, strict=True))
    assert min(fit.input_wh) >= 64
    assert max(fit.scaled_wh) <= max(side, 1)
    assert max(fit.scaled_wh) <= max(width, height)


@given(
    st.floats(0.1, 5),
    st.floats(-3.1, 3.1),
    st.tuples(st.floats(-100, 100), st.floats(-100, 100)),
    st.floats(0.2, 0.6),
    st.floats(0.2, 0.5),
)
def test_similarity_recovers_a_known_transform(
    scale: float, angle: float, shift: tuple[float, float], distance: float, height: float
) -> None:
    source = aligned_template(distance, height, 100)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = similarity_transform(source, source @ linear.T + np.array(shift))
    np.testing.assert_allclose(matrix, np.column_stack([linear, shift]), atol=1e-6)


def test_similarity_of_coinciding_points_is_finite() -> None:
    point = np.zeros((5, 2))
    assert np.isfinite(similarity_transform(point, aligned_template(0.4, 0.3, 64))).all()


def test_template_has_the_eyes_where_it_says() -> None:
    right_eye, left_eye, *_ = aligned_template(0.3754, 0.28, 64)
    assert np.linalg.norm(left_eye - right_eye) == pytest.approx(0.3754 * 64)
    assert (right_eye + left_eye) / 2 == pytest.approx([32, 0.28 * 64])


def test_square_around_takes_the_longer_side() -> None:
    assert tuple(square_around(BoundingBox(10, 20, 30, 60), 0.1)) == pytest.approx((-4, 16, 44, 64))


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_turned_points_name_the_same_pixel(degrees: int) -> None:
    image = np.zeros((40, 60), np.uint8)
    image[7, 11] = 255
    turned = np.rot90(image, -degrees // 90)
    y, x = np.argwhere(turned == 255)[0]
    centre = np.float32([[x + 0.5, y + 0.5]])
    back = turn_points(centre, (turned.shape[1], turned.shape[0]), degrees)
    np.testing.assert_allclose(back, [[11.5, 7.5]])
