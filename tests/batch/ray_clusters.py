"""Ray clusters on this machine that end whatever happens, and what is left of processes that were killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.batch.mortal import PATIENCE_S
from tests.conftest import ROOT

# Processes of Ray end themselves now and then ("Tried to complete task that was not pending", in 2.60 as in
# ray-project/ray#54846), and say so.
BROKEN = "You have likely discovered a bug in Ray"
RAY_TESTS = [pytest.mark.ray, pytest.mark.flaky(reruns=2, only_rerun=BROKEN)]
# It ends in any case after so long: a busy machine takes minutes for what takes seconds elsewhere.
SECONDS = 540


def ray_environment(folder: Path) -> dict[str, str]:
    """What processes of a test's own cluster run with; Ray puts sockets into the folder, so its path must be short.

    Ray imports jsonschema, which imports this package where it is installed, as it is for development. That takes
    seconds in every single process of Ray, and a raylet gives up if its helpers take longer than 15.
    """
    slow = folder / "without" / "rfc3987_syntax.py"
    slow.parent.mkdir()
    slow.write_text("raise ImportError")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(slow.parent), str(ROOT)]),
        "HOME": str(folder),
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


class RayCluster:
    """Nodes that another process owns."""

    def __init__(self, owner: subprocess.Popen[str], environment: Mapping[str, str], log: Path) -> None:
        self._owner, self._log = owner, log
        self.environment = dict(environment)
        self.address = self._hear("ready")

    def tasks(self) -> list[psutil.Process]:
        """Processes that are at work on a range."""
        return [process for process in children_of(self._owner.pid) if is_task(process)]

    def kill_node(self, number: int) -> None:
        self._ask(f"kill {number}")

    def add_node(self) -> None:
        self._ask("add")

    def _ask(self, line: str) -> None:
        assert self._owner.stdin is not None
        self._owner.stdin.write(f"{line}\n")
        self._owner.stdin.flush()
        self._hear(line.split()[0])

    def _hear(self, word: str) -> str:
        """Ends at the latest when the owner does."""
        assert self._owner.stdout is not None
        for line in self._owner.stdout:
            said, _, rest = line.strip().partition(" ")
            if said == word:
                return rest
        raise AssertionError(f"the cluster's owner has ended:\n{self._log.read_text()}")


@contextmanager
def ray_cluster(nodes: int) -> Iterator[RayCluster]:
    """So many nodes with two CPUs each, the first of them the head."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    environment = ray_environment(folder)
    command = [sys.executable, "-m", "tests.batch.ray_owner", str(nodes), str(SECONDS)]
    log = folder / "owner"
    with log.open("wb") as output:
        owner = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True
        )
    try:
        yield RayCluster(owner, environment, log)
    finally:
        started = children_of(owner.pid)
        assert owner.stdin is not None
        assert owner.stdout is not None
        with suppress(BrokenPipeError):
            owner.stdin.close()
        try:
            owner.wait(30)
        except subprocess.TimeoutExpired:
            owner.kill()
            owner.wait()
        owner.stdout.close()
        end(started)
        shutil.rmtree(folder, ignore_errors=True)


def heard(driver: subprocess.Popen[str]) -> tuple[str, str]:
    """What a driver wrote until it ended."""
    out, err = driver.communicate(timeout=PATIENCE_S)
    assert BROKEN not in err, BROKEN
    return out, err


def children_of(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def is_task(process: psutil.Process) -> bool:
    """Whether it computes a range; Ray names processes by what they do."""
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline()).startswith("ray::dulian")
    return False


def end(processes: Iterable[psutil.Process]) -> None:
    """Kill those of a test's own processes that still run."""
    left = [process for process in processes if process.is_running()]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, 10)
