"""Pictures as arrays: bytes in through the gate, crops and tensors out. Pure: no files, no environment, no printing.

One colour order everywhere: BGR uint8 of shape (height, width, 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from dulian.errors import ImageDecodeError, InferenceError, InputTooLargeError, MalformedInputError
from dulian.formats import Header, read_header
from dulian.formats.completeness import holds_less_than_claimed
from dulian.formats.pixels import ColourConversion, decode_pixels, turn_upright
from dulian.room import room_for

Image = NDArray[np.uint8]
"""A BGR picture, (height, width, 3), or a crop of one."""

ColourOrder = Literal["bgr", "rgb"]

AVERAGED_PIXELS: Final = 128 * 128
HALVED_PIXELS: Final = 512 * 512

_MAX_CROP_PIXELS: Final = 2**24


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a picture may be before it is refused; the HTTP service passes a lower ``max_bytes``.

    ``max_fancy_pixels`` is for codings whose decoder holds the whole picture more than twice: progressive and
    multi-scan JPEG, interlaced PNG, PNG and WebP with transparency, AVIF. ``max_profile_pixels`` bounds the pictures
    whose RGB colour profile is converted (14 ms per megapixel, seven times the decoding of a JPEG).
    ``max_metadata_bytes`` of EXIF and profile are looked at, the rest is skipped.
    """

    max_bytes: int = 50 * 2**20
    max_pixels: int = 40_000_000
    max_side: int = 16_384
    max_fancy_pixels: int = 20_000_000
    max_profile_pixels: int = 4_000_000
    max_metadata_bytes: int = 2**20


