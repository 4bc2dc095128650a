"""How often each key has asked: moving windows on a clock that nobody sets. Loaded only where a key has a rate."""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import threading
import time
from bisect import bisect_right

from limits.limits import GRANULARITIES
from limits.storage import MovingWindowSupport, Storage
from limits.strategies import MovingWindowRateLimiter

from dulian.keys import Rate
from dulian.service.memory import alone_with

MAX_WINDOWS = 1024
# 64 MB, of which only what is written to is ever taken from the system.
MAX_MOMENTS = 8 * 2**20

# How many windows there are, and how many moments they take.
_HEAD = struct.Struct("<QQ")
# A window: its name, where its moments begin, how many requests it has seen.
_WINDOW = struct.Struct("<16sQQ")
_MOMENTS_AT = -(-(_HEAD.size + MAX_WINDOWS * _WINDOW.size) // mmap.PAGESIZE) * mmap.PAGESIZE
_SIZE = _MOMENTS_AT + MAX_MOMENTS * 8


class Rates:
    """What every key has used up; to be asked from any thread."""

    def __init__(self, memory: int | None = None) -> None:
        """``memory`` is a descriptor of memory that other processes have too: then all of them count together."""
        self._limiter = MovingWindowRateLimiter(MonotonicStorage(memory))

    def spend(self, key_id: str, rate: Rate, count: int) -> float | None:
        """Take ``count`` requests off a key's rate; if there are not so many left, seconds until there is one more.

        More at once than the rate ever allows takes all of it.
        """
        item = GRANULARITIES[rate.period](rate.count)
        if not count or self._limiter.hit(item, key_id, cost=min(count, rate.count)):
            return None
        return max(0.0, self._limiter.get_window_stats(item, key_id).reset_time - time.monotonic())


class MonotonicStorage(Storage, MovingWindowSupport):
    """The moments of each key's newest requests, in memory that processes can share.

    The library's own storage in memory goes by the wall clock: set back by an hour, it would shut every key out for
    that hour. It also starts a thread for most requests, to forget what is too old, and belongs to one process.

    A window is a ring of as many moments as it allows requests, so that a new one overwrites what can no longer matter.
    """

    STORAGE_SCHEME = None

    def __init__(self, memory: int | None = None) -> None:
        super().__init__()
        if memory is not None:
            os.ftruncate(memory, _SIZE)
        self._descriptor = memory
        self._memory = mmap.mmap(-1 if memory is None else memory, _SIZE)
        self._moments = memoryview(self._memory)[_MOMENTS_AT:].cast("d")
        self._lock = threading.Lock()

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        if amount > limit:
            return False
        with alone_with(self._descriptor, self._lock):
            at, start, seen = self._window(key, limit)
            now = time.monotonic()
            overwritten = seen + amount - 1 - limit  # the newest of those whose places are needed
            if overwritten >= 0 and self._moments[start + overwritten % limit] > now - expiry:
                return False
            for number in range(seen, seen + amount):
                self._moments[start + number % limit] = now
            _WINDOW.pack_into(self._memory, at, _name(key), start, seen + amount)
            return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        with alone_with(self._descriptor, self._lock):
            _, start, seen = self._window(key, limit)
            now = time.monotonic()
            kept = range(max(0, seen - limit), seen)
            old = bisect_right(kept, now - expiry, key=lambda number: self._moments[start + number % limit])
            return (self._moments[start + kept[old] % limit] if old < len(kept) else now), len(kept) - old

    def _window(self, key: str, limit: int) -> tuple[int, int, int]:
        """Where a key's window is described, where its moments begin, and how many requests it has seen."""
        windows, taken = _HEAD.unpack_from(self._memory)
        name, end = _name(key), _HEAD.size + windows * _WINDOW.size
        at = self._memory.find(name, _HEAD.size, end)
        while at >= 0 and (at - _HEAD.size) % _WINDOW.size:
            at = self._memory.find(name, at + 1, end)
        if at >= 0:
            _, start, seen = _WINDOW.unpack_from(self._memory, at)
            return at, start, seen
        if windows == MAX_WINDOWS or taken + limit > MAX_MOMENTS:  # after very many new keys: all begin anew
            windows, taken, end = 0, 0, _HEAD.size
        _WINDOW.pack_into(self._memory, end, name, taken, 0)
        _HEAD.pack_into(self._memory, 0, windows + 1, taken + limit)
        return end, taken, 0

    # ── what the library asks of every storage ───────────────────────────────────────────────────

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        with alone_with(self._descriptor, self._lock):
            windows, _ = _HEAD.unpack_from(self._memory)
            _HEAD.pack_into(self._memory, 0, 0, 0)
            return int(windows)

    def clear(self, key: str) -> None:
        raise NotImplementedError  # windows are never taken back one by one

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        raise NotImplementedError  # for windows that do not move, as the next two are

    def get(self, key: str) -> int:
        raise NotImplementedError

    def get_expiry(self, key: str) -> float:
        raise NotImplementedError


def _name(key: str) -> bytes:
    """The library's name of a window, which has the rate in it, in a size of its own."""
    return hashlib.blake2b(key.encode(), digest_size=16).digest()
