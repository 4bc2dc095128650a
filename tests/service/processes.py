"""The command as operators run it: real processes, ended by their number whatever a test does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.service.services import PATIENCE_S

from dulian.store import ModelStore


def command(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DULIAN_")}
    return subprocess.Popen(
        [sys.executable, "-m", "dulian", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # The keys of whoever runs the tests are not theirs.
        env={**clean, "LANG": "C.UTF-8", "XDG_CONFIG_HOME": os.devnull, **environment},
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@contextmanager
def running(
    store: ModelStore, *arguments: str, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], str, list[Any]]]:
    """A real process, ready; its address and the events so far."""
    environment = {"DULIAN_GRACE_S": "0", **environment}
    process = command("--port", "0", "--offline", "--model-dir", str(store.write_dir), *arguments, **environment)
    try:
        assert process.stderr
        events: list[Any] = []
        while not events or events[-1]["event"] != "listening":
            events.append(json.loads(process.stderr.readline()))
        yield process, f"http://127.0.0.1:{events[-1]['port']}", events
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        for pipe in (process.stdout, process.stderr):
            assert pipe
            pipe.close()
