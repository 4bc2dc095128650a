"""``dulian healthcheck``, which containers run every few seconds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.service.processes import running

from dulian.keys import KeysFile
from dulian.store import ModelStore

ALIVE, DEAD, BAD_INPUT = 0, 1, 2
# By its name alone it does without what commands need; with an option it is a command like others.
DOORS: tuple[Sequence[str], ...] = ((), ("--port",))


def healthcheck(port: int, options: Sequence[str] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DULIAN_")}
    arguments = [*options, str(port)] if options else []
    return subprocess.run(
        [sys.executable, "-m", "dulian", "healthcheck", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**clean, "DULIAN_PORT": str(port), **environment},
    )


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """The port of something that says the same to everybody."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer_all() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

        thread = threading.Thread(target=answer_all, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@pytest.mark.weights
def test_a_service_is_alive_also_when_it_asks_for_keys(model_store: ModelStore, tmp_path: Path) -> None:
    keys = KeysFile(tmp_path / "keys.json")
    keys.create()
    with running(model_store, "--host", "0.0.0.0", "--keys-file", str(keys.path)) as (process, address, _):
        port = int(address.rpartition(":")[2])
        for options in DOORS:
            done = healthcheck(port, options, DULIAN_HOST="0.0.0.0")
            assert (done.returncode, done.stdout, done.stderr) == (ALIVE, "", "")
        config = tmp_path / "dulian.toml"
        config.write_text(f"port = {port}\n")
        assert healthcheck(port, DULIAN_CONFIG=str(config), DULIAN_PORT="").returncode == ALIVE
        process.terminate()
        process.wait(60)
        assert healthcheck(port).returncode == DEAD


@pytest.mark.parametrize("options", DOORS)
def test_nobody_is_dead(options: Sequence[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = healthcheck(port, options)
    assert done.returncode == DEAD
    assert done.stderr == f"dulian: 127.0.0.1 port {port}: Connection refused\n"


@pytest.mark.parametrize("options", DOORS)
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "'HTTP/1.1 503 Service Unavailable'"),
        (b"SSH-2.0-\x1b[2J\r\n", "'SSH-2.0-\\x1b[2J'"),
        (b"", "no answer"),
    ],
)
def test_whatever_else_answers_is_dead(answer: bytes, said: str, options: Sequence[str]) -> None:
    with answering(answer) as port:
        done = healthcheck(port, options)
    assert (done.returncode, done.stderr) == (DEAD, f"dulian: 127.0.0.1 port {port}: {said}\n")


def test_an_address_from_kubernetes_is_no_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = healthcheck(server.getsockname()[1], DULIAN_PORT="tcp://10.0.0.1:80", DULIAN_HOST="127.0.0.2")
    assert done.stderr.startswith("dulian: 127.0.0.2 port 8080: ")


@pytest.mark.parametrize("options", DOORS)
def test_a_file_of_settings_that_is_wrong_is_told(options: Sequence[str]) -> None:
    done = healthcheck(1, options, DULIAN_CONFIG="/nonexistent.toml")
    assert done.returncode == BAD_INPUT
    assert done.stderr == "dulian: config file /nonexistent.toml: No such file or directory\n"


def test_it_loads_little() -> None:
    code = "import sys, atexit; sys.argv = ['dulian', 'healthcheck']; from dulian.cli import main\n"
    code += "atexit.register(lambda: print(*sys.modules)); main()"
    with answering(b"HTTP/1.1 200 OK\r\n\r\n") as port:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "DULIAN_PORT": str(port), "DULIAN_HOST": "127.0.0.1"},
        )
    assert done.returncode == ALIVE, done.stderr
    loaded = set(done.stdout.split())
    assert "dulian.cli.probe" in loaded
    assert not loaded & {"typer", "pydantic", "rich", "numpy", "http.client", "dulian.settings", "dulian.cli.app"}
