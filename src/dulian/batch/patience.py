"""How long, and how often, something that fails is tried again."""

from __future__ import annotations

import random
import time

_FIRST_S, _LONGEST_S = 0.2, 5.0


class Patience:
    """Waits longer from one failure to the next, scattered, so that many who failed together do not come together."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._next_s = _FIRST_S

    def wait(self) -> bool:
        """Wait until the next try is due; False, at once, if that is later than there is patience for."""
        pause_s = self._next_s * random.uniform(0.5, 1.0)
        self._next_s = min(2 * self._next_s, _LONGEST_S)
        if time.monotonic() + pause_s > self._until:
            return False
        time.sleep(pause_s)
        return True
