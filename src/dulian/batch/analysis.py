"""What is done with a picture's bytes; in a form that any process on any machine can be given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dulian.analyzer import AnalyzeOptions
from dulian.faces import AnalysisResult, ModelInfo
from dulian.image import Image, ImageLimits
from dulian.runtimes import Precision

if TYPE_CHECKING:
    from dulian.factory import AnalyzerFactory

Analyze = Callable[[bytes], tuple[AnalysisResult, Callable[[], Image]]]
"""Bytes to a result, and the full-size picture for who wants to draw; may be called from any thread.

It raises an :class:`dulian.errors.InputError` for a picture that is refused.
"""


class Analysis(Protocol):
    """Picklable: it is sent to other processes and machines, which open it there."""

    def model(self) -> Mapping[str, Any]:
        """Profile, engine and digest, as part of a job's identity."""
        ...

    def options(self) -> Mapping[str, Any]:
        """Everything else that shapes a result; JSON types."""
        ...

    def open(self, threads: int) -> Analyze:
        """Load what is needed, once in a process in which so many threads will analyse."""
        ...


@dataclass(frozen=True, kw_only=True)
class ModelAnalysis:
    """A profile of the catalog on one engine."""

    profile: str
    engine: str = "auto"
    precision: Precision = "f32"
    tiles: bool = False
    model_dir: Path | None = None
    offline: bool = False
    asked: AnalyzeOptions = field(default_factory=AnalyzeOptions)

    @classmethod
    def of_job(
        cls, model: Mapping[str, Any], options: Mapping[str, Any], *, model_dir: Path | None, offline: bool
    ) -> ModelAnalysis:
        """The analysis that a job was begun with, by what :meth:`model` and :meth:`options` said of it."""
        asked = {name: options[name] for name in ("max_faces", "min_confidence", "order", "coverage")}
        return cls(
            profile=model["profile"],
            engine=model["engine"],
            precision=options["precision"],
            tiles=options["tiles"],
            model_dir=model_dir,
            offline=offline,
            asked=AnalyzeOptions(attributes=frozenset(options["attributes"]), **asked),
        )

    def model(self) -> Mapping[str, Any]:
        found: ModelInfo = self._factory(1).model
        return {"profile": found.profile, "engine": found.engine, "digest": found.digest}

    def options(self) -> Mapping[str, Any]:
        asked = asdict(self.asked)
        asked["attributes"] = sorted(asked["attributes"])
        return {**asked, "precision": self.precision, "tiles": self.tiles}

    def open(self, threads: int) -> Analyze:
        from dulian.pipeline import Pipeline

        pipeline = Pipeline(self._factory(threads).new_analyzer, limits=ImageLimits())
        return lambda data: pipeline.analyze(data, self.asked)

    def _factory(self, workers: int) -> AnalyzerFactory:
        from dulian.factory import open_profile
        from dulian.models.catalog import find_profile
        from dulian.store import ModelStore

        return open_profile(
            find_profile(self.profile),
            ModelStore(model_dir=self.model_dir, offline=self.offline),
            engine=self.engine,
            workers=workers,
            precision=self.precision,
            tiles=self.tiles,
        )
