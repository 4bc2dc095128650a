from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import time_machine
from tests.service.services import PATIENCE_S, FakeAnalysis, client_of, eventually, fake_service, wait_until

from dulian.errors import DeadlineError, OverloadedError, WeightsError
from dulian.service import admission, compute, state
from dulian.service.admission import Admission, Hold, retry_after_s
from dulian.service.body import ClientGone
from dulian.service.cache import Keys, MemoryCache, SharedResults
from dulian.service.compute import ComputePool, Job
from dulian.service.limits import ServiceLimits
from dulian.service.state import Service


async def never() -> dict[str, Any]:
    await asyncio.sleep(3600)
    raise AssertionError


def blocked_service(**limits: Any) -> tuple[FakeAnalysis, AbstractContextManager[Service]]:
    """A service with one thread, whose work waits until the analysis may leave."""
    analysis = FakeAnalysis()
    analysis.leave.clear()
    return analysis, fake_service(analysis, **limits)


def perform(service: Service, work: Callable[[], Any], *, budget_s: float = PATIENCE_S, size: int = 0) -> Any:
    hold = Hold(service.admission)
    hold.add(size)
    return service.admission.perform(work, budget_s=budget_s, hold=hold, receive=never)


# ── the pool ─────────────────────────────────────────────────────────────────────────────────────


def test_every_thread_prepares_itself_before_anything_is_taken() -> None:
    prepared: list[int] = []
    pool = ComputePool(3, lambda: prepared.append(threading.get_ident()))
    pool.start()
    assert len(set(prepared)) == 3
    pool.close()


def test_a_thread_that_cannot_prepare_is_the_callers_error() -> None:
    def fail() -> None:
        raise WeightsError("gone")

    with pytest.raises(WeightsError, match="gone"):
        ComputePool(2, fail).start()


def test_jobs_run_in_the_order_they_came() -> None:
    done: list[int] = []
    with fake_service(FakeAnalysis()) as service:

        async def main() -> None:
            await asyncio.gather(*(perform(service, lambda number=number: done.append(number)) for number in range(20)))

        asyncio.run(main())
    assert done == list(range(20))


def test_an_idle_pool_rests_once_until_there_is_work_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "REST_AFTER_S", 0.02)
    rests = threading.Semaphore(0)
    pool = ComputePool(2, lambda: None, rest=rests.release)
    pool.start()
    loop = asyncio.new_event_loop()
    for _ in range(3):
        assert rests.acquire(timeout=PATIENCE_S)
        assert not rests.acquire(timeout=0.1)
        for _ in range(4):
            pool.submit(Job(lambda: 1, deadline=time.monotonic() + PATIENCE_S, loop=loop, settle=lambda *_: None))
    pool.close()
    loop.close()


def test_a_closed_loop_does_not_harm_a_thread() -> None:
    pool = ComputePool(1, lambda: None)
    pool.start()
    loop = asyncio.new_event_loop()
    loop.close()
    done = threading.Event()
    for work in (lambda: None, done.set):
        pool.submit(Job(work, deadline=time.monotonic() + PATIENCE_S, loop=loop, settle=lambda *_: None))
    assert done.wait(PATIENCE_S)
    pool.close()


# ── the door ─────────────────────────────────────────────────────────────────────────────────────


def test_results_and_errors_come_back() -> None:
    def fail() -> None:
        raise ValueError("own")

    with fake_service(FakeAnalysis()) as service:
        assert asyncio.run(perform(service, lambda: 42)) == 42
        with pytest.raises(ValueError, match="own"):
            asyncio.run(perform(service, fail))
        assert service.admission.waiting == 0


@pytest.mark.parametrize("error", [None, ValueError("refused")])
def test_nothing_of_a_job_outlives_it(error: Exception | None) -> None:
    """A refused body of ten megabytes must be gone with its answer, not when the collector comes by."""

    class Body:
        pass

    def work(body: Body) -> None:
        if error is not None:
            raise type(error)(body)

    async def main() -> None:
        body = Body()
        watched = weakref.ref(body)
        with contextlib.suppress(ValueError):
            await perform(service, partial(work, body))
        del body
        await eventually(lambda: service.pool.busy == 0)
        await asyncio.sleep(0)
        wait_until(lambda: watched() is None)

    with fake_service(FakeAnalysis()) as service:
        gc.disable()
        try:
            asyncio.run(main())
        finally:
            gc.enable()


