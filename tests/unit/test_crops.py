from __future__ import annotations

import numpy as np
import pytest
from tests.fakes import face_at

from dulian.crops import Crops, align, cut_face
from dulian.faces import BoundingBox, Detection
from dulian.geometry import aligned_template, similarity_transform
from dulian.models.rows import AlignedCrop, SquareCrop

ALIGNED = AlignedCrop(eye_distance=0.3754, eye_height=0.28, side=64, fallback_margin=-0.05)


def gradient(width: int = 400, height: int = 300) -> np.ndarray:
    """Blue grows to the right, green downwards: a pixel's colour tells where it comes from."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width).astype(np.uint8)
    image[..., 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    return image


@pytest.mark.parametrize("side", [40, 64, 150, 290])
def test_alignment_shows_the_same_place_at_every_scale(side: int) -> None:
    """Shrinking by area first must not shift the face against plain warping."""
    image = gradient()
    face = face_at(20, 5, side)
    points = np.array(list(face.landmarks or ()), np.float64)
    matrix = similarity_transform(points, aligned_template(0.3754, 0.28, 64))
    crop = cut_face(image, face, ALIGNED)
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    for x, y in [(20, 20), (32, 32), (44, 40)]:
        at_x, at_y, _ = inverse @ np.array([x, y, 1.0])
        assert crop[y, x, 0] == pytest.approx(at_x / 399 * 255, abs=2.5)
        assert crop[y, x, 1] == pytest.approx(at_y / 299 * 255, abs=2.5)


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    checkers = ((np.indices((512, 512)).sum(axis=0) % 2) * 255).astype(np.uint8)
    image = np.repeat(checkers[..., None], 3, axis=2)
    crop = align(image, np.array([[0.125, 0, 0], [0, 0.125, 0]]), 64)
    assert abs(crop[2:-2, 2:-2].astype(int) - 127).max() <= 2


def test_crops_outside_the_frame_repeat_the_border() -> None:
    image = np.full((100, 100, 3), 77, np.uint8)
    for face in (face_at(-50, -50, 90), face_at(60, 70, 90), face_at(-20, 10, 160)):
        for spec in (ALIGNED, SquareCrop(margin=0.3, side=32)):
            crop = cut_face(image, face, spec)
            assert crop.shape == (spec.side, spec.side, 3)
            assert (crop == 77).all()


def test_without_landmarks_an_aligned_crop_falls_back_to_its_square() -> None:
    image = gradient()
    plain = Detection(BoundingBox(100, 60, 180, 160), 0.9)
    square = SquareCrop(margin=ALIGNED.fallback_margin, side=ALIGNED.side)
    np.testing.assert_array_equal(cut_face(image, plain, ALIGNED), cut_face(image, plain, square))


def test_equal_specs_share_one_cut() -> None:
    crops = Crops(gradient(), (face_at(10, 10, 50), face_at(100, 50, 80)))
    again = AlignedCrop(eye_distance=0.3754, eye_height=0.28, side=64, fallback_margin=-0.05)
    assert crops.cut(ALIGNED) is crops.cut(again)
    assert len(crops.cut(ALIGNED)) == 2


@pytest.mark.parametrize("landmark_span", [0.0, 1e-9, 1e6])
def test_absurd_landmarks_still_give_a_crop(landmark_span: float) -> None:
    face = face_at(50, 50, landmark_span)
    assert cut_face(gradient(), face, ALIGNED).shape == (64, 64, 3)
