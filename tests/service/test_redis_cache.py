"""Results that several instances share in a real Redis, and every way in which that may fail: no answer changes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from pydantic import SecretStr
from tests.conftest import ROOT
from tests.promises.harness import comparable
from tests.service.fault_proxy import FaultProxy
from tests.service.redis_server import RedisServer, free_port, redis_server
from tests.service.services import MODEL, PATIENCE_S, FakeAnalysis, client_of, eventually, fake_service

from dulian.analyzer import AnalyzeOptions
from dulian.errors import ImageTruncatedError, MalformedInputError, MissingDependencyError
from dulian.faces import AnalysisResult, ImageInfo, ModelInfo
from dulian.image import Image
from dulian.service import cache
from dulian.service.cache import Keys, MemoryCache, SharedResults, TieredCache, open_cache
from dulian.service.cache import redis as redis_cache
from dulian.service.cache.breaker import Breaker
from dulian.service.cache.redis import HEAD_BYTES, MAX_TEXT_BYTES, PREFIX, RedisCache, Seal, is_result, tell_change
from dulian.service.query import Asked
from dulian.service.state import Service
from dulian.settings import Settings

SECRET = b"a secret of thirty-two characters"
OTHER_SECRET = b"another one of thirty-two letters"
PICTURE = b"a picture " * 100
TTL_S = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(autouse=True)
def _empty(request: pytest.FixtureRequest) -> None:
    if "server" in request.fixturenames:
        with request.getfixturevalue("server").client() as client:
            client.flushall()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[dict[str, Any]]]:
    """The fields of all events of a name so far."""
    logger = logging.getLogger("dulian.service")
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "level", logging.INFO)
    caplog.set_level(logging.INFO, "dulian.service")
    return lambda event: [record.fields for record in caplog.records if record.getMessage() == event]  # type: ignore[attr-defined]


class Telling(FakeAnalysis):
    """Its answer shows which picture it was asked about, and how; the picture ``broken`` is refused."""

    def __call__(self, data: bytes, options: AnalyzeOptions) -> tuple[AnalysisResult, Callable[[], Image]]:
        result, load = super().__call__(data, options)
        if data == b"broken":
            raise ImageTruncatedError("ends early")
        return replace(result, image=ImageInfo(zlib.crc32(data), options.max_faces)), load


@dataclass
class Instance:
    """One service of several that share a Redis."""

    service: Service
    client: httpx.AsyncClient
    far: RedisCache
    analysis: Telling

    async def ask(self, picture: bytes = PICTURE, query: str = "") -> httpx.Response:
        return await self.client.post(f"/v1/analyze{query}", content=picture)

    async def written(self) -> None:
        """Until nothing waits to be written any more."""
        results = self.service.results
        assert results is not None
        await eventually(lambda: not results._flights and self.far.waiting_bytes == 0)

    def counted(self) -> dict[str, int]:
        """Looks into tiers, as ``redis hit``."""
        metric = self.service.metrics._registry.collect()
        return {
            f"{sample.labels['tier']} {sample.labels['result']}": int(sample.value)
            for family in metric
            if family.name == "dulian_cache_requests"
            for sample in family.samples
            if sample.value
        }

    def gauge(self, name: str) -> float:
        value = self.service.metrics._registry.get_sample_value(name)
        assert value is not None
        return value


@asynccontextmanager
async def instance(
    url: str,
    *,
    secret: bytes = SECRET,
    memory: bool = False,
    model: ModelInfo = MODEL,
    budget_s: float = 2.0,
    breaker: Breaker | None = None,
    workers: int = 1,
    ttl_s: float = TTL_S,
    **limits: Any,
) -> AsyncIterator[Instance]:
    """With a budget that a busy machine does not exceed, where a test is not about that."""
    analysis = Telling()
    with fake_service(analysis, workers=workers) as service:
        far = RedisCache(url, secret, ttl_s, budget_s=budget_s, breaker=breaker or Breaker(changed=tell_change))
        keys = Keys(model, replace(service.image_limits, **limits), secret=secret)
        kept = TieredCache(MemoryCache(2**20, ttl_s), far) if memory else far
        service.results = SharedResults(kept, keys, service.admission)
        async with client_of(service) as client:
            try:
                yield Instance(service, client, far, analysis)
            finally:
                await service.results.close()


def sharing(url: str, action: Callable[[Instance, Instance], Awaitable[None]], **options: Any) -> None:
    """Two instances of one deployment."""

    async def main() -> None:
        async with instance(url, **options) as one, instance(url, **options) as other:
            await action(one, other)

    asyncio.run(main())


def alone(url: str, action: Callable[[Instance], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with instance(url, **options) as one:
            await action(one)

    asyncio.run(main())


def check(answer: httpx.Response, picture: bytes = PICTURE, found: str | None = None) -> None:
    """It is the answer to this picture."""
    assert answer.status_code == 200, answer.text
    assert answer.json()["image"]["width"] == zlib.crc32(picture)
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert found is None or answer.headers["x-cache"] == found


# ── sharing ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("memory", [False, True], ids=["Redis alone", "memory first"])
def test_what_one_instance_has_answered_another_gives_again(server: RedisServer, memory: bool) -> None:
    async def main(one: Instance, other: Instance) -> None:
        first = await one.ask()
        await one.written()
        second, third = await other.ask(), await other.ask()
        check(first, found="miss")
        check(second, found="hit")
        strip = len(b'{"request_id":""') + 32
        assert first.content[strip:] == second.content[strip:] == third.content[strip:]
        assert len({answer.json()["request_id"] for answer in (first, second, third)}) == 3
        assert other.analysis.seen == []
        if memory:
            assert one.counted() == {"memory miss": 1, "redis miss": 1}
            assert other.counted() == {"memory miss": 1, "redis hit": 1, "memory hit": 1}
        else:
            assert one.counted() == {"redis miss": 1}
            assert other.counted() == {"redis hit": 2}

    sharing(server.url, main, memory=memory)


@pytest.mark.parametrize("route", ["/v1/analyze?format=faces&annotate=none", "/api/analyze", "/v1/batch"])
def test_every_route_that_shares_results_shares_them_between_instances(server: RedisServer, route: str) -> None:
    async def main(one: Instance, other: Instance) -> None:
        answers = []
        for asked in (one, other):
            answers.append(await asked.client.post(route, files={"image": ("a.jpg", PICTURE)}))
            await asked.written()
        assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
        assert comparable(answers[0].content) == comparable(answers[1].content)
        assert other.counted() == {"redis hit": 1}
        assert other.analysis.seen == []

    sharing(server.url, main)


def test_who_asks_the_same_at_once_asks_redis_once(server: RedisServer) -> None:
    async def main(one: Instance) -> None:
        answers = await asyncio.gather(*(one.ask() for _ in range(8)))
        assert sorted(answer.headers["x-cache"] for answer in answers) == ["miss", *["shared"] * 7]
        assert len(one.analysis.seen) == 1
        assert one.counted() == {"redis miss": 1, "redis shared": 7}

    alone(server.url, main)


def test_that_one_leaves_while_redis_is_asked_harms_nobody(server: RedisServer) -> None:
    async def main(one: Instance) -> None:
        tasks = [asyncio.create_task(one.ask()) for _ in range(3)]
        await eventually(lambda: bool(one.far._looks))
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        for task in tasks[1:]:
            check(await task)
        await eventually(lambda: one.service.admission.bytes_in_flight == 0)

    with FaultProxy(server.port) as proxy:
        proxy.become("delay", delay_s=0.05)
        alone(f"redis://127.0.0.1:{proxy.port}", main)


def test_a_result_lives_in_memory_no_longer_than_it_would_have_in_redis(server: RedisServer) -> None:
    class Clock:
        now = 1000.0

        def __call__(self) -> float:
            return self.now

    async def main() -> None:
        clock = Clock()
        far = RedisCache(server.url, SECRET, TTL_S, budget_s=2.0)
        near = MemoryCache(2**20, TTL_S, clock=clock)
        tiers = TieredCache(near, far)
        await far.put(b"key", b'{"faces":[]}')
        await eventually(lambda: far.waiting_bytes == 0)
        with server.client() as client:
            (name,) = client.keys()
            assert TTL_S - PATIENCE_S < client.pttl(name) / 1000 <= TTL_S
            client.pexpire(name, 20_000)
        await near.put(b"other", b"value")
        assert await tiers.get(b"key") == b'{"faces":[]}'
        clock.now += 20.0
        assert await near.get(b"key") is None
        assert await near.get(b"other") == b"value"
        await tiers.close()

    asyncio.run(main())


DIFFERENT: dict[str, dict[str, Any]] = {
    "profile": {"model": replace(MODEL, profile="other")},
    "engine": {"model": replace(MODEL, engine="other")},
    "digest": {"model": replace(MODEL, digest="1")},
    "limit of pixels": {"max_pixels": 1_000_000},
    "limit of bytes": {"max_bytes": 1_000_000},
    "secret": {"secret": OTHER_SECRET},
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_instances_that_would_answer_otherwise_share_nothing(server: RedisServer, name: str) -> None:
    async def main() -> None:
        async with instance(server.url) as one, instance(server.url, **DIFFERENT[name]) as other:
            for asked in (one, other):
                check(await asked.ask(), found="miss")
                await asked.written()
            assert other.counted() == {"redis miss": 1}  # not even looked at the other's
        with server.client() as client:
            assert client.dbsize() == 2

    asyncio.run(main())


def test_other_versions_libraries_and_wishes_have_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    sha256, asked = hashlib.sha256(PICTURE).digest(), Asked(budget_s=5.0)

    def key(asked: Asked = asked, secret: bytes = SECRET) -> bytes:
        return Keys(MODEL, secret=secret).key(sha256, "/v1/analyze", asked)

    usual = key()
    assert usual == key() == key(replace(asked, budget_s=1.0))
    assert usual != key(secret=OTHER_SECRET)
    assert usual != key(replace(asked, options=AnalyzeOptions(max_faces=3)))
    assert usual != Keys(MODEL).key(sha256, "/v1/analyze", asked)
    monkeypatch.setattr(cache, "__version__", "other")
    assert usual != key()
    monkeypatch.undo()
    assert usual == key()
    monkeypatch.setattr(cache, "LIBRARIES", ("numpy", "a package that nobody has"))
    assert usual != key()
    assert [name for name, _ in cache.installed(cache.LIBRARIES)] == ["numpy"]


def test_nothing_but_digests_and_signed_text_reaches_redis(server: RedisServer) -> None:
    picture = os.urandom(5000)
    sha256 = hashlib.sha256(picture)

    async def main(one: Instance) -> None:
        for query in ("", "?annotate=base64", "?format=faces&annotate=none", "?max_faces=3"):
            assert (await one.ask(picture, query)).status_code == 200
        drawn = await one.client.post("/v1/analyze", content=picture, headers={"accept": "image/jpeg"})
        assert drawn.headers["content-type"] == "image/jpeg"
        await one.written()

    with FaultProxy(server.port) as proxy:
        alone(f"redis://127.0.0.1:{proxy.port}", main)
        sent = bytes(proxy.sent)
    with server.client() as client:
        names = list(client.scan_iter())
        assert len(names) == 3  # neither of the two with a drawn picture
        for name in names:
            assert len(bytes.fromhex(name.decode().removeprefix(PREFIX))) == 32
            value = client.get(name)
            assert value[:1] == redis_cache.VERSION
            assert is_result(value[HEAD_BYTES:])
            assert 0 < client.pttl(name) <= TTL_S * 1000
    secrets = [SECRET, sha256.digest(), sha256.hexdigest().encode(), base64.b64encode(sha256.digest())]
    pixels = [picture[:16], base64.b64encode(picture)[:16], b"\xff\xd8\xff", b"/9j/"]
    assert PREFIX.encode() in sent
    assert not [what for what in (*secrets, *pixels) if what in sent]


# ── what is there is not believed ────────────────────────────────────────────────────────────────


def resealed(secret: bytes, key: bytes, text: bytes) -> bytes:
    return Seal(secret).close(key, text)


Poison = Callable[[redis.Redis, bytes, bytes, bytes], object]
"""Puts something under a name; gets the client, the name, the good value, and the good value of another key."""


def setting(change: Callable[[bytes, bytes, bytes], bytes]) -> Poison:
    """One that changes the value; ``change`` gets the key, the value, and another key's."""
    return lambda client, name, value, other: client.set(
        name, change(bytes.fromhex(name.decode()[len(PREFIX) :]), value, other), keepttl=True
    )


