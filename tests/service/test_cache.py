"""Results that are kept or shared: who gets which, for how long, and that nobody is harmed by it."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import json
import os
import threading
import tracemalloc
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.service.services import (
    MODEL,
    PATIENCE_S,
    FakeAnalysis,
    client_of,
    eventually,
    fake_service,
    served,
    wait_until,
)
from tests.service.test_http import connect, head

from dulian.analyzer import AnalyzeOptions
from dulian.errors import ImageTruncatedError, InferenceError
from dulian.faces import AnalysisResult, ImageInfo
from dulian.image import Image
from dulian.service import cache
from dulian.service.admission import Hold
from dulian.service.cache import ENTRY_BYTES, INLINE_BYTES, Keys, MemoryCache, SharedResults, size_of
from dulian.service.http import create_app
from dulian.service.query import Asked
from dulian.service.state import Service

ASKED = Asked(budget_s=5.0)
SHA256 = hashlib.sha256(b"picture").digest()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


@contextmanager
def sharing(analysis: Any, *, max_bytes: int = 2**20, ttl_s: float = 60.0, **limits: Any) -> Iterator[Service]:
    """A service that keeps its results."""
    with fake_service(analysis, **limits) as service:
        service.results = SharedResults(MemoryCache(max_bytes, ttl_s), Keys(service.model), service.admission)
        yield service


def with_client(service: Service, action: Callable[[httpx.AsyncClient], Any]) -> Any:
    async def main() -> Any:
        async with client_of(service) as client:
            return await action(client)

    return asyncio.run(main())


def body_of(answer: httpx.Response) -> dict[str, Any]:
    """All but what is the request's own."""
    assert answer.status_code == 200, answer.text
    wire: dict[str, Any] = answer.json()
    assert wire.pop("request_id") == answer.headers["x-request-id"]
    return wire


def counted(service: Service) -> dict[str, int]:
    registry = service.metrics._registry
    names = ("hit", "miss", "shared")
    labels = [{"tier": "memory", "result": name} for name in names]
    values = [registry.get_sample_value("dulian_cache_requests_total", label) for label in labels]
    return {name: int(value or 0) for name, value in zip(names, values, strict=True)}


# ── the memory ───────────────────────────────────────────────────────────────────────────────────


def test_a_result_is_there_until_its_time_is_over_and_no_use_makes_that_longer() -> None:
    clock = Clock()
    kept = MemoryCache(10_000, 60.0, clock=clock)

    async def main() -> None:
        await kept.put(b"key", b"value")
        for _ in range(3):
            clock.now += 19.9
            assert await kept.get(b"key") == b"value"
        clock.now += 0.4
        assert await kept.get(b"key") is None
        assert (len(kept), kept.bytes) == (0, 0)

    run(main())


def test_the_least_recently_used_goes_first() -> None:
    kept = MemoryCache(3 * size_of(b"a", b"1"), 60.0)

    async def main() -> None:
        for key in (b"a", b"b", b"c"):
            await kept.put(key, b"1")
        assert await kept.get(b"a") == b"1"
        await kept.put(b"d", b"1")
        assert [key for key in (b"a", b"b", b"c", b"d") if await kept.get(key)] == [b"a", b"c", b"d"]
        await kept.put(b"a", b"2")
        await kept.put(b"e", b"1")
        assert [key for key in (b"a", b"c", b"d", b"e") if await kept.get(key)] == [b"a", b"d", b"e"]
        assert await kept.get(b"a") == b"2"

    run(main())


def test_what_is_larger_than_the_cache_displaces_nothing() -> None:
    kept = MemoryCache(1000, 60.0)

    async def main() -> None:
        await kept.put(b"small", b"1")
        await kept.put(b"large", bytes(1000))
        assert await kept.get(b"large") is None
        assert await kept.get(b"small") == b"1"

    run(main())


@pytest.mark.parametrize("size", [0, 100, 1500, 20_000])
def test_no_more_memory_is_taken_than_is_counted(size: int) -> None:
    kept = MemoryCache(2**30, 60.0)

    async def main() -> int:
        await kept.put(b"first", b"")
        gc.collect()
        tracemalloc.start()
        for _ in range(2000):
            await kept.put(os.urandom(32), os.urandom(size))
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return taken

    taken = run(main())
    assert taken <= kept.bytes
    assert kept.bytes - taken <= 2001 * ENTRY_BYTES


