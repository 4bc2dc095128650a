"""A judged file to BGR pixels: libjpeg-turbo and OpenCV for the common formats, Pillow and libheif for the rest.

Embedded ICC profiles that differ from sRGB enough to matter are converted, or the conversion is handed on to be done
where less than the whole picture is needed. Everything a decoder may raise becomes :class:`ImageDecodeError`. Nothing
here limits sizes: the gate did.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageCms

from dulian.errors import ImageDecodeError, InputTooLargeError, UnsupportedImageError
from dulian.formats import Header
from dulian.formats.header import orientation_of

BgrImage = NDArray[np.uint8]

_NEAR_SRGB = 3.0
"""Mean 8-bit difference over the colour cube: plain gamma 2.2 is 1.9 from sRGB, Adobe RGB 11.5, Display P3 11.9."""

ColourConversion = Callable[[BgrImage], BgrImage]
"""From a picture's own colours to sRGB, of the picture or of any part of it, in a new array."""

_Decoded = tuple[BgrImage, ColourConversion | None]

_STRIP_PIXELS = 2**18
_SPACES = {"RGB": "RGB", "CMYK": "CMYK"}

_PILLOW_NAMES = {"jpeg": "JPEG", "gif": "GIF", "tiff": "TIFF", "avif": "AVIF"}
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    NotImplementedError,
    RuntimeError,
    Warning,
    struct.error,
    zlib.error,
)
"""What parsers written in Python may raise on damaged files; ``Warning`` where warnings are made errors."""


def decode_pixels(
    header: Header, max_profile_pixels: int, reduction: int = 1
) -> tuple[BgrImage, ColourConversion | None]:
    """The stored picture, not yet upright, as (H, W, 3) BGR, and the way to sRGB where it still has to be gone.

    Transparency is laid on white. ``reduction`` is one of the header's; sides are then divided by it and rounded up,
    unless the decoder turns out not to be able to. AVIF and HEIC alone come out upright, since their decoders turn
    them. What Pillow decodes is converted up to ``max_profile_pixels``.

    Raises:
        ImageDecodeError: the decoder refused.
        UnsupportedImageError: HEIC without its extra.
    """
    if reduction > 1:
        return _decode_turbojpeg(header, max_profile_pixels, reduction)
    return _DECODERS[header.decoder](header, max_profile_pixels)


def turn_upright(image: BgrImage, orientation: int) -> BgrImage:
    """Apply an EXIF orientation, 1 to 8 (CIPA DC-008, 4.6.5)."""
    turns: dict[int, Callable[[BgrImage], NDArray[np.generic]]] = {
        2: lambda stored: cv2.flip(stored, 1),
        3: lambda stored: cv2.rotate(stored, cv2.ROTATE_180),
        4: lambda stored: cv2.flip(stored, 0),
        5: cv2.transpose,
        6: lambda stored: cv2.rotate(stored, cv2.ROTATE_90_CLOCKWISE),
        7: lambda stored: cv2.transpose(cv2.rotate(stored, cv2.ROTATE_180)),
        8: lambda stored: cv2.rotate(stored, cv2.ROTATE_90_COUNTERCLOCKWISE),
    }
    turn = turns.get(orientation)
    return image if turn is None else np.ascontiguousarray(turn(image), dtype=np.uint8)


# ── libjpeg-turbo ───────────────────────────────────────────────────────────────────────────────────────────────────


