"""A Caffe net ready to be rewritten: prototxt and weights joined, every tensor written exactly once.

Caffe lets a layer overwrite its input and names only blobs; here each write gets a tensor name of its
own, and the last write keeps the blob's name. What a layer computes is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dulian.convert.caffe_model import V1_TYPE_NAMES, FloatArray, read_caffemodel
from dulian.convert.prototxt import Message, parse_prototxt
from dulian.errors import ConversionError

# Above any picture a face net is fed; keeps the constants that grow with it small.
MAX_SIDE: Final = 16_384

# Layers that pass their input on when a net is used rather than trained.
_PASSING_TYPES: Final = frozenset({"Dropout", "Split"})
_COMMON_FIELDS: Final = frozenset(
    {"name", "type", "bottom", "top", "include", "exclude", "phase"}
    | {"param", "blobs_lr", "weight_decay", "loss_weight", "propagate_down"}  # about training
)


def _squeezed(type_name: str) -> str:
    return type_name.replace("_", "").upper()


_V1_WORDS: Final = {_squeezed(name): name for name in V1_TYPE_NAMES.values()}


@dataclass(frozen=True, slots=True)
class Affine:
    """``x * scale + shift`` per channel, float64 until it is written; both (C,)."""

    scale: NDArray[np.float64]
    shift: NDArray[np.float64]

    def then(self, after: Affine) -> Affine:
        """This map followed by ``after``."""
        return Affine(self.scale * after.scale, self.shift * after.scale + after.shift)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer; ``bottoms`` and ``tops`` are tensor names, ``blobs`` its trained numbers.

    ``affine`` is a per-channel map that follows the layer's own computation.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    message: Message
    blobs: tuple[FloatArray, ...] = ()
    affine: Affine | None = None

    def error(self, reason: str) -> ConversionError:
        """A complaint that names this layer and its type."""
        return ConversionError(f"layer {self.name!r} ({self.type}): {reason}")

    def param(self, field: str, known: Iterable[str]) -> Message:
        """The layer's parameter message.

        Raises:
            ConversionError: the layer has a parameter outside ``known`` or of another kind of layer.
        """
        strangers = self.message.names() - _COMMON_FIELDS - {field}
        param = self.message.child(field)
        strangers |= param.names() - frozenset(known)
        if strangers:
            raise self.error(f"parameter {', '.join(sorted(strangers))} is not supported")
        return param

    def blob(self, index: int, what: str) -> FloatArray:
        """A trained blob.

        Raises:
            ConversionError: the caffemodel does not have it.
        """
        if index >= len(self.blobs):
            raise self.error(f"the caffemodel holds no {what} for it; do the two files belong together?")
        return self.blobs[index]


@dataclass(frozen=True, slots=True)
class Net:
    """Layers in the order of the prototxt; ``outputs`` are the tensors that no layer reads."""

    name: str
    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    layers: tuple[Layer, ...]
    outputs: tuple[str, ...]


def read_net(prototxt: bytes, caffemodel: bytes) -> Net:
    """Joins the two files into the net as it is used (phase TEST).

    Raises:
        ConversionError: a file cannot be read, or the layers do not make a net.
    """
    root = parse_prototxt(prototxt)
    if root.has("layer") and root.has("layers"):
        raise ConversionError("prototxt mixes `layer` and `layers`")
    messages = [message for message in root.children("layer") + root.children("layers") if _is_used(message)]
    trained = {layer.name: layer.blobs for layer in reversed(read_caffemodel(caffemodel))}
    layers = []
    inputs = _declared_inputs(root)
    for message in messages:
        name = _layer_name(message)
        layer = Layer(name, _layer_type(message), (), (), message, trained.get(name, ()))
        if layer.type == "Input":
            inputs.extend(_input_layer(layer))
        else:
            layers.append(layer)
    graph = _BlobGraph([name for name, _ in inputs])
    for layer in layers:
        graph.connect(layer)
    if not inputs or not graph.wired:
        raise ConversionError("prototxt has no layers" if inputs else "prototxt declares no input")
    return graph.net(root.text("name", "net"), inputs)


def _is_used(message: Message) -> bool:
    """Whether the layer takes part in phase TEST."""
    for rule in message.children("include") + message.children("exclude"):
        if rule.names() - {"phase"}:
            raise ConversionError(f"prototxt line {rule.line}: only `phase` is supported in include and exclude")
    included, excluded = (
        [rule.choice("phase", "TEST", numbered=("TRAIN", "TEST")) for rule in message.children(kind)]
        for kind in ("include", "exclude")
    )
    return (not included or "TEST" in included) and "TEST" not in excluded


def _layer_name(message: Message) -> str:
    name = message.text("name", "")
    if not name:
        raise ConversionError(f"prototxt line {message.line}: a layer without a name")
    return name


def _layer_type(message: Message) -> str:
    """The type in its new spelling; V1 texts say CONVOLUTION, or 4."""
    numbered = [V1_TYPE_NAMES.get(number, "") for number in range(max(V1_TYPE_NAMES) + 1)]
    try:
        (number,) = message.integers("type")
        word = numbered[number] if 0 <= number < len(numbered) else str(number)
    except (ConversionError, ValueError):
        word = message.text("type", "")
    return _V1_WORDS.get(_squeezed(word), word) if word.isupper() else word


def _declared_inputs(root: Message) -> list[tuple[str, tuple[int, ...]]]:
    """The `input` fields of old texts, with `input_shape` or four `input_dim` each."""
    names = root.texts("input")
    dims = root.integers("input_dim")
    shapes = [message.integers("dim") for message in root.children("input_shape")]
    if dims and not shapes:
        shapes = [dims[start : start + 4] for start in range(0, len(dims), 4)]
    if len(shapes) != len(names):
        raise ConversionError(f"prototxt names {len(names)} inputs and {len(shapes)} input shapes")
    return [(name, _checked_shape(name, shape)) for name, shape in zip(names, shapes, strict=True)]


def _input_layer(layer: Layer) -> list[tuple[str, tuple[int, ...]]]:
    shapes = [shape.integers("dim") for shape in layer.param("input_param", ("shape",)).children("shape")]
    tops = layer.message.texts("top")
    if len(shapes) == 1:
        shapes *= len(tops)
    if len(shapes) != len(tops) or layer.message.has("bottom"):
        raise layer.error(f"has {len(tops)} tops and {len(shapes)} shapes")
    return [(top, _checked_shape(top, shape)) for top, shape in zip(tops, shapes, strict=True)]


def _checked_shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape with one in place of the batch, which is the runtime's choice."""
    if len(shape) < 2 or not all(0 < side <= MAX_SIDE for side in shape):
        raise ConversionError(f"input {name!r} has shape {tuple(shape)}; sides of 1 to {MAX_SIDE} are supported")
    return (1, *shape[1:])


