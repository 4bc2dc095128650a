"""An estimator in a thread of its own, so that two networks can read the same faces at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from dulian.image import Image
from dulian.models import AttributeEstimator, AttributeScores


class SideEstimator:
    """Wraps an estimator that is made, and always run, in one other thread; its session belongs there."""

    def __init__(self, make: Callable[[], AttributeEstimator]) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="side")
        self._estimator = self._thread.submit(make).result()
        self.name = self._estimator.name
        self.provides = self._estimator.provides
        self.crop = self._estimator.crop
        self.max_batch = self._estimator.max_batch

    def begin(self, crops: Sequence[Image]) -> Future[AttributeScores]:
        """Start :meth:`estimate` and return at once."""
        return self._thread.submit(self._estimator.estimate, crops)

    def estimate(self, crops: Sequence[Image]) -> AttributeScores:
        """See :class:`dulian.models.AttributeEstimator`."""
        return self.begin(crops).result()
