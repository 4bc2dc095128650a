"""A thread that watches the others: for work that never ends, and for an event loop that no longer turns.

Neither can be mended from within, so the process ends, and whoever started it starts it again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from dulian.service.compute import ComputePool
from dulian.service.log import log_event

EXIT_HUNG = 70  # sysexits.h: an internal software error
INTERVAL_S = 1.0
# Work may take this long, or so many times as long as all but the slowest hundredth of it usually does.
PATIENCE_S = 30.0
USUAL_SHARE = 0.99
USUAL_TIMES = 10


class Watchdog:
    """Watches a pool's threads and the loop it was started on; on a hang it ends the process with ``EXIT_HUNG``.

    A hung thread leaves the others time to finish: ``on_hang`` is told, in the watchdog's own thread, to bring about
    an orderly end, and :meth:`stop` is awaited for ``end_within_s``. Under a hung loop nobody could finish anything.
    A native call is seen to hang if it has released Python's lock, as those of the engines and decoders do.
    """

    def __init__(
        self,
        pool: ComputePool,
        *,
        on_hang: Callable[[], None],
        end_within_s: float,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._pool = pool
        self._on_hang = on_hang
        self._end_within_s = end_within_s
        self._end = end
        self._stopped = threading.Event()
        self._turned = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch; called on the loop that is to be watched."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.current_thread()
        self._thread.start()

    def stop(self) -> None:
        """End the watch; does not return if it has found something, because that ends the process."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        found = self._watch()
        if found is None:
            return
        thread, seconds = found
        log_event(
            "watchdog",
            level=logging.CRITICAL,
            thread=thread.name,
            seconds=round(seconds, 1),
            stack=stack_of(thread),
        )
        self._on_hang()
        if thread is not self._loop_thread:
            self._stopped.wait(self._end_within_s)
        self._end(EXIT_HUNG)

    def _watch(self) -> tuple[threading.Thread, float] | None:
        """The thread that hangs and for how long it was seen to; None if the watch ended before."""
        work, silence = Stopwatch(), Stopwatch()
        heartbeat = 0
        self._turned.set()
        before = time.monotonic()
        while not self._stopped.wait(INTERVAL_S):
            now = time.monotonic()
            # A process that was stopped for an hour has not been at work for an hour.
            elapsed_s = min(now - before, 2 * INTERVAL_S)
            before = now
            if self._turned.is_set():
                heartbeat += 1
                self._turned.clear()
                try:
                    self._loop.call_soon_threadsafe(self._turned.set)
                except RuntimeError:  # the loop is closed: the service has ended
                    return None
            if silence.watch(heartbeat, elapsed_s) > PATIENCE_S:
                return self._loop_thread, silence.seconds
            longest = self._pool.longest_at_work()
            if longest is None:
                work.watch(None, 0.0)
            elif work.watch(longest, elapsed_s) > PATIENCE_S and work.seconds > self._allowed_s():
                return longest[0], work.seconds
        return None

    def _allowed_s(self) -> float:
        return USUAL_TIMES * self._pool.usual_s(USUAL_SHARE)


class Stopwatch:
    """For how long something has stayed the same, as far as it was watched."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._same: object = None

    def watch(self, state: object, elapsed_s: float) -> float:
        self.seconds = self.seconds + elapsed_s if state == self._same else 0.0
        self._same = state
        return self.seconds


def stack_of(thread: threading.Thread) -> list[str]:
    """Where a thread's Python code stands, outermost call first: modules, functions and line numbers, nothing else."""
    frame: FrameType | None = sys._current_frames().get(thread.ident or 0)
    stack: list[str] = []
    while frame is not None:
        stack.append(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}:{frame.f_lineno}")
        frame = frame.f_back
    return stack[::-1]
