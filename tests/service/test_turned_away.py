"""Refusals at the socket while the queue is full: the same as the application's, and only where they are the same."""

from __future__ import annotations

import http.client
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.service.services import PATIENCE_S, FakeAnalysis, fake_service, wait_until
from tests.service.streams import Running, running

from dulian.keys import KeysFile
from dulian.service import server
from dulian.service.access import Access
from dulian.service.limits import GuardLimits
from dulian.service.state import Service
from dulian.service.turned_away import FullHouse

PATHS = ("/v1/analyze", "/predict", "/api/analyze", "/analyze")
# Sent, it makes a request an unusual one, which the application refuses.
HEARD = {"x-request-id": "mine"}


@dataclass
class Full:
    """A server whose queue is full until ``leave``; ``turned_away`` counts what was refused at the socket."""

    run: Running
    analysis: FakeAnalysis
    turned_away: list[bytes]

    @property
    def service(self) -> Service:
        return self.run.service

    def post(self, path: str = "/v1/analyze", **request: Any) -> httpx.Response:
        return httpx.post(f"http://{self.run.host}{path}", **{"content": b"picture", "timeout": PATIENCE_S, **request})

    def connect(self) -> socket.socket:
        host, _, port = self.run.host.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


@contextmanager
def full_house(monkeypatch: pytest.MonkeyPatch, *, access: Access | None = None, **seconds: float) -> Iterator[Full]:
    turned_away: list[bytes] = []
    decide = FullHouse.__call__

    def counted(self: FullHouse, *request: Any) -> bytes | None:
        answer = decide(self, *request)
        if answer is not None:
            turned_away.append(answer)
        return answer

    monkeypatch.setattr(FullHouse, "__call__", counted)
    analysis = FakeAnalysis()
    with fake_service(analysis, max_queued=1) as service, ThreadPoolExecutor(2) as clients:
        service.guard_limits = replace(GuardLimits(), **seconds)
        with running(service) as run:
            analysis.leave.clear()
            full = Full(run, analysis, turned_away)
            first = clients.submit(full.post)
            wait_until(lambda: service.pool.busy == 1)
            second = clients.submit(full.post)
            wait_until(lambda: service.admission.is_full)
            if access is not None:
                service.access = access
            try:
                yield full
            finally:
                analysis.leave.set()
            assert (first.result().status_code, second.result().status_code) == (200, 200)


def hear(client: socket.socket, received: bytes, wanted: bytes) -> bytes:
    """Everything that comes until something does."""
    while wanted not in received:
        piece = client.recv(65536)
        assert piece, received
        received += piece
    return received


def told(answer: httpx.Response) -> tuple[int, list[tuple[str, str]], str]:
    """An answer without what is its own."""
    own = {"date": "…", "retry-after": "…", "x-request-id": "…"}
    headers = sorted((name, own.get(name, value)) for name, value in answer.headers.items() if name != "content-length")
    assert int(answer.headers["retry-after"]) >= 1
    return answer.status_code, headers, re.sub(r'"request_id":"[^"]*"', "", answer.text)


@pytest.mark.parametrize("path", PATHS)
def test_it_is_what_the_application_says(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with full_house(monkeypatch) as full:
        form: dict[str, Any] = {"content": None, "files": {"image": b"picture"}}
        heard = full.post(path, headers=HEARD, **form)
        assert not full.turned_away
        refused = full.post(path, **form)
        assert len(full.turned_away) == 1
        assert told(refused) == told(heard)
        assert refused.status_code == 503
        if path == "/v1/analyze":
            assert refused.json()["error"]["request_id"] == refused.headers["x-request-id"]
            assert full.post().headers["x-request-id"] != refused.headers["x-request-id"]


def test_it_is_counted_as_the_applications_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with full_house(monkeypatch) as full:

        def counts() -> dict[str, float]:
            text = httpx.get(f"http://{full.run.host}/metrics").text
            kinds = r"^(dulian_(?:admission_rejected_total|http_requests_total).*(?:queue|analyze).*) ([\d.]+)$"
            return {name: float(value) for name, value in re.findall(kinds, text, re.MULTILINE)}

        started, total = counts(), full.service.traffic.total
        full.post(headers=HEARD)
        after_heard = counts()
        full.post()
        after = counts()
        grown = {name: after_heard[name] - started.get(name, 0.0) for name in after_heard}
        assert {name: after[name] - after_heard[name] for name in after} == grown
        assert sum(grown.values()) == 2
        assert full.service.traffic.total == total + 2


def test_the_connection_lives_on_and_the_next_request_on_it_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    with full_house(monkeypatch) as full:
        host, _, port = full.run.host.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)
        statuses = []
        for body in (b"x", b"y" * 300_000, b"z"):
            connection.request("POST", "/v1/analyze", body)
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
            connected = connection.sock
        connection.request("GET", "/livez")
        answer = connection.getresponse()
        assert (statuses, answer.status, answer.read()) == ([503] * 3, 200, b'{"alive":true}')
        full.analysis.leave.set()
        wait_until(lambda: not full.service.pool.busy)
        connection.request("POST", "/v1/analyze", b"w")
        answer = connection.getresponse()
        assert (answer.status, len(answer.read()) > 2) == (200, True)
        assert connection.sock is connected
        connection.close()
        assert len(full.turned_away) == 3


