"""Small pictures for a report, read from their sources once more, and only if somebody asked for them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence

from dulian.batch.inputs import Reader
from dulian.batch.records import Input
from dulian.errors import InputError
from dulian.image import Image, crop_rect, decode_image, encode_jpeg, resize
from dulian.markup import Html, element

SIDE_PX = 160
_QUALITY = 75
# How much of the picture round a face is shown, in parts of its longer side.
_MARGIN = 0.45

Box = tuple[float, float, float, float]
Wanted = tuple[Input, Box | None]
"""An input, and the face of it that is to be shown, or None for all of the picture."""


def thumbnails(wanted: Iterable[Wanted], reader: Reader, *, at_most: int) -> Mapping[tuple[str, Box | None], Html]:
    """Images by source and face, for as many as are allowed and can (still) be read."""
    made: dict[tuple[str, Box | None], Html] = {}
    for source, box in wanted:
        if len(made) == at_most:
            break
        if (source.source, box) not in made and (image := _read(source, reader)) is not None:
            made[source.source, box] = _element(_whole(image) if box is None else _around(image, box))
    return made


def _read(source: Input, reader: Reader) -> Image | None:
    try:
        return decode_image(reader.read(source)).image
    except InputError:
        return None


def _whole(image: Image) -> Image:
    height, width = image.shape[:2]
    scale = min(SIDE_PX / max(height, width), 1.0)
    return resize(image, (max(round(width * scale), 1), max(round(height * scale), 1)))


def _around(image: Image, box: Sequence[float]) -> Image:
    """A face in a square, with something round it."""
    x1, y1, x2, y2 = box
    reach = (0.5 + _MARGIN) * max(x2 - x1, y2 - y1)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return crop_rect(image, (x - reach, y - reach, x + reach, y + reach), (SIDE_PX, SIDE_PX))


def _element(image: Image) -> Html:
    data = base64.b64encode(encode_jpeg(image, _QUALITY)).decode()
    height, width = image.shape[:2]
    return element("img", src=f"data:image/jpeg;base64,{data}", alt="", width=str(width // 2), height=str(height // 2))
