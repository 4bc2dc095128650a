"""Options that more than one command has, spelled once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from dulian.analyzer import AnalyzeOptions


class Order(StrEnum):
    """Orders of faces, as the command line spells them."""

    size = "size"
    quality = "quality"
    confidence = "confidence"
    left_to_right = "left_to_right"


Profile = Annotated[str | None, typer.Option(help="standard, accurate, classic or classic-article.")]
Engine = Annotated[str | None, typer.Option(help="auto, onnxruntime, openvino, opencv, opencv-caffe.")]
ComputePrecision = Annotated[
    str | None, typer.Option(help="f32, or bf16 (extra openvino): faster, answers move a little.")
]
Tiles = Annotated[
    bool, typer.Option("--tiles", help="Look for small faces in large pictures, in up to 25 looks: slower.")
]
MaxFaces = Annotated[int, typer.Option(min=1, max=50, help="Faces per picture, at most.")]
MinConfidence = Annotated[
    float | None, typer.Option(min=0.01, max=1.0, help="Detection threshold; the profile's own if not given.")
]
Attributes = Annotated[str, typer.Option(help="Any of age,gender; an empty text only detects.")]
OrderOfFaces = Annotated[Order, typer.Option(help="Order of the faces.")]
Coverage = Annotated[
    float, typer.Option(min=0.5, max=0.99, help="Probability with which the age interval holds the true age.")
]
ModelDir = Annotated[Path | None, typer.Option(help="Folder of the models.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never fetch models.")]
Tongue = Annotated[str | None, typer.Option(help="Labels and notes: en, zh or auto.")]

ALL_ATTRIBUTES = "age,gender"


def analyze_options(
    *, max_faces: int, min_confidence: float | None, attributes: str, order: Order, coverage: float
) -> AnalyzeOptions:
    """What the options of these names ask for; whether there are such attributes is judged where they are used."""
    from dulian.analyzer import AnalyzeOptions

    words: frozenset[Any] = frozenset(word.strip() for word in attributes.split(",") if word.strip())
    return AnalyzeOptions(
        max_faces=max_faces, min_confidence=min_confidence, attributes=words, order=order.value, coverage=coverage
    )
