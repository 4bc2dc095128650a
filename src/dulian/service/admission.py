"""Who may come in: bounded queue, bounded bytes, and no work that cannot be done in time.

Everything here runs on the event loop; only the work itself runs in a compute thread. Clocks are monotonic.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from dulian.errors import DeadlineError, OverloadedError, RateLimitError
from dulian.service import tracing
from dulian.service.body import ClientGone, Receive
from dulian.service.compute import EXPIRED, ComputePool, Job, Outcome
from dulian.service.limits import ServiceLimits
from dulian.service.metrics import Metrics, RejectReason

T = TypeVar("T")

# The share of the newest work in the expected service time.
EWMA_SHARE = 0.1
# An idle pool takes one job per so many seconds whatever the estimate says: only finished work can lower it again.
PROBE_INTERVAL_S = 1.0


def retry_after_s(wait_s: float) -> int:
    """Seconds for ``Retry-After``; scattered, so that those who were refused together do not return together."""
    return max(1, math.ceil(wait_s) + random.randint(0, 1))


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is, by the key; ``sharing`` if there are other keys, so that none may fill the whole queue."""

    key_id: str
    sharing: bool


class Hold:
    """The bytes that one request keeps in memory; given back when all who have them have released them."""

    __slots__ = ("_admission", "_count", "_keepers", "caller")

    def __init__(self, admission: Admission, caller: Caller | None = None) -> None:
        self._admission = admission
        self.caller = caller
        self._count = 0
        self._keepers = 1

    def add(self, count: int) -> None:
        """Keep so many bytes more.

        Raises:
            OverloadedError: All requests together would keep too many.
        """
        self._admission.check_bytes(count)
        self._admission.bytes_in_flight += count
        self._count += count

    def keep(self) -> None:
        """One more has them, and will release them."""
        self._keepers += 1

    def release(self) -> None:
        self._keepers -= 1
        if not self._keepers:
            self._admission.bytes_in_flight -= self._count
            self._count = 0


class Ticket(Generic[T]):
    """Work that was let in, and the requests that wait for it: usually one, several where all want the same."""

    __slots__ = ("_landed", "hold", "job", "outcome", "waiting")

    def __init__(self, hold: Hold, landed: Callable[[Outcome | None], None]) -> None:
        self._landed = landed
        self.hold = hold
        self.job: Job | None = None
        self.outcome: Outcome | None = None
        self.waiting: list[asyncio.Future[T]] = []

    def settle(self, outcome: Outcome | None) -> None:
        """The work has ended, or was taken back, which nobody waits for; nothing of it stays here but its result."""
        self.job = None
        self.hold.release()
        if outcome is not None:
            for future in self.waiting:
                _resolve(future, *outcome)
            if outcome[1] is None:  # an error would lead back here, see below
                self.outcome = outcome
        self.waiting.clear()
        self._landed(outcome)


