"""Results in Redis, for several instances that share them. What Redis says is believed only where it is proved.

What cannot be got in time, or at all, or is not what an instance of this deployment has put there, is not there:
nothing that happens to Redis changes an answer, and none waits for it longer than its budget. Redis gets digests under
a secret, and the text of results signed with it; no pixels, and no hash by which a photo could be found.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from dulian.errors import MalformedInputError, MissingDependencyError
from dulian.serialize import from_dict
from dulian.service.cache import Count, derive, size_of, uncounted
from dulian.service.cache.breaker import Breaker
from dulian.service.log import log_event
from dulian.service.metrics import CacheResult, Tier

if TYPE_CHECKING:
    from redis.asyncio import Redis

PREFIX = "dulian:"
VERSION = b"\x01"
HEAD_BYTES = len(VERSION) + 32
# 50 faces, the most there are in an answer, take about 50 KB. Nothing longer is written, and none of it is read.
MAX_TEXT_BYTES = 128 * 2**10
# All that an answer may wait for Redis, a connection included.
BUDGET_S = 0.015
# When the loop was held up, what has come meanwhile is read in so many turns of it.
TURNS = 10
# Who asked waits no longer than that; the connection that is being made, with TLS perhaps, is for those who ask next.
PATIENCE_S = 1.0
WRITE_PATIENCE_S = 0.25
CONNECTIONS = 16
# Results on their way to Redis, keys and all; what comes when these are reached is not kept there.
MAX_WAITING_BYTES = 4 * 2**20
# The same trouble has a line in the log no more often than this.
TELL_AGAIN_S = 60.0
CLOSE_S = 1.0


class Kept(NamedTuple):
    """The text of a result, and for how many seconds more it may be given."""

    text: bytes
    life_s: float


class Seal:
    """Binds a text to its key, so that only who has the secret can have put it there."""

    def __init__(self, secret: bytes) -> None:
        self._secret = derive(secret, "values")

    def close(self, key: bytes, text: bytes) -> bytes:
        """Version, signature, text."""
        return VERSION + self._signature(key, text) + text

    def open(self, key: bytes, sealed: bytes) -> bytes | None:
        """The text, if it was sealed for this key; None for everything else."""
        if sealed[: len(VERSION)] != VERSION or len(sealed) > HEAD_BYTES + MAX_TEXT_BYTES:
            return None
        text = sealed[HEAD_BYTES:]
        return text if hmac.compare_digest(sealed[len(VERSION) : HEAD_BYTES], self._signature(key, text)) else None

    def _signature(self, key: bytes, text: bytes) -> bytes:
        return hmac.digest(self._secret, VERSION + key + text, "sha256")


class RedisCache:
    """Results in Redis, each for ``ttl_s``. Belongs to the event loop on which it is first asked.

    The package ``redis`` speaks the protocol; what it needs of the loop is made when somebody first asks.

    Raises:
        MissingDependencyError: The package is missing.
        MalformedInputError: The address makes no sense to it.
    """

    tier: Tier = "redis"

    def __init__(
        self,
        url: str,
        secret: bytes,
        ttl_s: float,
        *,
        budget_s: float = BUDGET_S,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        breaker: Breaker | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._seal = Seal(secret)
        self._ttl_s = ttl_s
        self._budget_s = budget_s
        self._max_waiting_bytes = max_waiting_bytes
        self._breaker = breaker or Breaker(changed=tell_change)
        self._clock = clock
        self._client: Redis | None = None
        self._places = asyncio.Semaphore(CONNECTIONS)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._looks: dict[bytes, asyncio.Task[Kept | None]] = {}
        self._waiting: OrderedDict[bytes, bytes] = OrderedDict()
        self._writer: asyncio.Task[None] | None = None
        self._told: dict[str, float] = {}
        self._closed = False
        self.waiting_bytes = 0
        check_url(url)

    @property
    def breaker_open(self) -> bool:
        """Whether Redis is not asked at present."""
        return self._breaker.is_open

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    async def get(self, key: bytes, count: Count = uncounted) -> bytes | None:
        """The text of a result, or None; within the budget."""
        kept = await self.find(key, count)
        return None if kept is None else kept.text

    async def find(self, key: bytes, count: Count = uncounted) -> Kept | None:
        """The same, with the time that is left to it. Who asks for the same at once is told the same."""
        look = self._looks.get(key)
        if look is None:
            look = self._looks[key] = asyncio.get_running_loop().create_task(self._look(key, count))
            look.add_done_callback(lambda done: self._looks.pop(key))
        else:
            count(self.tier, "shared")
        return await asyncio.shield(look)  # that one leaves harms no other

    async def _look(self, key: bytes, count: Count) -> Kept | None:
        result, kept = await self._ask(key)
        count(self.tier, result)
        return kept

    async def _ask(self, key: bytes) -> tuple[CacheResult, Kept | None]:
        if self._closed or not self._breaker.allows():
            return "error", None
        fetch = self._start(self._fetch(key))
        took_s = await self._wait(fetch)
        if fetch.cancelled():  # the service ends
            return "error", None
        if not fetch.done():
            if took_s < 2 * self._budget_s:  # else it was the loop that was held up, which says nothing of Redis
                self._breaker.failed("too slow")
            return "error", None
        fetched = fetch.result()
        if isinstance(fetched, Exception):
            self._breaker.failed(type(fetched).__name__)
            return "error", None
        self._breaker.succeeded()
        return self._judge(key, *fetched)

    async def _wait(self, fetch: asyncio.Task[Any]) -> float:
        """As long as the budget allows; how long that was.

        A timeout that cancelled it would also end the connection, or never have one made that takes longer.
        """
        began = self._clock()
        await asyncio.wait({fetch}, timeout=self._budget_s)
        took_s = self._clock() - began
        for _ in range(TURNS):
            if fetch.done():
                break
            await asyncio.sleep(0)
        return took_s

    async def _fetch(self, key: bytes) -> tuple[object, object] | Exception:
        """What Redis says of a key: a string cut off where it would be too long, and its time in milliseconds."""
        name = PREFIX + key.hex()
        try:
            async with asyncio.timeout(PATIENCE_S), self._places:
                pipeline = self._connected().pipeline(transaction=False)
                pipeline.getrange(name, 0, HEAD_BYTES + MAX_TEXT_BYTES)  # the last byte is one too many
                pipeline.pttl(name)
                value, life_ms = await pipeline.execute(raise_on_error=False)
                return value, life_ms
        except Exception as error:  # noqa: BLE001 - whatever answers may send anything, and the parser raise anything
            return error

    def _judge(self, key: bytes, value: object, life_ms: object) -> tuple[CacheResult, Kept | None]:
        if not isinstance(value, bytes) or not isinstance(life_ms, int):
            wrong = value if isinstance(value, Exception) else life_ms
            self._tell("cache_refused", type(wrong).__name__)
            return "error", None
        if not value or life_ms == 0:
            return "miss", None
        text = self._seal.open(key, value)
        if text is None or not is_result(text) or life_ms < 0:  # what has no end was not put there by us
            self._tell("cache_distrusted", "signature" if text is None else "shape")
            return "error", None
        return "hit", Kept(text, min(life_ms / 1000, self._ttl_s))

    # ── writing ──────────────────────────────────────────────────────────────────────────────────

    async def put(self, key: bytes, value: bytes) -> None:
        """Have the text of a result written, some time after this; it is lost if too much waits or Redis fails."""
        size = size_of(key, value)
        if self._closed or self._breaker.is_open or key in self._waiting or len(value) > MAX_TEXT_BYTES:
            return
        if self.waiting_bytes + size > self._max_waiting_bytes:
            self._tell("cache_refused", "too many results wait to be written")
            return
        self._waiting[key] = value
        self.waiting_bytes += size
        if self._writer is None:
            self._writer = self._start(self._write_all())

    async def _write_all(self) -> None:
        try:
            while self._waiting and not self._breaker.is_open:
                key, text = next(iter(self._waiting.items()))
                await self._write(key, text)
                self.waiting_bytes -= size_of(key, self._waiting.pop(key))
        finally:
            self._waiting.clear()
            self.waiting_bytes = 0
            self._writer = None

    async def _write(self, key: bytes, text: bytes) -> None:
        """Failures are told, but open no breaker: nobody waits for this, and reading may go well."""
        try:
            async with asyncio.timeout(WRITE_PATIENCE_S):
                life_ms = math.ceil(self._ttl_s * 1000)
                await self._connected().set(PREFIX + key.hex(), self._seal.close(key, text), px=life_ms)
        except Exception as error:  # noqa: BLE001 - as in _fetch
            self._tell("cache_refused", type(error).__name__)

    # ── both ─────────────────────────────────────────────────────────────────────────────────────

    def _connected(self) -> Redis:
        if self._client is None:
            self._client = open_client(self._url)
        return self._client

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _tell(self, event: str, reason: str) -> None:
        now = self._clock()
        if now - self._told.get(reason, -math.inf) >= TELL_AGAIN_S:
            self._told[reason] = now
            log_event(event, level=logging.WARNING, tier=self.tier, reason=reason)

    async def close(self) -> None:
        """Ask and write no more, and end the connections; what was not written yet never is."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._looks.values(), return_exceptions=True)
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                async with asyncio.timeout(CLOSE_S):
                    await client.aclose()


