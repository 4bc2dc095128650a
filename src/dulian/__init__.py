"""dulian (读脸): faces, perceived age and gender, and honest doubt, from a photo, on any CPU.

Importing this package imports nothing heavy; each name below is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dulian.analyzer import AnalyzeOptions as AnalyzeOptions
    from dulian.api import FaceAnalyzer as FaceAnalyzer
    from dulian.api import annotate as annotate
    from dulian.api import load_analyzer as load_analyzer
    from dulian.api import to_dataframe as to_dataframe
    from dulian.errors import DulianError as DulianError
    from dulian.faces import AgeEstimate as AgeEstimate
    from dulian.faces import AnalysisResult as AnalysisResult
    from dulian.faces import BoundingBox as BoundingBox
    from dulian.faces import Face as Face
    from dulian.faces import GenderEstimate as GenderEstimate

__version__ = "0.1.0"

_HOMES = {
    "AgeEstimate": "dulian.faces",
    "AnalysisResult": "dulian.faces",
    "AnalyzeOptions": "dulian.analyzer",
    "BoundingBox": "dulian.faces",
    "DulianError": "dulian.errors",
    "Face": "dulian.faces",
    "FaceAnalyzer": "dulian.api",
    "GenderEstimate": "dulian.faces",
    "annotate": "dulian.api",
    "load_analyzer": "dulian.api",
    "to_dataframe": "dulian.api",
}

__all__ = [
    "AgeEstimate",
    "AnalysisResult",
    "AnalyzeOptions",
    "BoundingBox",
    "DulianError",
    "Face",
    "FaceAnalyzer",
    "GenderEstimate",
    "annotate",
    "load_analyzer",
    "to_dataframe",
]


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'dulian' has no attribute {name!r}") from None
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
