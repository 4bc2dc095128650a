"""Bombs, metadata abuse and noise: refused with a typed error, before memory or time is spent."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.pictures import (
    avif_of_items,
    avif_with_box_size,
    chunk,
    exif,
    picture,
    png_with_text,
    save,
    scene,
    segment,
    whole_files,
    with_segments,
)
from tests.promises.corpus import BOMBS, deflated_texts, floods

import dulian.image
import dulian.room
from dulian.errors import ImageDecodeError, InputError, InputTooLargeError, UnsupportedImageError
from dulian.formats import read_header
from dulian.formats.jpeg import MAX_SCANS
from dulian.image import DecodedImage, ImageLimits, decode_image, open_picture
from dulian.room import Room

ROOT = Path(__file__).parents[2]
HANG_S = 5.0
FILES = whole_files()
JPEG = FILES["jpeg baseline"]


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every decoder fails the test when it is called."""

    def fail(*_args: object, **_options: object) -> None:
        pytest.fail("a decoder was called")

    monkeypatch.setattr(cv2, "imdecode", fail)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", fail)
    monkeypatch.setattr(Image, "open", fail)
    monkeypatch.setattr(dulian.image, "decode_pixels", fail)


# ── bombs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.usefixtures("no_decoder")
def test_bombs_are_refused_before_a_decoder_is_called(name: str) -> None:
    data = BOMBS[name]()
    started = time.perf_counter()
    with pytest.raises((InputTooLargeError, ImageDecodeError)):
        decode_image(data)
    assert time.perf_counter() - started < HANG_S


@pytest.mark.usefixtures("no_decoder")
def test_avif_is_judged_by_its_coded_size_too() -> None:
    big = save(Image.new("L", (3000, 2000), 99), "AVIF", speed=10, quality=20)
    assert len(big) < 2000
    with pytest.raises(InputTooLargeError, match="3000 x 2000"):
        decode_image(avif_with_box_size(big, 64, 64), limits=ImageLimits(max_pixels=5_000_000))


def test_only_the_first_of_many_frames_is_decoded() -> None:
    frames = [Image.new("RGB", (300, 200), (i % 256, 9, 9)) for i in range(400)]
    for name in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"compression": "tiff_lzw"} if name == "TIFF" else {}
        data = save(frames[0], name, save_all=True, append_images=frames[1:], **options)
        header = read_header(data, max_metadata_bytes=2**20)
        assert (header.width, header.height) == (300, 200)
        if name != "TIFF":
            assert len(header.picture_bytes()) < 2000
        assert np.abs(decode_image(data).image.astype(int) - (9, 9, 0)).max() < 8


