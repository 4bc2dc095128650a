"""Results given a moment ago, for who asks the same of the same picture again; one analysis for all who ask at once.

What is kept is the text of a result and nothing else: no pixels, and of the picture only a hash under a secret, so that
no memory can be searched for a photo by its hash. A process makes that secret for itself, unless results are shared.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import hmac
import math
import secrets
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache, partial
from importlib import metadata
from typing import TYPE_CHECKING, Literal, Protocol

from dulian import __version__
from dulian.faces import ModelInfo
from dulian.service.admission import Admission, Hold, Ticket
from dulian.service.answers import with_request_id, without_request_id
from dulian.service.body import Receive
from dulian.service.compute import Outcome
from dulian.service.metrics import CacheResult, Tier
from dulian.service.query import Asked
from dulian.settings import Settings

if TYPE_CHECKING:
    from dulian.image import ImageLimits
    from dulian.service.cache.redis import RedisCache

Found = Literal["miss", "shared", "hit"]
Count = Callable[[Tier, CacheResult], None]
"""Hears what became of one look into one tier."""

# Hashed on the loop below this size, which takes 0.15 ms.
INLINE_BYTES = 256 * 2**10
# What an entry takes beside its key and its text: its places in two dictionaries, and the end of its time.
ENTRY_BYTES = 300
# Nobody looks for results whose time is over more often than this.
SWEEP_S = 1.0
# How long an answer may take counts for the one who asks and is not part of what is asked.
NOT_ASKED = frozenset({"budget_s"})
# What decodes and computes: others of them may answer a little otherwise, or read files that these cannot.
LIBRARIES = ("numpy", "opencv-python-headless", "onnxruntime", "openvino", "pillow", "pillow-heif", "simplejpeg")


def uncounted(tier: Tier, result: CacheResult) -> None:
    """For those who do not count."""


class ResultCache(Protocol):
    """Where results are kept, as many and as long as it sees fit. It never fails: what it cannot get is not there.

    ``tier`` is where it looks first.
    """

    tier: Tier

    @property
    def breaker_open(self) -> bool:
        """Whether a part of it is not asked at present, because it failed."""
        ...

    async def get(self, key: bytes, count: Count = uncounted) -> bytes | None:
        """The text of a result, or None; ``count`` hears of every tier that was looked into."""
        ...

    async def put(self, key: bytes, value: bytes) -> None:
        """Keep the text of a result."""
        ...

    async def close(self) -> None:
        """Give up what is open; the service ends."""
        ...


class MemoryCache:
    """Results in this process: the least recently used goes first, and none stays longer than ``ttl_s``.

    ``max_bytes`` counts keys, texts and what it takes to find them again. Belongs to one event loop.
    """

    tier: Tier = "memory"
    breaker_open = False

    def __init__(self, max_bytes: int, ttl_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._values: OrderedDict[bytes, bytes] = OrderedDict()  # by their last use
        self._ends: dict[bytes, float] = {}
        self._due: list[tuple[float, bytes]] = []  # a heap of the same, and of some that went before their time
        self._sweeper: asyncio.TimerHandle | None = None
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._values)

    async def get(self, key: bytes, count: Count = uncounted) -> bytes | None:
        self._drop_ended()
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        count(self.tier, "miss" if value is None else "hit")
        return value

    async def put(self, key: bytes, value: bytes, life_s: float = math.inf) -> None:
        """Keep the text of a result, for ``life_s`` if that is less than usual."""
        self._drop_ended()
        if key in self._values:
            self._drop(key)
        size = size_of(key, value)
        if size > self._max_bytes:
            return
        while self.bytes + size > self._max_bytes:
            self._drop(next(iter(self._values)))
        self._values[key] = value
        self._ends[key] = self._clock() + min(self._ttl_s, life_s)
        self.bytes += size
        self._note_end(key)
        self._sweep_later()

    async def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def _note_end(self, key: bytes) -> None:
        heapq.heappush(self._due, (self._ends[key], key))
        if len(self._due) > 2 * len(self._ends) + 8:
            self._due = [(end, key) for key, end in self._ends.items()]
            heapq.heapify(self._due)

    def _drop(self, key: bytes) -> None:
        self.bytes -= size_of(key, self._values.pop(key))
        del self._ends[key]

    def _drop_ended(self) -> None:
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            end, key = heapq.heappop(self._due)
            if self._ends.get(key) == end:
                self._drop(key)

    def _sweep_later(self) -> None:
        """See to it that results go when their time is over, although nobody asks any more."""
        if self._due and self._sweeper is None:
            wait_s = self._due[0][0] - self._clock()
            self._sweeper = asyncio.get_running_loop().call_later(max(SWEEP_S, wait_s), self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        self._drop_ended()
        self._sweep_later()


class TieredCache:
    """Memory first, then Redis: what is found there is remembered here, and what is kept is kept in both."""

    tier: Tier = "memory"

    def __init__(self, near: MemoryCache, far: RedisCache) -> None:
        self._near = near
        self._far = far

    @property
    def breaker_open(self) -> bool:
        return self._far.breaker_open

    async def get(self, key: bytes, count: Count = uncounted) -> bytes | None:
        text = await self._near.get(key, count)
        if text is not None:
            return text
        kept = await self._far.find(key, count)
        if kept is None:
            return None
        await self._near.put(key, *kept)
        return kept.text

    async def put(self, key: bytes, value: bytes) -> None:
        await self._near.put(key, value)
        await self._far.put(key, value)

    async def close(self) -> None:
        await self._near.close()
        await self._far.close()


def open_cache(settings: Settings) -> ResultCache | None:
    """The tiers that the settings want.

    Raises:
        MissingDependencyError: The extra for Redis is missing.
        MalformedInputError: The address of Redis makes no sense.
    """
    near = MemoryCache(settings.cache_mb << 20, settings.cache_ttl_s) if settings.cache_mb else None
    secret = secret_of(settings)
    if settings.redis_url is None or secret is None:
        return near
    from dulian.service.cache.redis import RedisCache

    far = RedisCache(settings.redis_url.get_secret_value(), secret, settings.cache_ttl_s)
    return far if near is None else TieredCache(near, far)


def secret_of(settings: Settings) -> bytes | None:
    """What all instances that share results have in common, and nobody else."""
    return None if settings.cache_secret is None else settings.cache_secret.get_secret_value().encode()


def derive(secret: bytes, purpose: str) -> bytes:
    """A secret for one purpose alone."""
    return hmac.digest(secret, f"dulian cache {purpose}".encode(), "sha256")


def size_of(key: bytes, value: bytes) -> int:
    """Bytes of memory that an entry of the cache takes."""
    return sys.getsizeof(key) + sys.getsizeof(value) + ENTRY_BYTES


class Keys:
    """Makes keys: the same for the same picture, networks, limits and wishes, and without meaning to others.

    With a secret that others have too, keys are the same for all of them whose answers would be.
    """

    def __init__(self, model: ModelInfo, limits: ImageLimits | None = None, *, secret: bytes | None = None) -> None:
        self._secret = secrets.token_bytes(32) if secret is None else derive(secret, "keys")
        answers_by = (model.profile, model.engine, model.digest, canonical(limits))
        self._answering = (__version__, *answers_by, installed(LIBRARIES))

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


@cache
def installed(packages: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Those of them that are installed, with their versions; looked for on disk once."""
    found = []
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            found.append((name, metadata.version(name)))
    return tuple(found)


