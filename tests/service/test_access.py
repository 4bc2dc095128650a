"""Keys over real sockets: who is let in, who is not, how often, and what becomes of a key that is taken back."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import time_machine
from tests.service.services import FakeAnalysis, fake_service, served, wait_until
from tests.service.streams import ask, closing, refusal, running

from dulian.errors import AccessError, KeysFileError, MalformedInputError, RateLimitError
from dulian.keys import KeysFile, Rate
from dulian.service import access, rates
from dulian.service.access import Access, open_access, presented_key
from dulian.service.admission import Caller
from dulian.service.http import create_app
from dulian.service.server import rehearse
from dulian.service.start import log_keys, with_keys_file
from dulian.service.state import Service
from dulian.settings import Settings


@pytest.fixture
def file(tmp_path: Path) -> KeysFile:
    return KeysFile(tmp_path / "keys.json")


@contextmanager
def asking_for_keys(
    file: KeysFile, analysis: FakeAnalysis | None = None, **limits: Any
) -> Iterator[tuple[Service, str]]:
    """A real server that asks for the file's keys, and its address."""
    with fake_service(analysis or FakeAnalysis(), **limits) as service:
        service.access = Access(file)
        with served(create_app(service)) as url:
            yield service, url


@contextmanager
def in_production(file: KeysFile, analysis: FakeAnalysis) -> Iterator[str]:
    """The same in the very server that ``dulian serve`` runs."""
    with fake_service(analysis) as service:
        service.access = Access(file)
        with running(service) as run:
            yield f"http://{run.host}"


def post(url: str, key: str = "", *, path: str = "/v1/analyze", **request: Any) -> httpx.Response:
    headers = {"x-api-key": key} if key else {}
    return httpx.post(url + path, headers=headers, **{"content": b"picture", **request})


def code_of(answer: httpx.Response) -> str:
    code: str = answer.json()["error"]["code"]
    return code


# ── who is let in ────────────────────────────────────────────────────────────────────────────────


def test_all_but_the_free_paths_need_a_key(file: KeysFile) -> None:
    secret, _ = file.create()
    with asking_for_keys(file) as (service, url), httpx.Client(base_url=url) as client:
        routes = [route for route in create_app(service).routes if getattr(route, "methods", None)]
        paths = {(method, re.sub(r"\{[\w:]+\}", "x", route.path)) for route in routes for method in route.methods}
        assert {("POST", "/v1/analyze"), ("POST", "/predict"), ("GET", "/images/x"), ("GET", "/metrics")} <= paths
        unknown = {("GET", "/nowhere"), ("GET", "/v1/analyze/"), ("DELETE", "/v1/analyze"), ("GET", "/livez/")}
        refused = set()
        for method, path in sorted(paths | unknown):
            if client.request(method, path).status_code == 401:
                refused.add((method, path))
            assert client.request(method, path, headers={"x-api-key": secret}).status_code != 401
    free = {"/", "/livez", "/readyz", "/openapi.json", "/docs", "/docs/style.css"}
    free |= {"/static/x", "/static/samples/x", "/model-card", "/v2/health/live", "/v2/health/ready"}
    assert (paths | unknown) - refused == {(method, path) for method, path in paths if path in free}
    assert {path for _, path in paths} >= {"/livez", "/readyz", "/openapi.json"}


def test_a_key_is_presented_in_either_header(file: KeysFile) -> None:
    secret, _ = file.create()
    with asking_for_keys(file) as (_, url):
        for headers in (
            {"authorization": f"Bearer {secret}"},
            {"authorization": f"bearer   {secret}"},
            {"x-api-key": secret},
            {"x-api-key": secret, "authorization": "Bearer of-the-proxy"},
        ):
            assert httpx.post(f"{url}/v1/analyze", content=b"x", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "presented"),
    [
        ({}, b""),
        ({b"authorization": b"Bearer dl_a"}, b"dl_a"),
        ({b"authorization": b"Bearer"}, b""),
        ({b"authorization": b"Basic ZGxfYTo="}, b""),
        ({b"authorization": b"dl_a"}, b""),
        ({b"x-api-key": b"", b"authorization": b"Bearer dl_a"}, b"dl_a"),
        ({b"x-api-key": b"dl_b", b"authorization": b"Bearer dl_a"}, b"dl_b"),
        ({b"sec-websocket-protocol": b"dulian.v1, dl_c"}, b"dl_c"),
        ({b"sec-websocket-protocol": b"dulian.v1"}, b""),
        ({b"cookie": b"key=dl_a"}, b""),
    ],
)
def test_where_a_key_is_looked_for(headers: dict[bytes, bytes], presented: bytes) -> None:
    assert presented_key(headers) == presented