def tell_change(reason: str | None) -> None:
    """A line in the log when Redis is no longer asked, and when it is again."""
    if reason is None:
        log_event("cache_breaker_closed", tier=RedisCache.tier)
    else:
        log_event("cache_breaker_open", level=logging.WARNING, tier=RedisCache.tier, reason=reason)


def is_result(text: bytes) -> bool:
    """Whether a text is one that routes answer with: a result without its request id, or an object of JSON."""
    full = text.startswith(b",")
    try:
        data = json.loads(b'{"request_id":""' + text if full else text)
        if full:
            from_dict(data)
    except (ValueError, RecursionError, MalformedInputError):
        return False
    return isinstance(data, dict) and bool(data)


def check_url(url: str) -> None:
    """Refuse an address of which no connection could be made.

    Raises:
        MissingDependencyError: The package ``redis`` is missing.
        MalformedInputError: It makes no sense; the message has nothing of it, since it may hold a password.
    """
    try:
        open_client(url).connection_pool.make_connection()  # type: ignore[no-untyped-call]
    except ImportError:
        raise MissingDependencyError("redis_url needs an extra: pip install 'dulian[redis]'") from None
    except Exception as error:  # noqa: BLE001 - the package's own words may repeat the address
        raise MalformedInputError(f"redis_url makes no sense to the package redis ({type(error).__name__})") from None


def open_client(url: str) -> Redis:
    """A client that connects when it has to, tries everything once, and tells Redis nothing of itself."""
    from redis.asyncio import ConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    pool = ConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS + 1,  # and one that writes
        socket_timeout=PATIENCE_S,
        socket_connect_timeout=PATIENCE_S,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        driver_info=None,
        parser_class=bounded_parser(),
    )
    return Redis.from_pool(pool)


@cache
def bounded_parser() -> Any:
    """The package's own parser, which takes no string that is longer than what was asked for.

    Redis cuts off what is too long; whatever else may answer could announce gigabytes and send them.
    """
    from redis._parsers import _AsyncRESP2Parser
    from redis.exceptions import InvalidResponse

    class BoundedParser(_AsyncRESP2Parser):
        async def _read(self, length: int) -> bytes:
            if length > HEAD_BYTES + MAX_TEXT_BYTES + 1:
                raise InvalidResponse("too long")
            return await super()._read(length)

    return BoundedParser