def flipped(at: int) -> Poison:
    return setting(lambda key, value, other: value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :])


POISONS: dict[str, Poison] = {
    "version flipped": flipped(0),
    "signature flipped": flipped(1),
    "end of the signature flipped": flipped(HEAD_BYTES - 1),
    "text flipped": flipped(HEAD_BYTES + 30),
    "end flipped": flipped(-1 + HEAD_BYTES + 60),
    "another key's": setting(lambda key, value, other: other),
    "forged by another secret": setting(
        lambda key, value, other: resealed(OTHER_SECRET, key, value[HEAD_BYTES:].replace(b'"width":', b'"width":1'))
    ),
    "unsigned": setting(lambda key, value, other: value[HEAD_BYTES:]),
    "no signature": setting(lambda key, value, other: value[:1] + value[HEAD_BYTES:]),
    "cut": setting(lambda key, value, other: value[:-1]),
    "longer": setting(lambda key, value, other: value + b" "),
    "version only": setting(lambda key, value, other: value[:1]),
    "old schema, signed": setting(
        lambda key, value, other: resealed(SECRET, key, value[HEAD_BYTES:].replace(b'"faces"', b'"persons"'))
    ),
    "no JSON, signed": setting(lambda key, value, other: resealed(SECRET, key, b"hello")),
    "a list, signed": setting(lambda key, value, other: resealed(SECRET, key, b"[1]")),
    "nested, signed": setting(lambda key, value, other: resealed(SECRET, key, b"[" * 100_000)),
    "too long, signed": setting(
        lambda key, value, other: resealed(SECRET, key, b'{"faces":[]' + b" " * MAX_TEXT_BYTES + b"}")
    ),
    "64 MB": setting(lambda key, value, other: value + bytes(64 * 2**20)),
    "random": setting(lambda key, value, other: os.urandom(500)),
    "a list of Redis": lambda client, name, value, other: (client.delete(name), client.rpush(name, value)),
    "a hash of Redis": lambda client, name, value, other: (client.delete(name), client.hset(name, "a", value)),
    "without an end": lambda client, name, value, other: client.persist(name),
}


