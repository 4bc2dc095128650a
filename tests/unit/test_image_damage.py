"""Cut files, lying headers and impossible ones: no image comes of them, or one that is said to be incomplete."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image
from tests.pictures import (
    animated_png,
    avif_with_box_size,
    chunk,
    exif,
    gif_bomb,
    picture,
    png_of,
    save,
    scene,
    segment,
    swapped_profile,
    tiff_with_size,
    whole_files,
    with_size,
    with_tag,
)

from dulian.errors import ImageDecodeError, ImageTruncatedError, InputError, InputTooLargeError
from dulian.formats import read_header
from dulian.formats.bmff import sequence_sizes
from dulian.image import decode_image

FILES = whole_files()
JPEG = FILES["jpeg baseline"]


# ── cut files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _cuts(length: int) -> list[int]:
    return sorted({length * percent // 100 for percent in range(0, 100, 5)} | {0, 1, 20, length - 1})


@pytest.mark.parametrize("name", [*FILES, "png animated"])
def test_cut_files_are_refused(name: str) -> None:
    data = FILES.get(name) or animated_png()
    complete = len(data)
    if name.startswith("gif"):
        # what follows the first frame (its trailer, other frames) adds nothing to the picture
        complete = len(b"".join(read_header(data, max_metadata_bytes=0).parts)) - 1 + _skipped(data)
    for cut in _cuts(complete):
        with pytest.raises(InputError) as caught:
            decode_image(data[:cut])
        if cut >= 100:
            assert isinstance(caught.value, ImageDecodeError), (name, cut)


def _skipped(gif: bytes) -> int:
    """Bytes before the first frame that its header does not keep: the loop extension of animated GIF."""
    return 19 if b"NETSCAPE2.0" in gif else 0


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"])
def test_header_only_is_refused(name: str) -> None:
    data = save(picture(), name)
    with pytest.raises(ImageTruncatedError):
        decode_image(data[:60])


def test_png_with_too_few_lines_is_refused() -> None:
    for samples, colour in ((scene(), 2), (np.dstack([scene(), scene()[..., :1]]), 6)):
        short = png_of(samples[:60], colour)
        taller = struct.pack(">IIBBBBB", 192, 144, 8, colour, 0, 0, 0)
        data = short[:8] + chunk(b"IHDR", taller) + short[33:]
        with pytest.raises(ImageDecodeError):
            decode_image(data)


def test_damage_that_a_checksum_shows_is_refused() -> None:
    data = bytearray(FILES["png"])
    data[len(data) // 2] ^= 0x10
    with pytest.raises(ImageDecodeError, match="checksum"):
        decode_image(bytes(data))


# ── lies ────────────────────────────────────────────────────────────────────────────────────────────────────────────

JPEG_KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "baseline": ("RGB", {}),
    "optimised": ("RGB", {"optimize": True}),
    "4:4:4": ("RGB", {"subsampling": 0}),
    "4:4:4 optimised": ("RGB", {"subsampling": 0, "optimize": True}),
    "4:2:2": ("RGB", {"subsampling": 1, "optimize": True}),
    "progressive": ("RGB", {"progressive": True}),
    "restart rows": ("RGB", {"restart_marker_rows": 1}),
    "restart blocks": ("RGB", {"restart_marker_blocks": 3}),
    "grey": ("L", {}),
    "grey optimised": ("L", {"optimize": True}),
    "cmyk": ("CMYK", {}),
}


def _textured() -> Image.Image:
    """The scene, with fine noise down to its last row."""
    noise = np.random.default_rng(7).integers(-25, 25, scene().shape)
    return Image.fromarray(np.clip(scene() + noise, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("name", JPEG_KINDS)
@pytest.mark.parametrize("size", [(192, 288), (192, 220), (384, 288), (400, 144), (3000, 3000)])
def test_jpeg_that_claims_more_than_it_holds_is_incomplete(name: str, size: tuple[int, int]) -> None:
    mode, options = JPEG_KINDS[name]
    data = save(_textured().convert(mode), "JPEG", quality=85, **options)
    assert not decode_image(data).incomplete
    result = decode_image(with_size(data, *size))
    assert result.incomplete
    assert result.image.shape == (size[1], size[0], 3)


def test_incomplete_is_seen_whatever_the_orientation() -> None:
    data = save(_textured(), "JPEG", quality=85, exif=exif(6), icc_profile=swapped_profile())
    result = decode_image(with_size(data, 192, 400))
    assert result.incomplete
    assert result.image.shape == (192, 400, 3)


@pytest.mark.parametrize("name", JPEG_KINDS)
@pytest.mark.parametrize("grey", [0, 128, 255])
@pytest.mark.parametrize("bar", [40, 200])
def test_letterbox_bars_are_not_incomplete(name: str, grey: int, bar: int) -> None:
    mode, options = JPEG_KINDS[name]
    framed = Image.new("RGB", (192, 144 + bar), (grey, grey, grey))
    framed.paste(_textured())
    assert not decode_image(save(framed.convert(mode), "JPEG", quality=85, **options)).incomplete
    assert not decode_image(save(Image.new(mode, (640, 480)), "JPEG", **options)).incomplete


@pytest.mark.dev_data
def test_bars_and_lies_on_development_photos(dev_data: Path) -> None:
    lies = noticed = 0
    for path in sorted((dev_data / "photos").glob("*.jpg")):
        photo = Image.open(path).convert("RGB")
        photo.thumbnail((400, 400))
        framed = Image.new("RGB", (photo.width, photo.height + 120))
        framed.paste(photo)
        for options in ({}, {"optimize": True}, {"progressive": True}):
            assert not decode_image(save(framed, "JPEG", quality=80, **options)).incomplete, path.name
            lie = with_size(save(photo, "JPEG", quality=80, **options), photo.width, photo.height * 2)
            noticed += decode_image(lie).incomplete
            lies += 1
    assert noticed >= 0.9 * lies


# ── odd headers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _jpeg_header(marker: int, payload: bytes) -> bytes:
    return b"\xff\xd8" + segment(marker, payload) + segment(0xDA, b"\1\1\0\0\x3f\0") + b"\0\0\xff\xd9"


@pytest.mark.parametrize(
    "data",
    [
        _jpeg_header(0xC9, struct.pack(">BHHB3s", 8, 8, 8, 1, b"\1\x11\0")),
        _jpeg_header(0xC3, struct.pack(">BHHB3s", 8, 8, 8, 1, b"\1\x11\0")),
        _jpeg_header(0xC1, struct.pack(">BHHB3s", 12, 8, 8, 1, b"\1\x11\0")),
        _jpeg_header(0xC0, struct.pack(">BHHB3s", 8, 0, 8, 1, b"\1\x11\0")),
        _jpeg_header(0xC0, struct.pack(">BHHB3s", 8, 8, 8, 2, b"\1\x11\0")),
        _jpeg_header(0xC0, struct.pack(">BHHB3s", 8, 8, 8, 1, b"\1\0\0")),
        _jpeg_header(0xC0, struct.pack(">BHHB3s", 8, 8, 8, 1, b"\2\x11\0")),
        b"\xff\xd8\xff\xe0\0\1" + JPEG[2:],
        JPEG[:2] + JPEG[JPEG.index(b"\xff\xda") :],
        b"\xff\xd8\xff\xd9",
        JPEG.replace(b"\xff\xda", segment(0xC0, struct.pack(">BHHB3s", 8, 8, 8, 1, b"\1\x11\0")) + b"\xff\xda"),
        FILES["png"].replace(b"IHDR", b"IHDX"),
        FILES["png"][:8] + FILES["png"][33:],
        png_of(scene(), 2).replace(struct.pack(">II", 192, 144), bytes(8)),
        FILES["png"][:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 9, 8, 2, 0, 0, 0)) + FILES["png"][33:],
        FILES["webp lossless"].replace(b"VP8L", b"VP8X"),
        FILES["webp lossless"].replace(b"VP8L", b"JUNK"),
        FILES["webp lossless"].replace(b"\x2f", b"\x2e", 1),
        FILES["webp lossy"].replace(b"\x9d\x01\x2a", b"\x9d\x01\x2b"),
        save(picture("P"), "BMP").replace(struct.pack("<HHI", 1, 8, 0), struct.pack("<HHI", 1, 8, 1)),
        save(picture(), "BMP").replace(struct.pack("<HHI", 1, 24, 0), struct.pack("<HHI", 1, 23, 0)),
        gif_bomb(10, 0),
        b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0, 0, 0) + b"\x99",
        b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0, 0, 0) + b";",
        tiff_with_size(FILES["tiff"], 0),
        with_tag(FILES["tiff"], 259, 3, 50_000),
        with_tag(FILES["tiff"], 256, 5, 8),
        with_tag(FILES["tiff"], 273, 12, 8),
        with_tag(FILES["tiff"], 273, 4, 10**9),
        with_tag(FILES["tiff lzw"], 258, 3, 99),
        FILES["avif"].replace(b"ispe", b"free"),
        FILES["avif"].replace(b"meta", b"free"),
        avif_with_box_size(FILES["avif"], 0, 9),
    ],
)
def test_impossible_headers_are_refused(data: bytes) -> None:
    with pytest.raises(ImageDecodeError):
        decode_image(data)


def test_oversized_tiles_are_refused() -> None:
    tiled = with_tag(with_tag(FILES["tiff"], 322, 4, 60_000), 323, 4, 60_000)
    with pytest.raises(ImageDecodeError, match="tiles of 60000 x 60000"):
        decode_image(tiled)


def test_what_libjpeg_turbo_refuses_opencv_may_read(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = decode_image(JPEG).image
    monkeypatch.setattr(simplejpeg, "decode_jpeg", _raiser(ValueError("unsupported sampling")))
    by_opencv = decode_image(JPEG).image
    assert np.abs(by_opencv.astype(int) - usual).max() <= 1
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    with pytest.raises(ImageDecodeError, match="damaged"):
        decode_image(JPEG)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(ImageDecodeError, match="another size"):
        decode_image(JPEG)


def test_a_refusal_by_opencv_is_told_without_its_place_in_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        cv2.resize(np.zeros((1, 1, 3), np.uint8), (0, 0))

    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(ImageDecodeError, match=r"^the PNG does not decode: \(-215:Assertion failed\) [^/\n]*$"):
        decode_image(FILES["png"])


@pytest.mark.parametrize("name", ["avif", "tiff", "gif", "jpeg cmyk", "heif"])
def test_no_refusal_names_an_address_in_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise OSError(f"cannot identify image file {io.BytesIO()!r}")

    if name == "heif":
        monkeypatch.setattr(pytest.importorskip("pillow_heif"), "open_heif", fail)
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(ImageDecodeError, match="does not decode: its data is damaged$"):
        decode_image(FILES[name])


def test_decoder_failures_are_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise cv2.error("assertion failed")

    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(ImageDecodeError, match="assertion failed"):
        decode_image(FILES["png"])
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    with pytest.raises(ImageDecodeError, match="damaged"):
        decode_image(FILES["png"])
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(ImageDecodeError, match="another size"):
        decode_image(FILES["png"])
    for error in (Image.DecompressionBombError("big"), Image.DecompressionBombWarning("big")):
        monkeypatch.setattr(Image, "open", _raiser(error))
        with pytest.raises(InputTooLargeError, match="big"):
            decode_image(FILES["gif"])
    for error in (OSError("x"), SyntaxError("x"), EOFError("x"), struct.error("x"), KeyError("x"), UserWarning("x")):
        monkeypatch.setattr(Image, "open", _raiser(error))
        with pytest.raises(ImageDecodeError, match="GIF does not decode"):
            decode_image(FILES["gif"])


def _raiser(error: BaseException) -> Callable[..., None]:
    def fail(*_args: object, **_options: object) -> None:
        raise error

    return fail


class Bits:
    """Big-endian bits, written one number after another."""

    def __init__(self) -> None:
        self.text = ""

    def put(self, *pairs: tuple[int, int]) -> Bits:
        self.text += "".join(format(value, f"0{width}b") for value, width in pairs if width)
        return self

    def tobytes(self) -> bytes:
        return int(self.text.ljust(-(-len(self.text) // 8) * 8, "0"), 2).to_bytes(-(-len(self.text) // 8), "big")


SIZE = ((11, 4), (10, 4), (3000, 12), (1999, 11))


@pytest.mark.parametrize(
    "bits",
    [
        Bits().put((0, 3), (1, 1), (1, 1), (9, 5)),
        Bits().put((0, 3), (0, 1), (0, 1), (0, 1), (0, 1), (0, 5), (0, 12), (8, 5), (1, 1)),
        Bits()
        .put((0, 3), (0, 1), (0, 1), (1, 1), (7, 32), (7, 32), (1, 1), (5, 5), (1, 1), (9, 5), (1, 32), (3, 5), (3, 5))
        .put((1, 1), (1, 5))
        .put((0, 12), (9, 5), (0, 1), (1, 1), (5, 10), (5, 10), (0, 1), (1, 1), (3, 4))
        .put((1, 12), (2, 5), (0, 1), (0, 1)),
    ],
)
def test_av1_states_its_size(bits: Bits) -> None:
    payload = bits.put(*SIZE).tobytes()
    padding, temporal_unit = b"\x7a\x03abc", b"\x12\0"
    sized = temporal_unit + padding + bytes([0x0A, len(payload)]) + payload
    extended = b"\x0e\0" + bytes([len(payload)]) + payload
    assert sequence_sizes(sized + extended) == [(3001, 2000)] * 2
    assert sequence_sizes(b"\x08" + payload) == [(3001, 2000)]
    assert sequence_sizes(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff") == [(1, 1)]
