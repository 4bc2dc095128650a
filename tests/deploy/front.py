"""nginx with the shipped configuration in front of replicas, and what its log says."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from dulian.service import schema
from tests.deploy.programs import DEPLOY, free_ports, is_open, needed, program, replaced
from tests.service.services import PATIENCE_S

NAME = "dulian.example"
# For tests that ask more often than one address may.
UNLIMITED = {"rate=30r/s": "rate=10000r/s", "burst=60": "burst=10000"}
SHIPPED: dict[str, str] = {}  # no changes
# For tests that ask one by one until the shipped burst is used up, on a machine of any speed.
HARDLY_REFILLED = {"rate=30r/s": "rate=1r/s"}
NONE = 1  # a port on which nobody listens


@dataclass(frozen=True)
class Front:
    """A running nginx."""

    process: subprocess.Popen[bytes]
    port: int
    plain_port: int
    folder: Path

    @property
    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    @property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.folder / "cert.pem")

    @property
    def authority(self) -> str:
        return f"{NAME}:{self.port}"

    def client(self, **more: Any) -> httpx.Client:
        return httpx.Client(**self._about_clients(more))

    def async_client(self, **more: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(**self._about_clients(more))

    def _about_clients(self, more: Mapping[str, Any]) -> dict[str, Any]:
        headers = {"host": self.authority}
        base = f"https://127.0.0.1:{self.port}"
        return {"base_url": base, "verify": self.tls, "timeout": PATIENCE_S, "headers": headers, **more}

    def whole_log(self) -> list[dict[str, Any]]:
        """All that it ever logged. It ends in order for that: a line may be written after its answer has been read."""
        self.process.send_signal(signal.SIGQUIT)
        assert self.process.wait(PATIENCE_S) == 0
        return self.log_until_now()

    def log_until_now(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "access.log").read_text().splitlines()]


def make_certificate(folder: Path) -> None:
    """A certificate that is its own witness, by the line that the configuration names."""
    names = f"subjectAltName=DNS:{NAME},IP:127.0.0.1"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "30", "-subj", f"/CN={NAME}", "-addext", names, "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def write_configuration(
    folder: Path, replicas: Sequence[int], changes: Mapping[str, str], grpc: Sequence[int] = ()
) -> tuple[int, int]:
    """The shipped files with the ports and paths of a test; its ports for TLS and for plain HTTP."""
    port, plain_port = free_ports(2)
    own = {
        "listen 80;": f"listen 127.0.0.1:{plain_port};",
        "listen [::]:80;": "",
        "listen 443 ssl http2;": f"listen 127.0.0.1:{port} ssl http2;",
        "listen [::]:443 ssl http2;": "",
        "/etc/dulian/tls/": f"{folder}/",
        "/var/log/nginx/dulian.log": f"{folder}/access.log",
        "/run/nginx-dulian": f"{folder}/bodies",
    }
    for shipped, real in zip((8081, 8082), (*replicas, NONE), strict=False):
        own[f"127.0.0.1:{shipped}"] = f"127.0.0.1:{real}"
    for shipped, real in zip((9081, 9082), (*grpc, NONE, NONE), strict=False):
        own[f"127.0.0.1:{shipped}"] = f"127.0.0.1:{real}"
    text = replaced((DEPLOY / "nginx/dulian.conf").read_text(), own)
    (folder / "dulian.conf").write_text(replaced(text, changes))
    # Paths that Debian builds in belong to root.
    paths = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    whole = {
        "user www-data;": "user root;" if os.geteuid() == 0 else "",
        "worker_processes auto;": "worker_processes 2;",
        "/run/nginx.pid": f"{folder}/nginx.pid",
        "http {\n": f"http {{\n{paths}",
    }
    (folder / "nginx.conf").write_text(replaced((DEPLOY / "nginx/nginx.conf").read_text(), whole))
    make_certificate(folder)
    return port, plain_port


@contextmanager
def front(
    folder: Path, *replicas: int, grpc: Sequence[int] = (), changes: Mapping[str, str] = UNLIMITED
) -> Iterator[Front]:
    """nginx before services on these ports."""
    nginx = needed("nginx", "nginx")
    port, plain_port = write_configuration(folder, replicas, changes, grpc)
    command = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
    with program(command, folder / "nginx.log", ready=lambda: is_open(port)) as process:
        yield Front(process, port, plain_port, folder)


def tls_socket(nginx: Front) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", nginx.port), timeout=PATIENCE_S)
    return nginx.tls.wrap_socket(plain, server_hostname=NAME)


def raw(nginx: Front, *lines: str) -> httpx.Response:
    """The answer to a head without a body."""
    with tls_socket(nginx) as connection:
        connection.sendall("\r\n".join((*lines, f"Host: {nginx.authority}", "", "")).encode())
        received = b""
        while b"\r\n\r\n" not in received or len(received) < _whole(received):
            piece = connection.recv(1 << 16)
            assert piece, received
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    status, *headers = head.decode().split("\r\n")
    return httpx.Response(int(status.split()[1]), headers=[line.split(": ", 1) for line in headers], content=body)


def _whole(received: bytes) -> int:
    length = re.search(rb"content-length: *(\d+)", received, re.IGNORECASE)
    assert length, received
    return received.index(b"\r\n\r\n") + 4 + int(length[1])


def shape_of(answer: httpx.Response) -> dict[str, Any]:
    """The error in an answer of nginx's own, which has to look like one of the service's."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    error = schema.ErrorAnswer.model_validate(answer.json()).error
    assert error.request_id == answer.headers["x-request-id"]
    return error.model_dump()
