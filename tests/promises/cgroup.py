"""A memory cgroup of one's own, version 1 or 2, for a process that shall have no more than so much."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PATIENCE_S = 10.0
# Joins the group that is its first argument, and becomes the command that follows.
_JOIN = 'echo $$ > "$0/cgroup.procs" && exec "$@"'


class Unavailable(Exception):
    """There can be no such group here, and why."""


@dataclass(frozen=True)
class MemoryGroup:
    """A group with a limit; whoever starts by ``wrapper`` is in it."""

    path: Path
    unified: bool

    @property
    def wrapper(self) -> tuple[str, ...]:
        return ("/bin/sh", "-c", _JOIN, str(self.path))

    @property
    def peak_bytes(self) -> int | None:
        """What its processes had at most, page cache included; None where the kernel does not tell."""
        file = self.path / ("memory.peak" if self.unified else "memory.max_usage_in_bytes")
        return int(file.read_text()) if file.exists() else None

    @property
    def kills(self) -> int:
        """How many of its processes were killed for want of memory."""
        text = (self.path / ("memory.events" if self.unified else "memory.oom_control")).read_text()
        counts = dict(line.split() for line in text.splitlines())
        return int(counts["oom_kill"])


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """A group below this process's own, gone in the end.

    Raises:
        Unavailable: The system has no such groups, or does not let this process make one.
    """
    place, unified = _place()
    group = MemoryGroup(place / f"dulian-{os.getpid()}-{time.monotonic_ns()}", unified)
    try:
        group.path.mkdir()
    except OSError as error:
        raise Unavailable(f"no group can be made in {place}: {error.strerror}") from None
    try:
        _limit(group, limit_bytes)
        joined = subprocess.run([*group.wrapper, "true"], check=False, capture_output=True, text=True)
        if joined.returncode:
            raise Unavailable(f"no process can join {group.path}: {joined.stderr.strip()}")
        yield group
    finally:
        _remove(group.path)


def _limit(group: MemoryGroup, limit_bytes: int) -> None:
    name, swap = (
        ("memory.max", "memory.swap.max") if group.unified else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    )
    try:
        (group.path / name).write_text(str(limit_bytes))
    except OSError as error:
        raise Unavailable(f"{name} cannot be set: {error.strerror}") from None
    with suppress(OSError):  # a kernel that counts no swap
        (group.path / swap).write_text("0" if group.unified else str(limit_bytes))


def _remove(path: Path) -> None:
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            path.rmdir()
            return
        except OSError:  # who was killed in it is not gone yet
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def _place() -> tuple[Path, bool]:
    """The folder of groups that may have one with a limit below it, and whether it is of version 2."""
    try:
        own = dict(_own_groups())
    except OSError:
        raise Unavailable("this system has no cgroups") from None
    if "memory" in own:
        return _mounted("cgroup", "memory", own["memory"]), False
    if "" not in own:
        raise Unavailable("this kernel has no cgroups of memory")
    folder = _mounted("cgroup2", "", own[""])
    # Of version 2, a group with processes of its own has none with limits below it; one further up may.
    while True:
        control = folder / "cgroup.subtree_control"
        if not control.exists():
            raise Unavailable("no group above this process hands on its memory to groups below it")
        if "memory" in control.read_text().split():
            return folder, True
        folder = folder.parent


def _own_groups() -> Iterator[tuple[str, str]]:
    """Controller, empty for version 2, and this process's group."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, group


def _mounted(kind: str, option: str, group: str) -> Path:
    """Where a group is in the file system; a container may see it as the root of a mount."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, rest = line.partition(" - ")
        found, _, options = rest.split(" ", 2)
        if found == kind and (not option or option in options.split(",")):
            root, point = mount.split()[3:5]
            inside = os.path.relpath(group, root)
            return Path(point) if inside.startswith("..") else Path(point, inside)
    raise Unavailable(f"no {kind} of {option or 'all'} is mounted")