class Admission:
    """The door of a compute pool."""

    def __init__(self, pool: ComputePool, limits: ServiceLimits) -> None:
        self._pool = pool
        self._limits = limits
        self._tried_at = -math.inf
        self._full_since: float | None = None
        self.metrics = Metrics()
        self.service_s = 0.0
        self.bytes_in_flight = 0
        self.waiting = 0

    @property
    def _queue_share(self) -> int:
        return max(1, self._limits.max_queued // 2)

    @property
    def expected_wait_s(self) -> float:
        """How long a job that came now would wait for a thread."""
        return (self._pool.queued + self._pool.busy) / self._pool.workers * self.service_s

    @property
    def is_full(self) -> bool:
        """Whether no job finds a place in the queue now."""
        return self._pool.queued >= self._limits.max_queued

    @property
    def full_for_s(self) -> float:
        """For how long the queue has been full; it no longer is when half of it is free."""
        self._look_at_queue()
        return 0.0 if self._full_since is None else time.monotonic() - self._full_since

    def check(self, declared_bytes: int, budget_s: float, caller: Caller | None = None) -> None:
        """Refuse what could not be queued, kept or answered in time; asked before the body is read and after.

        Raises:
            OverloadedError: With the wait that is expected.
        """
        wait_s = self.expected_wait_s
        # Where there are several keys, each may fill half of the queue: one that sends too much leaves room for others.
        if caller is not None and caller.sharing and self._pool.queued_of(caller.key_id) >= self._queue_share:
            self.metrics.count_rejected("share")
            raise RateLimitError("this key's pictures fill its half of the queue", wait_s=wait_s)
        if self.is_full:
            raise self.full_queue()
        self.check_bytes(declared_bytes)
        if wait_s + self.service_s > budget_s and not self._may_probe():
            raise self._refusal(
                "deadline",
                f"an answer would take about {(wait_s + self.service_s) * 1000:.0f} ms, and {budget_s * 1000:.0f} ms"
                " are allowed",
                wait_s,
            )

    def check_bytes(self, count: int) -> None:
        """Refuse bytes for which there is no room.

        Raises:
            OverloadedError: With the wait that is expected.
        """
        if self.bytes_in_flight + count > self._limits.max_bytes_in_flight:
            raise self._refusal("bytes", "too many bytes are in flight", self.expected_wait_s)

    def full_queue(self) -> OverloadedError:
        """The refusal of a job that finds no place, which counts as one."""
        return self._refusal("queue", "the queue is full", self.expected_wait_s)

    def _refusal(self, reason: RejectReason, message: str, wait_s: float) -> OverloadedError:
        self.metrics.count_rejected(reason)
        return OverloadedError(message, wait_s=wait_s)

    async def perform(
        self,
        work: Callable[[], T],
        *,
        budget_s: float,
        hold: Hold,
        receive: Receive | None,
        foresee: bool = True,
        measure: bool = True,
    ) -> T:
        """Have ``work`` done by a compute thread, and return or raise what it does.

        ``hold`` is released here, when nothing of the work is left. ``receive`` is the request's own, its body
        being complete: all it can still tell is that the client is gone. Without it, who waits is cancelled instead.

        Raises:
            OverloadedError: There is no room, or not enough time.
            DeadlineError: The time is over; work that was not begun by then never is.
            ClientGone: The client hung up; likewise.
        """
        return await self.wait(
            self.begin(work, budget_s=budget_s, hold=hold, foresee=foresee, measure=measure),
            budget_s=budget_s,
            receive=receive,
        )

    def begin(
        self,
        work: Callable[[], T],
        *,
        budget_s: float,
        hold: Hold,
        landed: Callable[[Outcome | None], None] = lambda outcome: None,
        foresee: bool = True,
        measure: bool = True,
    ) -> Ticket[T]:
        """Put work into the queue, for one request or more to wait for.

        ``landed`` hears once, on the loop, what came of it: None if the work was taken back. Without ``foresee`` it
        is let in although it may come too late; without ``measure`` it does not count as a picture's usual time.

        Raises:
            OverloadedError: There is no room, or not enough time.
        """
        try:
            self.check(0, budget_s if foresee else math.inf, hold.caller)
        except OverloadedError:
            hold.release()
            raise
        ticket: Ticket[T] = Ticket(hold, landed)
        now = time.monotonic()
        job = Job(
            tracing.carried(work),
            deadline=now + budget_s,
            loop=asyncio.get_running_loop(),
            settle=partial(self._settle, ticket, measure),
            owner=None if hold.caller is None else hold.caller.key_id,
        )
        ticket.job = job
        self._tried_at = now
        self._pool.submit(job)
        self._look_at_queue()
        return ticket

    async def wait(self, ticket: Ticket[T], *, budget_s: float, receive: Receive | None) -> T:
        """What the work of a ticket comes to, for one request; when the last one leaves, work not begun is taken back.

        Raises:
            DeadlineError: This request's time is over.
            ClientGone: This request's client hung up.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if ticket.outcome is not None:
            _resolve(future, *ticket.outcome)
        elif ticket.job is not None:
            ticket.waiting.append(future)
            ticket.job.deadline = max(ticket.job.deadline, time.monotonic() + budget_s)
        timer = loop.call_later(budget_s, _resolve, future, None, DeadlineError(EXPIRED))
        watch = loop.create_task(_gone(receive, future)) if receive else None  # type: ignore[arg-type]
        self.waiting += 1
        try:
            return await future
        except DeadlineError:
            self._count_expired(ticket)
            raise
        finally:
            self.waiting -= 1
            timer.cancel()
            if watch is not None:
                watch.cancel()
            self._leave(ticket, future)
            # An error's traceback leads here, and these lead to the error: a ring that would keep the whole body
            # until the collector comes by.
            del future, watch, ticket

    def _leave(self, ticket: Ticket[T], future: asyncio.Future[T]) -> None:
        if ticket.job is None:
            return
        ticket.waiting.remove(future)
        if not ticket.waiting and self._pool.withdraw(ticket.job):
            self._note_wait(ticket)
            tracing.note_stage("queue", ticket.job.made_at, time.monotonic())
            ticket.settle(None)
            self._look_at_queue()

    def _settle(self, ticket: Ticket[T], measure: bool, outcome: Outcome, took_s: float | None) -> None:
        if took_s is None and ticket.waiting and ticket.job is not None and ticket.job.deadline > time.monotonic():
            # Somebody with more time joined it just when a thread dropped it.
            self._pool.submit(ticket.job)
            return
        if measure and took_s is not None:
            self._learn(took_s)
        self._note_wait(ticket)
        ticket.settle(outcome)
        self._look_at_queue()

    def _note_wait(self, ticket: Ticket[T]) -> None:
        if ticket.job is not None:
            self.metrics.queue_wait.observe(ticket.job.waited_s)

    def _count_expired(self, ticket: Ticket[T]) -> None:
        begun = ticket.job is not None and ticket.job.begun_at is not None
        self.metrics.count_expired("compute" if begun else "queue")

    def _look_at_queue(self) -> None:
        if self.is_full:
            if self._full_since is None:
                self._full_since = time.monotonic()
        elif self._pool.queued <= self._limits.max_queued // 2:
            self._full_since = None

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