@pytest.mark.parametrize("memory", [False, True], ids=["Redis alone", "memory first"])
@pytest.mark.parametrize("name", POISONS)
def test_what_this_deployment_has_not_put_there_is_not_there(
    server: RedisServer, name: str, memory: bool, log: Callable[[str], list[dict[str, Any]]]
) -> None:
    async def main(one: Instance, other: Instance) -> None:
        good = await one.ask()
        await one.written()
        with server.client() as client:
            (key,) = client.keys()
            value = client.get(key)
            await one.ask(b"another picture")
            await one.written()
            (further,) = set(client.keys()) - {key}
            POISONS[name](client, key, value, client.get(further))
        tracemalloc.start()
        answer = await other.ask()
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        check(answer, found="miss")
        assert comparable(answer.content) == comparable(good.content)
        assert taken < 4 * 2**20
        assert other.counted().get("redis error") == 1
        assert len(other.analysis.seen) == 1
        assert not other.far.breaker_open
        told = [*log("cache_distrusted"), *log("cache_refused")]
        assert {event["tier"] for event in told} == {"redis"}
        await other.written()
        with server.client() as client:  # and the right one has taken its place
            assert client.get(key)[HEAD_BYTES:] == value[HEAD_BYTES:]
        assert (await one.ask()).headers["x-cache"] == "hit"

    sharing(server.url, main, memory=memory)


