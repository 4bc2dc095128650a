"""Embedded ICC profiles: whether one differs from sRGB enough to matter, and the conversion. A bad one is ignored."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_NEAR_SRGB = 3.0
"""Mean 8-bit difference over the colour cube: plain gamma 2.2 is 1.9 from sRGB, Adobe RGB 11.5, Display P3 11.9."""

_STRIP_ROWS = 256
_SPACES = {"RGB": "RGB", "CMYK": "CMYK"}


def strips(height: int) -> Iterator[slice]:
    """Rows in strips: what is converted strip by strip never exists twice as a whole."""
    return (slice(top, min(top + _STRIP_ROWS, height)) for top in range(0, height, _STRIP_ROWS))


def srgb_transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The way from a profile to sRGB for pictures of Pillow's ``mode``; None where there is nothing worth converting.

    That is: no profile, one that does not parse or is of another colour space than the picture (a grey one, say), or
    one as near to sRGB as makes no difference.
    """
    if profile is None or mode not in _SPACES:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return None
    if mode == "RGB" and _distance(transform) < _NEAR_SRGB:
        return None
    return transform


def apply_transform(picture: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    """One strip, converted to sRGB."""
    return transform.apply(picture)


def convert_bgr(image: NDArray[np.uint8], profile: bytes | None) -> None:
    """Convert a BGR picture to sRGB in place."""
    transform = srgb_transform(profile, "RGB")
    if transform is None:
        return
    for rows in strips(image.shape[0]):
        strip = Image.fromarray(np.ascontiguousarray(image[rows, :, ::-1]))
        image[rows] = np.asarray(apply_transform(strip, transform))[..., ::-1]


def _distance(transform: ImageCms.ImageCmsTransform) -> float:
    steps = np.arange(0, 256, 51, dtype=np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(1, -1, 3)
    converted = np.asarray(apply_transform(Image.fromarray(cube), transform))
    return float(np.abs(converted.astype(np.int16) - cube).mean())