DEFAULT_LIMITS: Final = ImageLimits()


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """A picture: BGR (H, W, 3), upright, C-contiguous, in sRGB or with the way there.

    ``format`` is one of jpeg, png, webp, bmp, gif, tiff, avif, heif. ``incomplete`` says that the file holds less
    picture than its header claims, the missing part being one flat colour; only JPEG can be so without being refused.
    """

    image: Image
    format: str
    incomplete: bool = False
    to_srgb: ColourConversion | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A file that was judged by its header and is not decoded yet."""

    header: Header
    limits: ImageLimits

    @property
    def wh(self) -> tuple[int, int]:
        """Width and height of the upright picture, as the header states them."""
        stored = self.header.width, self.header.height
        return stored[::-1] if self.header.orientation >= 5 else stored

    @property
    def reductions(self) -> tuple[int, ...]:
        """The factors by which it can be made smaller while it is decoded."""
        return self.header.reductions

    def decode(self, reduction: int = 1, *, own_colours: bool = False) -> DecodedImage:
        """The pixels; as :func:`decode_image` says. A reduced picture has its sides divided and rounded up.

        With ``own_colours`` a colour profile is not applied but handed on as ``to_srgb``, for those who need small
        parts of the picture only.

        Raises:
            ImageDecodeError: damage, or a coding that is not supported.
            UnsupportedImageError: HEIC without its extra.
        """
        header = self.header
        # A heavy coding is held in full while it is decoded, however small it comes out, and more than twice.
        with room_for(2 * header.pixels if header.heavy else header.pixels // reduction**2):
            stored, to_srgb = decode_pixels(header, self.limits.max_profile_pixels, reduction)
            reduced = reduction if stored.shape[0] < header.height else 1
            incomplete = header.scan is not None and holds_less_than_claimed(stored, header.scan, reduced)
            if to_srgb is not None and not own_colours:
                stored = to_srgb(stored) if header.pixels <= self.limits.max_profile_pixels else stored
                to_srgb = None
            return DecodedImage(turn_upright(stored, header.orientation), header.format, incomplete, to_srgb)


def decode_image(data: bytes, *, limits: ImageLimits = DEFAULT_LIMITS) -> DecodedImage:
    """Decode the first frame of a JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or, with the extra, HEIC.

    The size is judged by the header before any decoder runs, and no decoder ever sees the metadata. EXIF orientation
    is applied, once; for AVIF and HEIC it is ``irot`` and ``imir`` that count, as their standard says. Samples of 16
    bits keep their high byte, transparency is laid on white (the padding byte of BMP is none). A colour profile that
    differs from sRGB is converted for RGB pictures up to ``limits.max_profile_pixels`` and for CMYK ones of any size;
    grey profiles are not. Damage inside the data that a decoder does not notice cannot be detected.

    A damaged JPEG or PNG may still make a decoder write a line to the standard error of the process.

    Raises:
        InputTooLargeError: too many bytes, pixels, or pixels along one side.
        MalformedInputError: no bytes at all.
        UnsupportedImageError: the leading bytes are of no accepted format, or of HEIC without its extra.
        ImageTruncatedError: the file ends before its picture does.
        ImageDecodeError: any other damage, or a coding that is not supported.
    """
    return open_picture(data, limits=limits).decode()


def open_picture(data: bytes, *, limits: ImageLimits = DEFAULT_LIMITS) -> Picture:
    """The gate alone: judge a file by its size and header, decode nothing.

    Raises:
        InputError: as :func:`decode_image`.
    """
    if len(data) > limits.max_bytes:
        raise InputTooLargeError(f"the file has {len(data):,} bytes; at most {limits.max_bytes:,} are accepted")
    if not data:
        raise MalformedInputError("the file is empty")
    header = read_header(bytes(data), max_metadata_bytes=limits.max_metadata_bytes)
    _check_size(header, limits)
    return Picture(header, limits)


def _check_size(header: Header, limits: ImageLimits) -> None:
    width, height = header.width, header.height
    size = f"the picture is {width} x {height} pixels"
    if width < 1 or height < 1:
        raise ImageDecodeError(f"{size}, which is none")
    if max(width, height) > limits.max_side:
        raise InputTooLargeError(f"{size}; at most {limits.max_side:,} along a side are accepted")
    if header.pixels > limits.max_pixels:
        raise InputTooLargeError(f"{size}, {header.pixels:,} in all; at most {limits.max_pixels:,} are accepted")
    if header.heavy and header.pixels > limits.max_fancy_pixels:
        raise InputTooLargeError(
            f"{size}, {header.pixels:,} in all; at most {limits.max_fancy_pixels:,} are accepted where the picture is"
            " progressive, interlaced, transparent or AVIF: save it as an ordinary JPEG or PNG"
        )


def encode_jpeg(image: Image, quality: int = 90) -> bytes:
    """A BGR or grey picture as baseline JPEG, without metadata."""
    done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise InferenceError(f"a picture of shape {image.shape} does not encode as JPEG")
    return encoded.tobytes()


def resize(image: Image, wh: tuple[int, int]) -> Image:
    """A picture of exactly ``wh`` (width, height), its shape not kept; the picture itself when the size is right.

    A large picture first shrinks by exact halving, each pixel the mean of four. The rest of the way goes by linear
    interpolation, to a small crop by area averaging: no pixel is skipped, and 12 megapixels come down to 640 x 480
    in a sixth of the time that area averaging takes. Small ones are not halved, because the rounding of an odd side
    would shift a face by a part of a pixel that age networks notice.
    """
    while (
        image.shape[0] * image.shape[1] > HALVED_PIXELS and image.shape[1] >= 2 * wh[0] and image.shape[0] >= 2 * wh[1]
    ):
        image = _halved(image)
    if image.shape[:2] == (wh[1], wh[0]):
        return image
    shrinks = wh[0] <= image.shape[1] and wh[1] <= image.shape[0]
    averaged = shrinks and wh[0] * wh[1] <= AVERAGED_PIXELS
    resized = cv2.resize(image, wh, interpolation=cv2.INTER_AREA if averaged else cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def _halved(image: Image) -> Image:
    """Half the size, rounded up; where a side is odd, its last row or column is repeated."""
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        padded = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        image = np.asarray(padded, dtype=np.uint8)
    halved = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return np.asarray(halved, dtype=np.uint8)


def pad_to(image: Image, wh: tuple[int, int]) -> Image:
    """A picture with black added on the right and below until it is ``wh`` (width, height); itself when it is."""
    height, width = image.shape[:2]
    if (width, height) == tuple(wh):
        return image
    padded = np.zeros((wh[1], wh[0], 3), np.uint8)
    padded[:height, :width] = image
    return padded


def to_grey(image: Image) -> Image:
    """A BGR picture without its colours, ``(H, W)``."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), dtype=np.uint8)


