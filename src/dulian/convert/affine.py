"""Turns BatchNorm and Scale layers into affine maps and folds them into the convolution before them.

Everything is float64 and built from IEEE-exact operations (no pow, no dot products), so that the same
files give the same bytes on every machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dulian.convert.caffe_net import Affine, Layer

_DEFAULT_EPS: Final = 1e-5
_HOSTS: Final = ("Convolution", "Affine")


def fold_affine(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Folds where the convolution's result is read by nothing else; the rest becomes ``Affine`` layers.

    Raises:
        ConversionError: the numbers of a BatchNorm or Scale layer do not fit together.
    """
    readers = Counter(bottom for layer in layers for bottom in layer.bottoms)
    folded: list[Layer] = []
    writer: dict[str, int] = {}
    for layer in layers:
        if is_channel_affine(layer):
            layer = replace(layer, type="Affine", affine=_affine(layer), blobs=())
            host = writer.get(layer.bottoms[0])
            if host is not None and readers[layer.bottoms[0]] == 1:
                folded[host] = _joined(folded[host], layer)
                writer[layer.tops[0]] = host
                continue
        folded.append(layer)
        if layer.type in _HOSTS and len(layer.tops) == 1:
            writer[layer.tops[0]] = len(folded) - 1
    return tuple(folded)


def is_channel_affine(layer: Layer) -> bool:
    """Whether the layer multiplies and shifts per channel, which is axis 1."""
    if len(layer.bottoms) != 1 or len(layer.tops) != 1:
        return False
    if layer.type == "Scale":
        param = layer.message.child("scale_param")
        return param.integer("axis", 1) == 1 and param.integer("num_axes", 1) == 1
    return layer.type == "BatchNorm"


def _joined(host: Layer, after: Layer) -> Layer:
    assert after.affine is not None
    affine = after.affine
    if host.affine is not None:
        if host.affine.scale.shape != affine.scale.shape:
            raise after.error(f"has {affine.scale.size} channels after {host.affine.scale.size} in {host.name!r}")
        affine = host.affine.then(affine)
    return replace(host, affine=affine, tops=after.tops)


def _affine(layer: Layer) -> Affine:
    return _batch_norm(layer) if layer.type == "BatchNorm" else _scale(layer)


def _batch_norm(layer: Layer) -> Affine:
    """(x - mean) / sqrt(variance + eps), with both sums divided by the stored scale factor."""
    param = layer.param("batch_norm_param", ("eps", "use_global_stats", "moving_average_fraction"))
    if not param.flag("use_global_stats", True):
        raise layer.error("statistics of the batch itself are not supported")
    mean, variance = _doubles(layer, 0, "mean"), _doubles(layer, 1, "variance")
    factor = _doubles(layer, 2, "scale factor")
    if mean.shape != variance.shape or factor.size != 1:
        raise layer.error("mean and variance differ in size")
    # Caffe's rule for a net that was never trained: a factor of zero makes both sums zero.
    divisor = 0.0 if factor[0] == 0 else 1.0 / factor[0]
    spread = variance * divisor + param.number("eps", _DEFAULT_EPS)
    if not np.all(spread > 0):
        raise layer.error("a variance is negative or not a number")
    scale = 1.0 / np.sqrt(spread)
    return Affine(scale, -(mean * divisor) * scale)


def _scale(layer: Layer) -> Affine:
    param = layer.param("scale_param", ("axis", "num_axes", "filler", "bias_term", "bias_filler"))
    scale = _doubles(layer, 0, "scale")
    shift = _doubles(layer, 1, "bias") if param.flag("bias_term", False) else np.zeros_like(scale)
    if scale.shape != shift.shape:
        raise layer.error("scale and bias differ in size")
    return Affine(scale, shift)


def _doubles(layer: Layer, index: int, what: str) -> NDArray[np.float64]:
    return layer.blob(index, what).astype(np.float64).reshape(-1)
