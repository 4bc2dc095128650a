"""Memory for large pictures: so many pixels at a time, for all threads of the process together.

Whoever decodes asks for room, and gives it back when the picture is decoded. A thread in :func:`keeping` gives it back
at the end of that, so that a picture counts for as long as it is worked on.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dulian.errors import DeadlineError

PIXELS_AT_ONCE: Final = 40_000_000
"""So large, an ordinary picture takes 115 to 270 MB while it is decoded, and 230 while it is drawn on."""

SMALL_PICTURE_PIXELS: Final = 2_000_000
"""Up to here nobody asks: most pictures never wait for each other."""


class Room:
    """Pixels that are left, given in the order in which threads ask; a picture larger than all of it gets all of it."""

    def __init__(self, pixels: int) -> None:
        self._pixels = self._free = pixels
        self._changed = threading.Condition()
        self._asking: deque[object] = deque()

    @property
    def free(self) -> int:
        return self._free

    @property
    def asking(self) -> int:
        """How many threads wait."""
        return len(self._asking)

    def take(self, pixels: int, timeout_s: float | None = None) -> int:
        """Wait for room; how much of it was taken.

        Raises:
            DeadlineError: There was none in time.
        """
        wanted, turn = min(pixels, self._pixels), object()
        with self._changed:
            self._asking.append(turn)
            try:
                if not self._changed.wait_for(lambda: self._asking[0] is turn and self._free >= wanted, timeout_s):
                    raise DeadlineError("larger pictures had the memory that this one needs until its deadline passed")
                self._free -= wanted
            finally:
                self._asking.remove(turn)
                self._changed.notify_all()
        return wanted

    def give_back(self, pixels: int) -> None:
        with self._changed:
            self._free += pixels
            self._changed.notify_all()


class _Own(threading.local):
    """One thread's part: whether it is in :func:`keeping`, how long it then waits for room, and how much it has."""

    keeps = False
    timeout_s: float | None = None
    pixels = 0


_room = Room(PIXELS_AT_ONCE)
_own = _Own()


@contextmanager
def keeping(timeout_s: float) -> Iterator[None]:
    """Within, this thread keeps the room of what it decodes, and waits for it at most so long."""
    _own.keeps, _own.timeout_s = True, timeout_s
    try:
        yield
    finally:
        _own.keeps, _own.timeout_s = False, None
        _give_back()


@contextmanager
def room_for(pixels: int) -> Iterator[None]:
    """Room to decode a picture in, unless it is small or this thread has as much.

    Raises:
        DeadlineError: There was none in the time that :func:`keeping` allows.
    """
    if pixels > max(SMALL_PICTURE_PIXELS, _own.pixels):
        _give_back()  # threads that had some and waited for more could wait for each other
        _own.pixels = _room.take(pixels, _own.timeout_s)
    try:
        yield
    finally:
        if not _own.keeps:
            _give_back()


def _give_back() -> None:
    had, _own.pixels = _own.pixels, 0
    if had:
        _room.give_back(had)