def test_a_seal_opens_nothing_else() -> None:
    seal = Seal(SECRET)
    key, text = os.urandom(32), b'{"faces":[]}'
    sealed = seal.close(key, text)
    assert seal.open(key, sealed) == text
    for position in range(len(sealed)):
        for bit in range(8):
            changed = bytearray(sealed)
            changed[position] ^= 1 << bit
            assert seal.open(key, bytes(changed)) is None
    assert all(seal.open(key, sealed[:length]) is None for length in range(len(sealed)))
    assert seal.open(os.urandom(32), sealed) is None
    assert Seal(OTHER_SECRET).open(key, sealed) is None
    longest = seal.close(key, bytes(MAX_TEXT_BYTES))
    assert seal.open(key, longest) == bytes(MAX_TEXT_BYTES)
    assert seal.open(key, seal.close(key, bytes(MAX_TEXT_BYTES + 1))) is None


def test_what_is_too_long_is_not_written(server: RedisServer) -> None:
    async def main(one: Instance) -> None:
        for count, size in enumerate((MAX_TEXT_BYTES + 1, MAX_TEXT_BYTES)):
            await one.far.put(os.urandom(32), bytes(size))
            await one.written()
            with server.client() as client:
                assert client.dbsize() == count

    alone(server.url, main)


