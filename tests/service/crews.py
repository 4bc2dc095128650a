"""Services under gunicorn, as operators start them, ended by their number whatever a test does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from tests.promises.harness import PATIENCE_S, Server
from tests.service.services import wait_until

from dulian.store import ModelStore

WORKER = ("-k", "dulian.service.gunicorn.Worker")
APP = "dulian.service.gunicorn:app"


def start_gunicorn(home: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DULIAN_")}
    where = () if "--bind" in arguments else ("--bind", "127.0.0.1:0")
    base = {"LANG": "C.UTF-8", "XDG_CONFIG_HOME": os.devnull, "HOME": str(home), "DULIAN_GRACE_S": "0"}
    return subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *WORKER, *where, *arguments, APP],
        stderr=subprocess.PIPE,
        text=True,
        env={**clean, **base, **environment},
    )


@contextmanager
def gunicorn_server(
    store: ModelStore, home: Path, *arguments: str, workers: int = 2, **environment: str
) -> Iterator[Server]:
    """gunicorn with real networks, all workers ready."""
    models = {"DULIAN_OFFLINE": "1", "DULIAN_MODEL_DIR": str(store.write_dir)}
    process = start_gunicorn(home, "--workers", str(workers), *arguments, **{**models, **environment})
    server = Server(process)
    reader = threading.Thread(target=_read_log, args=(server,), daemon=True)
    reader.start()
    try:
        wait_until(lambda: len(named(server, "worker_ready")) >= workers or process.poll() is not None)
        assert process.poll() is None, server.events
        yield server
    finally:
        for pid in [process.pid, *workers_of(server)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(PATIENCE_S)
        reader.join(PATIENCE_S)
        assert process.stderr
        process.stderr.close()


def workers_of(server: Server) -> set[int]:
    with suppress(psutil.NoSuchProcess):
        return {child.pid for child in psutil.Process(server.process.pid).children()}
    return set()


def named(server: Server, event: str) -> list[dict[str, Any]]:
    """What was logged of that name so far."""
    return [one for one in list(server.events) if one["event"] == event]


def _read_log(server: Server) -> None:
    assert server.process.stderr
    for line in server.process.stderr:
        if line.startswith("{"):
            server.events.append(json.loads(line))
        else:
            server.events.append({"event": "gunicorn", "line": line})
        if found := re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", line):
            server.port = int(found[1])
