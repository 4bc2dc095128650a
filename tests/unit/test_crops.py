from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes import face_at
from tests.pictures import scene

from dulian.crops import Crops, align, cut_face
from dulian.faces import BoundingBox, Detection
from dulian.geometry import aligned_template, similarity_transform
from dulian.image import Image, to_grey
from dulian.models.rows import AlignedCrop, CropSpec, SquareCrop

ALIGNED = AlignedCrop(eye_distance=0.3754, eye_height=0.28, side=64, fallback_margin=-0.05)
HALF = replace(ALIGNED, side=32)


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


def wave(at: np.ndarray, length: float) -> np.ndarray:
    return 128 + 100 * np.sin(at / length)


@pytest.mark.parametrize("shrinks_by", [*range(2, 10), 1.9, 2.7, 6.5])
@pytest.mark.parametrize("degrees", [0, 25, -100])
@pytest.mark.parametrize("face", ["inside", "left", "top", "right", "bottom", "corner"])
def test_shrinking_keeps_the_place(shrinks_by: float, degrees: float, face: str) -> None:
    """A shift by half a pixel of the crop would change the waves by eight levels."""
    side, length = 32, 6.0 * shrinks_by
    width, height = (round(side * shrinks_by * share) | 1 for share in (2.3, 1.7))
    x, y = np.arange(width), np.arange(height)
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = wave(x, length).round()
    image[..., 1] = wave(y, length).round()[:, None]
    places = {"left": (0, 0.5), "top": (0.5, 0), "right": (1, 0.5), "bottom": (0.5, 1), "corner": (1, 1)}
    middle = np.array(places.get(face, (0.5, 0.45))) * (width, height)
    turn = np.exp(1j * np.radians(degrees)) / shrinks_by
    linear = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    crop = align(image, np.column_stack([linear, side / 2 - linear @ middle]), side)
    columns, rows = np.meshgrid(np.arange(side), np.arange(side))
    at = (np.stack([columns, rows], axis=-1) - side / 2) @ np.linalg.inv(linear).T + middle
    for channel, far in enumerate((width - 1, height - 1)):
        seen = np.clip(at[..., channel], 0, far)
        error = np.abs(crop[..., channel] - wave(seen, length))
        # Pixels that are averaged with the border lie half a shrunk pixel inside it.
        whole = (at > shrinks_by).all(axis=-1) & (at < np.array([width, height]) - 1 - shrinks_by).all(axis=-1)
        assert whole.sum() > 50
        assert error[whole].max() < 3.5
        assert error.max() < 12


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


@pytest.mark.parametrize("landmark_span", [0.0, 1e-9, 1e6, 1e7])
def test_absurd_landmarks_still_give_a_crop(landmark_span: float) -> None:
    face = face_at(50, 50, landmark_span)
    assert cut_face(gradient(), face, ALIGNED).shape == (64, 64, 3)


@pytest.mark.parametrize("landmark_span", [1e5, 1e6])
def test_crops_of_absurd_landmarks_stay_small(landmark_span: float, monkeypatch: pytest.MonkeyPatch) -> None:
    real, copied = cv2.copyMakeBorder, []

    def copy(image: np.ndarray, *borders: int) -> np.ndarray:
        copied.append((image.shape[0] + borders[0] + borders[1]) * (image.shape[1] + borders[2] + borders[3]))
        return real(image, *borders)

    monkeypatch.setattr(cv2, "copyMakeBorder", copy)
    cut_face(gradient(), face_at(50, 50, landmark_span), ALIGNED)
    assert max(copied, default=0) <= 2**24


# ── halved crops ─────────────────────────────────────────────────────────────────────────────────

FACES = (face_at(10, 10, 50), face_at(30, 20, 100), face_at(120, 60, 70), Detection(BoundingBox(5, 5, 90, 95), 0.9))


def picture() -> np.ndarray:
    return np.ascontiguousarray(scene()[..., ::-1])


