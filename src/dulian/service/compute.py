"""The threads that compute: each owns its analyzer, all take jobs from one queue in the order they came."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from dulian.errors import DeadlineError

Outcome = tuple[Any, BaseException | None]
REST_AFTER_S = 30.0
EXPIRED = "the deadline passed before an answer was ready"


class Job:
    """One piece of work for a compute thread; ``settle`` hears of its end on the loop, once, unless it was withdrawn.

    It gets the outcome and how many seconds the work took, None if it was never begun.
    """

    __slots__ = ("deadline", "loop", "settle", "work")

    def __init__(
        self,
        work: Callable[[], Any],
        *,
        deadline: float,
        loop: asyncio.AbstractEventLoop,
        settle: Callable[[Outcome, float | None], None],
    ) -> None:
        self.work = work
        self.deadline = deadline
        self.loop = loop
        self.settle = settle


class ComputePool:
    """A fixed number of threads over one queue. How long the queue may get is the caller's to say."""

    def __init__(
        self, workers: int, prepare: Callable[[], object], *, rest: Callable[[], object] = lambda: None
    ) -> None:
        """``prepare`` runs in every thread before its first job: it makes and warms what the thread owns.

        ``rest`` runs in one thread, once, whenever there was nothing to do for a while.
        """
        self.workers = workers
        self._prepare = prepare
        self._rest = rest
        self._rested = False
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._busy = 0
        self._closing = False
        self._prepared: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"compute-{number}", daemon=True) for number in range(workers)
        ]

    @property
    def queued(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> int:
        return self._busy

    def start(self) -> None:
        """Start all threads and return when every one is prepared.

        Raises:
            BaseException: The first failure to prepare, as it was raised there.
        """
        for thread in self._threads:
            thread.start()
        failures = [self._prepared.get() for _ in self._threads]
        for failure in failures:
            if failure is not None:
                self.close()
                raise failure

    def submit(self, job: Job) -> None:
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()

    def withdraw(self, job: Job) -> bool:
        """Take a job back; False if a thread has it already."""
        with self._changed:
            try:
                self._waiting.remove(job)
            except ValueError:
                return False
            return True

    def close(self, timeout_s: float = 5.0) -> None:
        """End the threads when the queue is empty."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        try:
            self._prepare()
        except BaseException as error:  # noqa: BLE001 - carried to start(), which raises it
            self._prepared.put(error)
            return
        self._prepared.put(None)
        while self._serve_one():
            pass

    def _serve_one(self) -> bool:
        """Wait for a job and do it; False at the end."""
        job = self._take()
        if job is None:
            return False
        started = time.monotonic()
        took: float | None = None
        if started >= job.deadline:
            outcome: Outcome = None, DeadlineError(EXPIRED)
        else:
            outcome = _attempt(job.work)
            took = time.monotonic() - started
        with self._changed:
            self._busy -= 1
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            job.loop.call_soon_threadsafe(job.settle, outcome, took)
        # The frame of failed work leads back to this one: with the error in it, that would be a ring round the body.
        del job, outcome
        return True

    def _take(self) -> Job | None:
        """The next job, waited for; None at the end. Who first notices that all were idle for long calls a rest."""
        while True:
            with self._changed:
                patience = None if self._rested else REST_AFTER_S
                self._changed.wait_for(lambda: self._waiting or self._closing, patience)
                if self._waiting:
                    self._busy += 1
                    self._rested = False
                    return self._waiting.popleft()
                if self._closing:
                    return None
                if self._rested or self._busy:
                    continue
                self._rested = True
            self._rest()


def _attempt(work: Callable[[], Any]) -> Outcome:
    try:
        return work(), None
    except BaseException as error:  # noqa: BLE001 - carried to the waiting request, which raises it
        return None, error