def test_a_full_queue_refuses_and_says_how_long_to_wait() -> None:
    analysis, context = blocked_service(max_queued=2)
    with context as service:

        async def main() -> None:
            service.admission.service_s = 2.0
            tasks = []
            for queued in range(3):
                tasks.append(asyncio.create_task(perform(service, analysis.leave.wait)))
                await eventually(lambda: service.pool.busy == 1)
                await eventually(lambda queued=queued: service.pool.queued == queued)
            with pytest.raises(OverloadedError, match="queue is full") as caught:
                await perform(service, lambda: None, size=7)
            assert caught.value.wait_s == pytest.approx(6.0)
            assert service.admission.bytes_in_flight == 0
            analysis.leave.set()
            await asyncio.gather(*tasks)

        asyncio.run(main())


def test_bytes_in_flight_are_bounded_and_given_back() -> None:
    analysis, context = blocked_service(max_bytes_in_flight=100)
    with context as service:

        async def main() -> None:
            task = asyncio.create_task(perform(service, analysis.leave.wait, size=80))
            await eventually(lambda: service.pool.busy == 1)
            hold = Hold(service.admission)
            hold.add(20)
            with pytest.raises(OverloadedError, match="bytes"):
                hold.add(1)
            with pytest.raises(OverloadedError, match="bytes"):
                service.admission.check(1, PATIENCE_S)
            hold.release()
            hold.release()
            assert service.admission.bytes_in_flight == 80
            analysis.leave.set()
            await task
            assert service.admission.bytes_in_flight == 0

        asyncio.run(main())


def test_work_that_cannot_be_done_in_time_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "PROBE_INTERVAL_S", math.inf)
    with fake_service(FakeAnalysis()) as service:
        asyncio.run(perform(service, lambda: time.sleep(0.1)))
        assert service.admission.service_s >= 0.1
        called: list[int] = []
        with pytest.raises(OverloadedError, match="and 50 ms are allowed"):
            asyncio.run(perform(service, lambda: called.append(1), budget_s=0.05))
        assert not called


def test_the_prediction_counts_who_waits_and_who_is_busy() -> None:
    pool = ComputePool(2, lambda: None)
    door = Admission(pool, ServiceLimits())
    door.service_s = 0.5
    assert door.expected_wait_s == 0
    loop = asyncio.new_event_loop()
    loop.close()
    for _ in range(3):
        pool.submit(Job(lambda: None, deadline=0, loop=loop, settle=lambda *_: None))
    assert door.expected_wait_s == pytest.approx(0.75)
    door.check(0, 1.3)
    with pytest.raises(OverloadedError):
        door.check(0, 1.2)


