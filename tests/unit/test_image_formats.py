"""Every accepted format comes out as its 8-bit sRGB twin, upright; everything else is refused by its bytes."""

from __future__ import annotations

import io
import struct
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.pictures import (
    ORIENTATIONS,
    adobe_profile,
    animated_png,
    chunk,
    exif,
    in_adobe_rgb,
    on_white,
    picture,
    png,
    png_of,
    rows,
    save,
    scene,
    segment,
    sixteen_bits,
    srgb_profile,
    swapped_profile,
    whole_files,
    with_alpha,
    with_segments,
)

from dulian.errors import ImageDecodeError, InputError, InputTooLargeError, MalformedInputError, UnsupportedImageError
from dulian.formats.pixels import _srgb_transform
from dulian.image import ImageLimits, decode_image, open_picture

GREY = np.repeat(np.asarray(picture("L"))[..., None], 3, axis=2)
LOSSY = 6.0


def decoded_rgb(data: bytes, **limits: int) -> NDArray[np.uint8]:
    result = decode_image(data, limits=ImageLimits(**limits))
    assert result.image.dtype == np.uint8
    assert result.image.flags.c_contiguous
    assert result.image.flags.writeable
    assert not result.incomplete
    return result.image[..., ::-1]


def distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b).mean())


def stack(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("name", whole_files())
def test_formats_are_their_twins(name: str) -> None:
    data = whole_files()[name]
    if "alpha" in name:
        expected = on_white(with_alpha())
    elif "grey" in name:
        expected = GREY
    elif "gif" in name:
        expected = stack(picture("P"))
    else:
        expected = scene()
    result = decode_image(data)
    assert result.format == name.split()[0]
    assert not result.incomplete
    assert distance(result.image[..., ::-1], expected) < LOSSY


def _exact() -> dict[str, tuple[bytes, NDArray[np.uint8]]]:
    rgb, alpha = scene(), np.asarray(with_alpha())
    grey = np.asarray(picture("L"))
    la = with_alpha().convert("LA")
    palette = picture("P")
    bits = np.where(grey > 110, 255, 0).astype(np.uint8)
    one_bit = Image.fromarray(bits).convert("1", dither=Image.Dither.NONE)
    key = int(grey[70, 100])
    keyed = np.where(grey == key, 255, grey)
    thumb = palette.copy()
    thumb.info["transparency"] = 5
    files = {
        "bmp": (save(picture(), "BMP"), rgb),
        "bmp palette": (save(palette, "BMP"), stack(palette)),
        "bmp grey": (save(picture("L"), "BMP"), GREY),
        "bmp 1-bit": (save(one_bit, "BMP"), stack(one_bit)),
        "png": (save(picture(), "PNG"), rgb),
        "png animated": (animated_png(), rgb),
        "png interlaced": (png_of(rgb, 2, interlaced=True), rgb),
        "png 1-bit": (save(one_bit, "PNG"), stack(one_bit)),
        "png grey": (save(picture("L"), "PNG"), GREY),
        "png grey 16": (png_of(sixteen_bits(grey), 0), GREY),
        "png rgb 16": (png_of(sixteen_bits(rgb), 2), rgb),
        "png la": (save(la, "PNG"), on_white(la)),
        "png rgba": (save(with_alpha(), "PNG"), on_white(with_alpha())),
        "png la 16": (png_of(sixteen_bits(np.asarray(la)), 4), on_white(la)),
        "png rgba 16": (png_of(sixteen_bits(alpha), 6), on_white(with_alpha())),
        "png palette": (save(palette, "PNG"), stack(palette)),
        "png palette clear": (save(palette, "PNG", transparency=5), on_white(thumb)),
        "png grey key": (png_of(grey, 0, extra=chunk(b"tRNS", struct.pack(">H", key))), np.dstack([keyed] * 3)),
        "png 1-bit key": (
            png(192, 144, 1, 0, rows(np.packbits(bits, axis=1)), extra=chunk(b"tRNS", b"\0\0")),
            np.full_like(rgb, 255),
        ),
        "webp lossless": (save(picture(), "WEBP", lossless=True), rgb),
        "webp alpha": (save(with_alpha(), "WEBP", lossless=True, exact=True), on_white(with_alpha())),
        "gif": (save(palette, "GIF"), stack(palette)),
        "gif clear": (save(palette, "GIF", transparency=5), on_white(thumb)),
        "gif interlaced": (save(palette, "GIF", interlace=1), stack(palette)),
        "tiff palette": (save(palette, "TIFF"), stack(palette)),
        "tiff 1-bit": (save(one_bit, "TIFF"), stack(one_bit)),
        "tiff fax": (save(one_bit, "TIFF", compression="group4"), stack(one_bit)),
        "tiff grey": (save(picture("L"), "TIFF"), GREY),
        "tiff grey 16": (save(Image.fromarray(sixteen_bits(grey).astype("<u2")), "TIFF"), GREY),
        "tiff rgba": (save(with_alpha(), "TIFF"), on_white(with_alpha())),
        "tiff la": (save(la, "TIFF"), on_white(la)),
        "tiff packbits": (save(picture(), "TIFF", compression="packbits"), rgb),
        "tiff cmyk": (save(picture("CMYK"), "TIFF"), stack(picture("CMYK"))),
        "avif lossless grey": (save(picture("L"), "AVIF", quality=100, subsampling="4:0:0"), GREY),
    }
    return files


@pytest.mark.parametrize("name", _exact())
def test_lossless_encodings_keep_every_pixel(name: str) -> None:
    data, expected = _exact()[name]
    difference = np.abs(decoded_rgb(data).astype(int) - expected)
    assert difference.max() <= (3 if "avif" in name else 1), difference.max()


def test_white_is_zero_16_bit_tiff_is_not_inverted() -> None:
    grey = np.asarray(picture("L"))
    data = bytearray(save(Image.fromarray(sixteen_bits(255 - grey).astype("<u2")), "TIFF"))
    offset = struct.unpack_from("<I", data, 4)[0]
    for entry in range(offset + 2, offset + 2 + 12 * struct.unpack_from("<H", data, offset)[0], 12):
        if struct.unpack_from("<H", data, entry)[0] == 262:
            struct.pack_into("<H", data, entry + 8, 0)
    assert distance(decoded_rgb(bytes(data)), GREY) <= 1


def test_cmyk_jpeg_without_adobe_marker_decodes() -> None:
    data = save(picture("CMYK"), "JPEG", quality=95)
    at = data.index(b"\xff\xee")
    assert decoded_rgb(data[:at] + data[at + 16 :]).shape == scene().shape


def test_rgb_jpeg_keeps_its_colours() -> None:
    assert distance(decoded_rgb(save(picture(), "JPEG", quality=95, keep_rgb=True)), scene()) < 2


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientation_is_applied_exactly_once(name: str, orientation: int) -> None:
    options: dict[str, Any] = {"quality": 92} if name in ("JPEG", "WEBP", "AVIF") else {}
    if name == "TIFF":
        options["tiffinfo"] = {0x0112: orientation}
    else:
        options["exif"] = exif(orientation)
    expected = ORIENTATIONS[orientation](scene())
    assert distance(decoded_rgb(save(picture(), name, **options)), expected) < LOSSY


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_heic_orientation_is_applied_exactly_once(orientation: int) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    out = io.BytesIO()
    pillow_heif.encode("RGB", picture().size, picture().tobytes(), out, quality=92, exif=exif(orientation))
    assert distance(decoded_rgb(out.getvalue()), ORIENTATIONS[orientation](scene())) < LOSSY


@pytest.mark.parametrize("name", ["CMYK", "L"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_of_other_jpegs(name: str, orientation: int) -> None:
    data = save(picture(name), "JPEG", quality=95, exif=exif(orientation))
    expected = ORIENTATIONS[orientation](stack(picture(name)))
    assert distance(decoded_rgb(data), expected) < LOSSY


def test_first_of_two_exif_segments_counts_and_nonsense_does_not() -> None:
    jpeg = save(picture(), "JPEG", quality=92)
    upside_down = segment(0xE1, exif(3) if exif(3).startswith(b"Exif") else b"Exif\0\0" + exif(3))
    on_side = segment(0xE1, b"Exif\0\0" + exif(6).removeprefix(b"Exif\0\0"))
    assert distance(decoded_rgb(with_segments(jpeg, upside_down, on_side)), scene()[::-1, ::-1]) < LOSSY
    for nonsense in (
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        exif(9),
        exif(0),
    ):
        payload = b"Exif\0\0" + nonsense.removeprefix(b"Exif\0\0")
        assert distance(decoded_rgb(with_segments(jpeg, segment(0xE1, payload))), scene()) < LOSSY


def test_webp_frame_smaller_than_its_canvas_lies_on_white() -> None:
    still = save(picture(), "WEBP", lossless=True)
    payload = still[12:]

    def uint24(value: int) -> bytes:
        return value.to_bytes(3, "little")

    frame = uint24(10) + uint24(15) + uint24(191) + uint24(143) + uint24(0) + b"\0" + payload
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + uint24(299) + uint24(199)
    body = canvas + b"ANIM" + struct.pack("<IIH", 6, 0, 0) + b"ANMF" + struct.pack("<I", len(frame)) + frame
    image = decoded_rgb(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body)
    assert image.shape == (200, 300, 3)
    assert np.array_equal(image[30:174, 20:212], scene())
    assert (image[:30] == 255).all()
    assert (image[:, 212:] == 255).all()


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_profiles_are_converted_to_srgb(name: str) -> None:
    options = {"quality": 92} if name in ("JPEG", "WEBP", "AVIF") else {}
    swapped = save(picture(), name, icc_profile=swapped_profile(), **options)
    plain = save(picture(), name, icc_profile=srgb_profile(), **options)
    assert distance(decoded_rgb(plain), scene()) < LOSSY
    assert distance(decoded_rgb(swapped), scene()[..., ::-1]) < LOSSY
    too_big = decoded_rgb(swapped, max_profile_pixels=1000)
    assert distance(too_big, scene()) < LOSSY


@pytest.mark.parametrize("profile", [b"nonsense", srgb_profile()[:200], swapped_profile().replace(b"RGB ", b"GRAY")])
def test_bad_profiles_are_ignored(profile: bytes) -> None:
    assert distance(decoded_rgb(save(picture(), "JPEG", quality=92, icc_profile=profile)), scene()) < LOSSY


def test_grey_jpeg_with_rgb_profile_stays_grey() -> None:
    image = decoded_rgb(save(picture("L"), "JPEG", quality=92, icc_profile=srgb_profile()))
    assert distance(image, GREY) < 2


# ── colours handed on ────────────────────────────────────────────────────────────────────────────

OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 92},
    "PNG": {},
    "WEBP": {"quality": 92},
    "TIFF": {},
    "AVIF": {"quality": 92},
}
HANDED_ON = ("JPEG", "PNG", "WEBP")


@pytest.mark.parametrize("profile", [adobe_profile(), swapped_profile()], ids=["adobe", "swapped"])
@pytest.mark.parametrize("name", HANDED_ON)
def test_colours_are_converted_now_or_handed_on(name: str, profile: bytes) -> None:
    plain = decode_image(save(picture(), name, **OPTIONS[name]))
    opened = open_picture(save(picture(), name, icc_profile=profile, **OPTIONS[name]))
    converted, own = opened.decode(), opened.decode(own_colours=True)
    assert converted.to_srgb is None
    assert own.to_srgb is not None
    assert np.array_equal(own.image, plain.image)
    assert distance(own.image, converted.image) > 5
    before = own.image.copy()
    assert np.array_equal(own.to_srgb(own.image), converted.image)
    assert np.array_equal(own.image, before)


def test_colours_of_heic_are_handed_on_too() -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed, so there is no HEIC")
    out = io.BytesIO()
    pillow_heif.from_pillow(picture()).save(out, quality=92, icc_profile=swapped_profile())
    opened = open_picture(out.getvalue())
    converted, own = opened.decode(), opened.decode(own_colours=True)
    assert converted.to_srgb is None
    assert distance(converted.image, scene()) < LOSSY
    assert own.to_srgb is not None
    assert np.array_equal(own.to_srgb(own.image), converted.image)


@pytest.mark.parametrize("name", ["TIFF", "AVIF"])
def test_what_pillow_decodes_is_converted_at_once(name: str) -> None:
    opened = open_picture(save(picture(), name, icc_profile=swapped_profile(), **OPTIONS[name]))
    own = opened.decode(own_colours=True)
    assert own.to_srgb is None
    assert np.array_equal(own.image, opened.decode().image)


@pytest.mark.parametrize("name", HANDED_ON)
@pytest.mark.parametrize("profile", [None, srgb_profile(), b"nonsense"])
def test_srgb_has_nothing_to_hand_on(name: str, profile: bytes | None) -> None:
    options = OPTIONS[name] | ({} if profile is None else {"icc_profile": profile})
    own = open_picture(save(picture(), name, **options)).decode(own_colours=True)
    assert own.to_srgb is None
    assert distance(own.image[..., ::-1], scene()) < LOSSY


def test_adobe_rgb_comes_out_as_the_colours_it_was_made_from() -> None:
    """Beyond sRGB there is nothing to lose: the scene was sRGB before."""
    image = decoded_rgb(save(in_adobe_rgb(picture()), "PNG", icc_profile=adobe_profile()))
    assert distance(image, scene()) < 1
    assert distance(np.asarray(in_adobe_rgb(picture())), scene()) > 5


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("reduction", [1, 2, 8])
def test_a_part_in_srgb_is_a_part_of_the_picture_in_srgb(orientation: int, reduction: int) -> None:
    data = save(picture(), "JPEG", quality=92, icc_profile=adobe_profile(), exif=exif(orientation))
    opened = open_picture(data)
    converted, own = opened.decode(reduction).image, opened.decode(reduction, own_colours=True)
    assert own.to_srgb is not None
    height, width = converted.shape[:2]
    for rows_, columns in ((slice(3, height - 2), slice(2, width // 2)), (slice(0, 1), slice(width - 1, width))):
        part = own.image[rows_, columns]
        assert np.array_equal(own.to_srgb(part), converted[rows_, columns])
        assert np.array_equal(own.to_srgb(np.ascontiguousarray(part)), converted[rows_, columns])


def test_a_picture_too_large_to_be_converted_hands_its_colours_on() -> None:
    data = save(picture(), "JPEG", quality=92, icc_profile=swapped_profile())
    opened = open_picture(data, limits=ImageLimits(max_profile_pixels=1000))
    converted, own = opened.decode(), opened.decode(own_colours=True)
    assert converted.to_srgb is None
    assert np.array_equal(converted.image, own.image)
    assert own.to_srgb is not None
    assert distance(own.to_srgb(own.image)[..., ::-1], scene()[..., ::-1]) < LOSSY


def variants(count: int) -> list[bytes]:
    """Adobe RGB, made in different years."""
    profile = adobe_profile()
    return [profile[:24] + struct.pack(">H", 1900 + year) + profile[26:] for year in range(count)]


def test_few_profiles_are_remembered_and_all_are_applied() -> None:
    most = _srgb_transform.cache_info().maxsize
    assert most is not None
    assert most <= 64
    converted = {
        decode_image(save(picture(), "PNG", icc_profile=profile)).image.tobytes() for profile in variants(most + 8)
    }
    assert converted == {decode_image(save(picture(), "PNG", icc_profile=adobe_profile())).image.tobytes()}
    assert _srgb_transform.cache_info().currsize <= most


def test_eight_threads_convert_as_one() -> None:
    threads, rounds = 8, 6
    turned = [np.ascontiguousarray(np.rot90(scene(640, 480), turn)) for turn in range(4)]
    files = [save(picture(array=array), "PNG", icc_profile=adobe_profile()) for array in turned]
    serial = [decode_image(data).image.tobytes() for data in files]
    assert len(set(serial)) == 4
    _srgb_transform.cache_clear()
    start = threading.Barrier(threads)

    def convert(offset: int) -> list[bool]:
        start.wait()
        indices = [(offset + turn) % 4 for turn in range(rounds)]
        return [decode_image(files[index]).image.tobytes() == serial[index] for index in indices]

    with ThreadPoolExecutor(threads) as pool:
        assert list(pool.map(convert, range(threads))) == [[True] * rounds] * threads


@pytest.mark.parametrize(
    "data",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<!DOCTYPE html><html></html>",
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"8BPS\0\1" + bytes(100),
        b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
        b"\xff\x4f\xff\x51" + bytes(100),
        b"\0\0\1\0\1\0" + bytes(100),
        b"P6\n2 2\n255\n" + bytes(12),
        b"II+\0\x08\0\0\0" + bytes(100),
        b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(100),
        b"RIFF\x24\0\0\0WAVEfmt " + bytes(100),
        b"BM" + bytes(100),
        b"GIF88a" + bytes(100),
        b"qoif" + bytes(100),
        b"\xff",
        b"\xff\xd8",
        b"B",
        b"hello",
        bytes(1000),
    ],
)
def test_other_types_are_refused_by_their_bytes(data: bytes) -> None:
    with pytest.raises(UnsupportedImageError, match="not an accepted image"):
        decode_image(data)


@pytest.mark.parametrize("name", ["JPEG2000", "ICO", "PPM", "TGA", "PCX", "EPS", "PDF", "SGI", "DDS"])
def test_formats_that_pillow_knows_are_refused_all_the_same(name: str) -> None:
    with pytest.raises(UnsupportedImageError):
        decode_image(save(picture(), name))


def test_polyglots_are_what_they_start_with() -> None:
    jpeg = save(picture(), "JPEG", quality=92)
    assert decode_image(jpeg + save(picture(), "PNG") + b"PK\3\4<script>").format == "jpeg"
    with pytest.raises(UnsupportedImageError):
        decode_image(b"%PDF-1.7\n" + jpeg)


def test_heic_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = whole_files().get("heif")
    if data is None:
        pytest.skip("pillow-heif is not installed, so there is no HEIC to refuse")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnsupportedImageError, match=r"pip install 'dulian\[heif\]'"):
        decode_image(data)


def test_limits_name_the_value_and_the_limit() -> None:
    data = save(picture(), "PNG")
    with pytest.raises(MalformedInputError, match="empty"):
        decode_image(b"")
    with pytest.raises(InputTooLargeError, match=rf"{len(data):,} bytes; at most 1,000"):
        decode_image(data, limits=ImageLimits(max_bytes=1000))
    with pytest.raises(InputTooLargeError, match=r"192 x 144 pixels, 27,648 in all; at most 27,647"):
        decode_image(data, limits=ImageLimits(max_pixels=27_647))
    with pytest.raises(InputTooLargeError, match=r"192 x 144 pixels; at most 191 along a side"):
        decode_image(data, limits=ImageLimits(max_side=191))
    assert decoded_rgb(data, max_bytes=len(data), max_pixels=27_648, max_side=192).shape == (144, 192, 3)


@pytest.mark.parametrize("name", ["jpeg progressive", "png interlaced", "png alpha", "webp alpha", "avif"])
def test_costly_codings_have_a_lower_limit(name: str) -> None:
    with pytest.raises(InputTooLargeError, match="progressive, interlaced, transparent or AVIF"):
        decode_image(whole_files()[name], limits=ImageLimits(max_fancy_pixels=1000))
    decode_image(whole_files()["jpeg baseline"], limits=ImageLimits(max_fancy_pixels=1000))


def test_any_bytes_like_input_is_taken() -> None:
    data = save(picture(), "PNG")
    assert np.array_equal(decode_image(bytearray(data)).image, decode_image(memoryview(data)).image)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (7, 5)])
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"])
def test_tiny_pictures_decode(name: str, size: tuple[int, int]) -> None:
    image = decoded_rgb(save(Image.new("RGB", size, (200, 100, 50)), name))
    assert image.shape == (size[1], size[0], 3)
    assert distance(image, np.broadcast_to((200, 100, 50), image.shape)) < LOSSY


@pytest.mark.parametrize("depth", ["I", "F"])
def test_32_bit_samples_are_refused(depth: str) -> None:
    with pytest.raises(ImageDecodeError, match="32-bit"):
        decode_image(save(picture("L").convert(depth), "TIFF"))


@pytest.mark.dev_data
def test_development_photos_decode_or_are_refused_with_reason(dev_data: Path) -> None:
    for folder in ("formats", "hard", "photos", "negatives"):
        for path in sorted((dev_data / folder).iterdir()):
            result = decode_image(path.read_bytes())
            assert not result.incomplete, path.name
    for path in sorted((dev_data / "bad_input").iterdir()):
        with pytest.raises(InputError):
            decode_image(path.read_bytes())
