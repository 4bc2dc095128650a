"""What one running service consists of, made once and handed to whoever needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dulian.analyzer import AnalyzeOptions
from dulian.faces import AnalysisResult, ModelInfo
from dulian.image import Image, ImageLimits
from dulian.messages import Language
from dulian.models.rows import ModelRow
from dulian.service.admission import Admission
from dulian.service.compute import ComputePool
from dulian.service.limits import ServiceLimits
from dulian.service.traffic import ProcessUse, Traffic

Analyze = Callable[[bytes, AnalyzeOptions], tuple[AnalysisResult, Callable[[], Image]]]


@dataclass(slots=True, eq=False, kw_only=True)
class Service:
    """The pieces behind the routes; ``draining`` is the only thing about it that changes."""

    analyze: Analyze
    pool: ComputePool
    admission: Admission
    limits: ServiceLimits
    image_limits: ImageLimits
    model: ModelInfo
    networks: tuple[ModelRow, ...] = ()
    language: Language = "en"
    memory_limit_bytes: int | None = None
    traffic: Traffic = field(default_factory=Traffic)
    process: ProcessUse = field(default_factory=ProcessUse)
    draining: bool = False
