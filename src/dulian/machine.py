"""What this machine really gives us: cores, memory, instruction sets.

Reads /proc, cgroups and glibc's own variables, nothing else.
``os.cpu_count()`` counts the host's cores; in a container that is a lie.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
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


def cgroup_cpu_quota(root: Path = CGROUP, own: Path = OWN_GROUPS) -> float | None:
    """Cores granted by this process's cgroup and those above it (v2 and v1), or None without a quota."""
    quotas = [
        *(_quota(*_read(group / "cpu.max").split()) for group in _groups(root, own, "")),
        *(
            _quota(_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us"))
            for group in _groups(root, own, "cpu")
        ),
    ]
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_limit_bytes(root: Path = CGROUP, own: Path = OWN_GROUPS) -> int | None:
    """The lowest memory limit of this process's cgroup and those above it (v2 and v1), or None without one."""
    texts = [
        *(_read(group / "memory.max") for group in _groups(root, own, "")),
        *(_read(group / "memory.limit_in_bytes") for group in _groups(root, own, "memory")),
    ]
    # cgroup v1 says "no limit" with a number near 2^63.
    return min((int(text) for text in texts if text.isdigit() and int(text) < 1 << 60), default=None)


def _groups(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """The folder of this process's group for a controller of v1, or of v2 (no name), and of all groups above it.

    In a container the top of what is mounted is its own group, while /proc may tell the host's name of it.
    """
    base = root / controller
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            group = base / path.lstrip("/")
            yield group
            yield from (above for above in group.parents if above != base and above.is_relative_to(base))
    yield base


def _quota(quota: str = "", period: str = "") -> float | None:
    """Cores by the microseconds granted in a period; those without a limit say max, or -1."""
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


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