def test_every_refusal_looks_the_same(file: KeysFile) -> None:
    secret, key = file.create()
    revoked, gone = file.create()
    file.revoke(gone.id)
    with asking_for_keys(file) as (_, url):
        refusals = [
            httpx.post(f"{url}/v1/analyze", content=b"x", **request)
            for request in (
                {},
                {"headers": {"x-api-key": revoked}},
                {"headers": {"x-api-key": "dl_" + "A" * 43}},
                {"headers": {"x-api-key": secret[:-1]}},
                {"headers": {"x-api-key": key.sha256}},
                {"headers": {"x-api-key": "x" * 8000}},
                {"headers": [("x-api-key", b"\xff")]},
                {"headers": {"authorization": f"Basic {secret}"}},
                {"headers": {"authorization": secret}},
                {"headers": {"authorization": f"Bearer {revoked}"}},
                {"headers": {"cookie": f"key={secret}"}},
                {"params": {"key": secret, "api_key": secret, "access_token": secret}},
            )
        ]
    shapes = set()
    for answer in refusals:
        body = answer.json()
        assert body["error"].pop("request_id") == answer.headers["x-request-id"]
        headers = {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}
        shapes.add((answer.status_code, json.dumps(body), json.dumps(headers)))
    ((status, text, headers),) = shapes
    assert status == 401
    assert '"www-authenticate": "Bearer"' in headers
    assert json.loads(text)["error"]["code"] == "access_denied"


def test_clients_of_the_articles_are_refused_in_their_own_words(file: KeysFile) -> None:
    file.create()
    with asking_for_keys(file) as (_, url):
        for path in ("/predict", "/api/analyze", "/analyze", "/images/x"):
            answer = httpx.post(url + path, files={"image": b"x"})
            assert answer.status_code == 401
            assert list(answer.json()) == ["error"]
            assert isinstance(answer.json()["error"], str)


def test_a_refusal_comes_before_the_body(file: KeysFile) -> None:
    file.create()
    with asking_for_keys(file) as (service, url):
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            head = "POST /v1/analyze HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\nExpect: 100-continue\r\n\r\n"
            connection.sendall(head.encode())
            received = b""
            while piece := connection.recv(65536):
                received += piece
        assert received.startswith(b"HTTP/1.1 401 ")
        assert b"connection: close" in received
        assert service.admission.bytes_in_flight == 0


def test_a_refused_small_request_leaves_its_connection_usable(file: KeysFile) -> None:
    secret, _ = file.create()
    with asking_for_keys(file) as (_, url), httpx.Client(base_url=url) as client:
        for _ in range(3):
            refused = client.post("/v1/analyze", content=bytes(100_000))
            assert (refused.status_code, refused.headers.get("connection")) == (401, None)
            refused = client.get("/v1/status")
            assert (refused.status_code, refused.headers.get("connection")) == (401, None)
            assert client.post("/v1/analyze", content=b"x", headers={"x-api-key": secret}).status_code == 200


@pytest.mark.usefixtures("at_once")
def test_a_stream_needs_a_key_too_and_ends_with_it(file: KeysFile) -> None:
    secret, key = file.create()
    with fake_service(FakeAnalysis()) as service:
        service.access = Access(file)
        with running(service) as run:
            for refused in ({}, {"subprotocols": ["dulian.v1"]}, {"additional_headers": {"x-api-key": "dl_wrong"}}):
                answer = refusal(run, **refused)
                assert (answer.status_code, code_of(answer)) == (401, "access_denied")
                assert answer.headers["www-authenticate"] == "Bearer"
            for admitted in (
                {"additional_headers": {"authorization": f"Bearer {secret}"}},
                {"subprotocols": ["dulian.v1", secret]},
            ):
                with run.open(**admitted) as client:
                    assert client.subprotocol == ("dulian.v1" if "subprotocols" in admitted else None)
                    assert ask(client, b"frame")["faces"] == []
            with run.open(additional_headers={"x-api-key": secret}) as client:
                assert ask(client, b"frame")["faces"] == []
                file.revoke(key.id)
                assert ask(client, b"frame")["error"]["code"] == "access_denied"
                assert closing(client) == (1008, "the key is no longer valid")


