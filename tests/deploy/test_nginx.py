"""The shipped configuration of nginx, real, before real services: answers, refusals, streams, privacy."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.deploy.front import (
    HARDLY_REFILLED,
    NAME,
    SHIPPED,
    Front,
    front,
    raw,
    shape_of,
    tls_socket,
    write_configuration,
)
from tests.deploy.programs import free_ports, needed
from tests.deploy.replicas import Replica
from tests.promises.harness import comparable
from tests.service.services import PATIENCE_S, wait_until

pytestmark = pytest.mark.weights

MIB = 2**20


# ── what ships ───────────────────────────────────────────────────────────────────────────────────


def test_nginx_finds_no_fault_in_the_files(tmp_path: Path) -> None:
    write_configuration(tmp_path, [], SHIPPED)
    command = [needed("nginx", "nginx"), "-t", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    # From 1.25.1 on it asks for another spelling of HTTP/2, as the file says.
    unknown = [line for line in said.stderr.splitlines() if "[" in line and '"listen ... http2"' not in line]
    assert not unknown


def test_answers_are_those_of_the_service(nginx: Front, photos: list[bytes], direct: list[bytes]) -> None:
    with nginx.client() as client:
        for photo, expected in zip(photos, direct, strict=True):
            answer = client.post("/v1/analyze", content=photo)
            assert (answer.status_code, comparable(answer.content)) == (200, expected)
            assert answer.json()["request_id"] == answer.headers["x-request-id"]
        uploaded = client.post("/api/analyze", files={"image": ("me.jpg", photos[0])})
        assert len(uploaded.json()["results"]) == 1
        page = client.get("/")
        assert "camera=(self)" in page.headers["permissions-policy"]
        assert page.headers["server"] == "nginx"
    used = {line["replica"].rpartition(":")[2] for line in nginx.whole_log()}
    assert used == {str(port) for port in ports_behind(nginx)}


def ports_behind(nginx: Front) -> list[int]:
    text = (nginx.folder / "dulian.conf").read_text().partition("upstream dulian_grpc")[0]
    return [int(port) for port in re.findall(r"server 127\.0\.0\.1:(\d+)", text)]


def test_a_drawn_picture_is_found_whichever_replica_has_it(nginx: Front, photos: list[bytes]) -> None:
    with nginx.client() as client:
        for _ in range(6):
            named = client.post("/predict", files={"image": ("me.jpg", photos[3])}).json()["output_image"]
            assert client.get(named).content.startswith(b"\xff\xd8")
        lost = client.get("/images/nobody-knows")
        assert (lost.status_code, set(lost.json())) == (404, {"error"})
    asked = [line for line in nginx.whole_log() if line["route"] == "/images/"]
    assert any(", " in line["replica"] for line in asked[:-1])  # else both pictures of all pairs met by chance


def test_plain_http_leads_to_tls(nginx: Front) -> None:
    answer = httpx.post(f"http://127.0.0.1:{nginx.plain_port}/v1/analyze?max_faces=1", headers={"host": "evil.example"})
    assert (answer.status_code, answer.headers["location"]) == (308, f"https://{NAME}/v1/analyze?max_faces=1")


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────


def test_a_body_beyond_the_limit_is_refused_before_it_is_sent(nginx: Front) -> None:
    too_long = f"Content-Length: {10 * MIB + 1}"
    answer = raw(nginx, "POST /v1/analyze HTTP/1.1", too_long, "X-Request-Id: my-own.1")
    assert (answer.status_code, shape_of(answer)["code"]) == (413, "input_too_large")
    assert answer.headers["x-request-id"] == "my-own.1"
    articles = raw(nginx, "POST /predict HTTP/1.1", too_long, 'X-Request-Id: "quoted"')
    assert (articles.status_code, set(articles.json())) == (413, {"error"})
    assert '"' not in articles.headers["x-request-id"]


def test_what_is_not_for_everybody_is_not_there(nginx: Front) -> None:
    with nginx.client() as client:
        for path in ("/metrics", "/livez", "/readyz"):
            assert shape_of(client.get(path))["code"] == "not_found"
        assert client.get("/nothing").json()["error"]["code"] == "not_found"  # by a replica
    assert [bool(line["replica"]) for line in nginx.whole_log()] == [False, False, False, True]


def test_one_address_may_ask_only_so_often(tmp_path: Path, replicas: tuple[Replica, Replica]) -> None:
    with front(tmp_path, replicas[0].port, changes=HARDLY_REFILLED) as nginx, nginx.client() as client:
        answers = [client.get("/v1/limits") for _ in range(200)]
        counts = Counter(answer.status_code for answer in answers)
        assert counts[200] >= 61  # the burst, and what the rate has let in meanwhile
        assert counts[429] > 0
        assert set(counts) == {200, 429}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert shape_of(refused)["code"] == "rate_limited"
        assert int(refused.headers["retry-after"]) >= 1


def test_one_address_may_ask_only_so_much_at_once(tmp_path: Path, replicas: tuple[Replica, Replica]) -> None:
    """Bodies that never end hold a place each; nobody else's place."""
    head = f"POST /v1/analyze HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 1000\r\n\r\n".encode()
    with front(tmp_path, replicas[0].port) as nginx, ExitStack() as stack:
        for _ in range(16):
            stack.enter_context(tls_socket(nginx)).sendall(head)

        def is_full() -> bool:
            return raw(nginx, "GET /v1/limits HTTP/1.1", "Connection: close").status_code == 429

        wait_until(is_full)
        stack.close()
        wait_until(lambda: not is_full())


