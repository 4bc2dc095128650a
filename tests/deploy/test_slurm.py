"""The script for Slurm: read by ShellCheck, and run with an ``srun`` that only says what it was to start."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from dulian.cli.batch.asked import parse_share
from tests.deploy.commands import parse
from tests.deploy.programs import DEPLOY, needed

SCRIPT = DEPLOY / "slurm/batch.sh"


def test_the_script_is_sound() -> None:
    done = subprocess.run([needed("shellcheck", "shellcheck"), SCRIPT], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("index", [0, 7])
def test_every_task_has_a_share_of_its_own(tmp_path: Path, index: int) -> None:
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o700)
    environment = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "SLURM_ARRAY_TASK_ID": str(index),
        "SLURM_ARRAY_TASK_COUNT": "8",
        "SLURM_CPUS_PER_TASK": "4",
    }
    done = subprocess.run(
        ["bash", SCRIPT, "/shared/my results"], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    option, program, *words = done.stdout.splitlines()
    assert (option, program) == ("--cpus-per-task=4", "dulian")
    assert parse(words) == "dulian batch run"
    assert words[words.index("--output") + 1] == "/shared/my results"
    assert parse_share(words[words.index("--shard") + 1]) == (index, 8)


def test_it_asks_for_its_destination() -> None:
    done = subprocess.run(["bash", SCRIPT], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "usage: sbatch" in done.stderr


def test_it_hears_that_time_is_up() -> None:
    """SIGTERM, which it ends by in order; to the step, not to the shell that waits for it (``B:``)."""
    assert re.search(r"^#SBATCH --signal=TERM@\d+$", SCRIPT.read_text("utf-8"), re.MULTILINE)
