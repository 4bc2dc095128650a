"""Files that mean harm, each with what may come of it. Made by arithmetic, the same every time.

What comes of a file is the code of an error, or one of the two words below.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from PIL import Image

from tests.pictures import (
    animated_png,
    avif_with_box_size,
    chunk,
    exif,
    gif_bomb,
    picture,
    png,
    png_bomb,
    png_with_text,
    rows,
    save,
    scene,
    segment,
    tiff_with_size,
    whole_files,
    with_segments,
    with_size,
    with_tag,
)

ANSWERED = "answered"
INCOMPLETE = "answered, and said to be incomplete"

TOO_LARGE, DAMAGED, TRUNCATED = "input_too_large", "image_decode_failed", "image_truncated"
UNKNOWN, MALFORMED = "unsupported_image", "malformed_input"
REFUSED = frozenset({TOO_LARGE, DAMAGED, TRUNCATED, UNKNOWN, MALFORMED})
STATUSES = {
    **{ANSWERED: 200, INCOMPLETE: 200, MALFORMED: 400, TOO_LARGE: 413},
    **{UNKNOWN: 415, DAMAGED: 422, TRUNCATED: 422},
}

# The largest picture that is accepted at all, and what is accepted of the dearer codings.
LARGEST_WH = (8000, 5000)
LARGEST_DEAR_WH = (5000, 4000)


@dataclass(frozen=True, slots=True)
class Case:
    """A file and what may come of it."""

    name: str
    data: bytes
    outcomes: frozenset[str]


def case(name: str, data: bytes, *outcomes: str) -> Case:
    return Case(name, data, frozenset(outcomes))


@cache
def files() -> dict[str, bytes]:
    """One file or more per accepted format, all of the same small scene."""
    return whole_files() | {"png animated": animated_png()}


# ── bombs ────────────────────────────────────────────────────────────────────────────────────────


def webp_canvas_bomb(data: bytes) -> bytes:
    at = data.index(b"VP8X") + 12
    return data[:at] + b"\xff\xff\xff" * 2 + data[at + 6 :]


def lossless_webp_bomb(data: bytes) -> bytes:
    """16383 x 16383 in the head of the coded picture itself."""
    at = data.index(b"VP8L") + 9
    return data[:at] + struct.pack("<I", 16382 | 16382 << 14) + data[at + 4 :]


def lossy_webp_bomb(data: bytes) -> bytes:
    at = data.index(b"\x9d\x01\x2a") + 3
    return data[:at] + struct.pack("<HH", 16383, 16383) + data[at + 4 :]


def flat_jpeg(width: int, height: int) -> bytes:
    """A whole grey JPEG of any size in a moment: one row of blocks, restarted again and again."""
    row = save(Image.new("L", (width, 8), 90), "JPEG", quality=50, restart_marker_rows=1)
    start = row.index(b"\xff\xda") + 10
    coded = row[start:-2]
    lines = b"".join(coded + bytes([0xFF, 0xD0 + number % 8]) for number in range(-(-height // 8)))
    return with_size(row[:start] + lines[:-2] + b"\xff\xd9", width, height)


def flat_png(width: int, height: int, depth: int = 1, colour: int = 0, *, interlaced: bool = False) -> bytes:
    """A whole black PNG of any size in a few kilobytes; interlaced ones have more lines than they need."""
    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    packer = zlib.compressobj(9)
    line = bytes(1 + -(-width * depth * samples // 8))
    lines = height * 2 if interlaced else height
    data = b"".join(packer.compress(line * 50) for _ in range(-(-lines // 50))) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def deflated_texts(size: int) -> dict[str, bytes]:
    """Small PNGs whose metadata inflates to so many bytes."""
    bomb = zlib.compress(bytes(size), 9)
    return {
        "zTXt": png_with_text(b"zTXt", b"key\0\0" + bomb),
        "iTXt": png_with_text(b"iTXt", b"key\0\1\0en\0key\0" + bomb),
        "iCCP": png_with_text(b"iCCP", b"name\0\0" + bomb),
    }


# Their headers alone tell that they are too large.
BOMBS: dict[str, Callable[[], bytes]] = {
    "jpeg, size edited": lambda: with_size(files()["jpeg baseline"], 30_000, 30_000),
    "progressive jpeg, size edited": lambda: with_size(files()["jpeg progressive"], 6_000, 6_000),
    "jpeg, 16000 x 16000, size edited": lambda: with_size(files()["jpeg baseline"], 16_000, 16_000),
    "jpeg, 16000 x 16000, whole": lambda: flat_jpeg(16_000, 16_000),
    "png, 1 bit": lambda: png_bomb(30_000),
    "png, interlaced": lambda: png(9000, 4000, 8, 2, b"", interlaced=True),
    "gif, screen": lambda: gif_bomb(60_000, 10),
    "gif, frame": lambda: gif_bomb(10, 60_000),
    "webp, canvas": lambda: webp_canvas_bomb(files()["webp animated"]),
    "webp, lossless": lambda: lossless_webp_bomb(files()["webp lossless"]),
    "webp, lossy": lambda: lossy_webp_bomb(files()["webp lossy"]),
    "tiff": lambda: tiff_with_size(files()["tiff lzw"], 30_000),
    "avif, box": lambda: avif_with_box_size(files()["avif"], 30_000, 30_000),
    "bmp": lambda: save(picture(), "BMP").replace(struct.pack("<ii", 192, 144), struct.pack("<ii", 30_000, -30_000)),
}


def bombs() -> Iterator[Case]:
    """What would take gigabytes, or minutes, of whoever decodes it. No decoder must see any of it."""
    for name, make in BOMBS.items():
        yield case(f"bomb: {name}", make(), TRUNCATED if name == "bmp" else TOO_LARGE)
    big = save(Image.new("L", (5000, 4100), 99), "AVIF", speed=10, quality=20)
    yield case("bomb: avif, whole", big, TOO_LARGE)
    yield case("bomb: avif, coded size", avif_with_box_size(big, 64, 64), TOO_LARGE)
    for kind, data in deflated_texts(10**8).items():
        yield case(f"bomb: png, 100 MB of {kind}", data, DAMAGED)
    if heif := files().get("heif"):
        yield case("bomb: heic, box", avif_with_box_size(heif, 30_000, 30_000), TOO_LARGE)
    for name, start in (("jp2", b"\0\0\0\x0cjP  \r\n\x87\n"), ("j2k", b"\xff\x4f\xff\x51")):
        size = b"\0\x2f\0\0" + struct.pack(">II", 60_000, 60_000)
        yield case(f"bomb: {name}", start + size + bytes(200), UNKNOWN)


def many_frames() -> Iterator[Case]:
    """Moving pictures: the first frame is a picture like any other, and nobody looks at the rest."""
    first, second = picture(), picture().rotate(180)
    gif = save(first.quantize(64), "GIF", save_all=True, append_images=[second.quantize(64)])
    at = gif.rindex(b"\x21\xf9\x04")
    yield case("frames: gif", gif[:-1] + gif[at:-1] * 300 + b";", ANSWERED)
    webp = files()["webp animated"]
    frame = webp[webp.rindex(b"ANMF") :]
    body = webp[8:] + frame * 1_000
    yield case("frames: webp", b"RIFF" + struct.pack("<I", len(body)) + body, ANSWERED)
    apng = animated_png()
    at, end = apng.rindex(b"fcTL") - 4, apng.rindex(b"IEND") - 4
    yield case("frames: png", apng[:end] + apng[at:end] * 100 + apng[end:], ANSWERED)
    pages = [Image.new("RGB", (192, 144), (page, 9, 9)) for page in range(60)]
    yield case("frames: tiff", save(first, "TIFF", save_all=True, append_images=pages), ANSWERED)
    tiff = files()["tiff"]
    (offset,) = struct.unpack_from("<I", tiff, 4)
    (count,) = struct.unpack_from("<H", tiff, offset)
    at = offset + 2 + 12 * count
    yield case("frames: tiff, a page after itself", tiff[:at] + struct.pack("<I", offset) + tiff[at + 4 :], ANSWERED)
    small = [Image.new("RGB", (64, 48), (page, 9, 9)) for page in range(60)]
    yield case("frames: avif", save(small[0], "AVIF", save_all=True, append_images=small[1:], speed=10), ANSWERED)


def largest() -> Iterator[Case]:
    """Small files, most of them, of pictures as large as they may just be. All have to be answered."""
    colour, large = Image.new("RGB", LARGEST_WH, (120, 90, 60)), LARGEST_WH
    yield case("largest: jpeg", save(colour, "JPEG", quality=80), ANSWERED)
    yield case("largest: jpeg, grey", flat_jpeg(*large), ANSWERED)
    yield case("largest: jpeg, CMYK", save(colour.convert("CMYK"), "JPEG", quality=80), ANSWERED)
    yield case("largest: png, 1 bit", flat_png(*large), ANSWERED)
    yield case("largest: png, RGB", flat_png(*large, 8, 2), ANSWERED)
    yield case("largest: png, 16 bits", flat_png(*large, 16, 2), ANSWERED)
    yield case("largest: png, RGBA", flat_png(*large, 8, 6), ANSWERED)
    yield case("largest: bmp, 1 bit", save(Image.new("1", large), "BMP"), ANSWERED)
    yield case("largest: gif", save(Image.new("P", large), "GIF", transparency=0), ANSWERED)
    deflated = {"compression": "tiff_adobe_deflate"}
    yield case("largest: tiff", save(colour, "TIFF", **deflated), ANSWERED)
    yield case("largest: tiff, RGBA", save(colour.convert("RGBA"), "TIFF", **deflated), ANSWERED)
    yield case("largest: webp, lossy", save(colour, "WEBP", method=0, quality=50), ANSWERED)
    see_through = colour.convert("RGBA")
    see_through.putpixel((0, 0), (1, 2, 3, 4))
    yield case("largest: webp, RGBA", save(see_through, "WEBP", lossless=True, method=0), ANSWERED)
    dear = Image.new("RGB", LARGEST_DEAR_WH, (120, 90, 60))
    yield case("largest: jpeg, progressive", save(dear, "JPEG", progressive=True), ANSWERED)
    yield case("largest: png, interlaced", flat_png(*LARGEST_DEAR_WH, 8, 6, interlaced=True), ANSWERED)
    yield case("largest: avif", save(dear, "AVIF", speed=10), ANSWERED)


# ── cut and lying files ──────────────────────────────────────────────────────────────────────────

CUT_FORMATS = ("jpeg baseline", "jpeg progressive", "png", "webp lossy", "webp lossless", "bmp", "gif", "tiff", "avif")


def truncations(every: int = 1) -> Iterator[Case]:
    """Every format cut at each twentieth of its length, or at every so manieth of these cuts."""
    yield case("cut: nothing", b"", MALFORMED)
    for name in CUT_FORMATS:
        data = files()[name]
        yield case(f"cut: {name}, 1 byte", data[:1], UNKNOWN)
        yield case(f"cut: {name}, its header", data[:60], TRUNCATED)
        for percent in range(5, 100, 5 * every):
            yield case(f"cut: {name}, {percent} %", data[: len(data) * percent // 100], TRUNCATED)
        yield case(f"cut: {name}, but the last byte", data[:-1], TRUNCATED if name != "gif" else ANSWERED)


def lies(photo: Image.Image) -> Iterator[Case]:
    """Headers that claim another picture than the file holds; ``photo`` has a face in it."""
    width, height = photo.size
    for name, options in (("baseline", {}), ("progressive", {"progressive": True}), ("optimised", {"optimize": True})):
        jpeg = save(photo, "JPEG", quality=85, **options)
        yield case(f"lie: {name} jpeg, twice as high", with_size(jpeg, width, 2 * height), INCOMPLETE)
        yield case(f"lie: {name} jpeg, a tenth of it", with_size(jpeg, width, height // 10), ANSWERED, DAMAGED)
    whole = files()
    lines = rows(scene()[:60])
    yield case("lie: png, lines missing", png(192, 144, 8, 2, lines), DAMAGED)
    yield case("lie: png, lines to spare", png(192, 44, 8, 2, lines), ANSWERED)
    yield case("lie: png, 100 MB of lines to spare", png(64, 64, 8, 2, bytes(10**8)), ANSWERED)
    yield case("lie: png, other samples", png(192, 144, 16, 6, rows(scene())), DAMAGED)
    yield case("lie: png, impossible samples", png(192, 144, 7, 9, rows(scene())), DAMAGED)
    bmp = save(picture(), "BMP")
    yield case("lie: bmp, higher", bmp.replace(struct.pack("<ii", 192, 144), struct.pack("<ii", 192, 900)), TRUNCATED)
    yield case("lie: bmp, pixels elsewhere", bmp[:10] + b"\xff\xff\xff\x7f" + bmp[14:], TRUNCATED)
    yield case("lie: gif, larger frame", gif_bomb(500, 500), DAMAGED)
    yield case("lie: tiff, larger", tiff_with_size(whole["tiff"], 900), TRUNCATED)
    yield case("lie: tiff, larger and packed", tiff_with_size(whole["tiff lzw"], 900), DAMAGED)
    yield case("lie: tiff, a strip beyond the file", with_tag(whole["tiff"], 273, 4, 10**9), TRUNCATED)
    yield case("lie: webp, larger", whole["webp lossy"].replace(b"\x9d\x01\x2a\xc0", b"\x9d\x01\x2a\xff"), DAMAGED)
    yield case(
        "lie: webp, a longer file", whole["webp lossy"][:4] + b"\xff\xff\xff\x7f" + whole["webp lossy"][8:], TRUNCATED
    )
    yield case("lie: avif, larger", avif_with_box_size(whole["avif"], 900, 900), ANSWERED, DAMAGED)
    yield case("lie: avif, smaller", avif_with_box_size(whole["avif"], 64, 64), ANSWERED, DAMAGED)


# ── other types, and files of two ────────────────────────────────────────────────────────────────

HTML = b"<!DOCTYPE html><script>alert(document.domain)</script>"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><image href="file:///etc/passwd"/></svg>'
ZIP = b"PK\x03\x04\x14\0\0\0\0\0" + bytes(16) + b"\x05\0\0\0a.txthello" + b"PK\x05\x06" + bytes(18)


def polyglots() -> Iterator[Case]:
    """What a file starts with decides, whatever else it is, and however it is called."""
    whole = files()
    jpeg = whole["jpeg baseline"]
    gif = whole["gif"]
    table = 13 + 3 * 2 ** ((gif[10] & 7) + 1)
    script = segment(0xFE, HTML)
    comment = b"\x21\xfe" + bytes([len(HTML)]) + HTML + b"\0"
    yield case("two types: jpeg, then html", jpeg + HTML, ANSWERED)
    yield case("two types: html in a jpeg", with_segments(jpeg, script), ANSWERED)
    yield case("two types: jpeg, then zip", jpeg + ZIP, ANSWERED)
    yield case("two types: jpeg, then png", jpeg + whole["png"], ANSWERED)
    yield case("two types: png, then jar", whole["png"] + ZIP, ANSWERED)
    yield case("two types: script in a gif", gif[:table] + comment + gif[table:] + b"*/=1;alert(1)", ANSWERED)
    yield case("two types: gif as a script", b"GIF89a/*" + bytes(40) + b"*/=1;alert(1)//", DAMAGED, TRUNCATED)
    yield case("two types: pdf around a jpeg", b"%PDF-1.7\n1 0 obj\nstream\n" + jpeg + b"\nendstream", UNKNOWN)
    yield case("two types: html before a jpeg", HTML + jpeg, UNKNOWN)
    yield case("two types: zip before a png", ZIP + whole["png"], UNKNOWN)
    yield case("two types: jpeg in a bmp", jpeg_in_bmp(jpeg), DAMAGED)
    yield case("other type: svg", SVG, UNKNOWN)
    yield case("other type: html", HTML, UNKNOWN)
    yield case("other type: eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n", UNKNOWN)
    yield case("other type: eps with a preview", b"\xc5\xd0\xd3\xc6" + bytes(100), UNKNOWN)
    yield case("other type: zip", ZIP, UNKNOWN)
    yield case("other type: pickle", b"\x80\x04cos\nsystem\n(S'id'\ntR.", UNKNOWN)
    yield case("other type: video", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(100), UNKNOWN)
    yield case(
        "other type: a command for a converter", b"push graphic-context\nimage over 0,0 0,0 'https://a/'", UNKNOWN
    )
    yield case("other type: text", b"no picture at all", UNKNOWN)
    for name in ("JPEG2000", "ICO", "PPM", "TGA", "PCX", "EPS", "PDF", "SGI", "DDS"):
        yield case(f"other type: {name.lower()}", save(picture(), name), UNKNOWN)


def jpeg_in_bmp(jpeg: bytes) -> bytes:
    """A BMP whose pixels are said to be a JPEG file."""
    head = struct.pack("<IiiHHIIiiII", 40, 192, 144, 1, 0, 4, len(jpeg), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(jpeg), 0, 0, 54) + head + jpeg


# ── metadata ─────────────────────────────────────────────────────────────────────────────────────


def floods(megabytes: int) -> dict[str, bytes]:
    """Pictures with about so much metadata, or with as many pieces of it as fit."""
    whole = files()
    jpeg, png_, gif = whole["jpeg baseline"], whole["png"], whole["gif"]
    size = megabytes * 1_000_000
    exif_segment = segment(0xE1, b"Exif\0\0" + exif(6).removeprefix(b"Exif\0\0"))
    tags = 900
    directory = b"".join(struct.pack("<HHII", i + 1, 1, 9_000_000, 8) for i in range(tags))
    table = 13 + 3 * 2 ** ((gif[10] & 7) + 1)
    riff = b"JUNK\0\0\0\0" * (size // 8)
    large = size // 65_000
    return {
        "200 EXIF": with_segments(jpeg, *[exif_segment] * 200),
        "EXIF": with_segments(jpeg, *[segment(0xE1, b"Exif\0\0" + bytes(65_000))] * large),
        "profile": with_segments(jpeg, *[segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(65_000))] * large),
        "empty segments": with_segments(jpeg, segment(0xE1, b"") * (size // 4)),
        "fill bytes": with_segments(jpeg, b"\xff" * size),
        "stuffed bytes": with_segments(jpeg, b"\xff\0" * (size // 2)),
        "restart markers": with_segments(jpeg, b"\xff\xd0" * (size // 2)),
        "png chunks": png_[:33] + chunk(b"tEXt", b"") * (size // 12) + png_[33:],
        "png EXIF": png_[:33] + chunk(b"eXIf", exif(3) + bytes(size)) + png_[33:],
        "gif comments": gif[:table] + b"\x21\xfe\0" * (size // 3) + gif[table:],
        "gif sub-blocks": gif[:table] + b"\x21\xfe" + b"\x01a" * (size // 2) + b"\0" + gif[table:],
        "gif comments of many sub-blocks": gif[:table]
        + (b"\x21\xfe" + b"\x01a" * 399_000 + b"\0") * max(1, size // 800_000)
        + gif[table:],
        "webp chunks": b"RIFF" + struct.pack("<I", len(riff) + 4) + b"WEBP" + riff,
        "tiff tags": b"II*\0\x08\0\0\0" + struct.pack("<H", tags) + directory + bytes(size),
        "avif boxes": whole["avif"] + struct.pack(">I4s", 8, b"free") * (size // 8),
    }


def endless_exif() -> dict[str, bytes]:
    """EXIF blocks that lead whoever follows them in a circle, or far away."""
    entry = struct.Struct("<HHII")
    pointers = b"".join(entry.pack(tag, 4, 1, 8) for tag in (0x8769, 0x8825, 0xA005, 0x014A))
    circle = b"II*\0\x08\0\0\0" + struct.pack("<H", 4) + pointers + struct.pack("<I", 8)
    orientation = entry.pack(0x0112, 3, 65_535, 0xFFFFFFF0)
    return {
        "a directory in itself": circle,
        "a directory after itself": b"II*\0\x08\0\0\0" + struct.pack("<HI", 0, 8),
        "65535 tags, none there": b"II*\0\x08\0\0\0\xff\xff",
        "an orientation that is far away": b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + orientation + bytes(4),
        "a directory beyond the block": b"MM\0*\xff\xff\xff\xff",
        "nothing but its name": b"",
    }


# Of these there are too many pieces, or one that reaches beyond the file.
_REFUSED_FLOODS = {
    **dict.fromkeys(("empty segments", "restart markers", "png chunks", "webp chunks", "avif boxes"), DAMAGED),
    **dict.fromkeys(("gif comments", "gif sub-blocks", "gif comments of many sub-blocks"), DAMAGED),
    "tiff tags": TRUNCATED,
}


def metadata() -> Iterator[Case]:
    """Metadata as a weapon: far too much of it, in far too many pieces, or without an end."""
    for name, data in floods(7).items():
        yield case(f"metadata: {name}", data, _REFUSED_FLOODS.get(name, ANSWERED))
    jpeg = files()["jpeg baseline"]
    for name, block in endless_exif().items():
        yield case(f"metadata: EXIF, {name}", with_segments(jpeg, segment(0xE1, b"Exif\0\0" + block)), ANSWERED)
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<x:xmpmeta>" * 5_000)
    entities = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;">]><x>&b;</x>'
    yield case("metadata: XMP without an end", with_segments(jpeg, *[xmp] * 20), ANSWERED)
    webp = save(picture(), "WEBP", xmp=entities * 1_000)
    yield case("metadata: XMP with entities", webp, ANSWERED)
    parts = [segment(0xE2, b"ICC_PROFILE\0" + bytes([number, 255]) + b"\0" * 30_000) for number in range(1, 100)]
    yield case("metadata: a profile in 255 pieces, some missing", with_segments(jpeg, *parts), ANSWERED)
    twice = [segment(0xE2, b"ICC_PROFILE\0\1\1" + b"\0" * 9)] * 1_000
    yield case("metadata: a profile 1000 times", with_segments(jpeg, *twice), ANSWERED)
    yield case("metadata: a text that no zlib wrote", png_with_text(b"zTXt", b"key\0\0nonsense"), ANSWERED)


# ── damage ───────────────────────────────────────────────────────────────────────────────────────


def flipped(count: int, seed: int = 2026) -> Iterator[Case]:
    """So many files of each format with some bytes changed, half of the time near the beginning."""
    chance = random.Random(seed)
    for name, data in files().items():
        for number in range(count):
            damaged = bytearray(data)
            for _ in range(chance.randint(1, 40)):
                most = min(400, len(data)) if chance.random() < 0.5 else len(data)
                damaged[chance.randrange(most)] = chance.randrange(256)
            yield Case(f"damage: {name}, {number}", bytes(damaged), REFUSED | {ANSWERED, INCOMPLETE})
