"""Pictures drawn by arithmetic, and files made of them: whole, odd, lying and hostile. No photo, nothing on disk."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
ORIENTATIONS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}
"""What each EXIF orientation does to the stored picture, in numpy's words (CIPA DC-008, 4.6.5)."""


@cache
def scene(width: int = 192, height: int = 144) -> NDArray[np.uint8]:
    """An RGB picture with gradients, waves and shapes; no two corners alike. Do not write to it."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    u, v = x / width, y / height
    picture = np.stack([60 + 150 * u, 40 + 160 * v, 128 + 70 * np.sin(9 * u + 5 * v)], axis=-1)
    picture[(u - 0.3) ** 2 + (v - 0.4) ** 2 < 0.03] = (230, 180, 150)
    picture[(u > 0.62) & (u < 0.85) & (v > 0.15) & (v < 0.35)] = (30, 40, 160)
    picture[(v > 0.8) & (u < 0.2)] = (200, 30, 40)
    return picture.astype(np.uint8)


def picture(mode: str = "RGB", array: NDArray[np.uint8] | None = None) -> Image.Image:
    image = Image.fromarray(scene() if array is None else array)
    if mode == "P":
        return image.quantize(64)
    return image if mode == "RGB" else image.convert(mode)


def save(image: Image.Image, name: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, name, **options)
    return out.getvalue()


def with_alpha() -> Image.Image:
    """The scene with an alpha ramp from left to right."""
    image = picture("RGBA")
    ramp = np.linspace(0, 255, image.width).astype(np.uint8)
    image.putalpha(Image.fromarray(np.tile(ramp, (image.height, 1))))
    return image


def on_white(image: Image.Image) -> NDArray[np.uint8]:
    rgba = image.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"))


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


# ── PNG by hand ─────────────────────────────────────────────────────────────────────────────────────────────────────


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png(
    width: int, height: int, depth: int, colour: int, raw: bytes, *, extra: bytes = b"", interlaced: bool = False
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def rows(samples: NDArray[Any]) -> bytes:
    """Scan lines, each with filter type none."""
    return b"".join(b"\0" + line.tobytes() for line in samples)


def png_of(samples: NDArray[Any], colour: int, *, extra: bytes = b"", interlaced: bool = False) -> bytes:
    """Samples (H, W) or (H, W, C), uint8 or big-endian uint16."""
    height, width = samples.shape[:2]
    raw = b"".join(rows(samples[y::dy, x::dx]) for x, y, dx, dy in ADAM7) if interlaced else rows(samples)
    return png(width, height, 8 * samples.dtype.itemsize, colour, raw, extra=extra, interlaced=interlaced)


def sixteen_bits(samples: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """The same picture with 16-bit samples, big-endian, with something in the low byte."""
    return (samples.astype(np.uint16) * 256 + 77).astype(">u2")


def png_bomb(side: int) -> bytes:
    """A 1-bit PNG of a stated size in a few kilobytes."""
    packer = zlib.compressobj(9)
    line = bytes(1 + (side + 7) // 8)
    data = b"".join(packer.compress(line * 100) for _ in range(side // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


# ── JPEG by hand ────────────────────────────────────────────────────────────────────────────────────────────────────


def segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    """The same JPEG with another size in its frame header."""
    position = next(p for p in (jpeg.find(bytes([0xFF, marker, 0])) for marker in (0xC0, 0xC1, 0xC2)) if p > 0)
    return jpeg[: position + 5] + struct.pack(">HH", height, width) + jpeg[position + 9 :]


# ── TIFF by hand ────────────────────────────────────────────────────────────────────────────────────────────────────


def with_tag(tiff: bytes, tag: int, kind: int, value: int) -> bytes:
    """A little-endian TIFF with one tag of its first directory set, or added, to a single number."""
    (offset,) = struct.unpack_from("<I", tiff, 4)
    (count,) = struct.unpack_from("<H", tiff, offset)
    entries = {
        struct.unpack_from("<H", tiff, at)[0]: tiff[at : at + 12]
        for at in range(offset + 2, offset + 2 + 12 * count, 12)
    }
    entries[tag] = struct.pack("<HHII", tag, kind, 1, value)
    directory = struct.pack("<H", len(entries)) + b"".join(entries[key] for key in sorted(entries)) + bytes(4)
    return tiff[:4] + struct.pack("<I", len(tiff)) + tiff[8:] + directory


# ── colour profiles ─────────────────────────────────────────────────────────────────────────────────────────────────


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """An sRGB profile whose red and blue are exchanged: whoever applies it cannot be overlooked."""
    profile = srgb_profile()
    return profile.replace(b"rXYZ", b"tmpX").replace(b"bXYZ", b"rXYZ").replace(b"tmpX", b"bXYZ")


def adobe_profile() -> bytes:
    """Adobe RGB (1998) as a matrix profile of ICC version 2: its primaries seen under D50, and its gamma, 563/256."""

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    gamma = b"curv\0\0\0\0" + struct.pack(">IHH", 1, 563, 0)
    white = (0.9642, 1.0, 0.8249)
    tags = {
        b"wtpt": xyz(*white),
        b"rXYZ": xyz(0.60974, 0.31111, 0.01947),
        b"gXYZ": xyz(0.20528, 0.62567, 0.06087),
        b"bXYZ": xyz(0.14919, 0.06322, 0.74457),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma),
    }
    at = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, tag in tags.items():
        table += name + struct.pack(">II", at + len(body), len(tag))
        body += tag
    header = struct.pack(">I4sI4s4s4s", at + len(body), b"\0" * 4, 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H4s", 2000, 1, 1, 0, 0, 0, b"acsp").ljust(44, b"\0") + xyz(*white)[8:]
    return header.ljust(128, b"\0") + table + body


def in_adobe_rgb(image: Image.Image) -> Image.Image:
    """An sRGB picture in the numbers that mean the same colours in Adobe RGB."""
    adobe = ImageCms.ImageCmsProfile(io.BytesIO(adobe_profile()))
    return ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), adobe)


# ── every format ────────────────────────────────────────────────────────────────────────────────────────────────────


def whole_files() -> dict[str, bytes]:
    """One or more files per accepted format, all of the scene."""
    rgb, alpha = picture(), with_alpha()
    files = {
        "jpeg baseline": save(rgb, "JPEG", quality=92),
        "jpeg optimised 4:4:4": save(rgb, "JPEG", quality=92, optimize=True, subsampling=0),
        "jpeg progressive": save(rgb, "JPEG", quality=92, progressive=True),
        "jpeg restarts": save(rgb, "JPEG", quality=92, restart_marker_rows=1),
        "jpeg grey": save(picture("L"), "JPEG", quality=92),
        "jpeg cmyk": save(picture("CMYK"), "JPEG", quality=95),
        "png": save(rgb, "PNG"),
        "png alpha": save(alpha, "PNG"),
        "png interlaced": png_of(scene(), 2, interlaced=True),
        "webp lossy": save(rgb, "WEBP", quality=92),
        "webp lossless": save(rgb, "WEBP", lossless=True),
        "webp alpha": save(alpha, "WEBP", quality=92),
        "webp animated": save(rgb, "WEBP", save_all=True, append_images=[picture().rotate(180)], quality=92),
        "bmp": save(rgb, "BMP"),
        "gif": save(picture("P"), "GIF"),
        "gif animated": save(picture("P"), "GIF", save_all=True, append_images=[picture("P").rotate(180)]),
        "tiff": save(rgb, "TIFF"),
        "tiff lzw": save(rgb, "TIFF", compression="tiff_lzw"),
        "tiff deflate": save(rgb, "TIFF", compression="tiff_adobe_deflate"),
        "tiff jpeg": save(rgb, "TIFF", compression="jpeg", quality=92),
        "avif": save(rgb, "AVIF", quality=90, speed=8),
        "avif animated": save(rgb, "AVIF", save_all=True, append_images=[picture().rotate(180)], quality=90, speed=8),
    }
    try:
        import pillow_heif
    except ImportError:
        return files
    out = io.BytesIO()
    pillow_heif.from_pillow(rgb).save(out, quality=92)
    return files | {"heif": out.getvalue()}


def animated_png() -> bytes:
    return save(picture(), "PNG", save_all=True, append_images=[picture().rotate(180)])


def png_with_text(kind: bytes, payload: bytes) -> bytes:
    plain = save(picture(), "PNG")
    at = plain.index(b"IDAT") - 4
    return plain[:at] + chunk(kind, payload) + plain[at:]


def avif_with_box_size(data: bytes, width: int, height: int) -> bytes:
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def tiff_with_size(data: bytes, side: int) -> bytes:
    return with_tag(with_tag(data, 256, 4, side), 257, 4, side)


def gif_bomb(screen: int, frame: int) -> bytes:
    image = b"\x2c" + struct.pack("<HHHHB", 0, 0, frame, frame, 0) + b"\x02\x02\x4c\x01\0;"
    return b"GIF89a" + struct.pack("<HHBBB", screen, screen, 0, 0, 0) + image


def avif_of_items(*locations: bytes, mdat: bytes = b"") -> bytes:
    """An AVIF whose one AV1-coded item lies where these ``iloc`` bodies say; its ``mdat`` starts at byte 0 of them."""

    def box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(body), kind) + body

    size = box(b"iprp", box(b"ipco", box(b"ispe", b"\0\0\0\0" + struct.pack(">II", 64, 64))))
    item = box(b"iinf", b"\0\0\0\0\0\1" + box(b"infe", b"\2\0\0\0\0\1\0\0av01\0"))
    meta = b"\0\0\0\0" + size + item + b"".join(box(b"iloc", location) for location in locations)
    return box(b"ftyp", b"avif\0\0\0\0avifmif1") + box(b"meta", meta) + box(b"mdat", mdat)