def test_the_key_is_in_no_log_and_no_answer(file: KeysFile, caplog: pytest.LogCaptureFixture) -> None:
    secret, _ = file.create(rate=Rate(4, "day"))
    gone, key = file.create()
    file.revoke(key.id)
    analysis = FakeAnalysis()
    with caplog.at_level(logging.DEBUG), in_production(file, analysis) as url:
        answers = [
            post(url, secret),
            post(url, gone),
            post(url, secret, path="/nowhere"),
            post(url, secret, content=b""),
        ]
        analysis.error = RuntimeError("a defect")
        answers += [post(url, secret), post(url, secret)]
        answers.append(httpx.get(f"{url}/v1/status", params={"key": secret}))
    assert [answer.status_code for answer in answers] == [200, 401, 404, 400, 500, 429, 401]
    ours = [record for record in caplog.records if record.name.partition(".")[0] not in ("httpx", "httpcore")]
    texts = [str(vars(record)) + logging.Formatter().format(record) for record in ours]
    texts += [answer.text + str(answer.headers) for answer in answers]
    assert any("internal_error" in text for text in texts)
    for part in (secret[3:], gone[3:], secret[3:20]):
        assert not any(part in text for text in texts)


def test_what_the_service_asks_itself_needs_no_key(file: KeysFile) -> None:
    file.create()
    analysis = FakeAnalysis()
    with fake_service(analysis) as service:
        service.access = Access(file)
        asyncio.run(rehearse(create_app(service), service))
    assert analysis.seen


# ── a file that changes ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request looks at the file."""
    monkeypatch.setattr(access, "CHECK_INTERVAL_S", 0.0)


@pytest.mark.usefixtures("at_once")
def test_a_running_service_learns_of_new_and_revoked_keys(file: KeysFile) -> None:
    first, key = file.create()
    with asking_for_keys(file) as (_, url):
        assert post(url, first).status_code == 200
        second, _ = file.create()
        assert [post(url, each).status_code for each in (first, second)] == [200, 200]
        file.revoke(key.id)
        assert [post(url, each).status_code for each in (first, second)] == [401, 200]


@pytest.mark.usefixtures("at_once")
def test_without_any_key_left_nobody_is_let_in(file: KeysFile) -> None:
    secret, key = file.create()
    with asking_for_keys(file) as (_, url):
        file.revoke(key.id)
        assert [post(url, each).status_code for each in ("", secret)] == [401, 401]
    assert len(Access(file).keys or ()) == 0
    with asking_for_keys(file) as (_, url):
        assert post(url).status_code == 401


@pytest.mark.usefixtures("at_once")
def test_a_service_without_keys_asks_for_them_once_there_are_some(file: KeysFile) -> None:
    with asking_for_keys(file) as (_, url):
        assert post(url).status_code == 200
        secret, _ = file.create()
        assert [post(url, each).status_code for each in ("", secret)] == [401, 200]


@pytest.mark.usefixtures("at_once")
def test_a_broken_file_closes_a_service_that_had_none(file: KeysFile, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "dulian.service"), asking_for_keys(file) as (_, url):
        assert post(url).status_code == 200
        file.path.write_text("{")
        assert [post(url).status_code for _ in range(3)] == [401] * 3
        file.path.unlink()
        assert post(url).status_code == 401
        secret, _ = file.create()
        assert post(url, secret).status_code == 200
    assert [record.message for record in caplog.records] == ["keys_kept", "keys_changed"]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("harm", ["damaged", "gone", "a folder"])