class SharedResults:
    """Answers that are there, or about to be, before any work is queued. Belongs to one event loop.

    Several requests that ask the same at once have it done once, and each waits for it as long as its own time and its
    own client allow: the one that came first may leave without harm to the others, and only when the last has left
    before the work was begun it is taken back. What the work comes to is what all of them are told; only a success is
    kept.
    """

    def __init__(self, cache: ResultCache, keys: Keys, admission: Admission) -> None:
        self._cache = cache
        self._keys = keys
        self._admission = admission
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self._flights: dict[bytes, Ticket[bytes]] = {}
        self._keeping: set[asyncio.Task[None]] = set()

    @property
    def breaker_open(self) -> bool:
        """Whether a tier of the cache is not asked at present, because it failed."""
        return self._cache.breaker_open

    async def close(self) -> None:
        """Give up what the cache has open; the service ends."""
        await self._cache.close()

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
        receive: Receive | None,
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
        text, count = None, self._admission.metrics.count_cached
        ticket = self._flights.get(key)
        if ticket is None:
            text = await self._cache.get(key, count)
            ticket = self._flights.get(key)  # while Redis was asked, another request may have begun
        else:
            count(self._cache.tier, "shared" if ticket.outcome is None else "hit")
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
            await self._cache.put(key, text)
        finally:
            del self._flights[key]


def sha256_of(picture: Callable[[], bytes]) -> bytes:
    """The hash of a picture's bytes, got where they are hashed."""
    return hashlib.sha256(picture()).digest()