def test_results_go_when_their_time_is_over_although_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SWEEP_S", 0.01)
    kept = MemoryCache(10_000, 0.02)

    async def main() -> None:
        await kept.put(b"key", b"value")
        await asyncio.sleep(0.005)
        await kept.put(b"later", b"value")
        await eventually(lambda: len(kept) == 0)
        await kept.put(b"key", b"value")
        await eventually(lambda: len(kept) == 0)

    run(main())


KEYS = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
PUT = st.tuples(st.just("put"), KEYS, st.integers(0, 400))
GET = st.tuples(st.just("get"), KEYS, st.just(0))
WAIT = st.tuples(st.just("wait"), st.just(b""), st.integers(0, 40))


@given(st.lists(st.one_of(PUT, GET, WAIT), max_size=60))
def test_the_memory_does_what_a_list_would(steps: list[tuple[str, bytes, int]]) -> None:
    """Against the plainest model: entries in the order of their last use."""
    ttl_s, max_bytes = 60.0, 3 * ENTRY_BYTES + 600
    clock = Clock()
    kept = MemoryCache(max_bytes, ttl_s, clock=clock)
    entries: list[tuple[bytes, bytes, float]] = []

    async def main() -> None:
        for number, (what, key, count) in enumerate(steps):
            if what == "wait":
                clock.now += count
                continue
            entries[:] = [entry for entry in entries if entry[2] > clock.now]
            found = next((entry for entry in entries if entry[0] == key), None)
            if what == "get":
                if found:
                    entries.remove(found)
                    entries.append(found)
                assert await kept.get(key) == (found[1] if found else None)
            else:
                value = number.to_bytes(2, "big") + bytes(count)
                if found:
                    entries.remove(found)
                while entries and sum(size_of(*entry[:2]) for entry in entries) + size_of(key, value) > max_bytes:
                    if size_of(key, value) > max_bytes:
                        break
                    entries.pop(0)
                if size_of(key, value) <= max_bytes:
                    entries.append((key, value, clock.now + ttl_s))
                await kept.put(key, value)
            assert len(kept) == len(entries)
            assert kept.bytes == sum(size_of(*entry[:2]) for entry in entries) <= max_bytes

    run(main())


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────


def test_equal_questions_have_equal_keys() -> None:
    keys = Keys(MODEL)
    one = Asked(options=AnalyzeOptions(attributes=frozenset({"age", "gender"}), coverage=0.90), budget_s=5.0)
    other = Asked(options=AnalyzeOptions(attributes=frozenset(["gender", "age"]), coverage=0.9), budget_s=0.1)
    assert keys.key(SHA256, "/v1/analyze", one) == keys.key(SHA256, "/v1/analyze", other)


@pytest.mark.parametrize(
    "other",
    [
        replace(ASKED, annotate=True),
        replace(ASKED, picture=True),
        replace(ASKED, format="faces"),
        replace(ASKED, options=AnalyzeOptions(max_faces=49)),
        replace(ASKED, options=AnalyzeOptions(min_confidence=0.6)),
        replace(ASKED, options=AnalyzeOptions(attributes=frozenset({"age"}))),
        replace(ASKED, options=AnalyzeOptions(attributes=frozenset())),
        replace(ASKED, options=AnalyzeOptions(order="quality")),
        replace(ASKED, options=AnalyzeOptions(coverage=0.91)),
    ],
    ids=lambda asked: str(asked)[:60],
)
def test_other_wishes_have_other_keys(other: Asked) -> None:
    keys = Keys(MODEL)
    assert keys.key(SHA256, "/v1/analyze", ASKED) != keys.key(SHA256, "/v1/analyze", other)


def test_every_wish_is_part_of_the_key() -> None:
    """A wish added one day is in it without anybody thinking of that."""
    ((_, value),) = [pair for pair in cache.canonical(ASKED) if pair[0] == "options"]  # type: ignore[attr-defined]
    assert [option for option, _ in value] == list(AnalyzeOptions.__dataclass_fields__)
    assert {name for name, _ in cache.canonical(ASKED)} == set(Asked.__dataclass_fields__) - {"budget_s"}  # type: ignore[attr-defined]


