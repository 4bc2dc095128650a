"""What hangs is noticed, told and ended; what is only slow is left alone."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from tests.conftest import ROOT
from tests.service.services import PATIENCE_S, wait_until

from dulian.service import watchdog
from dulian.service.compute import ComputePool
from dulian.service.watchdog import EXIT_HUNG, Watchdog, stack_of


class FakePool:
    """Says that a thread is at work since a moment, and how long work usually takes."""

    def __init__(self, since: Iterator[float], *, usual_s: float = 0.0) -> None:
        self._since = since
        self._usual_s = usual_s
        self.asked = 0

    def longest_at_work(self) -> tuple[threading.Thread, float] | None:
        self.asked += 1
        since = next(self._since)
        return None if since < 0 else (threading.main_thread(), since)

    def usual_s(self, share: float) -> float:
        assert share == 0.99
        return self._usual_s


class Watched:
    """A watchdog over a loop in a thread of its own, whose end ends nothing."""

    def __init__(self, pool: object, *, end_within_s: float = PATIENCE_S) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="loop")
        self.told = threading.Event()
        self.ended: list[int] = []
        self.dog = Watchdog(
            cast(ComputePool, pool), on_hang=self.told.set, end_within_s=end_within_s, end=self.ended.append
        )


@contextmanager
def watched(pool: object, **options: Any) -> Iterator[Watched]:
    one = Watched(pool, **options)
    one.thread.start()
    one.loop.call_soon_threadsafe(one.dog.start)
    wait_until(one.dog._thread.is_alive)
    try:
        yield one
    finally:
        one.dog.stop()
        one.loop.call_soon_threadsafe(one.loop.stop)
        one.thread.join(PATIENCE_S)
        one.loop.close()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand looks a second, and a patience of fifty of them."""
    monkeypatch.setattr(watchdog, "INTERVAL_S", 0.001)
    monkeypatch.setattr(watchdog, "PATIENCE_S", 0.05)


LOOKS = 300


def test_work_that_never_ends_is_told_and_the_process_ended(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "dulian.service"), watched(FakePool(itertools.repeat(7.0))) as one:
        assert one.told.wait(PATIENCE_S)
        assert not one.ended
        one.dog.stop()
        assert one.ended == [EXIT_HUNG]
    (record,) = caplog.records
    fields = vars(record)["fields"]
    assert (record.message, record.levelno, fields["thread"]) == ("watchdog", logging.CRITICAL, "MainThread")
    assert any(line.startswith(f"{__name__}.test_work_that_never_ends") for line in fields["stack"])


def test_an_orderly_end_that_does_not_come_is_not_waited_for_forever() -> None:
    with watched(FakePool(itertools.repeat(7.0)), end_within_s=0.01) as one:
        wait_until(lambda: one.ended == [EXIT_HUNG])


@pytest.mark.parametrize(
    "pool",
    [
        pytest.param(FakePool(itertools.repeat(-1.0)), id="nothing is at work"),
        pytest.param(FakePool(itertools.count(1.0)), id="every look sees other work"),
        pytest.param(FakePool(itertools.cycle([1.0, 1.0, -1.0])), id="the thread rests now and then"),
        pytest.param(FakePool(itertools.repeat(1.0), usual_s=1000.0), id="work usually takes long"),
    ],
)
def test_what_is_only_slow_is_left_alone(pool: FakePool) -> None:
    with watched(pool) as one:
        wait_until(lambda: pool.asked >= LOOKS)
        assert not one.told.is_set()
    assert not one.ended


def test_a_process_that_was_stopped_was_not_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two looks an hour passes."""
    clock = itertools.count(0.0, 3600.0)
    pool = FakePool(itertools.repeat(1.0))
    monkeypatch.setattr(watchdog, "PATIENCE_S", 1000 * watchdog.INTERVAL_S)
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with watched(pool) as one:
        wait_until(lambda: pool.asked >= LOOKS)
        assert not one.told.is_set()


def test_a_loop_that_no_longer_turns_ends_the_process_at_once(caplog: pytest.LogCaptureFixture) -> None:
    turn = threading.Event()

    def block() -> None:
        turn.wait(PATIENCE_S)

    pool = FakePool(itertools.repeat(-1.0))
    with caplog.at_level(logging.INFO, "dulian.service"), watched(pool, end_within_s=3600.0) as one:
        wait_until(lambda: pool.asked >= LOOKS)
        assert not one.told.is_set()
        one.loop.call_soon_threadsafe(block)
        wait_until(lambda: one.ended == [EXIT_HUNG])
        assert one.told.is_set()
        turn.set()
    (record,) = caplog.records
    fields = vars(record)["fields"]
    assert fields["thread"] == "loop"
    assert any(".block:" in line for line in fields["stack"])


def test_a_stack_has_no_data_in_it() -> None:
    begun, leave = threading.Event(), threading.Event()

    def secretly(secret: str) -> None:
        begun.set()
        leave.wait(PATIENCE_S)

    thread = threading.Thread(target=secretly, args=("face.jpg",))
    thread.start()
    assert begun.wait(PATIENCE_S)
    stack = stack_of(thread)
    leave.set()
    thread.join(PATIENCE_S)
    assert any(line.startswith(f"{__name__}.test_a_stack_has_no_data_in_it.<locals>.secretly:") for line in stack)
    assert "face.jpg" not in json.dumps(stack)
    assert stack_of(thread) == []


# ── the process ──────────────────────────────────────────────────────────────────────────────────

HANGING = """
import sys, threading
from tests.service.services import FakeAnalysis, fake_service
from dulian.service import watchdog
from dulian.service.log import configure_logging
from dulian.service.server import run
from dulian.service.start import bind, log_listening

class Hanging(FakeAnalysis):
    def __call__(self, data, options):
        if data == b"hang":
            threading.Event().wait()
        return super().__call__(data, options)

watchdog.INTERVAL_S, watchdog.PATIENCE_S = 0.02, 0.4
configure_logging()
with fake_service(Hanging(), workers=2, deadline_s=0.2) as service, bind("127.0.0.1", 0) as listener:
    run(service, listener, grace_s=float(sys.argv[1]), announce=lambda: log_listening(listener))
"""


@contextmanager
def hanging(*, grace_s: float) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process and its address, one of its two threads hung."""
    command = [sys.executable, "-c", HANGING, str(grace_s)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stderr
        url = f"http://127.0.0.1:{json.loads(process.stderr.readline())['port']}"
        assert httpx.get(f"{url}/readyz").status_code == 200
        assert httpx.post(f"{url}/v1/analyze", content=b"hang").status_code == 504
        yield process, url
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


def test_a_process_whose_thread_hangs_says_so_and_answers_the_others() -> None:
    with hanging(grace_s=20) as (process, url):
        assert httpx.post(f"{url}/v1/analyze", content=b"fine").status_code == 200
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 503)
        assert httpx.get(f"{url}/livez").status_code == 503
        assert httpx.post(f"{url}/v1/analyze", content=b"fine").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == EXIT_HUNG


def test_it_ends_of_its_own_accord_with_exit_code_70() -> None:
    with hanging(grace_s=0) as (process, _):
        _, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == EXIT_HUNG == 70
    events = [json.loads(line) for line in err.splitlines()]
    assert [event["event"] for event in events] == ["watchdog", "draining"]
    assert events[0]["level"] == "critical"
    assert events[0]["thread"] in ("compute-0", "compute-1")
    assert any(line.startswith("__main__.Hanging.__call__:") for line in events[0]["stack"])