def test_requests_in_one_packet_are_answered_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    with full_house(monkeypatch) as full, full.connect() as client:
        refused = b"POST /v1/analyze HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\n\r\nabc"
        heard = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        client.sendall(refused + refused + heard + refused)
        received = b""
        while received.count(b"HTTP/1.1") < 4 or not received.endswith(b"}}"):
            received += client.recv(65536)
        assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"503", b"503", b"200", b"503"]


@pytest.mark.parametrize(
    "unusual",
    [
        {"headers": HEARD},
        {"headers": {"origin": "https://example.org"}},
        {"headers": {"content-encoding": "gzip"}},
        {"headers": {"expect": "100-continue"}},
        {"headers": {"connection": "close"}},
        {"headers": {"host": "elsewhere.example"}},
        pytest.param({"content": iter([b"in ", b"pieces"])}, id="in pieces"),
        {"path": "/v1/batch", "content": None, "files": [("image", b"picture")]},
        {"headers": {"content-type": "text/plain"}},
        {"headers": {"x-request-timeout-ms": "abc"}},
        {"path": "/v1/analyze?nix=1"},
        {"path": "/predict"},
        {"path": "/predict?nix=1", "content": None, "files": {"image": b"picture"}},
        {"path": "/nowhere"},
    ],
    ids=str,
)
def test_whatever_is_unusual_is_heard(unusual: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    access = Access(hosts=frozenset())
    with full_house(monkeypatch, access=access) as full:
        assert full.post(**unusual).status_code in {400, 404, 415, 503}
        assert not full.turned_away


def test_with_keys_nobody_is_told_anything_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = KeysFile(tmp_path / "keys.json")
    secret, _ = file.create()
    with full_house(monkeypatch, access=Access(file)) as full:
        assert full.post().status_code == 401
        assert full.post(headers={"x-api-key": secret}).status_code == 503
        assert not full.turned_away


def test_a_body_that_does_not_come_ends_the_connection_without_another_word(monkeypatch: pytest.MonkeyPatch) -> None:
    with full_house(monkeypatch, skipped_seconds=0.3) as full, full.connect() as client:
        client.sendall(b"POST /v1/analyze HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nabc")
        received = b""
        while piece := client.recv(65536):
            received += piece
        assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"503"]


def test_who_sends_slowly_hears_the_refusal_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with full_house(monkeypatch, head_seconds=0.2) as full:
        for heard in (b"", b"X-Request-Id: mine\r\n"):
            with full.connect() as client:
                head = b"POST /v1/analyze HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n" + heard + b"\r\n"
                client.sendall(head + b"x" * 500)
                time.sleep(0.6)
                client.sendall(b"x" * 500 + b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                received = hear(client, b"", b'{"alive":true}')
                assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"503", b"200"]


def test_who_only_rests_after_a_refusal_hears_no_408(monkeypatch: pytest.MonkeyPatch) -> None:
    with full_house(monkeypatch, head_seconds=0.2) as full, full.connect() as client:
        client.sendall(b"POST /v1/analyze HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\n\r\nabc")
        received = b""
        while not received.endswith(b"}}"):
            received += client.recv(65536)
        client.settimeout(0.6)  # three times as long as a head may take
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(PATIENCE_S)
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200")


def test_who_asks_too_much_at_once_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    most = GuardLimits().pipelined
    with full_house(monkeypatch) as full, full.connect() as client:
        client.sendall(b"POST /v1/analyze HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n" * 3 * most)
        received = b""
        with suppress(ConnectionError):
            while piece := client.recv(65536):
                received += piece
        assert received.count(b"HTTP/1.1 503") <= most
        assert len(full.turned_away) <= most + 1


def test_an_answer_after_a_refusal_in_the_same_packet_is_not_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "KEEP_ALIVE_S", 0.2)
    refusal = b"content-length: 0\r\n\r\n"
    monkeypatch.setattr(
        FullHouse, "__call__", lambda self, method, target, headers: refusal if b"?" in target else None
    )
    refused = b"POST /v1/analyze?no HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\n\r\nx"
    heard = b"POST /v1/analyze HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\n\r\nx"
    with fake_service(FakeAnalysis(seconds=0.6)) as service, running(service) as run:
        host, _, port = run.host.rpartition(":")
        for packets in ((refused + heard,), (refused + refused + heard,), (refused + refused, heard)):
            with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as client:
                received = b""
                for packet in packets:
                    client.sendall(packet)
                    received += client.recv(65536)
                hear(client, received, b"HTTP/1.1 200")
