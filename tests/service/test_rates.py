"""Moving windows: against a plain model of them, among processes, and when memory for them runs out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from types import SimpleNamespace

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.service.processes import running

from dulian.keys import KeysFile, Rate
from dulian.machine import effective_cores
from dulian.service import rates
from dulian.service.rates import MonotonicStorage, Rates
from dulian.store import ModelStore

shared_memory = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memory for several processes here")

Asked = st.tuples(st.sampled_from("abc"), st.integers(1, 3), st.sampled_from([0.0, 0.1, 1.0, 7.0, 10.0]))


@given(st.lists(Asked, max_size=60), st.integers(1, 5))
def test_a_window_allows_what_a_list_of_moments_would(asked: list[tuple[str, int, float]], limit: int) -> None:
    clock = SimpleNamespace(now=0.0)  # as on a machine that has just started
    seen: dict[str, list[float]] = defaultdict(list)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rates, "time", SimpleNamespace(monotonic=lambda: clock.now))
        storage = MonotonicStorage()
        for key, amount, pause in asked:
            clock.now += pause
            recent = [moment for moment in seen[key] if moment > clock.now - 10]
            fits = len(recent) + amount <= limit
            assert storage.acquire_entry(key, limit, 10, amount) is fits
            seen[key] = recent + [clock.now] * amount * fits
            start, count = storage.get_moving_window(key, limit, 10)
            assert (start, count) == (seen[key][0] if seen[key] else clock.now, len(seen[key]))


def test_more_windows_than_there_is_room_for_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MAX_WINDOWS", 3)
    storage = MonotonicStorage()
    for key in "abc":
        assert storage.acquire_entry(key, 1, 60)
        assert not storage.acquire_entry(key, 1, 60)
    assert storage.acquire_entry("d", 1, 60)
    assert [storage.acquire_entry(key, 1, 60) for key in "ad"] == [True, False]


def test_more_moments_than_there_is_room_for_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MAX_MOMENTS", 5)
    storage = MonotonicStorage()
    assert storage.acquire_entry("a", 3, 60, 3)
    assert storage.acquire_entry("b", 2, 60, 2)
    assert not storage.acquire_entry("a", 3, 60)
    assert storage.acquire_entry("c", 1, 60)
    assert storage.acquire_entry("a", 3, 60, 3)
    assert not storage.acquire_entry("a", 3, 60)


def test_a_window_in_use_takes_no_more_memory_than_its_moments() -> None:
    storage = MonotonicStorage()
    for _ in range(1000):
        storage.acquire_entry("a", 10, 0)
    assert storage.reset() == 1


MEMBER = """
import sys
from dulian.keys import Rate
from dulian.service.rates import Rates
shared = Rates(int(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(sum(shared.spend("0" * 8, Rate(10_000, "day"), 1) is None for _ in range(4000)))
"""


@shared_memory
def test_processes_count_together() -> None:
    memory = os.memfd_create("rates")
    try:
        command, pipe = [sys.executable, "-c", MEMBER, str(memory)], subprocess.PIPE
        members = [subprocess.Popen(command, pass_fds=[memory], stdin=pipe, stdout=pipe) for _ in range(4)]
        for member in members:
            assert member.stdout
            assert member.stdout.readline() == b"ready\n"
        for member in members:
            assert member.stdin
            member.stdin.write(b"go\n")
            member.stdin.flush()
        allowed = [int(member.communicate(timeout=60)[0]) for member in members]
        assert sum(allowed) == 10_000
        wait_s = Rates(memory).spend("0" * 8, Rate(10_000, "day"), 1)
        assert wait_s is not None
        assert 80_000 < wait_s <= 86_400
    finally:
        os.close(memory)


@shared_memory
@pytest.mark.weights
@pytest.mark.skipif(effective_cores() < 2, reason="two processes need two cores")
def test_a_key_has_one_rate_however_many_processes_there_are(model_store: ModelStore, tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = KeysFile(tmp_path / "keys.json")
    secret, _ = file.create(rate=Rate(5, "day"))
    with running(model_store, "--workers", "2", "--keys-file", str(file.path)) as (_, url, events):
        assert events[0]["event"] == "keys_needed"
        headers = {"x-api-key": secret}
        statuses = [httpx.get(f"{url}/v1/limits", headers=headers).status_code for _ in range(12)]
        assert httpx.get(f"{url}/v1/limits").status_code == 401
    assert sorted(statuses) == [200] * 5 + [429] * 7
