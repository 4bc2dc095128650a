"""Memory for large pictures: so many pixels at a time for all threads of the process together.

Whoever decodes asks for room. It is given back when the picture is decoded, unless the thread is in :func:`keeping`:
then at the end of that, so that a picture counts for as long as it is worked on.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dulian.errors import DeadlineError

PIXELS_AT_ONCE: Final = 40_000_000
"""Of pictures of that size the decoders hold up to 305 MB, and who draws on one 230."""

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
                    raise DeadlineError("other large pictures had the memory for this one until its deadline passed")
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
    """What a thread keeps: how long it may wait for room, if it is in ``keeping``, and how much it has."""

    keeps = False
    timeout_s: float | None = None
    pixels = 0


ROOM = Room(PIXELS_AT_ONCE)
_own = _Own()


@contextmanager
def keeping(timeout_s: float | None = None) -> Iterator[None]:
    """Within, the room of every picture that this thread decodes stays taken; it waits at most so long for it."""
    _own.keeps, _own.timeout_s = True, timeout_s
    try:
        yield
    finally:
        kept, _own.pixels = _own.pixels, 0
        _own.keeps, _own.timeout_s = False, None
        if kept:
            ROOM.give_back(kept)


@contextmanager
def room_for(pixels: int) -> Iterator[None]:
    """Room to decode a picture; a thread that has as much already, or has any, does not wait for more.

    Raises:
        DeadlineError: There was none in the time that :func:`keeping` allows.
    """
    if pixels <= max(SMALL_PICTURE_PIXELS, _own.pixels) or _own.pixels:
        yield
        return
    taken = ROOM.take(pixels, _own.timeout_s)
    if _own.keeps:
        _own.pixels = taken
        yield
        return
    try:
        yield
    finally:
        ROOM.give_back(taken)
