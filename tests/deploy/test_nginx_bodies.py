"""What passes through nginx stays in its memory: no picture is written to a disk."""

from __future__ import annotations

import io
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.deploy.front import NAME, SHIPPED, UNLIMITED, Front, front, tls_socket
from tests.deploy.programs import needed
from tests.deploy.replicas import Replica
from tests.promises.harness import comparable
from tests.service.services import PATIENCE_S, wait_until

pytestmark = pytest.mark.weights

MIB = 2**20


def held_files(nginx: Front, kind: str = "bodies") -> list[str]:
    """Temporary files that nginx has open; their names are gone as soon as they are made."""
    folder = nginx.folder / kind
    found = []
    for process in nginx.workers:
        for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(OSError):
                target = os.readlink(descriptor)
                if target.startswith(str(folder)):
                    found.append(target)
    return found + [str(file) for file in folder.rglob("*") if file.is_file()]


@contextmanager
def sent_by_hand(
    nginx: Front, whole: int, *, chunked: bool
) -> Iterator[tuple[Callable[[bytes], object], Callable[[], bytes]]]:
    """An upload whose pieces a test sends: how, and how its end is told and answered."""
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {whole}"
    head = f"POST /v1/analyze HTTP/1.1\r\nHost: {NAME}\r\n{length}\r\nConnection: close\r\n\r\n"
    with tls_socket(nginx) as connection:
        connection.sendall(head.encode())

        def send(piece: bytes) -> None:
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)

        def end() -> bytes:
            connection.sendall(b"0\r\n\r\n" if chunked else b"")
            head, _, body = b"".join(iter(lambda: connection.recv(1 << 16), b"")).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            return body

        yield send, end


@contextmanager
def sent_by_curl(nginx: Front) -> Iterator[tuple[Callable[[bytes], object], Callable[[], bytes]]]:
    """The same over HTTP/2, where no length is told."""
    url = f"https://127.0.0.1:{nginx.port}/v1/analyze"
    command = [needed("curl", "curl"), "--http2", "--fail", "-sS", "--cacert", str(nginx.folder / "cert.pem")]
    command += ["-H", f"Host: {NAME}", "-H", "Expect:", "-X", "POST", "-T", "-", "-w", "%{http_version}", url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin

        def end() -> bytes:
            body, _ = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0
            assert body.endswith(b"}2")
            return body[:-1]

        def send(piece: bytes) -> None:
            assert process.stdin
            view = memoryview(piece)
            while view:
                view = view[process.stdin.write(view) :]

        yield send, end


WAYS: dict[str, Callable[[Front, int], Any]] = {
    "whole": lambda nginx, whole: sent_by_hand(nginx, whole, chunked=False),
    "in chunks": lambda nginx, whole: sent_by_hand(nginx, whole, chunked=True),
    "HTTP/2": lambda nginx, _: sent_by_curl(nginx),
}
SMALL_BUFFER = {"client_body_buffer_size 11m": "client_body_buffer_size 16k"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("changes", "on_disk"), [(SHIPPED, False), (SMALL_BUFFER, True)], ids=["shipped", "control"])
def test_a_slow_upload_stays_in_memory(
    tmp_path: Path,
    replicas: tuple[Replica, Replica],
    photos: list[bytes],
    direct: list[bytes],
    way: str,
    changes: dict[str, str],
    on_disk: bool,
) -> None:
    body = photos[0] + bytes(10 * MIB - len(photos[0]))
    cut = 9 * MIB
    ports = (one.port for one in replicas)
    with front(tmp_path, *ports, changes=changes) as nginx, WAYS[way](nginx, len(body)) as (send, end):
        workers = nginx.workers
        send(body[:cut])
        # What it has taken it holds: in memory, or not.
        wait_until(lambda: bool(held_files(nginx)) or max(one.memory_info().rss for one in workers) > cut)
        assert bool(held_files(nginx)) is on_disk
        send(body[cut:])
        assert on_disk or not held_files(nginx)
        assert comparable(end()) == direct[0]


def unread_bytes(port: int) -> int:
    """What has come from this port and nginx has not taken yet, on its fullest connection."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return max((int(row[4].partition(":")[2], 16) for row in rows if row[2].endswith(f":{port:04X}")), default=0)


@pytest.mark.parametrize(
    ("changes", "on_disk"),
    [({}, False), ({"proxy_max_temp_file_size 0": "proxy_max_temp_file_size 1024m"}, True)],
    ids=["shipped", "control: files allowed"],
)
def test_an_answer_that_nobody_reads_stays_in_memory(
    tmp_path: Path, replicas: tuple[Replica, Replica], changes: dict[str, str], on_disk: bool
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (2400, 3000, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=85)
    body = file.getvalue()
    head = f"POST /v1/analyze HTTP/1.1\r\nHost: {NAME}\r\nAccept: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
    port = replicas[0].port
    with front(tmp_path, port, port, changes=UNLIMITED | changes) as nginx, tls_socket(nginx) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(head.encode() + body)
        wait_until(lambda: bool(held_files(nginx, "proxy")) if on_disk else unread_bytes(port) > 64 * 1024)
        assert bool(held_files(nginx, "proxy")) is on_disk
