"""What one running service consists of, made once and handed to whoever needs it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dulian.analyzer import AnalyzeOptions
from dulian.errors import DrainingError, OverloadedError
from dulian.faces import AnalysisResult, ModelInfo
from dulian.image import Image, ImageLimits
from dulian.messages import Language
from dulian.models.rows import ModelRow
from dulian.service.access import Access
from dulian.service.admission import Admission
from dulian.service.cache import SharedResults
from dulian.service.compute import ComputePool
from dulian.service.images import KeptPictures
from dulian.service.limits import GuardLimits, ServiceLimits
from dulian.service.metrics import Metrics
from dulian.service.start import Share
from dulian.service.traffic import ProcessUse, Traffic

if TYPE_CHECKING:
    from dulian.service.tracing.spans import Spans

# A queue may be full for a moment; for longer, others should get the work.
FULL_QUEUE_S = 5.0

Analyze = Callable[[bytes, AnalyzeOptions], tuple[AnalysisResult, Callable[[], Image]]]


@dataclass(slots=True, eq=False, kw_only=True)
class Service:
    """The pieces behind the routes. Only the ways to an end (``draining``, ``retiring``, ``hung``) and streams vary.

    ``batch_places`` are for pictures that come several at once: each needs one, so that no more of them are in the
    queue than there are threads.
    """

    analyze: Analyze
    pool: ComputePool
    admission: Admission
    results: SharedResults | None = None
    limits: ServiceLimits
    image_limits: ImageLimits
    guard_limits: GuardLimits = field(default_factory=GuardLimits)
    model: ModelInfo
    networks: tuple[ModelRow, ...] = ()
    samples: Mapping[str, Path] = field(default_factory=dict)
    language: Language = "en"
    memory_limit_bytes: int | None = None
    share: Share = field(default_factory=Share)
    access: Access = field(default_factory=Access)
    origins: frozenset[str] = frozenset()
    tracing: Spans | None = None
    renew: Callable[[], None] | None = None
    traffic: Traffic = field(default_factory=Traffic)
    process: ProcessUse = field(default_factory=ProcessUse)
    draining: bool = False
    retiring: bool = False
    hung: bool = False
    streams: int = 0
    streams_of: Counter[str] = field(default_factory=Counter)
    batch_places: asyncio.Semaphore = field(init=False)
    metrics: Metrics = field(init=False)
    pictures: KeptPictures = field(init=False)

    def __post_init__(self) -> None:
        self.batch_places = asyncio.Semaphore(self.pool.workers)
        self.pictures = KeptPictures(self.limits, self.share.pictures)
        self.metrics = self.admission.metrics
        self.metrics.watch(self)
        if self.tracing is not None:
            self.tracing.tell_losses(lambda count: self.metrics.lost_spans.inc(count))
        self.analyze = self.metrics.measured(self.analyze)

    @property
    def breaker_open(self) -> bool:
        """Whether a tier of the cache is not asked at present, because it failed; that makes nothing unready."""
        return self.results is not None and self.results.breaker_open

    @property
    def unready(self) -> OverloadedError | None:
        """Why new work is not welcome now; None if it is."""
        if self.draining:
            return DrainingError("the service is about to end")
        if self.admission.full_for_s > FULL_QUEUE_S:
            message = f"the queue has been full for more than {FULL_QUEUE_S:g} seconds"
            return OverloadedError(message, wait_s=self.admission.expected_wait_s)
        return None