@dataclass(slots=True)
class _Value:
    """One write of a blob, by a layer or, with no layer name, by the caller."""

    blob: str
    layer: str
    is_read: bool = False


@dataclass(frozen=True, slots=True)
class _Wire:
    layer: Layer
    bottoms: tuple[int, ...]
    tops: tuple[int, ...]


class _BlobGraph:
    """Follows which write of a blob each layer reads, and names the writes afterwards."""

    def __init__(self, inputs: Sequence[str]) -> None:
        self.wired: list[_Wire] = []
        self._values: list[_Value] = []
        self._current: dict[str, int] = {}
        for name in inputs:
            self._write(name, "")

    def connect(self, layer: Layer) -> None:
        """Adds a layer behind those that are there."""
        tops = layer.message.texts("top")
        bottoms = tuple(self._read(name, layer) for name in layer.message.texts("bottom"))
        if layer.type in _PASSING_TYPES:
            if len(bottoms) != 1:
                raise layer.error(f"reads {len(bottoms)} blobs instead of one")
            self._current.update(dict.fromkeys(tops, bottoms[0]))
            return
        for bottom in bottoms:
            self._values[bottom].is_read = True
        if len(set(tops)) != len(tops) or not tops:
            raise layer.error("needs tops with different names")
        self.wired.append(_Wire(layer, bottoms, tuple(self._write(top, layer.name) for top in tops)))

    def net(self, name: str, inputs: Sequence[tuple[str, tuple[int, ...]]]) -> Net:
        """The net with every write named."""
        names = self._names()
        layers = tuple(
            Layer(
                wire.layer.name,
                wire.layer.type,
                tuple(names[bottom] for bottom in wire.bottoms),
                tuple(names[top] for top in wire.tops),
                wire.layer.message,
                wire.layer.blobs,
            )
            for wire in self.wired
        )
        named_inputs = tuple((names[index], shape) for index, (_, shape) in enumerate(inputs))
        outputs = tuple(names[index] for index, value in enumerate(self._values) if value.layer and not value.is_read)
        return Net(name, named_inputs, layers, outputs)

    def _write(self, blob: str, layer: str) -> int:
        self._values.append(_Value(blob, layer))
        self._current[blob] = len(self._values) - 1
        return self._current[blob]

    def _read(self, blob: str, layer: Layer) -> int:
        if blob not in self._current:
            raise layer.error(f"reads {blob!r}, which no layer before it writes")
        return self._current[blob]

    def _names(self) -> list[str]:
        """Inputs and last writes keep the blob's name; any other write adds the layer's."""
        inputs = {value.blob for value in self._values if not value.layer}
        known_as: dict[int, list[str]] = {}
        for blob, index in self._current.items():
            known_as.setdefault(index, []).append(blob)
        names = []
        for index, value in enumerate(self._values):
            aliases = [blob for blob in known_as.get(index, []) if blob not in inputs]
            if not value.layer or (value.blob in aliases and value.is_read):
                names.append(value.blob)
            elif aliases:
                # What nobody reads is an output: it goes by its last name, as in Caffe.
                names.append(aliases[-1])
            else:
                names.append(f"{value.blob}/{value.layer}")
        if len(set(names)) != len(names):
            raise ConversionError("prototxt has layers or inputs of the same name")
        return names
