"""The threads that compute: each owns its analyzer, all take jobs from one queue in the order they came."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from dulian.errors import DeadlineError
from dulian.room import keeping
from dulian.service.log import log_event

Outcome = tuple[Any, BaseException | None]
REST_AFTER_S = 30.0
EXPIRED = "the deadline passed before an answer was ready"
# Of so many jobs it is remembered how long they took.
MAX_DURATIONS = 512


class Job:
    """One piece of work for a compute thread; ``settle`` hears of its end on the loop, once, unless it was withdrawn.

    It gets the outcome and how many seconds the work took, None if it was never begun.
    """

    __slots__ = ("begun_at", "deadline", "loop", "made_at", "owner", "settle", "work")

    def __init__(
        self,
        work: Callable[[], Any],
        *,
        deadline: float,
        loop: asyncio.AbstractEventLoop,
        settle: Callable[[Outcome, float | None], None],
        owner: str | None = None,
    ) -> None:
        self.work = work
        self.owner = owner
        self.deadline = deadline
        self.loop = loop
        self.settle = settle
        self.made_at = time.monotonic()
        self.begun_at: float | None = None

    @property
    def waited_s(self) -> float:
        """From when it was made until it was begun, or until now if it is not."""
        return (time.monotonic() if self.begun_at is None else self.begun_at) - self.made_at


class _Worker:
    """One thread: since when it has been at one piece of work, and whether it has given up what it owns."""

    __slots__ = ("at_work_since", "renewals", "thread", "unloaded")

    def __init__(self, name: str, run: Callable[[_Worker], None]) -> None:
        self.thread = threading.Thread(target=run, args=(self,), name=name, daemon=True)
        self.at_work_since: float | None = None
        self.unloaded = False
        self.renewals = 0


class ComputePool:
    """A fixed number of threads over one queue. How long the queue may get is the caller's to say."""

    def __init__(
        self,
        workers: int,
        prepare: Callable[[], object],
        *,
        rest: Callable[[], object] = lambda: None,
        unload: Callable[[], object] = lambda: None,
        unload_after_s: float = math.inf,
        renew: Callable[[], object] = lambda: None,
    ) -> None:
        """``prepare`` runs in every thread before its first job: it makes and warms what the thread owns.

        ``rest`` runs in one thread, once, whenever there was nothing to do for a while. ``unload`` runs in every
        thread, once, when there was nothing to do for ``unload_after_s``: the thread's next job finds nothing prepared.
        ``renew`` runs, after :meth:`renew`, in every thread that has something prepared, before its next job.
        """
        self.workers = workers
        self._prepare = prepare
        self._rest = rest
        self._rested = False
        self._unload = unload
        self._unload_after_s = unload_after_s
        self._renew = renew
        self._renewals = 0
        self._idle_since = time.monotonic()
        self._durations: deque[float] = deque(maxlen=MAX_DURATIONS)
        self._waiting: deque[Job] = deque()
        self._waiting_of: Counter[str | None] = Counter()
        self._changed = threading.Condition()
        self._busy = 0
        self._closing = False
        self._prepared: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._workers = [_Worker(f"compute-{number}", self._run) for number in range(workers)]

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def queued_of(self, owner: str) -> int:
        """How many of the queued jobs are one owner's."""
        return self._waiting_of[owner]

    @property
    def busy(self) -> int:
        return self._busy

    def longest_at_work(self) -> tuple[threading.Thread, float] | None:
        """The thread that has been at one piece of work for longest, and since when; None if all are idle."""
        begun = [(worker.thread, since) for worker in self._workers if (since := worker.at_work_since) is not None]
        return min(begun, key=lambda one: one[1], default=None)

    def usual_s(self, share: float) -> float:
        """Seconds within which that share of the newest jobs was done; 0 before the first."""
        with self._changed:
            durations = sorted(self._durations)
        return durations[min(len(durations) - 1, int(share * len(durations)))] if durations else 0.0

    def start(self) -> None:
        """Start all threads and return when every one is prepared.

        Raises:
            BaseException: The first failure to prepare, as it was raised there.
        """
        for worker in self._workers:
            worker.thread.start()
        failures = [self._prepared.get() for _ in self._workers]
        for failure in failures:
            if failure is not None:
                self.close()
                raise failure

    def renew(self) -> None:
        """Have every thread make anew what it owns."""
        with self._changed:
            self._renewals += 1
            self._changed.notify_all()

    def submit(self, job: Job) -> None:
        with self._changed:
            self._waiting.append(job)
            self._waiting_of[job.owner] += 1
            self._changed.notify()

    def withdraw(self, job: Job) -> bool:
        """Take a job back; False if a thread has it already."""
        with self._changed:
            try:
                self._waiting.remove(job)
            except ValueError:
                return False
            self._forget_owner(job)
            return True

    def _forget_owner(self, job: Job) -> None:
        self._waiting_of[job.owner] -= 1
        if not self._waiting_of[job.owner]:
            del self._waiting_of[job.owner]

    def close(self, timeout_s: float = 5.0) -> None:
        """End the threads when the queue is empty."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        until = time.monotonic() + timeout_s
        for worker in self._workers:
            worker.thread.join(max(0.0, until - time.monotonic()))

    def _run(self, worker: _Worker) -> None:
        try:
            self._prepare()
        except BaseException as error:  # noqa: BLE001 - carried to start(), which raises it
            self._prepared.put(error)
            return
        self._prepared.put(None)
        while self._serve_one(worker):
            pass

    def _serve_one(self, worker: _Worker) -> bool:
        """Wait for a job and do it; False at the end."""
        job = self._take(worker)
        if job is None:
            return False
        started = worker.at_work_since = time.monotonic()
        took: float | None = None
        if started >= job.deadline:
            outcome: Outcome = None, DeadlineError(EXPIRED)
        else:
            job.begun_at = started
            with keeping(job.deadline - started):  # a large picture stays until it is drawn, and written down
                outcome = _attempt(job.work)
            took = time.monotonic() - started
        worker.at_work_since = None
        with self._changed:
            self._busy -= 1
            self._idle_since = time.monotonic()
            if took is not None:
                self._durations.append(took)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            job.loop.call_soon_threadsafe(job.settle, outcome, took)
        # The frame of failed work leads back to this one: with the error in it, that would be a ring round the body.
        del job, outcome
        return True

    def _take(self, worker: _Worker) -> Job | None:
        """The next job, waited for; None at the end. What is to be done in long pauses is done in between."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._has_something_for(worker), self._patience_s(worker))
                chore = self._renewal_due(worker)
                if chore is None and self._waiting:
                    self._busy += 1
                    self._rested = worker.unloaded = False
                    job = self._waiting.popleft()
                    self._forget_owner(job)
                    return job
                if self._closing:
                    return None
                chore = chore or self._next_chore(worker)
            if chore is not None:
                worker.at_work_since = time.monotonic()
                error = _attempt(chore)[1]
                worker.at_work_since = None
                if error is not None:  # a pause is no reason for a thread to end
                    log_event("pause_failed", level=logging.ERROR, error=error)

    def _has_something_for(self, worker: _Worker) -> bool:
        return bool(self._waiting) or self._closing or worker.renewals != self._renewals

    def _renewal_due(self, worker: _Worker) -> Callable[[], object] | None:
        if worker.renewals == self._renewals:
            return None
        worker.renewals = self._renewals
        return None if worker.unloaded else self._renew

    def _patience_s(self, worker: _Worker) -> float | None:
        """How long to wait for a job before there is something else to do; None for as long as it takes."""
        dues = ([] if self._rested else [REST_AFTER_S]) + ([] if worker.unloaded else [self._unload_after_s])
        due = min(dues, default=math.inf)
        if due == math.inf:
            return None
        return due if self._busy else max(0.0, self._idle_since + due - time.monotonic())

    def _next_chore(self, worker: _Worker) -> Callable[[], object] | None:
        """What the length of the pause asks of this thread now."""
        idle_s = 0.0 if self._busy else time.monotonic() - self._idle_since
        if not worker.unloaded and idle_s >= self._unload_after_s:
            worker.unloaded = True
            return self._unload
        if not self._rested and idle_s >= REST_AFTER_S:
            self._rested = True
            return self._rest
        return None


def _attempt(work: Callable[[], Any]) -> Outcome:
    try:
        return work(), None
    except BaseException as error:  # noqa: BLE001 - carried to the waiting request, which raises it
        return None, error
