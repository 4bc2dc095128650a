"""A process that computes ranges for a driver on the same machine, and what the two say to each other.

It is told a range and the name of its attempt, two of them at most at a time. It says READY once, and of each range
what it has TOLD, that all of it is READ, and at last DONE, BACK or FAILED. When its driver is gone it ends, and it
leaves Ctrl-C to the driver.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from dulian.batch.records import Record
from dulian.batch.shards import Range
from dulian.batch.tally import brief
from dulian.batch.work import Orders, StoppedError, Worker
from dulian.errors import DulianError

READY, TOLD, READ, DONE, BACK, FAILED = "ready", "told", "read", "done", "back", "failed"
RANGES_AT_ONCE = 2
# How long a picture that is being computed may go on after its driver has ended.
_LAST_PICTURE_S = 10.0
_OUT_OF_MEMORY_FIRST = "500"


def main(channel: Connection, orders: Orders) -> None:
    """Compute what comes through the channel until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _volunteer()
    _prepare_libraries()
    mouth = _Mouth(channel)
    try:
        worker = Worker(orders)
    except DulianError as error:
        mouth.say(FAILED, None, error)
        return
    mouth.say(READY, None)
    with ThreadPoolExecutor(RANGES_AT_ONCE, thread_name_prefix="dulian-range") as pool:
        with suppress(EOFError, OSError):
            while True:
                pool.submit(_work, worker, mouth, *channel.recv()).add_done_callback(_die_of_defects)
        worker.stop()
        _end_soon()
    worker.close()


class _Mouth:
    """The way to the driver, for several threads; what is said after its end is lost."""

    def __init__(self, channel: Connection) -> None:
        self._channel = channel
        self._lock = threading.Lock()

    def say(self, what: str, part: Range | None, more: Any = None) -> None:
        with self._lock, suppress(OSError):
            self._channel.send((what, part, more))


def _work(worker: Worker, mouth: _Mouth, part: Range, attempt: str) -> None:
    def told(record: Record) -> None:
        mouth.say(TOLD, part, brief(record))

    try:
        worker.run(part, attempt, told, read=lambda: mouth.say(READ, part))
    except StoppedError:
        mouth.say(BACK, part)
    except DulianError as error:
        mouth.say(FAILED, part, error)
    else:
        mouth.say(DONE, part)


def _die_of_defects(working: Future[None]) -> None:
    """What a library lets out is taken for what it is: a crash, of this picture or by chance."""
    if error := working.exception():
        sys.excepthook(type(error), error, error.__traceback__)
        os._exit(1)


def _end_soon() -> None:
    """Let a picture come to its end, but not for ever."""
    timer = threading.Timer(_LAST_PICTURE_S, os._exit, (0,))
    timer.daemon = True
    timer.start()


def _volunteer() -> None:
    """If memory runs out, this process shall end and not its driver, which then starts another one."""
    if sys.platform == "linux":
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write(_OUT_OF_MEMORY_FIRST)


def _prepare_libraries() -> None:
    from dulian.machine import tune_malloc
    from dulian.quiet import forbid_reports
    from dulian.settings import guard_opencv

    guard_opencv()
    forbid_reports()
    tune_malloc()
