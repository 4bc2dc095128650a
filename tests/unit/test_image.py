"""Crops, resizing, tensors and encoding: arrays in, arrays out."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage
from tests.pictures import scene

from dulian.errors import InferenceError
from dulian.faces import BoundingBox
from dulian.image import crop_rect, decode_image, encode_jpeg, open_picture, pad_to, resize, to_tensor

IMAGE = np.ascontiguousarray(scene()[..., ::-1])


def by_index(image: np.ndarray, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    """The rectangle with its border replicated, the slow and certain way."""
    columns = np.clip(np.arange(x1, x2), 0, image.shape[1] - 1)
    rows = np.clip(np.arange(y1, y2), 0, image.shape[0] - 1)
    return image[np.ix_(rows, columns)]


def test_resize_uses_area_when_it_shrinks_and_linear_otherwise() -> None:
    assert resize(IMAGE, (192, 144)) is IMAGE
    for wh, how in (((50, 40), cv2.INTER_AREA), ((400, 300), cv2.INTER_LINEAR), ((50, 300), cv2.INTER_LINEAR)):
        resized = resize(IMAGE, wh)
        assert resized.shape == (wh[1], wh[0], 3)
        assert np.array_equal(resized, cv2.resize(IMAGE, wh, interpolation=how))


def test_pad_to_adds_black_on_the_right_and_below() -> None:
    padded = pad_to(IMAGE, (200, 160))
    assert padded.shape == (160, 200, 3)
    assert np.array_equal(padded[:144, :192], IMAGE)
    assert not padded[144:].any()
    assert not padded[:, 192:].any()
    assert pad_to(IMAGE, (192, 144)) is IMAGE


coordinate = st.integers(-300, 500)


@given(coordinate, coordinate, st.integers(1, 300), st.integers(1, 300))
def test_crops_at_their_own_size_are_exact_and_replicate_the_border(x: int, y: int, width: int, height: int) -> None:
    crop = crop_rect(IMAGE, (x, y, x + width, y + height), (width, height))
    assert np.array_equal(crop, by_index(IMAGE, x, y, x + width, y + height))
    assert crop.flags.c_contiguous


def test_crops_are_resized_and_owned() -> None:
    crop = crop_rect(IMAGE, BoundingBox(20.4, 10.3, 119.6, 110.4), (50, 64))
    assert np.array_equal(crop, resize(IMAGE[10:110, 20:120], (50, 64)))
    same = crop_rect(IMAGE, (0, 0, 192, 144), (192, 144))
    assert np.array_equal(same, IMAGE)


@pytest.mark.parametrize("box", [(5, 5, 5, 5), (9, 9, 2, 3), (191.9, 143.9, 192.1, 144.1), (-5, -5, -5, -5)])
def test_empty_boxes_still_give_a_crop(box: tuple[float, ...]) -> None:
    assert crop_rect(IMAGE, box, (8, 8)).shape == (8, 8, 3)


@pytest.mark.parametrize(
    "box",
    [
        (-1e6, -1e6, 1e6, 1e6),
        (-1e9, 0, 1e9, 100),
        (1e12, 1e12, 2e12, 2e12),
        (-4e5, -10, 192, 144),
    ],
)
def test_crops_far_outside_stay_small(box: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        pytest.fail("the border was replicated in memory")

    monkeypatch.setattr(cv2, "copyMakeBorder", fail)
    crop = crop_rect(IMAGE, box, (32, 16))
    assert crop.shape == (16, 32, 3)
    if box[0] >= 1e12:
        assert (crop == IMAGE[-1, -1]).all()


def test_sampled_and_replicated_crops_agree() -> None:
    side = 4200
    sampled = crop_rect(IMAGE, (0, 0, side, side), (21, 21))
    exact = crop_rect(IMAGE, (0, 0, 4000, 4000), (20, 20))
    assert np.abs(sampled[2:20, 2:20].astype(int) - exact[2:, 2:]).max() <= 1


@pytest.mark.parametrize("box", [(np.nan, 0, 5, 5), (0, np.inf, 5, 5), (0, 0, -np.inf, 5)])
def test_boxes_that_are_no_numbers_are_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(InferenceError, match="cannot be cut out"):
        crop_rect(IMAGE, box, (8, 8))


def test_tensor_is_what_opencv_makes() -> None:
    crops = [np.ascontiguousarray(IMAGE[:100, :120]), np.ascontiguousarray(IMAGE[20:120, 30:150])]
    mean = (104.0, 177.0, 123.0)
    expected = cv2.dnn.blobFromImages(crops, scalefactor=0.5, mean=mean)
    tensor = to_tensor(crops, colour_order="bgr", mean=mean, scale=0.5)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    assert np.array_equal(tensor, expected)
    swapped = cv2.dnn.blobFromImages(crops, scalefactor=1 / 255, mean=(10.0, 20.0, 30.0), swapRB=True)
    assert np.allclose(to_tensor(crops, colour_order="rgb", mean=(10, 20, 30), scale=1 / 255), swapped, atol=1e-6)


def test_tensor_takes_one_picture_a_batch_or_none() -> None:
    one = to_tensor(IMAGE, colour_order="bgr")
    assert one.shape == (1, 3, 144, 192)
    assert np.array_equal(one[0].transpose(1, 2, 0), IMAGE)
    batch = to_tensor(np.stack([IMAGE, IMAGE[::-1]]), colour_order="rgb")
    assert np.array_equal(batch[1].transpose(1, 2, 0), IMAGE[::-1, :, ::-1])
    assert to_tensor([], colour_order="bgr").shape == (0, 3, 0, 0)


def test_tensor_takes_a_scale_per_channel() -> None:
    tensor = to_tensor(IMAGE, colour_order="rgb", mean=(123.7, 116.3, 103.5), scale=(1 / 58.4, 1 / 57.1, 1 / 57.4))
    expected = (IMAGE[..., ::-1].astype(np.float64) - (123.7, 116.3, 103.5)) / (58.4, 57.1, 57.4)
    assert np.allclose(tensor[0].transpose(1, 2, 0), expected, atol=1e-4)


@pytest.mark.parametrize(
    "images",
    [
        [IMAGE, IMAGE[:100]],
        [IMAGE.astype(np.float32)],
        [IMAGE[..., 0]],
        [IMAGE[..., :2]],
    ],
)
def test_tensor_refuses_what_is_no_batch_of_pictures(images: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="pictures must"):
        to_tensor(images, colour_order="bgr")


def test_encoded_pictures_decode_again() -> None:
    lossy = decode_image(encode_jpeg(IMAGE))
    assert lossy.format == "jpeg"
    assert np.abs(lossy.image.astype(int) - IMAGE).mean() < 3
    assert len(encode_jpeg(IMAGE, quality=30)) < len(encode_jpeg(IMAGE))
    assert decode_image(encode_jpeg(IMAGE[..., 0])).image.shape == IMAGE.shape


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "grey"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_pixels_are_opencvs_within_one_level(subsampling: str, progressive: bool) -> None:
    picture = PillowImage.fromarray(IMAGE[..., ::-1])
    buffer = io.BytesIO()
    if subsampling == "grey":
        picture.convert("L").save(buffer, "JPEG", quality=88, progressive=progressive)
    else:
        picture.save(buffer, "JPEG", quality=88, subsampling=subsampling, progressive=progressive)
    data = buffer.getvalue()
    reference = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(decode_image(data).image.astype(int) - reference).max() <= 1


@pytest.mark.parametrize("shape", [(3000, 4000), (2999, 4001), (900, 1121), (700, 700), (600, 1301)])
@pytest.mark.parametrize("wh", [(640, 480), (300, 300), (64, 64), (640, 513), (7, 90)])
def test_resizing_shows_the_same_picture_as_area_averaging(shape: tuple[int, int], wh: tuple[int, int]) -> None:
    blotches = np.random.default_rng(1).integers(0, 255, (9, 12, 3), np.uint8)
    image = np.asarray(cv2.resize(blotches, shape[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)
    resized = resize(image, wh)
    if wh[0] > shape[1] or wh[1] > shape[0]:
        pytest.skip("area averaging does not enlarge")
    reference = cv2.resize(image, wh, interpolation=cv2.INTER_AREA)
    assert resized.shape == (wh[1], wh[0], 3)
    assert np.abs(resized.astype(int) - reference).mean() < 2.0


def test_resizing_skips_no_pixel() -> None:
    """A fine checkerboard becomes an even grey, not a pattern of its own."""
    checkers = ((np.indices((2400, 3200)).sum(axis=0) % 2) * 255).astype(np.uint8)
    resized = resize(np.repeat(checkers[..., None], 3, axis=2), (640, 480))
    assert np.abs(resized.astype(int) - 127).max() <= 1


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("size", [(1000, 700), (1001, 701), (403, 1234)])
@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_reduced_decoding_shows_the_whole_picture_smaller(
    size: tuple[int, int], orientation: int, reduction: int
) -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    PillowImage.fromarray(np.asarray(cv2.resize(IMAGE, size))[..., ::-1]).save(buffer, "JPEG", quality=95, exif=exif)
    picture = open_picture(buffer.getvalue())
    full, reduced = picture.decode().image, picture.decode(reduction).image
    assert picture.wh == full.shape[1::-1]
    assert reduced.shape[:2] == (-(-full.shape[0] // reduction), -(-full.shape[1] // reduction))
    reference = cv2.resize(full, reduced.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(reduced.astype(int) - reference).mean() < 4


def test_only_jpeg_can_be_reduced() -> None:
    for suffix, reductions in ((".jpg", (1, 2, 4, 8)), (".png", (1,)), (".webp", (1,)), (".bmp", (1,))):
        data = cv2.imencode(suffix, IMAGE)[1].tobytes()
        assert open_picture(data).reductions == reductions


def test_a_lying_header_is_seen_in_a_reduced_picture_too() -> None:
    data = bytearray(cv2.imencode(".jpg", np.asarray(cv2.resize(IMAGE, (1600, 1200))))[1].tobytes())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 2] = (2400).to_bytes(2, "big")
    for reduction in (1, 2, 4, 8):
        assert open_picture(bytes(data)).decode(reduction).incomplete
