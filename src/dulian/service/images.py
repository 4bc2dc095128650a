"""Drawn pictures that can be fetched for a while: in memory, few, under names that nobody can guess.

The memory may be that of several processes, since any of them may be asked for what another one has drawn. Hence it is
one piece: a table of what there is, and the pictures themselves, one behind the other and then again from the start.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import secrets
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import NamedTuple, TypeVar

from dulian.service.limits import ServiceLimits
from dulian.service.memory import alone_with

T = TypeVar("T")

# 128 bits: who does not know the name cannot find it by trying. As text they are 22 characters.
ID_BYTES = 16

_COUNT = struct.Struct("<Q")
_ENTRY = struct.Struct("<22sdQQ")


class _Entry(NamedTuple):
    """One picture in the table: its name, the end of its time, and where its bytes lie."""

    name: bytes
    expires: float
    start: int
    size: int

    def overlaps(self, start: int, size: int) -> bool:
        return self.start < start + size and start < self.start + self.size


class KeptPictures:
    """The newest drawn pictures, until their time is over or there is no room.

    Looking at one does not make it live longer. Belongs to one event loop, and copies pictures beside it.
    """

    def __init__(
        self, limits: ServiceLimits, memory: int | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``memory`` is a descriptor of memory that other processes have too; without it nobody else has it.

        ``clock`` has to be the same one for all of them.
        """
        self._limits = limits
        self._clock = clock
        self._descriptor = memory
        self._start = _pages(_COUNT.size + limits.max_kept_pictures * _ENTRY.size)
        size = self._start + _pages(limits.max_kept_bytes)
        if memory is not None:
            os.ftruncate(memory, size)
        self._memory = mmap.mmap(-1 if memory is None else memory, size)
        self._one_at_a_time = threading.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.Task[None] | None = None

    @staticmethod
    def new_id() -> str:
        """A name for a picture to come; from any thread."""
        return secrets.token_urlsafe(ID_BYTES)

    async def put(self, picture_id: str, jpeg: bytes) -> None:
        """Keep a picture; the oldest make room for it. One that would not fit at all is not kept."""
        if len(jpeg) <= self._limits.max_kept_bytes:
            await _aside(lambda: self._put(picture_id.encode(), jpeg))
            self._sweep_in(self._limits.kept_s)

    async def get(self, picture_id: str) -> bytes | None:
        """A picture whose time is not over yet."""
        return await _aside(lambda: self._get(picture_id.encode()))

    def sizes(self) -> list[int]:
        """How many bytes each picture has that is kept; the oldest first."""
        with self._locked():
            return [entry.size for entry in self._table()]

    # ── time ─────────────────────────────────────────────────────────────────────────────────────

    def _sweep_in(self, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + wait_s
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = loop.call_at(due, self._begin_sweep)

    def _begin_sweep(self) -> None:
        self._timer = None
        self._sweeping = asyncio.create_task(self._sweep())  # whom nobody holds may be collected

    async def _sweep(self) -> None:
        """Forget those whose time is over, and come back when that of the next one is."""
        wait_s = await _aside(self._drop_expired)
        if wait_s is not None:
            self._sweep_in(wait_s)

    def _drop_expired(self) -> float | None:
        """How long it is until the next one's time is over; None if none is left."""
        with self._locked():
            now = self._clock()
            table = [entry for entry in self._table() if entry.expires > now]
            self._write(table)
            if not table and hasattr(mmap, "MADV_REMOVE"):
                with suppress(OSError):  # not every system can
                    self._memory.madvise(mmap.MADV_REMOVE, self._start)
        return table[0].expires - now if table else None

    # ── memory ───────────────────────────────────────────────────────────────────────────────────

    def _put(self, name: bytes, jpeg: bytes) -> None:
        size = len(jpeg)
        with self._locked():
            table = self._table()
            start = table[-1].start + table[-1].size if table else 0
            if start + size > self._limits.max_kept_bytes:
                start = 0
            while len(table) >= self._limits.max_kept_pictures or any(one.overlaps(start, size) for one in table):
                table.pop(0)
            self._write(table)  # before anything is overwritten: no name may ever lead to another's picture
            self._memory[self._start + start : self._start + start + size] = jpeg
            self._write([*table, _Entry(name, self._clock() + self._limits.kept_s, start, size)])

    def _get(self, name: bytes) -> bytes | None:
        with self._locked():
            for entry in self._table():
                if entry.name == name and entry.expires > self._clock():
                    return self._memory[self._start + entry.start : self._start + entry.start + entry.size]
        return None

    def _table(self) -> list[_Entry]:
        (count,) = _COUNT.unpack_from(self._memory)
        table = self._memory[_COUNT.size : _COUNT.size + count * _ENTRY.size]
        return [_Entry(*fields) for fields in _ENTRY.iter_unpack(table)]

    def _write(self, table: Sequence[_Entry]) -> None:
        """What is half written, because a process died over it, is empty."""
        _COUNT.pack_into(self._memory, 0, 0)
        packed = b"".join(_ENTRY.pack(*entry) for entry in table)
        self._memory[_COUNT.size : _COUNT.size + len(packed)] = packed
        _COUNT.pack_into(self._memory, 0, len(table))

    def _locked(self) -> AbstractContextManager[None]:
        return alone_with(self._descriptor, self._one_at_a_time)


def _pages(size: int) -> int:
    """Bytes in whole pages, at least so many."""
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


async def _aside(work: Callable[[], T]) -> T:
    """Copying megabytes takes longer than the loop may be held up."""
    return await asyncio.get_running_loop().run_in_executor(None, work)
