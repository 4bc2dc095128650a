"""The sliding windows of convolution and pooling: how Caffe names them and how many fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dulian.convert.caffe_net import MAX_SIDE, Layer
from dulian.convert.prototxt import Message

WINDOW_FIELDS: Final = (
    *("kernel_size", "kernel_h", "kernel_w"),
    *("pad", "pad_h", "pad_w"),
    *("stride", "stride_h", "stride_w"),
)

HeightWidth = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Window:
    """Sides in (height, width) order; ``pad`` lies on both sides of the picture."""

    kernel: HeightWidth
    stride: HeightWidth
    pad: HeightWidth
    dilation: HeightWidth = (1, 1)

    @property
    def extent(self) -> HeightWidth:
        """Pixels from the first to the last that the kernel touches."""
        height, width = (dilation * (side - 1) + 1 for side, dilation in zip(self.kernel, self.dilation, strict=True))
        return height, width


def read_window(layer: Layer, param: Message, *, kernel: HeightWidth | None = None) -> Window:
    """Reads ``kernel_size: 3`` as well as ``kernel_h: 3 kernel_w: 1``; ``kernel`` overrides what is said.

    Raises:
        ConversionError: a side is missing, given twice or out of range.
    """
    return Window(
        kernel=kernel or _pair(layer, param, ("kernel_size", "kernel_h", "kernel_w"), default=0, least=1),
        stride=_pair(layer, param, ("stride", "stride_h", "stride_w"), default=1, least=1),
        pad=_pair(layer, param, ("pad", "pad_h", "pad_w"), default=0, least=0),
        dilation=_pair(layer, param, ("dilation", "", ""), default=1, least=1),
    )


def _pair(layer: Layer, param: Message, fields: tuple[str, str, str], *, default: int, least: int) -> HeightWidth:
    both, height, width = fields
    given = param.integers(both)
    if param.has(height) or param.has(width):
        if given or not (param.has(height) and param.has(width)):
            raise layer.error(f"give either {both}, or both {height} and {width}")
        given = (param.integer(height, 0), param.integer(width, 0))
    if len(given) > 2:
        raise layer.error(f"{both} has {len(given)} values; nets over pictures have two")
    first, last = (given[0], given[-1]) if given else (default, default)
    if not (least <= first <= MAX_SIDE and least <= last <= MAX_SIDE):
        raise layer.error(f"{both} is {first} by {last}; {least} to {MAX_SIDE} is supported")
    return first, last
