from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dulian import machine


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
    ],
)
def test_cpu_quota_of_both_cgroup_versions(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    _write(tmp_path, files)
    assert machine.cgroup_cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"memory.max": "max"}, None),
        ({"memory.max": "536870912"}, 536870912),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ({"memory/memory.limit_in_bytes": "1073741824"}, 1073741824),
    ],
)
def test_memory_limit_of_both_cgroup_versions(tmp_path: Path, files: dict[str, str], limit: int | None) -> None:
    _write(tmp_path, files)
    assert machine.memory_limit_bytes(tmp_path) == limit


def test_effective_cores_obey_affinity_and_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(machine, "cgroup_cpu_quota", lambda: None)
    assert machine.effective_cores() == 4
    monkeypatch.setattr(machine, "cgroup_cpu_quota", lambda: 2.5)
    assert machine.effective_cores() == 2
    monkeypatch.setattr(machine, "cgroup_cpu_quota", lambda: 0.5)
    assert machine.effective_cores() == 1


@given(st.integers(1, 10_000), st.integers(1, 256))
def test_workers_and_threads_never_exceed_the_cores(pictures: int, cores: int) -> None:
    workers, threads = machine.share_cores(pictures, cores)
    assert 1 <= workers * threads <= cores
    assert workers <= pictures
    assert (workers, threads) == (1, cores) if pictures == 1 else threads == max(1, cores // min(pictures, cores))


def test_instruction_sets_are_named() -> None:
    assert machine.instruction_sets()


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
