"""Long pauses: what the threads of a pool do in them, and networks that are closed and opened again."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from tests.golden.pictures import sample_pictures
from tests.service.services import PATIENCE_S, served, wait_until

from dulian.analyzer import Analyzer
from dulian.errors import WeightsError
from dulian.faces import ModelInfo
from dulian.factory import AnalyzerFactory, open_profile
from dulian.models.catalog import find_profile
from dulian.pipeline import Pipeline
from dulian.service import networks as networks_module
from dulian.service.cache import MemoryCache
from dulian.service.compute import ComputePool, Job
from dulian.service.http import create_app
from dulian.service.limits import ServiceLimits
from dulian.service.networks import Networks
from dulian.service.server import make_service
from dulian.service.start import Share
from dulian.service.state import Service
from dulian.service.worker import open_service
from dulian.settings import Settings
from dulian.store import ModelStore

# ── the pool ─────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def idle_pool(
    workers: int, unload: Callable[[], object], after_s: float
) -> Iterator[Callable[[Callable[[], Any]], None]]:
    """A pool that unloads; what it is given to do is done in the background."""
    pool = ComputePool(workers, lambda: None, unload=unload, unload_after_s=after_s)
    loop = asyncio.new_event_loop()
    pool.start()

    def submit(work: Callable[[], Any]) -> None:
        pool.submit(Job(work, deadline=time.monotonic() + PATIENCE_S, loop=loop, settle=lambda *_: None))

    try:
        yield submit
    finally:
        pool.close(PATIENCE_S)
        loop.close()


def test_every_thread_unloads_once_in_itself_and_again_only_after_work() -> None:
    unloaded: list[int] = []
    with idle_pool(3, lambda: unloaded.append(threading.get_ident()), 0.02) as submit:
        wait_until(lambda: len(unloaded) == 3)
        assert len(set(unloaded)) == 3
        time.sleep(0.1)
        assert len(unloaded) == 3
        worked: list[int] = []
        submit(lambda: worked.append(threading.get_ident()))
        wait_until(lambda: len(unloaded) == 4)
        assert unloaded[3:] == worked
        time.sleep(0.1)
        assert len(unloaded) == 4


def test_no_thread_unloads_while_another_is_at_work() -> None:
    begun, leave = threading.Event(), threading.Event()
    unloaded: list[bool] = []

    def work() -> None:
        begun.set()
        leave.wait(PATIENCE_S)

    with idle_pool(2, lambda: unloaded.append(leave.is_set()), 0.2) as submit:
        submit(work)
        assert begun.wait(PATIENCE_S)
        time.sleep(0.05)
        unloaded.clear()  # what was begun before the work
        time.sleep(0.3)
        assert not unloaded
        leave.set()
        wait_until(lambda: len(unloaded) >= 1)
        assert all(unloaded)


def test_a_pause_that_fails_ends_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise MemoryError

    done = threading.Event()
    with caplog.at_level(logging.INFO, "dulian.service"), idle_pool(1, fail, 0.01) as submit:
        wait_until(lambda: len(caplog.records) == 1)
        submit(done.set)
        assert done.wait(PATIENCE_S)
    assert {record.message for record in caplog.records} == {"pause_failed"}


# ── networks that come and go ────────────────────────────────────────────────────────────────────


class FakeFactory:
    """Opened networks without networks."""

    new_solo_analyzer = None

    def __init__(self, digest: str = "0") -> None:
        self.model = ModelInfo("fake", "none", digest)

    def new_analyzer(self) -> Analyzer:
        return cast(Analyzer, object())


def fake_networks(reopen: Callable[[], FakeFactory] = FakeFactory) -> tuple[Networks, weakref.ref[FakeFactory]]:
    factory = FakeFactory()
    return Networks(cast(Any, factory), cast(Any, reopen)), weakref.ref(factory)


def test_networks_are_closed_by_the_last_who_used_them() -> None:
    networks, first = fake_networks()
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        for thread in (one, other):
            thread.submit(networks.new_analyzer).result()
        one.submit(networks.close).result()
        one.submit(networks.close).result()
        assert first() is not None
        other.submit(networks.close).result()
        assert first() is None
        one.submit(networks.new_solo_analyzer).result()


def test_without_a_way_back_networks_stay_open() -> None:
    factory = FakeFactory()
    networks = Networks(cast(Any, factory))
    networks.new_analyzer()
    networks.close()
    networks.new_analyzer()


def test_who_comes_while_they_are_opened_waits_and_they_are_opened_once() -> None:
    opened: list[FakeFactory] = []

    def reopen() -> FakeFactory:
        time.sleep(0.05)
        opened.append(FakeFactory())
        return opened[-1]

    networks, _ = fake_networks(reopen)
    networks.close()
    together = threading.Barrier(4)

    def use() -> None:
        together.wait(PATIENCE_S)
        networks.new_analyzer()

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(use) for _ in range(4)]:
            done.result()
    assert len(opened) == 1


@pytest.mark.parametrize("trouble", ["missing", "others"])
def test_networks_that_cannot_be_opened_again_are_tried_again(trouble: str) -> None:
    troubled = [True, False]

    def reopen() -> FakeFactory:
        if not troubled.pop(0):
            return FakeFactory()
        if trouble == "others":
            return FakeFactory("1")
        raise WeightsError("missing")

    networks, _ = fake_networks(reopen)
    networks.close()
    with pytest.raises(WeightsError, match="missing" if trouble == "missing" else "have changed since the start"):
        networks.new_analyzer()
    assert (networks._factory, networks._users) == (None, set())
    networks.new_analyzer()


def test_a_pipeline_that_is_released_makes_new_analyzers() -> None:
    made: list[Any] = []

    class Kept:
        pass

    def new() -> Any:
        made.append(weakref.ref(kept := Kept()))
        return kept

    pipeline = Pipeline(new, limits=cast(Any, None), new_solo_analyzer=new)
    pipeline.prepare()
    with ThreadPoolExecutor(1) as other:
        other.submit(pipeline.prepare).result()
        pipeline.release()
        assert [one() is None for one in made] == [True, True, False, False]
        pipeline.prepare()
        assert len(made) == 6


# ── the real ones ────────────────────────────────────────────────────────────────────────────────

WORKERS = 2
CLIENTS = 8


class Opener:
    """Opens the real networks, and remembers by weak references all that it opened."""

    def __init__(self, store: ModelStore, profile: str) -> None:
        self.store = store
        self.profile = profile
        self.opened: list[list[weakref.ref[Any]]] = []
        self.error: Exception | None = None

    def __call__(self) -> AnalyzerFactory:
        if self.error is not None:
            raise self.error
        factory = open_profile(find_profile(self.profile), self.store, workers=WORKERS, solo_threads=WORKERS, threads=1)
        shared = [*factory.sessions.values(), *(factory.solo_sessions or {}).values()]
        self.opened.append([weakref.ref(one) for each in shared for one in (each, vars(each)["_model"])])
        return factory

    def all_gone(self) -> bool:
        return all(one() is None for opened in self.opened for one in opened)


@contextmanager
def unloading(opener: Opener, after_s: float) -> Iterator[tuple[Service, str]]:
    patient = ServiceLimits(deadline_s=PATIENCE_S)  # a busy machine opens networks slowly
    service = make_service(opener(), WORKERS, limits=patient, reopen=opener, unload_after_s=after_s)
    try:
        with served(create_app(service)) as url:
            yield service, url
    finally:
        service.pool.close(PATIENCE_S)


def ask(url: str, picture: bytes) -> str:
    answer = httpx.post(f"{url}/v1/analyze", content=picture, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    wire = answer.json()
    return json.dumps({name: value for name, value in wire.items() if name not in ("request_id", "timings_ms")})


def side_threads() -> int:
    return sum(thread.name.startswith("side") for thread in threading.enumerate())


@pytest.fixture
def opener(model_store: ModelStore, profile_name: str) -> Opener:
    return Opener(model_store, profile_name)


@pytest.mark.weights
def test_after_a_pause_the_networks_are_gone_and_the_next_answers_are_the_same(opener: Opener, samples: Path) -> None:
    pictures = [sample_pictures(samples)[name] for name in ("astronaut", "astronaut jpeg")]
    gc.collect()
    sides_before = side_threads()
    with unloading(opener, after_s=0.3) as (_, url), ThreadPoolExecutor(CLIENTS) as clients:
        serial = [ask(url, picture) for picture in pictures]
        wait_until(opener.all_gone)
        opened = len(opener.opened)
        wait_until(lambda: side_threads() == sides_before)
        assert httpx.get(f"{url}/readyz").status_code == 200
        assert list(clients.map(lambda picture: ask(url, picture), pictures * 4)) == serial * 4
        assert len(opener.opened) > opened


@pytest.mark.weights
def test_networks_that_cannot_be_opened_again_are_503_until_they_can(
    model_store: ModelStore, samples: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opener = Opener(model_store, "standard")
    picture = (samples / "astronaut.png").read_bytes()
    with caplog.at_level(logging.INFO, "dulian.service"), unloading(opener, after_s=0.2) as (service, url):
        expected = ask(url, picture)
        wait_until(opener.all_gone)
        opener.error = WeightsError("a secret path")
        for _ in range(3):
            answer = httpx.post(f"{url}/v1/analyze", content=picture)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "weights_invalid")
            assert "secret" not in answer.text
        assert service.admission.bytes_in_flight == 0
        opener.error = None
        assert ask(url, picture) == expected
    assert [record.message for record in caplog.records].count("analysis_failed") == 3


def factories() -> set[int]:
    gc.collect()
    return {id(one) for one in gc.get_objects() if type(one) is AnalyzerFactory}


@pytest.mark.weights
def test_the_settings_reach_the_service(
    model_store: ModelStore, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", os.devnull)  # where keys might lie
    before = factories()
    closed = threading.Event()
    monkeypatch.setattr(networks_module, "log_event", lambda event, **_: event == "networks_closed" and closed.set())
    settings = Settings(idle_unload_s=0.2, cache_mb=3, cache_ttl_s=7.0)
    service = open_service(settings, model_store, Share(threads=WORKERS))
    try:
        assert service.results is not None
        tier = service.results._cache
        assert isinstance(tier, MemoryCache)
        assert (tier._max_bytes, tier._ttl_s) == (3 * 2**20, 7.0)
        assert closed.wait(PATIENCE_S)
        assert factories() <= before
        with served(create_app(service)) as url:
            assert json.loads(ask(url, (samples / "astronaut.png").read_bytes()))["faces"]
    finally:
        service.pool.close(PATIENCE_S)
    plain = open_service(Settings(), model_store, Share(threads=1))
    plain.pool.close(PATIENCE_S)
    assert plain.results is None
