"""A real Redis for tests: Debian's redis-server on a free port, in memory alone, ended by its number."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.service.services import PATIENCE_S, wait_until


@dataclass
class RedisServer:
    """A process, and how to reach it."""

    process: subprocess.Popen[bytes]
    port: int
    socket_path: Path

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> redis.Redis:
        """For tests to look at what is there, and to change it."""
        return redis.Redis(port=self.port, protocol=2, driver_info=None, **options)

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as one:
                one.sendall(b"PING\r\n")
                return bool(one.recv(100))
        except OSError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def start_redis(folder: Path, *options: str, port: int = 0) -> RedisServer:
    """One that answers; whoever starts it kills it."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    port = port or free_port()
    path = folder / f"{port}.sock"
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    command += ["--dir", str(folder), "--unixsocket", str(path), *options]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    server = RedisServer(process, port, path)
    try:
        wait_until(lambda: process.poll() is not None or server.answers())
        assert process.poll() is None, "redis-server has ended"
    except BaseException:
        server.kill()
        raise
    return server


@contextmanager
def redis_server(folder: Path, *options: str, port: int = 0) -> Iterator[RedisServer]:
    """The same for as long as it is needed."""
    server = start_redis(folder, *options, port=port)
    try:
        yield server
    finally:
        server.kill()
