"""One picture from bytes to result, for any transport and any thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from dulian.analyzer import DEFAULT_OPTIONS, AnalyzeOptions, Analyzer, FullPicture
from dulian.faces import AnalysisResult
from dulian.image import Image, ImageLimits, open_picture


class Pipeline:
    """Decoding limits round an analyzer per thread; safe to call from any thread.

    ``new_analyzer`` is called once in every thread that analyses something; ``warm`` has it run on blank
    pictures first, for callers who would rather wait at the start than at the first picture.
    """

    def __init__(self, new_analyzer: Callable[[], Analyzer], *, limits: ImageLimits, warm: bool = False) -> None:
        self._new_analyzer = new_analyzer
        self._warm = warm
        self._limits = limits
        self._local = threading.local()

    def analyze(
        self, data: bytes, options: AnalyzeOptions = DEFAULT_OPTIONS
    ) -> tuple[AnalysisResult, Callable[[], Image]]:
        """Decode and analyse; the full-size picture is there for those who want to draw on it.

        Raises:
            InputError: The picture is refused (see :func:`dulian.image.decode_image`).
        """
        started = time.perf_counter()
        picture = open_picture(data, limits=self._limits)
        analyzer = self.analyzer()
        decoded = picture.decode(analyzer.reduction_for(picture.wh, picture.reductions))
        full = cache(lambda: picture.decode().image)
        decode_ms = (time.perf_counter() - started) * 1000
        if decoded.image.shape[1::-1] == picture.wh:
            result, load = (
                analyzer.analyze(decoded.image, options, incomplete=decoded.incomplete),
                lambda: decoded.image,
            )
        else:
            behind, load = FullPicture(picture.wh, full), full
            result = analyzer.analyze(decoded.image, options, incomplete=decoded.incomplete, full=behind)
        timings = result.timings_ms
        timings = replace(timings, decode=timings.decode + decode_ms, total=timings.total + decode_ms)
        return replace(result, timings_ms=timings), load

    def analyze_image(
        self, image: Image, options: AnalyzeOptions = DEFAULT_OPTIONS, *, incomplete: bool = False
    ) -> AnalysisResult:
        """Analyse an upright BGR picture with the calling thread's own analyzer."""
        return self.analyzer().analyze(image, options, incomplete=incomplete)

    def analyzer(self) -> Analyzer:
        """The calling thread's analyzer, made on first use."""
        analyzer: Analyzer | None = getattr(self._local, "analyzer", None)
        if analyzer is None:
            analyzer = self._new_analyzer()
            if self._warm:
                analyzer.warm_up()
            self._local.analyzer = analyzer
        return analyzer