def test_keys_stay_good_when_their_file_breaks(file: KeysFile, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    secret, _ = file.create()
    whole = file.path.read_bytes()
    with caplog.at_level(logging.INFO, "dulian.service"), asking_for_keys(file) as (_, url):
        file.path.unlink()
        if harm == "damaged":
            file.path.write_bytes(whole[:-20])
        if harm == "a folder":
            file.path.mkdir()
        for _ in range(3):
            assert [post(url, each).status_code for each in ("", secret)] == [401, 200]
        assert [record.message for record in caplog.records] == ["keys_kept"]
        if harm == "a folder":
            file.path.rmdir()
        file.path.write_bytes(whole)
        file.create()
        assert [post(url, each).status_code for each in ("", secret)] == [401, 200]
        assert [record.message for record in caplog.records] == ["keys_kept", "keys_changed"]


def test_the_file_is_looked_at_now_and_then_and_never_on_the_loop(
    file: KeysFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, _ = file.create()
    clock = SimpleNamespace(now=1000.0)
    looks: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(access, "time", SimpleNamespace(monotonic=lambda: clock.now))
        opened = Access(file)
        signature = KeysFile.signature

        def watched(self: KeysFile) -> tuple[int, ...] | None:
            looks.append(threading.current_thread().name)
            return signature(self)

        patch.setattr(KeysFile, "signature", watched)

        async def ask() -> None:
            for _ in range(50):
                await opened.admit("/v1/analyze", {b"x-api-key": secret.encode()})
            clock.now += access.CHECK_INTERVAL_S
            several = (opened.admit("/v1/analyze", {b"x-api-key": secret.encode()}) for _ in range(50))
            await asyncio.gather(*several)

        asyncio.run(ask())
    assert len(looks) == 1
    assert looks[0] != threading.current_thread().name


def test_a_broken_file_is_no_reason_to_let_all_in(file: KeysFile) -> None:
    file.path.write_text("{")
    with pytest.raises(KeysFileError, match="is damaged"):
        Access(file)
    file.path.unlink()
    assert Access(file).keys is None
    with pytest.raises(KeysFileError, match="does not exist"):
        Access(file, required=True)


# ── rates ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of the rates, in seconds, to be set by hand."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(rates, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_beyond_its_rate_a_key_has_to_wait(file: KeysFile, clock: SimpleNamespace) -> None:
    limited, _ = file.create(rate=Rate(2, "minute"))
    other, _ = file.create(rate=Rate(2, "minute"))
    free, _ = file.create()
    with asking_for_keys(file) as (_, url):
        assert post(url, limited).status_code == 200
        clock.now += 20
        assert post(url, limited).status_code == 200
        for _ in range(3):
            refused = post(url, limited)
            assert (refused.status_code, code_of(refused)) == (429, "rate_limited")
            assert refused.headers["retry-after"] in ("40", "41")
        assert "2 per minute" in refused.json()["error"]["message"]
        assert [post(url, key).status_code for key in (other, free, free, free)] == [200] * 4
        assert httpx.get(f"{url}/livez").status_code == 200
        clock.now += 39.5
        assert post(url, limited).headers["retry-after"] in ("1", "2")
        clock.now += 0.5
        assert [post(url, limited).status_code for _ in range(2)] == [200, 429]
        text = httpx.get(f"{url}/metrics", headers={"x-api-key": free}).text
        assert 'dulian_admission_rejected_total{reason="rate"} 5.0' in text


def test_a_refused_request_is_not_counted(file: KeysFile, clock: SimpleNamespace) -> None:
    limited, _ = file.create(rate=Rate(1, "second"))
    with asking_for_keys(file) as (_, url):
        for _ in range(5):
            assert [post(url, limited).status_code for _ in range(3)] == [200, 429, 429]
            clock.now += 1


@pytest.mark.parametrize("moment", ["1999-01-01", "2099-01-01"])
def test_the_wall_clock_does_not_matter(file: KeysFile, moment: str) -> None:
    secret, _ = file.create(rate=Rate(1, "day"))
    opened = Access(file)
    headers = {b"x-api-key": secret.encode()}
    assert asyncio.run(opened.admit("/v1/analyze", headers))
    with time_machine.travel(moment), pytest.raises(RateLimitError) as caught:
        asyncio.run(opened.admit("/v1/analyze", headers))
    assert 86_000 < caught.value.wait_s <= 86_400


def test_every_picture_of_a_batch_counts(file: KeysFile, clock: SimpleNamespace) -> None:
    secret, _ = file.create(rate=Rate(5, "hour"))
    analysis = FakeAnalysis()
    with asking_for_keys(file, analysis) as (_, url):
        three = [("image", (f"{number}.jpg", b"x")) for number in range(3)]
        batch = {"path": "/v1/batch", "content": None, "files": three}
        assert post(url, secret, **batch).status_code == 200
        refused = post(url, secret, **batch)
        assert (refused.status_code, code_of(refused)) == (429, "rate_limited")
    assert len(analysis.seen) == 3


def test_more_at_once_than_the_rate_takes_all_of_it(file: KeysFile, clock: SimpleNamespace) -> None:
    _, key = file.create(rate=Rate(3, "minute"))
    opened = Access(file)
    caller = Caller(key.id, sharing=False)
    asyncio.run(opened.charge(caller, 0))
    asyncio.run(opened.charge(caller, 10))
    with pytest.raises(RateLimitError):
        asyncio.run(opened.charge(caller))
    clock.now += 60
    asyncio.run(opened.charge(caller))


@pytest.mark.usefixtures("at_once")
def test_a_stream_ends_when_its_key_is_revoked(file: KeysFile) -> None:
    _, key = file.create()
    opened = Access(file)
    caller = Caller(key.id, sharing=False)
    asyncio.run(opened.charge(caller))
    file.revoke(key.id)
    with pytest.raises(AccessError):
        asyncio.run(opened.charge(caller))
    asyncio.run(Access().charge(None))


def test_one_key_of_several_opens_half_of_the_streams(file: KeysFile) -> None:
    first, second = ({"additional_headers": {"x-api-key": file.create()[0]}} for _ in range(2))
    with fake_service(FakeAnalysis(), max_streams=4) as service, ExitStack() as stack:
        service.access = Access(file)
        run = stack.enter_context(running(service))
        opened = [stack.enter_context(run.open(**first)) for _ in range(2)]
        answer = refusal(run, **first)
        assert (answer.status_code, code_of(answer)) == (429, "rate_limited")
        assert int(answer.headers["retry-after"]) >= 1
        assert ask(stack.enter_context(run.open(**second)), b"frame")["id"] == 1
        opened[0].close()
        wait_until(lambda: service.streams == 2)
        assert ask(stack.enter_context(run.open(**first)), b"frame")["id"] == 1


def test_the_library_for_rates_is_loaded_where_a_key_has_one(file: KeysFile, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "dulian.service.rates")
    file.create()
    Access(file)
    assert "dulian.service.rates" not in sys.modules
    file.create(rate=Rate(1, "day"))
    Access(file)
    assert "dulian.service.rates" in sys.modules


# ── shares of the queue ──────────────────────────────────────────────────────────────────────────


@contextmanager
def posters(url: str) -> Iterator[Any]:
    """Sends pictures that are not answered for a while; gives their statuses when they are."""
    statuses: list[int] = []
    threads: list[threading.Thread] = []

    def send(key: str) -> None:
        thread = threading.Thread(target=lambda: statuses.append(post(url, key, timeout=30).status_code))
        threads.append(thread)
        thread.start()

    yield send, statuses
    for thread in threads:
        thread.join(30)


def test_one_of_several_keys_fills_half_of_the_queue(file: KeysFile) -> None:
    greedy, _ = file.create()
    modest, _ = file.create()
    analysis = FakeAnalysis()
    analysis.leave.clear()
    with asking_for_keys(file, analysis, max_queued=4) as (service, url), posters(url) as (send, statuses):
        send(greedy)
        wait_until(lambda: service.pool.busy == 1)
        for count in (1, 2):
            send(greedy)
            wait_until(lambda count=count: service.pool.queued == count)
        refused = post(url, greedy)
        assert (refused.status_code, code_of(refused)) == (429, "rate_limited")
        assert int(refused.headers["retry-after"]) >= 1
        for count in (3, 4):
            send(modest)
            wait_until(lambda count=count: service.pool.queued == count)
        full = [post(url, key).status_code for key in (greedy, modest)]
        analysis.leave.set()
        wait_until(lambda: len(statuses) == 5)
        assert post(url, greedy).status_code == 200
    assert full == [429, 429]
    assert statuses == [200] * 5


def test_a_place_that_is_given_up_counts_no_longer(file: KeysFile) -> None:
    secret, _ = file.create()
    file.create()
    analysis = FakeAnalysis()
    analysis.leave.clear()
    with asking_for_keys(file, analysis, max_queued=2) as (service, url), posters(url) as (send, statuses):
        send(secret)
        wait_until(lambda: service.pool.busy == 1)
        for _ in range(2):
            assert post(url, secret, path="/v1/analyze?max_ms=50").status_code == 504
        send(secret)
        wait_until(lambda: service.pool.queued == 1)
        analysis.leave.set()
    assert statuses == [200] * 2


def test_a_lone_key_fills_all_of_it(file: KeysFile) -> None:
    secret, _ = file.create()
    analysis = FakeAnalysis()
    analysis.leave.clear()
    with asking_for_keys(file, analysis, max_queued=2) as (service, url), posters(url) as (send, statuses):
        send(secret)
        wait_until(lambda: service.pool.busy == 1)
        for count in (1, 2):
            send(secret)
            wait_until(lambda count=count: service.pool.queued == count)
        assert post(url, secret).status_code == 503
        analysis.leave.set()
    assert statuses == [200] * 3


# ── names of the host ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("host", "path", "status"),
    [
        ("127.0.0.1:8080", "/v1/status", 200),
        ("localhost", "/v1/status", 200),
        ("photos.example", "/v1/status", 200),
        ("evil.example", "/v1/status", 400),
        ("evil.example", "/livez", 200),
    ],
)
def test_without_keys_a_request_bears_a_name_of_this_machine(host: str, path: str, status: int) -> None:
    with fake_service(FakeAnalysis()) as service:
        service.access = Access(hosts=frozenset({"photos.example"}))
        with served(create_app(service)) as url:
            answer = httpx.get(url + path, headers={"host": host})
    assert answer.status_code == status
    if status == 400:
        assert code_of(answer) == "malformed_input"
        assert "DULIAN_ALLOWED_HOSTS" in answer.text


def test_a_key_says_enough_under_any_name(file: KeysFile) -> None:
    secret, _ = file.create()
    headers = {b"host": b"evil.example", b"x-api-key": secret.encode()}
    assert asyncio.run(Access(file, hosts=frozenset()).admit("/v1/status", headers))


@pytest.mark.parametrize(
    ("settings", "checked"),
    [
        ({}, True),
        ({"host": "::1"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "0.0.0.0", "allowed_hosts": ["photos.example"]}, True),
    ],
)
def test_names_are_checked_where_only_this_machine_can_ask_or_they_are_listed(
    settings: dict[str, Any], checked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    opened = open_access(Settings(**settings))
    asked = opened.admit("/v1/status", {b"host": b"evil.example"})
    if checked:
        with pytest.raises(MalformedInputError):
            asyncio.run(asked)
    else:
        assert asyncio.run(asked) is None


# ── the start ────────────────────────────────────────────────────────────────────────────────────


def test_a_service_with_a_key_may_listen_anywhere(file: KeysFile) -> None:
    _, key = file.create()
    settings = Settings(host="0.0.0.0", keys_file=file.path)
    assert with_keys_file(settings).keys_file == file.path
    file.revoke(key.id)
    with pytest.raises(MalformedInputError, match="there is no key"):
        with_keys_file(settings)
    assert with_keys_file(settings.model_copy(update={"insecure": True})).keys_file == file.path


def test_the_file_found_at_the_start_is_named_from_then_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert with_keys_file(Settings()).keys_file is None
    file = KeysFile(tmp_path / "dulian" / "keys.json")
    file.create()
    settings = with_keys_file(Settings())
    assert settings.keys_file == file.path
    file.path.unlink()
    with pytest.raises(KeysFileError, match="does not exist"):
        open_access(settings)


def test_a_named_file_has_to_be_there_and_whole(file: KeysFile) -> None:
    with pytest.raises(KeysFileError, match="does not exist"):
        with_keys_file(Settings(keys_file=file.path, insecure=True))
    file.path.write_text("[]")
    with pytest.raises(KeysFileError, match="is damaged"):
        with_keys_file(Settings(keys_file=file.path, insecure=True))


def test_a_file_that_others_can_read_is_told_of(file: KeysFile, caplog: pytest.LogCaptureFixture) -> None:
    file.create()
    with caplog.at_level(logging.INFO, "dulian.service"):
        log_keys(Settings())
        log_keys(Settings(keys_file=file.path))
        file.path.chmod(0o644)
        log_keys(Settings(keys_file=file.path))
    assert [record.message for record in caplog.records] == ["keys_needed", "keys_needed", "keys_file_loose"]