def crop_rect(image: Image, box_xyxy: Iterable[float], out_wh: tuple[int, int], *, grey: bool = False) -> Image:
    """Cut a rectangle, rounded to whole pixels, and resize it to ``out_wh``; its shape is not kept.

    What lies outside the picture repeats its border pixels. Memory stays bounded however far out the rectangle
    reaches: above 16 megapixels of cut-out it is sampled linearly at the output's points instead.

    Raises:
        InferenceError: a corner is not a finite number.
    """
    corners = tuple(float(value) for value in box_xyxy)
    if not np.isfinite(corners).all():
        raise InferenceError(f"a box with corners {corners} cannot be cut out")
    x1, y1, x2, y2 = map(round, corners)
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    height, width = image.shape[:2]
    inside = x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height
    if not inside and (x2 - x1) * (y2 - y1) > _MAX_CROP_PIXELS:
        sampled = _sample(image, (x1, y1, x2, y2), out_wh)
        return to_grey(sampled) if grey else sampled
    left, top = min(max(x1, 0), width - 1), min(max(y1, 0), height - 1)
    right, bottom = min(max(x2, left + 1), width), min(max(y2, top + 1), height)
    crop = image[top:bottom, left:right]
    if grey:  # before it is resized: a third of the work
        crop = to_grey(crop)
    if not inside:
        before_x, before_y = min(max(-x1, 0), x2 - x1 - 1), min(max(-y1, 0), y2 - y1 - 1)
        after_x, after_y = x2 - x1 - before_x - crop.shape[1], y2 - y1 - before_y - crop.shape[0]
        padded = cv2.copyMakeBorder(crop, before_y, after_y, before_x, after_x, cv2.BORDER_REPLICATE)
        crop = np.asarray(padded, dtype=np.uint8)
    return np.ascontiguousarray(resize(crop, out_wh))


def _sample(image: Image, box: tuple[int, int, int, int], out_wh: tuple[int, int]) -> Image:
    """The rectangle at the output's points only, by linear interpolation."""
    x1, y1, x2, y2 = box
    x = (np.arange(out_wh[0]) + 0.5) * ((x2 - x1) / out_wh[0]) + x1 - 0.5
    y = (np.arange(out_wh[1]) + 0.5) * ((y2 - y1) / out_wh[1]) + y1 - 0.5
    # clipped first: OpenCV keeps coordinates in 16 bits
    columns = np.clip(x, 0, image.shape[1] - 1).astype(np.float32)
    rows = np.clip(y, 0, image.shape[0] - 1).astype(np.float32)
    grid_x, grid_y = np.meshgrid(columns, rows)
    sampled = cv2.remap(image, grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(sampled, dtype=np.uint8)


def to_tensor(
    image_or_batch: Image | Sequence[Image],
    *,
    colour_order: ColourOrder,
    mean: float | Sequence[float] = 0.0,
    scale: float | Sequence[float] = 1.0,
) -> NDArray[np.float32]:
    """Pictures of one size as a float32 tensor (N, 3, H, W), C-contiguous: ``(value - mean) * scale``.

    Takes one BGR picture, a batch (N, H, W, 3), or a list of pictures; an empty list gives (0, 3, 0, 0).
    ``mean`` (in 0..255) and ``scale`` are one number or three, these in the order of ``colour_order``.

    Raises:
        ValueError: a picture is not (H, W, 3) uint8, or they differ in size.
    """
    if isinstance(image_or_batch, np.ndarray) and image_or_batch.ndim == 3:
        images = [image_or_batch]
    else:
        images = list(image_or_batch)
    if not images:
        return np.empty((0, 3, 0, 0), np.float32)
    shape = np.shape(images[0])
    for image in images:
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != shape or len(shape) != 3:
            raise ValueError(f"pictures must be uint8 of one shape (H, W, 3), not {np.shape(image)} beside {shape}")
    if shape[2] != 3:
        raise ValueError(f"pictures must have 3 channels, not {shape[2]}")
    means = [mean] * 3 if isinstance(mean, int | float) else list(mean)
    scales = [scale] * 3 if isinstance(scale, int | float) else list(scale)
    tensor = np.empty((len(images), 3, shape[0], shape[1]), np.float32)
    for index, image in enumerate(images):
        planes = cv2.split(image)  # whole planes are read twice as fast as every third byte
        for channel in range(3):
            plane = planes[channel if colour_order == "bgr" else 2 - channel]
            if means[channel] == 0 and scales[channel] == 1:
                tensor[index, channel] = plane
            else:
                np.subtract(plane, np.float32(means[channel]), out=tensor[index, channel])
                tensor[index, channel] *= scales[channel]
    return tensor
