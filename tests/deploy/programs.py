"""Programs as Debian ships them, run without privileges from a folder of the test, and their configuration from ours.

What is tested is what ships: a configuration is the shipped text in which ports, paths and a few numbers are others,
and a replacement whose text is not there fails.
"""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.service.services import PATIENCE_S, wait_until

DEPLOY = Path(__file__).parent.parent.parent / "deploy"


def needed(program: str, package: str, *, by: str = "apt-get install") -> str:
    """The path of a program; without it the test is skipped, and says so."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"no {program} on this machine: {by} {package}")
    return found


# Below those that systems give to outgoing connections, which would take a port while its server is started again.
PORTS = range(10_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens now, one behind the other."""
    while True:
        first = random.choice(PORTS)
        with suppress(OSError), ExitStack() as stack:
            ports = list(range(first, first + count))
            for port in ports:
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return ports


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """A shipped text with other words here and there; each of them has to be in it."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def is_open(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


@contextmanager
def program(
    command: Sequence[str], log: Path, *, ready: Callable[[], bool], stop_s: float = PATIENCE_S
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs until the block ends; what it writes is in ``log``."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent
        )
    try:
        wait_until(lambda: ready() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.terminate()
        try:
            process.wait(stop_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