def test_nobody_behind_is_an_error_like_any_other(tmp_path: Path) -> None:
    with front(tmp_path, *free_ports(2)) as nginx, nginx.client() as client:
        for _ in range(8):  # first refused connections, then nobody left to try
            answer = client.post("/v1/analyze", content=b"a picture")
            assert (answer.status_code, shape_of(answer)["code"]) == (502, "unreachable")
            assert int(answer.headers["retry-after"]) >= 1
        assert set(client.post("/analyze", content=b"").json()) == {"error"}


# ── streams ──────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def stream(nginx: Front, origin: str | None) -> Iterator[ClientConnection]:
    url = f"wss://{nginx.authority}/v1/stream"
    plain = socket.create_connection(("127.0.0.1", nginx.port), timeout=PATIENCE_S)
    with plain, connect(url, sock=plain, ssl=nginx.tls, origin=origin, compression=None, proxy=None) as connection:  # type: ignore[arg-type]
        yield connection


def test_streams_pass_and_pages_of_others_may_open_none(nginx: Front, photos: list[bytes], direct: list[bytes]) -> None:
    with stream(nginx, f"https://{nginx.authority}") as connection:
        for number, photo in enumerate(photos):
            connection.send(json.dumps({"id": number}))
            connection.send(photo)
            answer = json.loads(connection.recv(timeout=PATIENCE_S))
            assert answer["id"] == number
            faces = json.dumps(answer["faces"], ensure_ascii=False, separators=(",", ":"))
            assert f'"faces":{faces},'.encode() in direct[number]
    with pytest.raises(InvalidStatus) as refused, stream(nginx, "https://evil.example"):
        pass
    assert refused.value.response.status_code == 403
    with nginx.client() as client:
        assert client.get("/v1/stream").status_code == 426


# ── privacy ──────────────────────────────────────────────────────────────────────────────────────


def test_the_logs_know_neither_who_asked_nor_what(nginx: Front, photos: list[bytes]) -> None:
    with nginx.client() as client:
        client.post("/v1/analyze?order=SECRET", content=photos[0], headers={"referer": "https://SECRET.example"})
        client.post("/predict", files={"image": ("SECRET.jpg", photos[3])})
        client.get("/images/SECRET")
        client.get("/SECRET/SECRET.jpg", headers={"user-agent": "SECRET", "authorization": "Bearer SECRET"})
    lines = nginx.whole_log()
    assert [line["route"] for line in lines] == ["/v1/analyze", "/predict", "/images/", "other"]
    for line in lines:
        line.pop("replica")  # an address of ours
    written = json.dumps(lines) + (nginx.folder / "nginx.log").read_text()
    assert "SECRET" not in written
    assert "127.0.0.1" not in written


def test_a_replica_hears_no_address(tmp_path: Path) -> None:
    """What a client says of its address is dropped, and nginx adds none."""
    told = ("X-Forwarded-For: 192.0.2.7", "X-Real-IP: 192.0.2.7", "Forwarded: for=192.0.2.7", "X-Kept: yes")
    with (
        socket.create_server(("127.0.0.1", 0)) as replica,
        front(tmp_path, replica.getsockname()[1]) as nginx,
        tls_socket(nginx) as connection,
    ):
        request = ("GET /v1/limits HTTP/1.1", f"Host: {nginx.authority}", *told, "", "")
        connection.sendall("\r\n".join(request).encode())
        accepted, _ = replica.accept()
        with accepted:
            heard = accepted.recv(1 << 16).decode()
    assert "X-Kept: yes" in heard
    assert f"Host: {nginx.authority}" in heard
    assert "192.0.2.7" not in heard
    assert "127.0.0.1" not in heard