def _decode_turbojpeg(header: Header, max_profile_pixels: int, reduction: int = 1) -> _Decoded:
    """The same library as OpenCV's, without its copies: half the time and half the memory at 12 megapixels.

    What its interface refuses, such as rare sampling factors, OpenCV may still read.
    """
    height, width = (-(-side // reduction) for side in header.frame_shape_hw)
    least = {"min_height": height, "min_width": width, "min_factor": reduction} if reduction > 1 else {}
    try:
        stored = simplejpeg.decode_jpeg(header.picture_bytes(), "BGR", strict=False, **least)
    except ValueError:
        return _decode_opencv(header, max_profile_pixels)
    image = np.asarray(stored, np.uint8)
    if image.shape[:2] != (height, width):
        raise ImageDecodeError("the JPEG decodes to another size than its header states")
    return image, _bgr_conversion(header.profile)


# ── OpenCV ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _decode_opencv(header: Header, max_profile_pixels: int) -> _Decoded:
    del max_profile_pixels
    mode = cv2.IMREAD_UNCHANGED if header.alpha else cv2.IMREAD_COLOR
    try:
        stored = cv2.imdecode(np.frombuffer(header.picture_bytes(), np.uint8), mode | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageDecodeError(f"the {header.format.upper()} does not decode: {_what_failed(error)}") from None
    if stored is None:
        raise ImageDecodeError(f"the {header.format.upper()} does not decode: its data is damaged")
    if stored.shape[:2] != header.frame_shape_hw:
        raise ImageDecodeError(f"the {header.format.upper()} decodes to another size than its header states")
    image = _flatten(stored, header.grey_key) if header.alpha else np.asarray(stored, dtype=np.uint8)
    if header.placement is not None:
        x, y, width, height = header.placement
        canvas = np.full((header.height, header.width, 3), 255, np.uint8)
        canvas[y : y + height, x : x + width] = image
        image = canvas
    return image, _bgr_conversion(header.profile)


def _what_failed(error: cv2.error) -> str:
    """The middle of OpenCV's message; ``error.err`` is an attribute of the class, and may be another thread's."""
    return str(error).rpartition("error: ")[2].partition(" in function")[0].strip()


def _flatten(stored: NDArray[np.generic], grey_key: int | None) -> BgrImage:
    """Grey, BGR or BGRA of 8 or 16 bits, laid on white."""
    image = np.empty((*stored.shape[:2], 3), np.uint8)
    for rows in _strips(stored.shape[:2]):
        strip = np.atleast_3d(stored[rows])
        clear = strip == grey_key if grey_key is not None and strip.shape[2] == 1 else None
        bytes_only = _high_byte(strip)
        if clear is not None:
            bytes_only[clear] = 255
        image[rows] = _on_white(bytes_only) if strip.shape[2] == 4 else bytes_only
    return image


def _high_byte(samples: NDArray[np.generic]) -> BgrImage:
    """8-bit samples as they are, 16-bit ones by their high byte, in an array of one's own."""
    wide = samples >> 8 if samples.dtype.itemsize == 2 else samples  # type: ignore[operator]
    return np.array(wide, dtype=np.uint8)


def _on_white(strip: BgrImage) -> BgrImage:
    """Composite 8-bit BGRA (or RGBA) on white, rounded to nearest."""
    alpha = strip[..., 3:].astype(np.uint16)
    mixed = strip[..., :3] * alpha + 255 * (255 - alpha)
    return np.asarray((mixed + 127) // 255, dtype=np.uint8)


# ── Pillow ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _decode_pillow(header: Header, max_profile_pixels: int) -> _Decoded:
    name = header.format.upper()
    try:
        with Image.open(io.BytesIO(header.picture_bytes()), formats=[_PILLOW_NAMES[header.format]]) as picture:
            _check_pillow_size(header, picture.size)
            picture.load()
            image = _bgr_from_pillow(picture, header, max_profile_pixels)
            return (_turn_avif(picture, image) if header.format == "avif" else image), None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputTooLargeError(str(error)) from None
    except _PILLOW_ERRORS as error:
        raise ImageDecodeError(f"the {name} does not decode: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    """What Pillow says, unless it names an object of ours by its address in memory."""
    return "its data is damaged" if " at 0x" in str(error) else str(error)


def _check_pillow_size(header: Header, size: tuple[int, int]) -> None:
    """Before anything is allocated: the parser must have read the size that the gate has judged."""
    exact = header.format != "avif"
    if (exact and size != (header.width, header.height)) or size[0] * size[1] > header.pixels:
        raise ImageDecodeError(f"the {header.format.upper()} is of another size than its header states")


def _turn_avif(picture: Image.Image, image: BgrImage) -> BgrImage:
    """Apply what Pillow only reports: ``irot`` and ``imir``, as an EXIF orientation that replaces the stored one."""
    exif = picture.info.get("exif", b"")
    return turn_upright(image, orientation_of(exif if isinstance(exif, bytes) else b""))


def _bgr_from_pillow(picture: Image.Image, header: Header, max_profile_pixels: int) -> BgrImage:
    profile = picture.info.get("icc_profile") if header.format == "avif" else header.profile
    if header.pixels > max_profile_pixels and picture.mode != "CMYK":
        profile = None
    transform = _srgb_transform(profile if isinstance(profile, bytes) else None, picture.mode)
    width, height = picture.size
    image = np.empty((height, width, 3), np.uint8)
    for rows in _strips((height, width)):
        strip = picture.crop((0, rows.start, width, rows.stop))
        if transform is not None:
            strip = transform.apply(strip)
        image[rows] = _strip_to_bgr(strip, header.white_is_zero)
    return image


def _strip_to_bgr(strip: Image.Image, white_is_zero: bool) -> NDArray[np.generic]:
    """Any mode to BGR: 16-bit samples keep their high byte, transparency is laid on white."""
    if strip.mode.startswith("I;16"):
        # Pillow turns negatives of 8 bits, not of 16
        grey = _high_byte(np.asarray(strip))[..., None]
        return 255 - grey if white_is_zero else grey
    if strip.mode in ("I", "F"):
        raise ImageDecodeError("pictures with 32-bit samples are not supported")
    if strip.has_transparency_data:
        return _on_white(np.asarray(strip.convert("RGBA")))[..., ::-1]
    return np.asarray(strip.convert("RGB"))[..., ::-1]


# ── libheif, an extra ───────────────────────────────────────────────────────────────────────────────────────────────


def _decode_heif(header: Header, max_profile_pixels: int) -> _Decoded:
    del max_profile_pixels
    try:
        import pillow_heif
    except ImportError:
        raise UnsupportedImageError("HEIC needs an extra: pip install 'dulian[heif]'") from None
    try:
        picture = pillow_heif.open_heif(io.BytesIO(header.picture_bytes()), convert_hdr_to_8bit=True, bgr_mode=True)
        width, height = picture.size
        if width * height > header.pixels:
            raise ImageDecodeError("the HEIC is of another size than its header states")
        stored = np.asarray(picture)
        profile = picture.info.get("icc_profile")
    except _PILLOW_ERRORS as error:
        raise ImageDecodeError(f"the HEIC does not decode: {_reason(error)}") from None
    return _flatten(stored, None), _bgr_conversion(profile if isinstance(profile, bytes) else None)


# ── colour profiles ─────────────────────────────────────────────────────────────────────────────────────────────────


def _strips(shape_hw: tuple[int, ...]) -> Iterator[slice]:
    """Rows in strips: what is converted strip by strip never exists twice as a whole, and stays in the cache."""
    height, width = shape_hw
    rows = max(1, _STRIP_PIXELS // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


@lru_cache(maxsize=16)  # most cameras write one of a few profiles, and preparing one takes 2 ms
def _srgb_transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The way from a profile to sRGB for pictures of Pillow's ``mode``; None where there is nothing worth converting.

    That is: no profile, one that does not parse or is of another colour space than the picture (a grey one, say), or
    one as near to sRGB as makes no difference. Threads may share a transform that has no cache of its own.
    """
    if profile is None or mode not in _SPACES:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES[mode]:
            return None
        srgb = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, srgb, mode, "RGB", flags=ImageCms.Flags.NOCACHE)
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return None
    return None if mode == "RGB" and _distance(transform) < _NEAR_SRGB else transform


def _bgr_conversion(profile: bytes | None) -> ColourConversion | None:
    transform = _srgb_transform(profile, "RGB")
    return None if transform is None else partial(_convert_bgr, transform)


def _convert_bgr(transform: ImageCms.ImageCmsTransform, image: BgrImage) -> BgrImage:
    converted = np.empty(image.shape, np.uint8)
    for rows in _strips(image.shape[:2]):
        strip = Image.fromarray(cv2.cvtColor(image[rows], cv2.COLOR_BGR2RGB))
        cv2.cvtColor(np.asarray(transform.apply(strip)), cv2.COLOR_RGB2BGR, dst=converted[rows])
    return converted


def _distance(transform: ImageCms.ImageCmsTransform) -> float:
    steps = np.arange(0, 256, 51, dtype=np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(1, -1, 3)
    converted = np.asarray(transform.apply(Image.fromarray(cube)))
    return float(np.abs(converted.astype(np.int16) - cube).mean())


_DECODERS: dict[str, Callable[[Header, int], _Decoded]] = {
    "turbojpeg": _decode_turbojpeg,
    "opencv": _decode_opencv,
    "pillow": _decode_pillow,
    "heif": _decode_heif,
}
