"""What this machine really gives us: cores, memory, instruction sets.

Reads /proc, cgroups and glibc's own variables, nothing else.
``os.cpu_count()`` counts the host's cores; in a container that is a lie.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
# malloc.h: where memory comes from and when freed memory is given back.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGEST_KEPT_BYTES, _KEPT_BYTES = 16 * 2**20, 32 * 2**20
INTERESTING_FLAGS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd")


def effective_cores() -> int:
    """Whole cores this process may use: the smaller of CPU affinity and cgroup quota, at least one."""
    allowed, quota = allowed_cores(), cgroup_cpu_quota()
    return max(1, allowed if quota is None else min(allowed, int(quota)))


def share_cores(pictures: int, cores: int) -> tuple[int, int]:
    """Workers and threads of each for that many pictures: one gets all cores, many get one core each.

    Workers times threads is never more than ``cores``.
    """
    workers = max(1, min(pictures, cores))
    return workers, max(1, cores // workers)


def allowed_cores() -> int:
    """Cores that the CPU affinity of this process names."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity call
        return os.cpu_count() or 1


def cgroup_cpu_quota(root: Path = CGROUP) -> float | None:
    """Cores granted by the cgroup (v2, then v1), or None without a quota."""
    fields = _read(root / "cpu.max").split()
    if len(fields) == 2 and fields[0] != "max":
        return int(fields[0]) / int(fields[1])
    quota, period = _read(root / "cpu/cpu.cfs_quota_us"), _read(root / "cpu/cpu.cfs_period_us")
    if quota and period and int(quota) > 0:
        return int(quota) / int(period)
    return None


def memory_limit_bytes(root: Path = CGROUP) -> int | None:
    """The cgroup's memory limit (v2, then v1), or None without one."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _read(root / name)
        # cgroup v1 says "no limit" with a number near 2^63.
        if text.isdigit() and int(text) < 1 << 60:
            return int(text)
    return None


def physical_memory_bytes() -> int | None:
    """All memory of the machine, or None where /proc does not tell."""
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def give_back_memory() -> None:
    """Return what has been freed to the operating system, where the C library is asked to (glibc).

    Loading networks frees as much as it keeps, and glibc holds on to it.
    """
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # musl has no malloc_trim
            ctypes.CDLL(None).malloc_trim(0)


def tune_malloc(arenas: int = 1) -> None:
    """Have glibc keep its memory in few pools instead of one for every thread; call it before threads are started.

    Each pool holds on to what its threads needed at most. A picture takes a few hundred blocks, so that even one pool
    is hardly ever waited for. Of what is freed 32 MiB are kept: pages that go to the system and come back have to be
    cleared and mapped again, which can cost as much as a network. What glibc's own variables say (``MALLOC_…``) stands.
    Programs may call it, libraries should not.
    """
    if sys.platform != "linux":
        return
    wishes = (
        ("MALLOC_ARENA_MAX", _M_ARENA_MAX, arenas),
        ("MALLOC_MMAP_THRESHOLD_", _M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES),
        ("MALLOC_TRIM_THRESHOLD_", _M_TRIM_THRESHOLD, _KEPT_BYTES),
    )
    with suppress(AttributeError, OSError):  # musl has no mallopt
        library = ctypes.CDLL(None)
        for variable, option, value in wishes:
            if variable not in os.environ:
                library.mallopt(option, value)


def instruction_sets() -> tuple[str, ...]:
    """The processor's vector extensions that matter for inference, as /proc/cpuinfo spells them."""
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            present = set(value.split())
            return tuple(flag for flag in INTERESTING_FLAGS if flag in present)
    return (platform.machine(),)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
