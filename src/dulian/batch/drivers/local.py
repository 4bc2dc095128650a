"""Processes of this machine, each with threads; one that dies is replaced, one that hangs is ended first."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from typing import Any

from dulian.batch.drivers.process import BACK, FAILED, RANGES_AT_ONCE, READ, READY, TOLD, main
from dulian.batch.ledger import Ledger
from dulian.batch.shards import Range
from dulian.batch.work import Orders
from dulian.errors import BackendError
from dulian.machine import effective_cores, memory_limit_bytes, physical_memory_bytes

# A process with one thread, at its largest picture; each thread more.
PROCESS_BYTES, THREAD_BYTES = 600 * 2**20, 350 * 2**20
_GRACE_S = 15.0
# Loading networks on a busy machine, or from a slow disk.
_START_S = 300.0
_LOOK_S = 1.0
# Processes that end before they have answered a single range.
_MAX_STILLBORN = 3


def lay_out(cores: int, memory: int | None) -> tuple[int, int]:
    """Processes and threads of each: as many cores as memory allows, and a process for each of them if it can be.

    A process that dies takes one range with it, and threads of different processes never wait for each other.
    """
    layouts = [(processes, cores // processes) for processes in range(1, cores + 1)]
    fitting = [layout for layout in layouts if memory is None or _bytes(*layout) <= memory]
    return max(fitting or layouts[:1], key=lambda layout: (layout[0] * layout[1], layout[0]))


def this_machine() -> tuple[int, int]:
    """:func:`lay_out` for the cores and the memory that this process may use."""
    limits = [size for size in (memory_limit_bytes(), physical_memory_bytes()) if size is not None]
    return lay_out(effective_cores(), min(limits, default=None))


def _bytes(processes: int, threads: int) -> int:
    return processes * (PROCESS_BYTES + (threads - 1) * THREAD_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalDriver:
    """``processes`` of this machine; one that gives no sign for ``stall_s`` is ended, as if it had died."""

    processes: int
    stall_s: float = 120.0

    def run(self, ledger: Ledger, orders: Orders) -> None:
        crew = _Crew(ledger, orders, self)
        try:
            crew.work()
        except BaseException:
            crew.dismiss()
            raise
        crew.dismiss()


class _Member:
    """One process, and the ranges it is working on."""

    def __init__(self, orders: Orders) -> None:
        context = multiprocessing.get_context("spawn")
        self.channel, theirs = context.Pipe()
        self.process = context.Process(target=main, args=(theirs, orders), name="dulian-batch", daemon=True)
        with _unheard():
            self.process.start()
        theirs.close()
        self.ready = False
        self.parts: list[Range] = []
        # Whether all of what it works on is read, so that another range may be begun.
        self.has_read = False
        self.heard = time.monotonic()

    def give(self, part: Range, attempt: str) -> None:
        self.parts.append(part)
        self.has_read, self.heard = False, time.monotonic()
        with suppress(OSError):  # dead already: it will be heard of
            self.channel.send((part, attempt))

    def end(self, deadline: float) -> None:
        """Wait for it to end by itself, then have it ended."""
        self.process.join(max(0.0, deadline - time.monotonic()))
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()


class _Crew:
    def __init__(self, ledger: Ledger, orders: Orders, driver: LocalDriver) -> None:
        self._ledger, self._orders, self._driver = ledger, orders, driver
        self._members: list[_Member] = []
        self._stillborn = 0

    def work(self) -> None:
        while not self._ledger.finished:
            self._employ()
            channels = {member.channel: member for member in self._members}
            for channel in connection.wait([*channels], _LOOK_S):
                self._hear(channels[channel])  # type: ignore[index]
            self._end_hung()

    def dismiss(self) -> None:
        """End all processes: those at work are given the time to finish their picture."""
        for member in self._members:
            member.channel.close()
        deadline = time.monotonic() + _GRACE_S
        for member in self._members:
            member.end(deadline)
        self._members.clear()

    def _employ(self) -> None:
        """Give ranges to those who have none, and start processes while there is work for them."""
        for member in self._members:
            given = None
            if member.ready and not member.parts:
                given = self._ledger.next()
            elif member.has_read and len(member.parts) < RANGES_AT_ONCE:
                given = self._ledger.next_beside(member.parts[0])
            if given is not None:
                member.give(*given)
        free = sum(not member.parts for member in self._members)
        missing = min(self._driver.processes - len(self._members), self._ledger.waiting - free)
        self._members += [_Member(self._orders) for _ in range(missing)]

    def _hear(self, member: _Member) -> None:
        try:
            said: tuple[Any, ...] = member.channel.recv()
        except (EOFError, OSError):
            self._bury(member)
            return
        member.heard = time.monotonic()
        what, part, more = said
        if what == TOLD:
            self._ledger.told(part, more)
        elif what == READ:
            member.has_read = True
        elif what == READY:
            member.ready = True
        elif what == FAILED:
            raise more
        else:
            member.parts.remove(part)
            self._stillborn = 0
            (self._ledger.back if what == BACK else self._ledger.done)(part)

    def _bury(self, member: _Member, hung: bool = False) -> None:
        self._members.remove(member)
        member.channel.close()
        member.process.join()
        code = member.process.exitcode or 0
        member.process.close()
        how = f"the process gave no sign for {self._driver.stall_s:g} seconds" if hung else _ending(code)
        for part in member.parts:
            self._ledger.died(part, how)
        self._stillborn = 0 if member.parts else self._stillborn + 1
        if self._stillborn >= _MAX_STILLBORN:
            raise BackendError(f"{self._stillborn} processes one after the other ended before their work: {how}")

    def _end_hung(self) -> None:
        now = time.monotonic()
        for member in [*self._members]:
            patience = _START_S if not member.ready else self._driver.stall_s
            if now - member.heard > patience and (member.parts or not member.ready):
                member.process.kill()
                self._bury(member, hung=True)


@contextmanager
def _unheard() -> Iterator[None]:
    """What is started here hears nothing of Ctrl-C and SIGTERM, which a whole group of processes may get: we answer."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows, where the process sees to it itself when it is up
        yield
        return
    # What starts first, and would let both through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ending(code: int) -> str:
    if code >= 0:
        return f"the process ended with code {code}"
    with suppress(ValueError):
        return f"the process was ended by {signal.Signals(-code).name}"
    return f"the process was ended by signal {-code}"