def halved(crop: np.ndarray) -> np.ndarray:
    """Each pixel the mean of four, rounded."""
    quarters = crop.astype(int).reshape(crop.shape[0] // 2, 2, crop.shape[1] // 2, 2, 3)
    return (quarters.sum(axis=(1, 3)) + 2) // 4


@pytest.mark.parametrize("asked", [(HALF,), (ALIGNED, HALF), (HALF, ALIGNED)])
def test_a_small_aligned_crop_is_half_of_the_larger_one(asked: tuple[CropSpec, ...]) -> None:
    crops = Crops(picture(), FACES)
    for spec in asked:
        crops.cut(spec)
    for small, face in zip(crops.cut(HALF), FACES, strict=True):
        large = cut_face(picture(), face, ALIGNED)
        assert small.shape == (32, 32, 3)
        assert np.abs(small - halved(large)).max() <= 1


def test_crops_of_both_sizes_are_warped_once(monkeypatch: pytest.MonkeyPatch) -> None:
    warps, real = [], cv2.warpAffine
    monkeypatch.setattr(cv2, "warpAffine", lambda *args, **named: warps.append(args[2]) or real(*args, **named))
    crops = Crops(picture(), (FACES[0],))
    for spec in (HALF, ALIGNED, HALF):
        crops.cut(spec)
    assert warps == [(64, 64)]


@pytest.mark.parametrize("spec", [replace(ALIGNED, side=48), SquareCrop(margin=0.1, side=32)])
def test_other_crops_are_cut_in_their_own_size(spec: CropSpec) -> None:
    for crop, face in zip(Crops(picture(), FACES).cut(spec), FACES, strict=True):
        np.testing.assert_array_equal(crop, cut_face(picture(), face, spec))


# ── colours ──────────────────────────────────────────────────────────────────────────────────────


def negative(image: np.ndarray) -> np.ndarray:
    """Other colours, and the same ones again when applied twice."""
    return 255 - image


@pytest.mark.parametrize("spec", [ALIGNED, HALF, SquareCrop(margin=0.0, side=50), SquareCrop(margin=0.3, side=24)])
def test_colours_are_converted_once_and_in_what_is_cut(spec: CropSpec) -> None:
    image = picture()
    image.flags.writeable = False
    plain, converted = (Crops(image, FACES, to_srgb=way).cut(spec) for way in (None, negative))
    for one, other in zip(plain, converted, strict=True):
        assert np.abs(one - negative(other).astype(int)).max() <= 1
    np.testing.assert_array_equal(image, picture())


@given(st.integers(-20, 190), st.integers(-20, 140), st.integers(1, 120))
def test_without_resampling_a_converted_crop_is_a_crop_of_the_converted_picture(x: int, y: int, side: int) -> None:
    face = Detection(BoundingBox(x, y, x + side, y + side), 0.9)
    spec = SquareCrop(margin=0.0, side=side)
    (crop,) = Crops(picture(), (face,), to_srgb=negative).cut(spec)
    np.testing.assert_array_equal(crop, cut_face(negative(picture()), face, spec))


# ── grey ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("side", [7, 50, 112])
@pytest.mark.parametrize("to_srgb", [None, negative])
def test_a_grey_crop_shows_what_the_coloured_one_shows(side: int, to_srgb: Callable[[Image], Image] | None) -> None:
    spec = SquareCrop(margin=0.1, side=side)
    outside = Detection(BoundingBox(-30, -20, 40, 60), 0.9)
    crops = Crops(picture(), (*FACES, outside), to_srgb=to_srgb)
    for grey, coloured in zip(crops.cut(replace(spec, grey=True)), crops.cut(spec), strict=True):
        assert grey.shape == (side, side)
        assert np.abs(grey.astype(int) - to_grey(coloured)).max() <= 2


def test_a_grey_crop_of_a_face_as_large_as_a_village_stays_bounded() -> None:
    vast = Detection(BoundingBox(-9_000, -9_000, 9_000, 9_000), 0.9)
    (grey,) = Crops(picture(), (vast,)).cut(SquareCrop(margin=0.0, side=16, grey=True))
    assert grey.shape == (16, 16)
