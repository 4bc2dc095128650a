"""A breaker before something that may fail: after several failures in a row nobody asks it for a while."""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Closed, everybody may ask. After ``failures`` in a row it opens, and after ``pause_s`` one may try.

    That one closes it, or begins another pause. ``changed`` hears of each opening, with its reason, and of each
    closing, with None. Whoever was allowed to ask tells what came of it. Belongs to one event loop.
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        pause_s: float = 1.0,
        changed: Callable[[str | None], object] = lambda reason: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = failures
        self._pause_s = pause_s
        self._changed = changed
        self._clock = clock
        self._in_a_row = 0
        self._try_at = 0.0
        self.is_open = False

    def allows(self) -> bool:
        """Whether one may ask now; once it is open, it says so to one in each pause."""
        if not self.is_open:
            return True
        now = self._clock()
        if now < self._try_at:
            return False
        self._try_at = now + self._pause_s  # should this one never tell, another may try
        return True

    def succeeded(self) -> None:
        """It answered in time."""
        self._in_a_row = 0
        if self.is_open:
            self.is_open = False
            self._changed(None)

    def failed(self, reason: str) -> None:
        """It did not; ``reason`` is a word or two."""
        self._in_a_row += 1
        if self._in_a_row < self._most:
            return
        self._try_at = self._clock() + self._pause_s
        if not self.is_open:
            self.is_open = True
            self._changed(reason)