def test_an_idle_pool_tries_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise one slow minute would refuse everything for ever: only finished work lowers the estimate."""
    monkeypatch.setattr(admission, "PROBE_INTERVAL_S", math.inf)
    with fake_service(FakeAnalysis()) as service:
        asyncio.run(perform(service, lambda: None))
        service.admission.service_s = 100.0
        with pytest.raises(OverloadedError):
            asyncio.run(perform(service, lambda: None, budget_s=5.0))
        monkeypatch.setattr(admission, "PROBE_INTERVAL_S", 0.0)
        for _ in range(40):
            asyncio.run(perform(service, lambda: None, budget_s=5.0))
            wait_until(lambda: service.pool.busy == 0)
        assert service.admission.service_s < 5.0


def test_what_expires_in_the_queue_is_never_begun() -> None:
    analysis, context = blocked_service()
    called: list[int] = []
    with context as service:

        async def main() -> None:
            first = asyncio.create_task(perform(service, analysis.leave.wait))
            await eventually(lambda: service.pool.busy == 1)
            with pytest.raises(DeadlineError):
                await perform(service, lambda: called.append(1), budget_s=0.02, size=9)
            assert service.pool.queued == 0
            assert service.admission.bytes_in_flight == 0
            analysis.leave.set()
            await first
            assert await perform(service, lambda: "next") == "next"

        asyncio.run(main())
    assert not called


def test_a_thread_drops_what_expired_before_the_loop_noticed() -> None:
    called: list[int] = []
    outcomes: list[Any] = []
    pool = ComputePool(1, lambda: None)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        work, settle = (lambda: called.append(1)), (lambda *outcome: outcomes.append(outcome))
        pool.submit(Job(work, deadline=time.monotonic() - 1, loop=loop, settle=settle))
        pool.start()
        await eventually(lambda: bool(outcomes))

    asyncio.run(main())
    pool.close()
    ((_, error), took) = outcomes[0]
    assert isinstance(error, DeadlineError)
    assert took is None
    assert not called


def test_running_work_that_takes_too_long_answers_in_time_and_keeps_its_bytes_until_the_end() -> None:
    analysis, context = blocked_service()
    with context as service:

        async def main() -> None:
            complaints: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
            with pytest.raises(DeadlineError):
                await perform(service, analysis.leave.wait, budget_s=0.02, size=9)
            assert service.admission.bytes_in_flight == 9
            analysis.leave.set()
            await eventually(lambda: service.admission.bytes_in_flight == 0)
            await asyncio.sleep(0)
            assert service.admission.service_s >= 0.01
            assert not complaints

        asyncio.run(main())


def test_the_job_of_a_client_that_left_is_dropped() -> None:
    analysis, context = blocked_service()
    called: list[int] = []
    with context as service:

        async def main() -> None:
            first = asyncio.create_task(perform(service, analysis.leave.wait))
            await eventually(lambda: service.pool.busy == 1)
            left = asyncio.Event()

            async def receive() -> dict[str, Any]:
                await left.wait()
                return {"type": "http.disconnect"}

            hold = Hold(service.admission)
            hold.add(5)
            waiting = asyncio.create_task(
                service.admission.perform(lambda: called.append(1), budget_s=PATIENCE_S, hold=hold, receive=receive)
            )
            await eventually(lambda: service.pool.queued == 1)
            left.set()
            with pytest.raises(ClientGone):
                await waiting
            assert service.pool.queued == 0
            assert service.admission.bytes_in_flight == 0
            analysis.leave.set()
            await first

        asyncio.run(main())
    assert not called


def test_a_cancelled_request_takes_its_job_along() -> None:
    analysis, context = blocked_service()
    with context as service:

        async def main() -> None:
            first = asyncio.create_task(perform(service, analysis.leave.wait))
            await eventually(lambda: service.pool.busy == 1)
            second = asyncio.create_task(perform(service, lambda: None, size=3))
            await eventually(lambda: service.pool.queued == 1)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            assert service.pool.queued == 0
            assert service.admission.bytes_in_flight == 0
            analysis.leave.set()
            await first

        asyncio.run(main())


def test_retry_after_is_whole_seconds_and_scattered() -> None:
    assert {retry_after_s(0.0) for _ in range(100)} == {1}
    assert {retry_after_s(2.2) for _ in range(100)} == {3, 4}


# ── one piece of work, several requests ──────────────────────────────────────────────────────────


def begin(service: Service, work: Callable[[], Any], outcomes: list[Any], *, budget_s: float = PATIENCE_S) -> Any:
    hold = Hold(service.admission)
    hold.add(4)
    return service.admission.begin(work, budget_s=budget_s, hold=hold, landed=outcomes.append)


def test_all_who_wait_for_a_piece_of_work_are_told_what_it_comes_to() -> None:
    with fake_service(FakeAnalysis()) as service:

        async def main() -> None:
            outcomes: list[Any] = []
            ticket = begin(service, lambda: 42, outcomes)
            waits = [service.admission.wait(ticket, budget_s=PATIENCE_S, receive=never) for _ in range(3)]
            assert await asyncio.gather(*waits) == [42] * 3
            assert await service.admission.wait(ticket, budget_s=PATIENCE_S, receive=never) == 42
            assert outcomes == [(42, None)]
            assert service.admission.bytes_in_flight == 0
            assert service.admission.waiting == 0

        asyncio.run(main())


def test_work_is_taken_back_when_the_last_has_left_and_not_before() -> None:
    analysis, context = blocked_service()
    with context as service:

        async def main() -> None:
            outcomes: list[Any] = []
            first = asyncio.create_task(perform(service, analysis.leave.wait))
            await eventually(lambda: service.pool.busy == 1)
            ticket = begin(service, lambda: 1, outcomes)
            waits = [
                asyncio.create_task(service.admission.wait(ticket, budget_s=PATIENCE_S, receive=never))
                for _ in range(2)
            ]
            await eventually(lambda: service.admission.waiting == 3)
            for wait, left in zip(waits, (1, 0), strict=True):
                wait.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await wait
                assert service.pool.queued == left
                assert service.admission.bytes_in_flight == 4 * left
            assert outcomes == [None]
            analysis.leave.set()
            await first

        asyncio.run(main())


def test_who_joins_with_more_time_keeps_work_alive_in_the_queue() -> None:
    """A thread drops what has expired: by the time of who has most of it."""
    pool = ComputePool(1, lambda: None)
    door = Admission(pool, ServiceLimits())

    async def main() -> None:
        ticket = door.begin(lambda: "done", budget_s=0.01, hold=Hold(door))
        waiting = asyncio.create_task(door.wait(ticket, budget_s=PATIENCE_S, receive=never))
        await asyncio.sleep(0.05)
        pool.start()
        assert await waiting == "done"

    asyncio.run(main())
    pool.close()


def test_who_joins_with_more_time_just_when_a_thread_drops_the_work_has_it_done_all_the_same() -> None:
    pool = ComputePool(1, lambda: None)
    door = Admission(pool, ServiceLimits())

    async def main() -> None:
        ticket = door.begin(lambda: "done", budget_s=0.01, hold=Hold(door))
        job = pool._waiting.popleft()
        waiting = asyncio.create_task(door.wait(ticket, budget_s=PATIENCE_S, receive=never))
        await eventually(lambda: door.waiting == 1)
        job.settle((None, DeadlineError("dropped")), None)
        pool.start()
        assert await waiting == "done"

    asyncio.run(main())
    pool.close()


# ── a full queue ─────────────────────────────────────────────────────────────────────────────────


def test_a_queue_counts_as_full_until_half_of_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(admission, "time", SimpleNamespace(monotonic=lambda: clock.now))
    pool = ComputePool(1, lambda: None)
    door = Admission(pool, ServiceLimits(max_queued=4))

    async def main() -> None:
        waits = []
        for _ in range(4):
            assert door.full_for_s == 0
            ticket = door.begin(lambda: None, budget_s=PATIENCE_S, hold=Hold(door))
            waits.append(asyncio.create_task(door.wait(ticket, budget_s=PATIENCE_S, receive=never)))
        await asyncio.sleep(0)
        clock.now += 7
        assert door.full_for_s == 7
        with pytest.raises(OverloadedError):
            door.check(0, PATIENCE_S)
        for left, expected in ((3, 8), (2, 0), (1, 0)):
            waits.pop().cancel()
            await eventually(lambda left=left: pool.queued == left)
            clock.now += 1
            assert door.full_for_s == expected
        waits.pop().cancel()

    asyncio.run(main())


def test_a_service_whose_queue_stays_full_is_not_ready_until_it_is_not() -> None:
    analysis, context = blocked_service(max_queued=2)
    with context as service:

        async def main() -> None:
            tasks = [asyncio.create_task(perform(service, analysis.leave.wait))]
            await eventually(lambda: service.pool.busy == 1)
            tasks += [asyncio.create_task(perform(service, analysis.leave.wait)) for _ in range(2)]
            await eventually(lambda: service.pool.queued == 2)
            assert service.unready is None
            assert service.admission._full_since is not None
            service.admission._full_since -= state.FULL_QUEUE_S
            assert isinstance(service.unready, OverloadedError)
            async with client_of(service) as client:
                answer = await client.get("/readyz")
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
                assert int(answer.headers["retry-after"]) >= 1
                assert (await client.get("/v1/status")).json()["ready"] is False
                assert (await client.get("/livez")).status_code == 200
                analysis.leave.set()
                await asyncio.gather(*tasks)
                assert (await client.get("/readyz")).status_code == 200

        asyncio.run(main())


# ── clocks ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_is_set_changes_nothing(days: int) -> None:
    """While requests wait and results are kept, somebody sets the machine's clock."""
    analysis, context = blocked_service()
    now = datetime.now(UTC)
    with context as service:
        service.results = SharedResults(MemoryCache(2**20, 60.0), Keys(service.model), service.admission)

        async def main(client: httpx.AsyncClient) -> None:
            analysis.leave.set()
            assert (await client.post("/v1/analyze", content=b"kept")).headers["x-cache"] == "miss"
            analysis.leave.clear()
            tasks = [asyncio.create_task(client.post("/v1/analyze", content=b"%d" % number)) for number in range(3)]
            await eventually(lambda: service.admission.waiting == 3)
            with time_machine.travel(now + timedelta(days=days), tick=True):
                await asyncio.sleep(0.02)
                analysis.leave.set()
                answers = await asyncio.gather(*tasks)
                answers.append(await client.post("/v1/analyze", content=b"kept"))
                assert [answer.headers["x-cache"] for answer in answers] == ["miss"] * 3 + ["hit"]
                assert (await client.get("/readyz")).status_code == 200
                service.process.sample(None)
                status = (await client.get("/v1/status")).json()
                assert 0 <= status["uptime_s"] < PATIENCE_S
                assert 0 < status["latency_ms"]["p50"] <= status["latency_ms"]["p99"] < PATIENCE_S * 1000
                assert status["requests_total"] == 5
                assert status["requests_per_s"] > 0
                text = (await service.metrics.scrape()).decode()
            numbers = [float(line.rpartition(" ")[2]) for line in text.splitlines() if not line.startswith("#")]
            assert numbers
            assert not [number for number in numbers if number < 0]
            assert 0 <= service.admission.service_s < PATIENCE_S

        async def with_client() -> None:
            async with client_of(service) as client:
                await main(client)

        asyncio.run(with_client())
