from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from types import SimpleNamespace

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
    assert machine.cgroup_cpu_quota(tmp_path, tmp_path / "none") == quota


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
    assert machine.memory_limit_bytes(tmp_path, tmp_path / "none") == limit


@pytest.mark.parametrize(
    ("files", "own", "limit"),
    [
        # systemd's MemoryMax: a group below the one that is mounted, and the lowest limit on the way up counts.
        ({"system.slice/dulian.service/memory.max": "300"}, "0::/system.slice/dulian.service", 300),
        (
            {"system.slice/memory.max": "200", "system.slice/dulian.service/memory.max": "300"},
            "0::/system.slice/x",
            200,
        ),
        ({"memory.max": "100", "a/memory.max": "max"}, "0::/a", 100),
        ({"memory/a/b/memory.limit_in_bytes": "400"}, "7:cpu,cpuacct:/\n4:memory:/a/b\n0::/", 400),
        # In a container /proc may name a group of the host, and what is mounted is the container's own.
        ({"memory/memory.limit_in_bytes": "500"}, "4:memory:/docker/0123", 500),
        ({"other/memory.max": "1"}, "0::/a", None),
        ({"memory/memory.limit_in_bytes": "500"}, "4:memory:/..", 500),
    ],
)
def test_memory_limit_of_the_own_group(tmp_path: Path, files: dict[str, str], own: str, limit: int | None) -> None:
    _write(tmp_path, {**files, "own": own})
    assert machine.memory_limit_bytes(tmp_path, tmp_path / "own") == limit


@pytest.mark.parametrize(
    ("files", "own", "quota"),
    [
        ({"a/b/cpu.max": "150000 100000", "a/cpu.max": "50000 100000"}, "0::/a/b", 0.5),
        ({"cpu/a/cpu.cfs_quota_us": "200000", "cpu/a/cpu.cfs_period_us": "100000"}, "3:cpu,cpuacct:/a", 2.0),
    ],
)
def test_cpu_quota_of_the_own_group(tmp_path: Path, files: dict[str, str], own: str, quota: float) -> None:
    _write(tmp_path, {**files, "own": own})
    assert machine.cgroup_cpu_quota(tmp_path, tmp_path / "own") == quota


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


# ── memory that was freed ────────────────────────────────────────────────────────────────────────


class CLibrary:
    """A C library that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def malloc_trim(self, *numbers: int) -> None:
        self.asked.append(numbers)

    def mallopt(self, *numbers: int) -> None:
        self.asked.append(numbers)


def test_giving_back_memory_leaves_what_is_in_use() -> None:
    kept = [bytes([index]) * 100_000 for index in range(20)]
    machine.give_back_memory()
    assert kept == [bytes([index]) * 100_000 for index in range(20)]


@pytest.mark.parametrize(
    ("system", "asked"), [("linux", [(0,), (-8, 1), (-3, 16 * 2**20), (-1, 32 * 2**20)]), ("darwin", []), ("win32", [])]
)
def test_only_the_c_library_of_linux_is_asked(
    system: str, asked: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = CLibrary()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(sys, "platform", system)
    for variable in ("MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.delenv(variable, raising=False)
    machine.give_back_memory()
    machine.tune_malloc()
    assert library.asked == asked


def test_what_glibcs_own_variables_say_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    library = CLibrary()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    machine.tune_malloc()
    assert library.asked == [(-3, 16 * 2**20)]


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: object) -> None:
        raise OSError("no library at all")

    monkeypatch.setattr(sys, "platform", "linux")
    for library in (lambda _: SimpleNamespace(), none):
        monkeypatch.setattr(ctypes, "CDLL", library)
        machine.give_back_memory()
        machine.tune_malloc()


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