def test_other_pictures_routes_and_networks_have_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.secrets, "token_bytes", bytes)
    key = Keys(MODEL).key(SHA256, "/v1/analyze", ASKED)
    assert Keys(MODEL).key(SHA256, "/v1/analyze", ASKED) == key
    assert Keys(MODEL).key(hashlib.sha256(b"other").digest(), "/v1/analyze", ASKED) != key
    assert Keys(MODEL).key(SHA256, "/api/analyze", ASKED) != key
    for name in ("profile", "engine", "digest"):
        assert Keys(replace(MODEL, **{name: "other"})).key(SHA256, "/v1/analyze", ASKED) != key


def test_a_key_means_nothing_to_another_process() -> None:
    one, other = Keys(MODEL).key(SHA256, "/", ASKED), Keys(MODEL).key(SHA256, "/", ASKED)
    assert one != other
    assert len(one) == 32
    assert SHA256 not in (one, other)


# ── answers ──────────────────────────────────────────────────────────────────────────────────────


def forms(picture: bytes) -> list[dict[str, Any]]:
    return [
        {"content": picture},
        {"content": picture, "headers": {"content-type": "image/png"}},
        {"files": {"image": picture}},
        {"files": {"image": ("name.png", picture)}, "data": {"other": "field"}},
        {"json": {"image": base64.b64encode(picture).decode()}},
    ]


@pytest.mark.parametrize("size", [7, INLINE_BYTES + 1])
def test_who_asks_again_gets_the_same_answer_in_any_wrapping(size: int) -> None:
    analysis = FakeAnalysis()
    picture = os.urandom(size)
    with sharing(analysis) as service:

        async def main(client: httpx.AsyncClient) -> list[httpx.Response]:
            answers = [await client.post("/v1/analyze", **form) for form in forms(picture) * 2]
            assert service.admission.bytes_in_flight == 0
            return answers

        first, *others = with_client(service, main)
        assert counted(service) == {"hit": 9, "miss": 1, "shared": 0}
        assert service.traffic.total == 10
    assert first.headers["x-cache"] == "miss"
    assert {answer.headers["x-cache"] for answer in others} == {"hit"}
    assert len({answer.headers["x-request-id"] for answer in (first, *others)}) == 10
    assert all(body_of(answer) == body_of(first) for answer in others)
    assert [data for data, _ in analysis.seen] == [picture]


@pytest.mark.parametrize("request_id", ['a"b', "\\", "},{", "normal"])
def test_a_kept_answer_carries_the_request_id_of_who_gets_it(request_id: str) -> None:
    with sharing(FakeAnalysis()) as service:

        async def main(client: httpx.AsyncClient) -> list[httpx.Response]:
            headers = [{"x-request-id": request_id}, {"x-request-id": "second"}, {"x-request-id": request_id}]
            return [await client.post("/v1/analyze", content=b"x", headers=given) for given in headers]

        answers = with_client(service, main)
    assert [answer.json()["request_id"] for answer in answers] == [request_id, "second", request_id]
    assert answers[0].content == answers[2].content
    assert [answer.headers["x-cache"] for answer in answers] == ["miss", "hit", "hit"]


def test_another_picture_or_another_wish_is_another_question() -> None:
    analysis = FakeAnalysis()
    asked = [b"1", b"2", b"1?max_faces=3", b"1?attributes=age", b"1?coverage=0.5", b"1?order=quality"]
    with sharing(analysis) as service:

        async def main(client: httpx.AsyncClient) -> None:
            for expected in ("miss", "hit"):
                for question in asked:
                    content, _, query = question.partition(b"?")
                    answer = await client.post(f"/v1/analyze?{query.decode()}", content=content)
                    assert answer.headers["x-cache"] == expected

        with_client(service, main)
    assert len(analysis.seen) == len(asked)


def test_pictures_are_drawn_anew_and_never_kept() -> None:
    analysis = FakeAnalysis()
    with sharing(analysis) as service:

        async def main(client: httpx.AsyncClient) -> None:
            for _ in range(2):
                drawn = await client.post("/v1/analyze", content=b"x", headers={"accept": "image/jpeg"})
                within = await client.post("/v1/analyze?annotate=base64", content=b"x")
                assert "x-cache" not in {*drawn.headers, *within.headers}
                assert base64.b64decode(within.json()["annotated_image"]) == drawn.content

        with_client(service, main)
        assert counted(service) == {"hit": 0, "miss": 0, "shared": 0}
    assert len(analysis.seen) == 4


