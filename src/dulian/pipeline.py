"""One picture from bytes to result, for any transport and any thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from dulian.analyzer import DEFAULT_OPTIONS, AnalyzeOptions, Analyzer
from dulian.faces import AnalysisResult
from dulian.image import DecodedImage, Image, ImageLimits, decode_image


class Pipeline:
    """Decoding limits round an analyzer per thread; safe to call from any thread.

    ``new_analyzer`` is called once in every thread that analyses something.
    """

    def __init__(self, new_analyzer: Callable[[], Analyzer], *, limits: ImageLimits) -> None:
        self._new_analyzer = new_analyzer
        self._limits = limits
        self._local = threading.local()

    def decode(self, data: bytes) -> DecodedImage:
        """Bytes to an upright BGR picture, or an InputError (see :func:`dulian.image.decode_image`)."""
        return decode_image(data, limits=self._limits)

    def analyze(self, data: bytes, options: AnalyzeOptions = DEFAULT_OPTIONS) -> tuple[AnalysisResult, Image]:
        """Decode and analyse; the picture comes along for those who want to draw on it."""
        started = time.perf_counter()
        decoded = self.decode(data)
        decode_ms = (time.perf_counter() - started) * 1000
        result = self.analyze_image(decoded.image, options, incomplete=decoded.incomplete)
        timings = replace(result.timings_ms, decode=decode_ms, total=result.timings_ms.total + decode_ms)
        return replace(result, timings_ms=timings), decoded.image

    def analyze_image(
        self, image: Image, options: AnalyzeOptions = DEFAULT_OPTIONS, *, incomplete: bool = False
    ) -> AnalysisResult:
        """Analyse an upright BGR picture with the calling thread's own analyzer."""
        return self.analyzer().analyze(image, options, incomplete=incomplete)

    def analyzer(self) -> Analyzer:
        """The calling thread's analyzer, made on first use."""
        analyzer: Analyzer | None = getattr(self._local, "analyzer", None)
        if analyzer is None:
            analyzer = self._local.analyzer = self._new_analyzer()
        return analyzer
