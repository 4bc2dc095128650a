"""The help texts are part of the interface: ``pytest --snapshot-update tests/cli/test_help.py`` renews them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from syrupy.assertion import SnapshotAssertion

STORE_COMMANDS = ("list", "pull", "verify", "convert", "import", "path")
KEY_COMMANDS = ("create", "list", "revoke")
BATCH_COMMANDS = ("run", "status", "verify", "merge")
COMMANDS = ["", "analyze", "bench", "doctor", "serve", "models", *(f"models {name}" for name in STORE_COMMANDS)]
COMMANDS += ["batch", *(f"batch {name}" for name in BATCH_COMMANDS)]
COMMANDS += ["keys", *(f"keys {name}" for name in KEY_COMMANDS), "config", "config show", "config check", "healthcheck"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, snapshot: SnapshotAssertion) -> None:
    environment = {**os.environ, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}
    for name in [name for name in environment if name.startswith("DULIAN_")]:
        del environment[name]
    done = subprocess.run(
        [sys.executable, "-m", "dulian", *command.split(), "--help"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
        timeout=60,
    )
    assert "\n".join(line.rstrip() for line in done.stdout.splitlines()) == snapshot