RSS_SCRIPT = """
    import resource, struct, sys
    from dulian.errors import InputError
    from dulian.image import decode_image
    from tests.pictures import segment, with_segments
    from tests.promises.corpus import BOMBS, deflated_texts
    from tests.unit.test_image_hostile import JPEG
    files = [bomb() for bomb in BOMBS.values()] + list(deflated_texts(10**8).values())
    floods = [with_segments(JPEG, *[segment(0xE1, b"Exif\\0\\0" + bytes(65_000))] * 185)]
    decode_image(JPEG)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for data in files:
        try:
            decode_image(data)
        except InputError:
            continue
        sys.exit("a bomb was decoded")
    for data in floods:
        decode_image(data)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_bombs_do_not_grow_the_process() -> None:
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(RSS_SCRIPT)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 20_000


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most = [0], [0]
    lock = threading.Lock()
    decode = dulian.image.decode_pixels

    def counted(*args: object) -> object:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.05)
        image = decode(*args)  # type: ignore[arg-type]
        with lock:
            running[0] -= 1
        return image

    monkeypatch.setattr(dulian.image, "decode_pixels", counted)
    plain, progressive = (open_picture(FILES[name]) for name in ("jpeg baseline", "jpeg progressive"))
    pixels = plain.wh[0] * plain.wh[1]
    for judged, reduction, small, total, expected in (
        (plain, 1, pixels - 1, pixels, 1),
        (plain, 1, pixels - 1, 2 * pixels - 1, 1),
        (plain, 1, pixels - 1, 2 * pixels, 2),
        (plain, 1, pixels, pixels, 4),
        (plain, 2, pixels - 1, pixels, 4),
        (progressive, 8, pixels - 1, 3 * pixels, 1),
    ):
        monkeypatch.setattr(dulian.room, "SMALL_PICTURE_PIXELS", small)
        monkeypatch.setattr(dulian.room, "_room", Room(total))
        most[0] = 0
        threads = [threading.Thread(target=judged.decode, args=(reduction,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most[0] == expected


# ── metadata ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP"])
@pytest.mark.usefixtures("no_decoder")
def test_inflation_bombs_are_refused(kind: str) -> None:
    with pytest.raises(ImageDecodeError, match=f"{kind} metadata inflates"):
        decode_image(deflated_texts(20_000_000)[kind])


def test_many_small_texts_share_one_budget() -> None:
    text = chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(90_000)))
    plain = FILES["png"]
    decode_image(plain[:33] + text * 5 + plain[33:])
    with pytest.raises(ImageDecodeError, match="inflates"):
        decode_image(plain[:33] + text * 50 + plain[33:])


def test_broken_texts_are_no_reason_to_refuse() -> None:
    for kind in (b"zTXt", b"iTXt", b"iCCP"):
        for payload in (b"", b"key", b"key\0", b"key\0\0notzlib", b"key\0\1\0en\0key\0notzlib"):
            assert decode_image(png_with_text(kind, payload)).image.shape == scene().shape


@pytest.mark.parametrize("name", floods(12))
def test_metadata_floods_are_bounded(name: str) -> None:
    data = floods(12)[name]
    started = time.perf_counter()
    try:
        image = decode_image(data).image
    except ImageDecodeError:
        image = np.asarray(scene())
    assert sorted(image.shape) == [3, 144, 192]
    assert time.perf_counter() - started < HANG_S


def test_extents_of_no_bytes_are_counted_for_the_whole_file() -> None:
    # widths of 0: each of these tables states 49,000 extents in its last two bytes
    location = b"\0\0\0\0" + b"\0\0" + struct.pack(">HHHH", 1, 1, 0, 49_000)
    with pytest.raises(ImageDecodeError, match="more than 50000 extents"):
        read_header(avif_of_items(*[location] * 100), max_metadata_bytes=2**20)


def test_extents_that_overlap_are_refused_before_they_are_joined() -> None:
    megabyte = bytes(2**20)
    location = b"\0\0\0\0" + b"\x44\0" + struct.pack(">HHHH", 1, 1, 0, 5_000) + struct.pack(">II", 0, 2**20) * 5_000
    with pytest.raises(ImageDecodeError, match="items overlap"):
        read_header(avif_of_items(location, mdat=megabyte), max_metadata_bytes=2**20)


def test_a_second_item_table_is_refused() -> None:
    data = FILES["avif"]
    with pytest.raises(ImageDecodeError, match="more than one item table"):
        decode_image(data + struct.pack(">I4sI", 12, b"meta", 0))


def test_much_metadata_does_not_hide_the_colour_space() -> None:
    without_jfif = JPEG[:2] + JPEG[4 + int.from_bytes(JPEG[4:6], "big") :]
    stored_as_rgb = segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")
    notes = [segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + bytes(65_000))] * 20
    marked = decode_image(with_segments(without_jfif, stored_as_rgb)).image
    assert not np.array_equal(marked, decode_image(without_jfif).image)
    assert np.array_equal(marked, decode_image(with_segments(without_jfif, *notes, stored_as_rgb)).image)


def test_metadata_that_is_skipped_costs_no_budget() -> None:
    turned = segment(0xE1, b"Exif\0\0" + exif(6).removeprefix(b"Exif\0\0"))
    flooded = with_segments(JPEG, *[segment(0xED, bytes(65_000))] * 20, turned)
    assert decode_image(flooded).image.shape == (192, 144, 3)


def test_no_decoder_sees_metadata() -> None:
    secret = b"GPS 48.8584 2.2945"
    jpeg = with_segments(JPEG, segment(0xE1, b"Exif\0\0" + secret), segment(0xFE, secret))
    files = [jpeg + secret, png_with_text(b"tEXt", b"c\0" + secret) + secret, save(picture(), "WEBP", xmp=secret)]
    for data in files:
        assert secret in data
        assert secret not in read_header(data, max_metadata_bytes=2**20).picture_bytes()


def test_too_many_scans_are_refused() -> None:
    data = FILES["jpeg progressive"]
    last = data.rindex(b"\xff\xda")
    with pytest.raises(ImageDecodeError, match="scans"):
        decode_image(data[:-2] + data[last:-2] * MAX_SCANS + b"\xff\xd9")


# ── noise ───────────────────────────────────────────────────────────────────────────────────────────────────────────

SMALL = ImageLimits(max_pixels=4_000_000, max_fancy_pixels=2_000_000)
MAGICS = sorted({data[:n] for data in FILES.values() for n in (4, 12, 32)})


def check(data: bytes) -> None:
    try:
        result = decode_image(data, limits=SMALL)
    except InputError:
        return
    assert isinstance(result, DecodedImage)
    assert result.image.ndim == 3
    assert result.image.size <= 3 * SMALL.max_pixels


@given(st.sampled_from(MAGICS), st.binary(max_size=300))
@settings(max_examples=400)
def test_random_bytes_after_any_signature(magic: bytes, noise: bytes) -> None:
    check(magic + noise)


@given(st.sampled_from(sorted(FILES)), st.data())
@settings(max_examples=600)
def test_flipped_bytes_give_an_image_or_an_input_error(name: str, data: st.DataObject) -> None:
    file = bytearray(FILES[name])
    head = st.integers(0, min(400, len(file) - 1))
    places = st.lists(st.tuples(head | st.integers(0, len(file) - 1), st.integers(0, 255)), min_size=1, max_size=8)
    for place, value in data.draw(places):
        file[place] = value
    check(bytes(file))


@given(st.sampled_from(sorted(FILES)), st.integers(0, 10**6), st.integers(0, 10**6), st.binary(max_size=40))
@settings(max_examples=300)
def test_spliced_files_give_an_image_or_an_input_error(name: str, start: int, length: int, noise: bytes) -> None:
    file = FILES[name]
    start %= len(file)
    check(file[:start] + noise + file[start + length % 200 :])


def test_unknown_bytes_never_reach_a_decoder(no_decoder: None) -> None:
    for seed in range(50):
        noise = np.random.default_rng(seed).bytes(500)
        with pytest.raises(UnsupportedImageError):
            decode_image(b"\0" + noise)


def test_decoding_is_deterministic() -> None:
    for data in FILES.values():
        first, second = decode_image(data), decode_image(io.BytesIO(data).read())
        assert np.array_equal(first.image, second.image)