@pytest.mark.parametrize("error", [ImageTruncatedError("ends early"), InferenceError("a defect")])
def test_failures_are_not_kept(error: Exception) -> None:
    analysis = FakeAnalysis(error=error)
    with sharing(analysis) as service:

        async def main(client: httpx.AsyncClient) -> list[httpx.Response]:
            answers = [await client.post("/v1/analyze", content=b"x") for _ in range(2)]
            analysis.error = None
            return [*answers, *[await client.post("/v1/analyze", content=b"x") for _ in range(2)]]

        answers = with_client(service, main)
        assert service.admission.bytes_in_flight == 0
    assert [answer.status_code for answer in answers[:2]] == [
        422 if isinstance(error, ImageTruncatedError) else 500
    ] * 2
    assert [answer.headers.get("x-cache") for answer in answers] == [None, None, "miss", "hit"]


def test_a_broken_wrapping_is_refused_and_holds_nothing() -> None:
    with sharing(FakeAnalysis()) as service:

        async def main(client: httpx.AsyncClient) -> None:
            answer = await client.post("/v1/analyze", files={"photo": b"x"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed_input")
            assert service.admission.bytes_in_flight == 0

        with_client(service, main)


def test_without_a_cache_nothing_is_shared() -> None:
    analysis = FakeAnalysis()
    with fake_service(analysis) as service:

        async def main(client: httpx.AsyncClient) -> None:
            answers = await asyncio.gather(*(client.post("/v1/analyze", content=b"x") for _ in range(3)))
            assert not any("x-cache" in answer.headers for answer in answers)

        with_client(service, main)
    assert len(analysis.seen) == 3


def test_hashing_much_or_opening_a_wrapping_is_not_the_loops_work() -> None:
    threads: list[str] = []

    def picture() -> bytes:
        threads.append(threading.current_thread().name)
        return b"picture"

    async def main() -> None:
        assert service.results is not None
        for aside in (False, True):
            await service.results.perform(lambda: b"text", picture=picture, aside=aside, **question(service))

    with sharing(FakeAnalysis()) as service:
        run(main())
    assert threads == ["MainThread", "hash_0"]


def question(service: Service) -> dict[str, Any]:
    """A request as the cache sees it."""
    own = {"request_id": "1", "hold": Hold(service.admission), "receive": never}
    return {"route": "/", "asked": ASKED, "budget_s": ASKED.budget_s, **own}


async def never() -> dict[str, Any]:
    await asyncio.sleep(3600)
    raise AssertionError


def test_a_route_with_words_of_its_own_has_results_of_its_own() -> None:
    analysis = FakeAnalysis()
    with sharing(analysis) as service:

        async def main(client: httpx.AsyncClient) -> None:
            for expected in ("miss", "hit"):
                for path, words in (("/v1/analyze", "timings_ms"), ("/api/analyze", "processing_time")):
                    answer = await client.post(path, files={"image": ("a.jpg", b"x")})
                    assert answer.headers["x-cache"] == expected
                    assert words in answer.json()
            assert "x-cache" not in (await client.post("/predict", files={"image": ("a.jpg", b"x")})).headers

        with_client(service, main)
    assert len(analysis.seen) == 3


def test_a_picture_in_a_batch_is_the_same_question() -> None:
    analysis = FakeAnalysis()
    with sharing(analysis) as service:

        async def main(client: httpx.AsyncClient) -> None:
            single = await client.post("/v1/analyze", content=b"1")
            names = [("image", picture) for picture in (b"1", b"2", b"2", b"1")]
            for _ in range(2):
                batch = await client.post("/v1/batch", files=names, headers={"x-request-id": "of-the-batch"})
                results = batch.json()["results"]
                assert {result["request_id"] for result in results} == {"of-the-batch"}
                assert results[0] | {"request_id": ""} == single.json() | {"request_id": ""}
            drawn = await client.post("/v1/batch?annotate=base64", files=names[:1])
            assert drawn.json()["results"][0]["annotated_image"]
            assert service.admission.bytes_in_flight == 0

        with_client(service, main)
    assert sorted(data for data, _ in analysis.seen) == [b"1", b"1", b"2"]


# ── many at once ─────────────────────────────────────────────────────────────────────────────────


def blocked() -> FakeAnalysis:
    analysis = FakeAnalysis()
    analysis.leave.clear()
    return analysis


async def waiting(service: Service, count: int) -> None:
    await eventually(lambda: service.admission.waiting == count)


def test_who_asks_the_same_at_once_is_answered_by_one_analysis() -> None:
    analysis = blocked()
    with sharing(analysis, workers=2) as service:

        async def main(client: httpx.AsyncClient) -> list[httpx.Response]:
            tasks = [asyncio.create_task(client.post("/v1/analyze", content=b"same")) for _ in range(5)]
            await waiting(service, 5)
            await eventually(lambda: (service.pool.busy, service.pool.queued) == (1, 0))
            assert service.admission.bytes_in_flight == 20
            analysis.leave.set()
            answers = await asyncio.gather(*tasks)
            assert service.admission.bytes_in_flight == 0
            return answers

        answers = with_client(service, main)
        assert counted(service) == {"hit": 0, "miss": 1, "shared": 4}
    assert sorted(answer.headers["x-cache"] for answer in answers) == ["miss", *["shared"] * 4]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 5
    assert len({json.dumps(body_of(answer)) for answer in answers}) == 1
    assert len(analysis.seen) == 1


@pytest.mark.parametrize("begun", [True, False], ids=["begun", "queued"])
def test_who_came_first_may_leave_without_harm_to_the_others(begun: bool) -> None:
    analysis = blocked()
    with sharing(analysis) as service, served(create_app(service)) as url, httpx.Client(base_url=url) as client:
        threads, answers = [], []

        def post(content: bytes) -> None:
            thread = threading.Thread(target=lambda: answers.append(client.post("/v1/analyze", content=content)))
            thread.start()
            threads.append(thread)

        if not begun:
            post(b"before")
            wait_until(lambda: service.pool.busy == 1)
        before = service.admission.waiting
        with connect(url) as first:
            first.sendall(head("Content-Length: 4") + b"same")
            wait_until(lambda: service.admission.waiting == before + 1)
            post(b"same")
            post(b"same")
            wait_until(lambda: service.admission.waiting == before + 3)
        wait_until(lambda: service.admission.waiting == before + 2)
        analysis.leave.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        wait_until(lambda: service.admission.bytes_in_flight == 0)
        assert {answer.status_code for answer in answers} == {200}
        assert len(answers) == 2 + (not begun)
        assert client.post("/v1/analyze", content=b"same").headers["x-cache"] == "hit"
    assert [data for data, _ in analysis.seen] == ([] if begun else [b"before"]) + [b"same"]


def test_work_that_all_have_left_is_taken_back_and_can_be_asked_for_again() -> None:
    analysis = blocked()
    with sharing(analysis) as service:

        async def main(client: httpx.AsyncClient) -> None:
            before = asyncio.create_task(client.post("/v1/analyze", content=b"before"))
            await eventually(lambda: service.pool.busy == 1)
            short = {"x-request-timeout-ms": "30"}
            both = [asyncio.create_task(client.post("/v1/analyze", content=b"same", headers=short)) for _ in range(2)]
            assert [answer.status_code for answer in await asyncio.gather(*both)] == [504, 504]
            assert service.pool.queued == 0
            again = asyncio.create_task(client.post("/v1/analyze", content=b"same"))
            await eventually(lambda: service.pool.queued == 1)
            analysis.leave.set()
            assert (await again).headers["x-cache"] == "miss"
            await before
            assert service.admission.bytes_in_flight == 0

        with_client(service, main)
    assert [data for data, _ in analysis.seen] == [b"before", b"same"]


@pytest.mark.parametrize("impatient", [0, 1], ids=["the first", "the second"])
def test_everybody_has_a_deadline_of_their_own(impatient: int) -> None:
    analysis = blocked()
    with sharing(analysis) as service:

        async def main(client: httpx.AsyncClient) -> None:
            before = asyncio.create_task(client.post("/v1/analyze", content=b"before"))
            await eventually(lambda: service.pool.busy == 1)
            tasks = []
            for number in range(2):
                headers = {"x-request-timeout-ms": "50"} if number == impatient else {}
                tasks.append(asyncio.create_task(client.post("/v1/analyze", content=b"same", headers=headers)))
                await waiting(service, number + 2)
            assert (await tasks[impatient]).status_code == 504
            analysis.leave.set()
            assert (await tasks[1 - impatient]).status_code == 200
            await before

        with_client(service, main)
        assert service.admission.bytes_in_flight == 0
    assert [data for data, _ in analysis.seen] == [b"before", b"same"]


def test_a_cancelled_request_cancels_no_other() -> None:
    analysis = blocked()
    with sharing(analysis) as service:

        async def main(client: httpx.AsyncClient) -> None:
            tasks = [asyncio.create_task(client.post("/v1/analyze", content=b"same")) for _ in range(3)]
            await waiting(service, 3)
            for gone in (tasks[1], tasks[0]):
                gone.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await gone
            await waiting(service, 1)
            analysis.leave.set()
            assert (await tasks[2]).status_code == 200
            await eventually(lambda: service.admission.bytes_in_flight == 0)

        with_client(service, main)
    assert len(analysis.seen) == 1


def test_what_the_one_analysis_fails_with_is_told_to_all_and_forgotten() -> None:
    analysis = blocked()
    analysis.error = ImageTruncatedError("ends early")
    with sharing(analysis) as service:

        async def main(client: httpx.AsyncClient) -> None:
            tasks = [asyncio.create_task(client.post("/v1/analyze", content=b"same")) for _ in range(3)]
            await waiting(service, 3)
            analysis.leave.set()
            answers = await asyncio.gather(*tasks)
            assert [answer.status_code for answer in answers] == [422] * 3
            assert len({answer.json()["error"]["request_id"] for answer in answers}) == 3
            analysis.error = None
            assert (await client.post("/v1/analyze", content=b"same")).headers["x-cache"] == "miss"
            assert service.admission.bytes_in_flight == 0

        with_client(service, main)
    assert len(analysis.seen) == 2


@pytest.mark.parametrize("error", [None, ValueError("refused")])
def test_nothing_of_a_picture_outlives_its_answer(error: Exception | None) -> None:
    class Picture(bytearray):
        """Bytes that can be watched."""

    async def main() -> None:
        assert service.results is not None

        async def ask() -> None:
            def work() -> bytes:
                if error is not None:
                    raise type(error)(picture)
                return b"text"

            picture = Picture(b"picture")
            watched.append(weakref.ref(picture))
            await service.results.perform(work, picture=lambda: picture, aside=False, **question(service))

        for task in [asyncio.create_task(ask()) for _ in range(2)]:
            await asyncio.wait([task])
            assert (task.exception() is None) is (error is None)
        del task
        await eventually(lambda: all(one() is None for one in watched))

    watched: list[weakref.ref[Picture]] = []
    with sharing(FakeAnalysis()) as service:
        gc.collect()
        gc.disable()
        try:
            run(main())
        finally:
            gc.enable()


class Telling(FakeAnalysis):
    """Its answer shows which picture it was asked about, and how."""

    def __call__(self, data: bytes, options: AnalyzeOptions) -> tuple[AnalysisResult, Callable[[], Image]]:
        result, load = super().__call__(data, options)
        return replace(result, image=ImageInfo(zlib.crc32(data), options.max_faces)), load


REQUESTS = st.lists(
    st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers(1, 3), st.sampled_from([1, 5000])),
    min_size=1,
    max_size=20,
)


@settings(max_examples=25)
@given(REQUESTS, st.booleans())
def test_whatever_comes_at_once_everybody_gets_their_own_answer(
    requests: list[tuple[bytes, int, int]], tiny: bool
) -> None:
    with sharing(Telling(), workers=2, max_bytes=ENTRY_BYTES if tiny else 2**20) as service:

        async def ask(client: httpx.AsyncClient, content: bytes, faces: int, max_ms: int) -> None:
            answer = await client.post(f"/v1/analyze?max_faces={faces}&max_ms={max_ms}", content=content)
            if answer.status_code == 200:
                assert (answer.json()["image"]["width"], answer.json()["image"]["height"]) == (
                    zlib.crc32(content),
                    faces,
                )
            else:
                assert (answer.status_code, max_ms) in ((503, 1), (504, 1))

        async def main(client: httpx.AsyncClient) -> None:
            await asyncio.gather(*(ask(client, *request) for request in requests))
            await eventually(lambda: service.admission.bytes_in_flight == 0)
            assert service.results is not None
            await eventually(lambda: not service.results._flights)

        with_client(service, main)
