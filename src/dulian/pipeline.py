"""One picture from bytes to result, for any transport and any thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

from dulian.analyzer import DEFAULT_OPTIONS, AnalyzeOptions, Analyzer, FullPicture
from dulian.faces import AnalysisResult
from dulian.image import Image, ImageLimits, open_picture


class Pipeline:
    """Decoding limits round an analyzer per thread; safe to call from any thread.

    ``new_analyzer`` is called once in every thread that analyses something, and so is ``new_solo_analyzer``, whose
    analyzers use all cores: they get the pictures that come while no other one is being analysed. ``warm`` has them run
    on blank pictures first, for callers who would rather wait at the start than at the first picture.
    """

    def __init__(
        self,
        new_analyzer: Callable[[], Analyzer],
        *,
        limits: ImageLimits,
        warm: bool = False,
        new_solo_analyzer: Callable[[], Analyzer] | None = None,
    ) -> None:
        self._new_analyzer = new_analyzer
        self._new_solo_analyzer = new_solo_analyzer
        self._warm = warm
        self._limits = limits
        self._local = threading.local()
        self._counting = threading.Lock()
        self._pictures = 0

    def analyze(
        self, data: bytes, options: AnalyzeOptions = DEFAULT_OPTIONS
    ) -> tuple[AnalysisResult, Callable[[], Image]]:
        """Decode and analyse; the full-size picture is there for those who want to draw on it.

        Raises:
            InputError: The picture is refused (see :func:`dulian.image.decode_image`).
        """
        with self._counted() as alone:
            return self._analyze(data, options, alone)

    def _analyze(self, data: bytes, options: AnalyzeOptions, alone: bool) -> tuple[AnalysisResult, Callable[[], Image]]:
        started = time.perf_counter()
        picture = open_picture(data, limits=self._limits)
        sniff_ms = (time.perf_counter() - started) * 1000
        analyzer = self.analyzer(alone)
        decoded = picture.decode(analyzer.reduction_for(picture.wh, picture.reductions), own_colours=True)
        decode_ms = (time.perf_counter() - started) * 1000
        full = None
        if decoded.image.shape[1::-1] != picture.wh:
            full = FullPicture(
                picture.wh, lambda factor: picture.decode(factor, own_colours=True).image, picture.reductions
            )
        result = analyzer.analyze(
            decoded.image, options, incomplete=decoded.incomplete, full=full, to_srgb=decoded.to_srgb
        )
        complete = full is None and decoded.to_srgb is None
        load = cache(lambda: decoded.image if complete else picture.decode().image)
        timings = result.timings_ms
        timings = replace(timings, decode=timings.decode + decode_ms, total=timings.total + decode_ms, sniff=sniff_ms)
        return replace(result, timings_ms=timings), load

    def analyze_image(
        self, image: Image, options: AnalyzeOptions = DEFAULT_OPTIONS, *, incomplete: bool = False
    ) -> AnalysisResult:
        """Analyse an upright BGR picture with the calling thread's own analyzer."""
        with self._counted() as alone:
            return self.analyzer(alone).analyze(image, options, incomplete=incomplete)

    def prepare(self) -> None:
        """Make the calling thread's analyzers now, and warm them if they are to be warm."""
        self.analyzer()
        self.analyzer(alone=True)

    def release(self) -> None:
        """Drop the calling thread's analyzers; its next picture has new ones made."""
        vars(self._local).clear()

    def analyzer(self, alone: bool = False) -> Analyzer:
        """The calling thread's analyzer, made on first use; of two kinds where there are two."""
        kind, make = "shared", self._new_analyzer
        if alone and self._new_solo_analyzer is not None:
            kind, make = "solo", self._new_solo_analyzer
        analyzer: Analyzer | None = getattr(self._local, kind, None)
        if analyzer is None:
            analyzer = make()
            if self._warm:
                analyzer.warm_up()
            setattr(self._local, kind, analyzer)
        return analyzer

    @contextmanager
    def _counted(self) -> Iterator[bool]:
        """Count a picture while it is worked on; whether it is the only one now."""
        with self._counting:
            self._pictures += 1
            alone = self._pictures == 1
        try:
            yield alone
        finally:
            with self._counting:
                self._pictures -= 1
