"""Results given a moment ago, for who asks the same of the same picture again; one analysis for all who ask at once.

What is kept is the text of a result and nothing else: no pixels, and of the picture only a hash under a secret that
this process made for itself, so that its memory cannot be searched for a photo by its hash.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Literal, Protocol

from dulian import __version__
from dulian.faces import ModelInfo
from dulian.service.admission import Admission, Hold, Ticket
from dulian.service.answers import with_request_id, without_request_id
from dulian.service.body import Receive
from dulian.service.compute import Outcome
from dulian.service.metrics import Tier
from dulian.service.query import Asked

Found = Literal["miss", "shared", "hit"]

# Hashed on the loop below this size, which takes 0.15 ms.
INLINE_BYTES = 256 * 2**10
# What an entry takes beside its key and its text: its places in two dictionaries, and the end of its time.
ENTRY_BYTES = 300
# Nobody looks for results whose time is over more often than this.
SWEEP_S = 1.0
# How long an answer may take counts for the one who asks and is not part of what is asked.
NOT_ASKED = frozenset({"budget_s"})


class ResultCache(Protocol):
    """Where results are kept, as many and as long as it sees fit. It never fails: what it cannot get is not there."""

    tier: Tier

    async def get(self, key: bytes) -> bytes | None:
        """The text of a result, or None."""
        ...

    async def put(self, key: bytes, value: bytes) -> None:
        """Keep the text of a result."""
        ...


class MemoryCache:
    """Results in this process: the least recently used goes first, and none stays longer than ``ttl_s``.

    ``max_bytes`` counts keys, texts and what it takes to find them again. Belongs to one event loop.
    """

    tier: Tier = "memory"

    def __init__(self, max_bytes: int, ttl_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._values: OrderedDict[bytes, bytes] = OrderedDict()  # by their last use
        self._ends: OrderedDict[bytes, float] = OrderedDict()  # by their age
        self._sweeper: asyncio.TimerHandle | None = None
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._values)

    async def get(self, key: bytes) -> bytes | None:
        self._drop_ended()
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    async def put(self, key: bytes, value: bytes) -> None:
        self._drop_ended()
        if key in self._values:
            self._drop(key)
        size = size_of(key, value)
        if size > self._max_bytes:
            return
        while self.bytes + size > self._max_bytes:
            self._drop(next(iter(self._values)))
        self._values[key] = value
        self._ends[key] = self._clock() + self._ttl_s
        self.bytes += size
        self._sweep_later()

    def _drop(self, key: bytes) -> None:
        self.bytes -= size_of(key, self._values.pop(key))
        del self._ends[key]

    def _drop_ended(self) -> None:
        now = self._clock()
        while self._ends:
            key, end = next(iter(self._ends.items()))
            if end > now:
                return
            self._drop(key)

    def _sweep_later(self) -> None:
        """See to it that results go when their time is over, although nobody asks any more."""
        if self._ends and self._sweeper is None:
            wait_s = next(iter(self._ends.values())) - self._clock()
            self._sweeper = asyncio.get_running_loop().call_later(max(SWEEP_S, wait_s), self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        self._drop_ended()
        self._sweep_later()


def size_of(key: bytes, value: bytes) -> int:
    """Bytes of memory that an entry of the cache takes."""
    return sys.getsizeof(key) + sys.getsizeof(value) + ENTRY_BYTES


class Keys:
    """Makes keys: the same for the same picture, networks and wishes, and without meaning outside this process."""

    def __init__(self, model: ModelInfo) -> None:
        self._secret = secrets.token_bytes(32)
        self._answering = (__version__, model.profile, model.engine, model.digest)

    def key(self, picture_sha256: bytes, route: str, asked: Asked) -> bytes:
        """The key of what a route answers to these wishes about a picture."""
        wishes = repr((self._answering, route, canonical(asked)))
        return hmac.digest(self._secret, picture_sha256 + wishes.encode(), "sha256")


def canonical(value: object) -> object:
    """Something with one ``repr`` for all that is equal; sets have as many as orders."""
    if isinstance(value, frozenset):
        return sorted(value)
    if is_dataclass(value):
        names = (field.name for field in fields(value))
        return [(name, canonical(getattr(value, name))) for name in names if name not in NOT_ASKED]
    return value


class SharedResults:
    """Answers that are there, or about to be, before any work is queued. Belongs to one event loop.

    Several requests that ask the same at once have it done once, and each waits for it as long as its own time and its
    own client allow: the one that came first may leave without harm to the others, and only when the last has left
    before the work was begun it is taken back. What the work comes to is what all of them are told; only a success is
    kept.
    """

    def __init__(self, tier: ResultCache, keys: Keys, admission: Admission) -> None:
        self._tier = tier
        self._keys = keys
        self._admission = admission
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self._flights: dict[bytes, Ticket[bytes]] = {}
        self._keeping: set[asyncio.Task[None]] = set()

    async def perform(
        self,
        work: Callable[[], bytes],
        *,
        request_id: str,
        picture: Callable[[], bytes],
        aside: bool,
        route: str,
        asked: Asked,
        budget_s: float,
        hold: Hold,
        receive: Receive,
        foresee: bool = True,
    ) -> tuple[bytes, Found]:
        """The answer that ``work`` makes for this request, or made for another; else as :meth:`Admission.perform`.

        ``picture`` gives the bytes of the picture that is asked about; ``aside`` says that this, and hashing them,
        takes too long for the event loop. How the picture was wrapped makes no difference.
        """
        until = time.monotonic() + budget_s
        try:
            key = self._keys.key(await self._hash(picture, aside), route, asked)
            text, ticket = await self._look_up(key)
        except BaseException:
            hold.release()
            raise
        found: Found = "hit" if text is not None else "miss" if ticket is None else "shared"
        self._admission.metrics.count_cached(self._tier.tier, found)
        if text is not None:
            hold.release()
            return with_request_id(text, request_id), found
        budget_s = until - time.monotonic()
        if ticket is None:
            ticket = self._flights[key] = self._admission.begin(
                lambda: without_request_id(work(), request_id),
                budget_s=budget_s,
                hold=hold,
                landed=partial(self._landed, key),
                foresee=foresee,
            )
        try:
            text = await self._admission.wait(ticket, budget_s=budget_s, receive=receive)
        finally:
            if found == "shared":  # else it is the work's, and released with that
                hold.release()
        return with_request_id(text, request_id), found

    async def _look_up(self, key: bytes) -> tuple[bytes | None, Ticket[bytes] | None]:
        """A text that is there, or else what is about to make one."""
        text = await self._tier.get(key)
        ticket = self._flights.get(key)
        if text is None and ticket is not None and ticket.outcome is not None:  # on its way to where it will be kept
            text = ticket.outcome[0]
        return text, ticket

    async def _hash(self, picture: Callable[[], bytes], aside: bool) -> bytes:
        if not aside:
            return sha256_of(picture)
        return await asyncio.get_running_loop().run_in_executor(self._hasher, sha256_of, picture)

    def _landed(self, key: bytes, outcome: Outcome | None) -> None:
        """The work is over: a success is kept, and found as what it was until it is."""
        if outcome is None or outcome[1] is not None:
            del self._flights[key]
            return
        task = asyncio.get_running_loop().create_task(self._keep(key, outcome[0]))
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)

    async def _keep(self, key: bytes, text: bytes) -> None:
        try:
            await self._tier.put(key, text)
        finally:
            del self._flights[key]


def sha256_of(picture: Callable[[], bytes]) -> bytes:
    """The hash of a picture's bytes, got where they are hashed."""
    return hashlib.sha256(picture()).digest()
