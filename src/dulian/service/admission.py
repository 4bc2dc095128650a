"""Who may come in: bounded queue, bounded bytes, and no work that cannot be done in time.

Everything here runs on the event loop; only the work itself runs in a compute thread. Clocks are monotonic.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from dulian.errors import DeadlineError, OverloadedError
from dulian.service.body import ClientGone, Receive
from dulian.service.compute import EXPIRED, ComputePool, Job, Outcome
from dulian.service.limits import ServiceLimits

T = TypeVar("T")

# The share of the newest work in the expected service time.
EWMA_SHARE = 0.1
# An idle pool takes one job per so many seconds whatever the estimate says: only finished work can lower it again.
PROBE_INTERVAL_S = 1.0


def retry_after_s(wait_s: float) -> int:
    """Seconds for ``Retry-After``; scattered, so that those who were refused together do not return together."""
    return max(1, math.ceil(wait_s) + random.randint(0, 1))


class Hold:
    """The bytes that one request keeps in memory; released once, by whoever has them last."""

    __slots__ = ("_admission", "_count")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._count = 0

    def add(self, count: int) -> None:
        """Keep so many bytes more.

        Raises:
            OverloadedError: All requests together would keep too many.
        """
        self._admission.check_bytes(count)
        self._admission.bytes_in_flight += count
        self._count += count

    def release(self) -> None:
        self._admission.bytes_in_flight -= self._count
        self._count = 0


class Admission:
    """The door of a compute pool."""

    def __init__(self, pool: ComputePool, limits: ServiceLimits) -> None:
        self._pool = pool
        self._limits = limits
        self._tried_at = -math.inf
        self.service_s = 0.0
        self.bytes_in_flight = 0
        self.waiting = 0

    @property
    def expected_wait_s(self) -> float:
        """How long a job that came now would wait for a thread."""
        return (self._pool.queued + self._pool.busy) / self._pool.workers * self.service_s

    def check(self, declared_bytes: int, budget_s: float) -> None:
        """Refuse what could not be queued, kept or answered in time; asked before the body is read and after.

        Raises:
            OverloadedError: With the wait that is expected.
        """
        wait_s = self.expected_wait_s
        if self._pool.queued >= self._limits.max_queued:
            raise OverloadedError("the queue is full", wait_s=wait_s)
        self.check_bytes(declared_bytes)
        if wait_s + self.service_s > budget_s and not self._may_probe():
            raise OverloadedError(
                f"an answer would take about {(wait_s + self.service_s) * 1000:.0f} ms, and {budget_s * 1000:.0f} ms"
                " are allowed",
                wait_s=wait_s,
            )

    def check_bytes(self, count: int) -> None:
        """Refuse bytes for which there is no room.

        Raises:
            OverloadedError: With the wait that is expected.
        """
        if self.bytes_in_flight + count > self._limits.max_bytes_in_flight:
            raise OverloadedError("too many bytes are in flight", wait_s=self.expected_wait_s)

    async def perform(self, work: Callable[[], T], *, budget_s: float, hold: Hold, receive: Receive) -> T:
        """Have ``work`` done by a compute thread, and return or raise what it does.

        ``hold`` is released here, when nothing of the work is left. ``receive`` is the request's own, its body
        being complete: all it can still tell is that the client is gone.

        Raises:
            OverloadedError: There is no room, or not enough time.
            DeadlineError: The time is over; work that was not begun by then never is.
            ClientGone: The client hung up; likewise.
        """
        try:
            self.check(0, budget_s)
        except OverloadedError:
            hold.release()
            raise
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        now = time.monotonic()
        job = Job(work, deadline=now + budget_s, loop=loop, settle=partial(self._settle, future, hold))
        self._tried_at = now
        self._pool.submit(job)
        timer = loop.call_later(budget_s, _resolve, future, None, DeadlineError(EXPIRED))
        watch = loop.create_task(_gone(receive, future))  # type: ignore[arg-type]
        self.waiting += 1
        try:
            return await future
        finally:
            self.waiting -= 1
            timer.cancel()
            watch.cancel()
            if self._pool.withdraw(job):
                hold.release()
            # An error's traceback leads here, and these lead to the error: a ring that would keep the whole body
            # until the collector comes by.
            del future, watch, job

    def _settle(self, future: asyncio.Future[Any], hold: Hold, outcome: Outcome, took_s: float | None) -> None:
        hold.release()
        if took_s is not None:
            self._learn(took_s)
        _resolve(future, *outcome)

    def _learn(self, took_s: float) -> None:
        self.service_s += (took_s - self.service_s) * (EWMA_SHARE if self.service_s else 1.0)

    def _may_probe(self) -> bool:
        idle = not self._pool.queued and not self._pool.busy
        return idle and time.monotonic() - self._tried_at >= PROBE_INTERVAL_S


async def _gone(receive: Receive, future: asyncio.Future[object]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    _resolve(future, None, ClientGone())


def _resolve(future: asyncio.Future[Any], value: object, error: BaseException | None) -> None:
    """The first to come decides."""
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