# ── Redis fails ──────────────────────────────────────────────────────────────────────────────────

FAULTS: dict[str, dict[str, Any]] = {
    "refuse": {"mode": "refuse"},
    "black hole": {"mode": "black hole"},
    "slow": {"mode": "delay", "delay_s": 0.3},
    "cut at once": {"mode": "cut", "cut_bytes": 0},
    "cut within an answer": {"mode": "cut", "cut_bytes": 5},
    "garbage": {"mode": "garbage"},
    "trickle": {"mode": "trickle"},
    "flood": {"mode": "flood"},
}
ASKED = [*(b"picture %d" % number for number in range(6)), b"broken", b"picture 0", b"broken", b"picture 1"]


@pytest.mark.parametrize("memory", [False, True], ids=["Redis alone", "memory first"])
@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_changes_an_answer_and_when_it_is_over_results_are_shared_again(
    server: RedisServer, fault: str, memory: bool, log: Callable[[str], list[dict[str, Any]]]
) -> None:
    with FaultProxy(server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"

        async def main() -> None:
            # Each of the other things that this machine has to do may take longer than 15 ms, but not than this.
            pause = Breaker(failures=3, pause_s=0.05, changed=tell_change)
            options: dict[str, Any] = {"memory": memory, "workers": 4, "budget_s": 0.1}
            async with instance(url, breaker=pause, **options) as one, instance(server.url) as other:
                for picture in ASKED[:3]:  # of these there are connections, and results
                    await one.ask(picture)
                await one.written()
                proxy.become(**FAULTS[fault])
                for _ in range(2):
                    answers = await asyncio.gather(*(one.ask(picture) for picture in ASKED))
                    for picture, answer in zip(ASKED, answers, strict=True):
                        if picture == b"broken":
                            assert (answer.status_code, answer.json()["error"]["code"]) == (422, "image_truncated")
                        else:
                            check(answer, picture)

                async def ask_while(is_open: bool) -> None:
                    async with asyncio.timeout(PATIENCE_S):
                        while one.far.breaker_open == is_open:
                            check(await one.ask(picture := os.urandom(8)), picture)

                await ask_while(False)  # what came while the machine held the loop up says nothing of Redis
                assert one.gauge("dulian_cache_breaker_open") == 1
                assert one.service.unready is None
                (opened,) = log("cache_breaker_open")
                assert opened["tier"] == "redis"
                assert len(opened["reason"]) < 40
                proxy.become("pass")

                await ask_while(True)
                assert one.gauge("dulian_cache_breaker_open") == 0
                assert log("cache_breaker_closed")
                check(await one.ask(b"afterwards"), b"afterwards", "miss")
                await one.written()
                check(await other.ask(b"afterwards"), b"afterwards", "hit")
                assert one.service.admission.bytes_in_flight == 0

        asyncio.run(main())


def test_an_open_breaker_asks_nobody(server: RedisServer) -> None:
    with FaultProxy(server.port) as proxy:

        async def main(one: Instance) -> None:
            proxy.become("black hole")
            for number in range(3):
                await one.ask(b"%d" % number)
            assert one.far.breaker_open
            seen = proxy.connections, len(proxy.sent)
            for number in range(50):
                check(await one.ask(b"%d" % number), b"%d" % number)
            assert (proxy.connections, len(proxy.sent)) == seen
            await one.written()
            assert one.counted() == {"redis error": 53}

        alone(f"redis://127.0.0.1:{proxy.port}", main, budget_s=0.05, breaker=Breaker(failures=3, pause_s=3600))


def test_nobody_waits_longer_than_the_budget(server: RedisServer) -> None:
    """A guard with much room: ten looks of 15 ms, half of which meet an open breaker."""
    with FaultProxy(server.port) as proxy:

        async def main(one: Instance) -> None:
            proxy.become("black hole")
            began = time.monotonic()
            for number in range(10):
                assert await one.far.get(b"%032d" % number) is None
            assert time.monotonic() - began < 2.0
            assert one.far.breaker_open

        alone(f"redis://127.0.0.1:{proxy.port}", main, budget_s=redis_cache.BUDGET_S)


def test_a_connection_that_takes_longer_than_a_budget_is_there_for_the_next(server: RedisServer) -> None:
    """With each way of 30 ms, connecting and asking takes 60; asking alone does within 45."""
    with FaultProxy(server.port) as proxy:

        async def main(one: Instance) -> None:
            proxy.become("delay", delay_s=0.03)
            assert await one.far.get(bytes(32)) is None
            assert one.counted() == {}
            await eventually(lambda: not one.far._tasks)
            connections = proxy.connections
            assert await one.far.find(bytes(32)) is None
            await eventually(lambda: not one.far._tasks)
            assert proxy.connections == connections

        alone(f"redis://127.0.0.1:{proxy.port}/1", main, budget_s=0.045)


def test_what_comes_while_the_loop_is_held_up_is_in_time_and_what_does_not_says_nothing_of_redis(
    server: RedisServer,
) -> None:
    key, text = bytes(32), b'{"faces":[]}'

    async def main() -> None:
        far = RedisCache(f"redis://127.0.0.1:{proxy.port}", SECRET, TTL_S, breaker=Breaker(failures=1))

        async def ask_and_be_held_up(seconds: float) -> bytes | None:
            asked = asyncio.create_task(far.get(key))
            for _ in range(20):  # until the question is on its way
                await asyncio.sleep(0)
            time.sleep(seconds)
            return await asked

        await far.put(key, text)
        await eventually(lambda: far.waiting_bytes == 0)
        proxy.become("delay", delay_s=0.005)
        assert await ask_and_be_held_up(0.5) == text
        proxy.become("black hole")
        assert await ask_and_be_held_up(0.5) is None
        assert not far.breaker_open
        assert await far.get(key) is None
        await far.close()

    with FaultProxy(server.port) as proxy:
        asyncio.run(main())


def test_what_announces_a_gigabyte_is_not_read(server: RedisServer) -> None:
    with FaultProxy(server.port) as proxy:

        async def main(one: Instance) -> None:
            assert await one.far.get(bytes(32)) is None
            proxy.become("flood")
            tracemalloc.start()
            assert await one.far.get(bytes(32)) is None
            await eventually(lambda: not one.far._tasks)
            taken = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert taken < 20 * 2**20  # the proxy's own included

        alone(f"redis://127.0.0.1:{proxy.port}", main)


def test_connections_are_bounded(server: RedisServer) -> None:
    with FaultProxy(server.port) as proxy:

        async def main(one: Instance) -> None:
            proxy.become("delay", delay_s=0.02)
            await asyncio.gather(*(one.far.get(os.urandom(32)) for _ in range(200)))
            assert one.counted() == {}
            assert 1 <= proxy.connections <= redis_cache.CONNECTIONS

        alone(f"redis://127.0.0.1:{proxy.port}", main, budget_s=PATIENCE_S)


def test_what_waits_to_be_written_is_bounded(server: RedisServer, log: Callable[[str], list[dict[str, Any]]]) -> None:
    text = bytes(10_000)
    with FaultProxy(server.port) as proxy:

        async def main() -> None:
            far = RedisCache(f"redis://127.0.0.1:{proxy.port}", SECRET, TTL_S, max_waiting_bytes=100_000)
            proxy.become("black hole")
            tracemalloc.start()
            for number in range(2000):
                await far.put(b"%032d" % number, bytes(text))
                if number % 100 == 0:
                    await asyncio.sleep(0)
                assert far.waiting_bytes <= 100_000
            taken = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert far.waiting_bytes > 50_000
            assert taken < 3 * 2**20  # the package, imported now, included
            reasons = [one["reason"] for one in log("cache_refused")]
            assert reasons.count("too many results wait to be written") == 1
            await far.close()
            assert far.waiting_bytes == 0

        asyncio.run(main())


def test_an_answer_does_not_wait_for_what_is_written(server: RedisServer) -> None:
    with FaultProxy(server.port) as proxy:

        async def main(one: Instance) -> None:
            await one.far.get(bytes(32))
            proxy.become("delay", delay_s=3600)
            check(await one.ask())
            await eventually(lambda: one.far.waiting_bytes > 0)

        alone(f"redis://127.0.0.1:{proxy.port}", main, budget_s=0.05)


REFUSALS: dict[str, tuple[tuple[str, ...], str]] = {
    "full": (("--maxmemory", "1", "--maxmemory-policy", "noeviction"), "redis://127.0.0.1:{port}"),
    "a password is needed": (("--requirepass", "right"), "redis://127.0.0.1:{port}"),
    "wrong password": (("--requirepass", "right"), "redis://:wrong@127.0.0.1:{port}"),
    "wrong user": ((), "redis://nobody:wrong@127.0.0.1:{port}"),
    "may not": (
        ("--user", "default", "on", "nopass", "~*", "+@all", "-getrange", "-set"),
        "redis://127.0.0.1:{port}",
    ),
    "a replica without its master": (("--replicaof", "127.0.0.1", "1"), "redis://127.0.0.1:{port}"),
    "no such database": (("--databases", "1"), "redis://127.0.0.1:{port}/7"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_redis_that_refuses_changes_no_answer(
    name: str, tmp_path: Path, log: Callable[[str], list[dict[str, Any]]]
) -> None:
    options, url = REFUSALS[name]
    with redis_server(tmp_path, *options) as refusing:

        async def main(one: Instance) -> None:
            for _ in range(2):
                for picture in ASKED:
                    answer = await one.ask(picture)
                    if picture == b"broken":
                        assert answer.status_code == 422
                    else:
                        check(answer, picture, "miss")
                await one.written()
            counted = one.counted()
            assert set(counted) <= {"redis miss", "redis error"}
            if "password" in name or "user" in name or "database" in name:
                assert one.far.breaker_open
                assert log("cache_breaker_open")
            else:  # it answers, and quickly: that keeps nobody waiting
                assert not one.far.breaker_open
                assert log("cache_refused")

        alone(url.format(port=refusing.port), main)


def test_the_configuration_in_the_documents_is_enough(tmp_path: Path) -> None:
    """With a password that has to be escaped in an address, and a database of its own."""
    text = (ROOT / "docs/operations.md").read_text("utf-8")
    (advised,) = re.findall(r"```conf\n(.*?)```", text, re.DOTALL)
    lines = [line.split() for line in advised.replace("change-me", "p%ss").splitlines()]
    with redis_server(tmp_path, *(word for first, *rest in lines for word in (f"--{first}", *rest))) as guarded:

        async def main(one: Instance, other: Instance) -> None:
            await one.ask()
            await one.written()
            check(await other.ask(), found="hit")
            with (
                guarded.client(username="results", password="p%ss") as client,
                pytest.raises(redis.exceptions.NoPermissionError),
            ):
                client.keys()

        sharing(f"redis://results:p%25ss@127.0.0.1:{guarded.port}/3", main)


def test_over_a_unix_socket(server: RedisServer) -> None:
    async def main(one: Instance, other: Instance) -> None:
        await one.ask()
        await one.written()
        check(await other.ask(), found="hit")

    sharing(f"unix://{server.socket_path}", main)


def test_over_tls(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    paths = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *paths], check=True, capture_output=True)
    redis_port = free_port()
    tls = ("--tls-port", str(redis_port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    with redis_server(tmp_path, *tls, "--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no"):

        async def trusted(one: Instance, other: Instance) -> None:
            await one.ask()
            await one.written()
            check(await other.ask(), found="hit")

        async def untrusted(one: Instance) -> None:
            check(await one.ask(), found="miss")
            assert one.counted() == {"redis error": 1}

        sharing(f"rediss://127.0.0.1:{redis_port}?ssl_ca_certs={certificate}", trusted)
        alone(f"rediss://127.0.0.1:{redis_port}", untrusted)


def test_a_redis_that_was_started_anew_is_used_again(tmp_path: Path) -> None:
    async def main() -> None:
        with redis_server(tmp_path) as first:
            async with instance(first.url, breaker=Breaker(pause_s=0.01)) as one:
                check(await one.ask(), found="miss")
                await one.written()
                check(await one.ask(), found="hit")
                first.kill()
                check(await one.ask(), found="miss")
                with redis_server(tmp_path, port=first.port):
                    async with asyncio.timeout(PATIENCE_S):
                        while (await one.ask()).headers["x-cache"] != "hit":
                            await one.written()

    asyncio.run(main())


def test_after_its_end_nothing_is_asked_or_kept(server: RedisServer) -> None:
    async def main(one: Instance) -> None:
        await one.far.close()
        check(await one.ask(), found="miss")
        await one.far.close()
        with server.client() as client:
            assert client.dbsize() == 0

    alone(server.url, main)


# ── the breaker ──────────────────────────────────────────────────────────────────────────────────


def test_the_breaker_opens_after_failures_in_a_row_and_one_may_try_after_each_pause() -> None:
    now, changes = [0.0], []
    breaker = Breaker(failures=3, pause_s=5.0, changed=changes.append, clock=lambda: now[0])
    for _ in range(2):
        breaker.failed("slow")
    breaker.succeeded()
    for _ in range(2):
        breaker.failed("slow")
    assert (breaker.allows(), breaker.is_open, changes) == (True, False, [])
    breaker.failed("slow")
    assert (breaker.allows(), breaker.is_open, changes) == (False, True, ["slow"])
    breaker.failed("slow")  # of those who had asked before
    assert changes == ["slow"]
    now[0] = 4.9
    assert not breaker.allows()
    now[0] = 5.0
    assert [breaker.allows(), breaker.allows()] == [True, False]
    breaker.failed("down")
    now[0] = 9.9
    assert not breaker.allows()
    now[0] = 10.0
    assert breaker.allows()
    breaker.succeeded()
    assert (breaker.is_open, breaker.allows(), breaker.allows(), changes) == (False, True, True, ["slow", None])
    breaker.failed("slow")
    assert not breaker.is_open


# ── what the settings say ────────────────────────────────────────────────────────────────────────


def settings(**given: Any) -> Settings:
    return Settings(cache_secret=SecretStr(SECRET.decode()), **given)


def test_which_tiers_there_are_is_said_by_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    url = SecretStr("redis://127.0.0.1:1")
    assert open_cache(Settings()) is None
    assert type(open_cache(settings(cache_mb=1))) is MemoryCache
    assert type(open_cache(settings(redis_url=url))) is RedisCache
    assert type(open_cache(settings(redis_url=url, cache_mb=1))) is TieredCache
    for wrong in ("redis://127.0.0.1:70000", "redis://a?db=x", "redis://:hush@a?nonsense=1"):
        with pytest.raises(MalformedInputError, match="redis_url") as caught:
            open_cache(settings(redis_url=SecretStr(wrong)))
        assert "hush" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'dulian\[redis\]'"):
        open_cache(settings(redis_url=url))


def test_json_of_results_is_told_from_other_text() -> None:
    whole = json.dumps({"image": {"width": 1, "height": 1, "rotated": 0}, "faces": []})
    assert is_result(b'{"faces":[],"processing_time_ms":1}')
    for text in (b"", b",", b"{}", b"null", b"1", b"\xff", b"," + whole[1:].encode()):
        assert not is_result(text)
