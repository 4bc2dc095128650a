"""What /metrics tells: the counts that clients saw, labels that nobody can fill, and what the process uses."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import prometheus_client
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from tests.docs.pages import rows, text_of
from tests.service.services import PATIENCE_S, FakeAnalysis, fake_service, served, wait_until

from dulian.analyzer import AnalyzeOptions
from dulian.errors import BackendError, ImageTruncatedError, InputTooLargeError
from dulian.factory import open_profile
from dulian.machine import memory_limit_bytes, physical_memory_bytes
from dulian.models.catalog import PROFILES, find_profile
from dulian.service import start, traffic
from dulian.service.guard import guarded_protocol
from dulian.service.http import create_app
from dulian.service.limits import GuardLimits
from dulian.service.metrics import METHODS, OTHER, Measured, Metrics
from dulian.service.server import DrainingServer, make_service, rehearse
from dulian.service.start import Share, bind, bind_metrics, forbid_metrics_files
from dulian.service.state import Service
from dulian.service.traffic import ProcessUse
from dulian.settings import Settings
from dulian.store import ModelStore

Readings = dict[str, Counter[tuple[str, ...]]]
HASTE_S = 0.2  # the time of a head or a body where a test waits for its end
JPEG = b"\xff\xd8\xff\xe0 and nothing more"


def readings(text: str) -> Readings:
    """Every sample by its name and the values of its labels, these in the order of the labels' names."""
    found: Readings = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, Counter())[key] += sample.value  # type: ignore[assignment]
    return found


def scrape(service: Service) -> Readings:
    """Past all sockets; an answer that a server is about to count may be missing."""
    return readings(asyncio.run(service.metrics.scrape()).decode())


def get_metrics(url: str) -> Readings:
    """As everybody gets them: whatever was answered before is counted."""
    return readings(httpx.get(f"{url}/metrics").raise_for_status().text)


def nonzero(counts: Counter[tuple[str, ...]]) -> dict[tuple[str, ...], float]:
    return {key: count for key, count in counts.items() if count}


@contextmanager
def guarded(service: Service, limits: GuardLimits = GuardLimits()) -> Iterator[str]:  # noqa: B008 - frozen
    """The application behind the guard as in production, on a free port; its address."""
    protocol = guarded_protocol(limits, refused=service.metrics.count_refusal)
    config = uvicorn.Config(create_app(service), port=0, http=protocol, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


def connect(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def status_of(url: str, data: bytes) -> int:
    """What raw bytes are answered with."""
    received = b""
    with connect(url) as connection, suppress(ConnectionError):
        connection.sendall(data)
        while piece := connection.recv(65536):
            received += piece
    return int(received[9:12])


# ── requests ─────────────────────────────────────────────────────────────────────────────────────

REQUESTS: list[tuple[str, str, dict[str, Any], str]] = [
    ("POST", "/v1/analyze", {"content": b"picture"}, "/v1/analyze"),
    ("POST", "/v1/analyze?max_faces=0", {"content": b"picture"}, "/v1/analyze"),
    ("POST", "/v1/analyze", {"content": b""}, "/v1/analyze"),
    ("POST", "/v1/analyze", {"content": bytes(5001)}, "/v1/analyze"),
    ("POST", "/v1/analyze", {"content": b"x", "headers": {"content-type": "text/plain"}}, "/v1/analyze"),
    ("POST", "/v1/analyze/", {"content": b"x"}, OTHER),
    ("GET", "/v1/analyze", {}, "/v1/analyze"),
    ("GET", "/livez", {}, "/livez"),
    ("HEAD", "/livez", {}, "/livez"),
    ("PROPFIND", "/livez", {}, "/livez"),
    ("GET", "/readyz", {}, "/readyz"),
    ("GET", "/v1/status", {}, "/v1/status"),
    ("GET", "/images/0123456789", {}, "/images/{picture_id}"),
    ("GET", "/nowhere", {}, OTHER),
]
RAW = [
    (b"GARBAGE\r\n\r\n", OTHER, OTHER, 400),
    (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n", OTHER, OTHER, 431),
    (b"GET / HTTP/1.1\r\nHost:", OTHER, OTHER, 408),
    (b"POST /v1/analyze HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf", "/v1/analyze", "POST", 408),
]


def test_counts_are_what_clients_saw() -> None:
    seen: Counter[tuple[str, ...]] = Counter()
    with (
        fake_service(FakeAnalysis(), workers=2, max_body_bytes=5000, body_timeout_s=HASTE_S) as service,
        guarded(service, GuardLimits(head_seconds=HASTE_S)) as url,
        ThreadPoolExecutor(4) as clients,
        httpx.Client(base_url=url) as client,
    ):

        def ask(request: tuple[str, str, dict[str, Any], str]) -> tuple[str, str, str]:
            method, path, content, route = request
            status = client.request(method, path, **content).status_code
            return str(status), method if method in METHODS else OTHER, route

        def send(case: tuple[bytes, str, str, int]) -> tuple[str, str, str]:
            data, route, method, expected = case
            status = status_of(url, data)
            assert status == expected
            return str(status), method, route

        seen.update(clients.map(ask, REQUESTS * 3))
        seen.update(clients.map(send, RAW * 2))
        found = get_metrics(url)
    assert {code for code, _, _ in seen} == {"200", "400", "404", "405", "408", "413", "415", "431"}
    assert found["dulian_http_requests_total"] == seen
    timed = Counter((route,) for _, method, route in seen.elements() if (method, route) != (OTHER, OTHER))
    assert found["dulian_http_request_duration_seconds_count"] == timed
    assert found["dulian_inflight_requests"][()] == 1
    assert found["dulian_client_disconnects_total"][()] == 0


def test_load_is_told_by_its_reasons() -> None:
    analysis = FakeAnalysis()
    with (
        fake_service(analysis, max_queued=1, max_bytes_in_flight=100) as service,
        guarded(service) as url,
        ThreadPoolExecutor(2) as clients,
    ):

        def post(content: bytes, max_ms: int = 5000) -> int:
            return httpx.post(f"{url}/v1/analyze?max_ms={max_ms}", content=content, timeout=PATIENCE_S).status_code

        analysis.leave.clear()
        running = clients.submit(post, b"1")
        wait_until(lambda: service.pool.busy == 1)
        waiting = clients.submit(post, b"2")
        wait_until(lambda: service.pool.queued == 1)
        during = get_metrics(url)
        assert post(b"the queue is full") == 503
        analysis.leave.set()
        assert (running.result(), waiting.result()) == (200, 200)
        analysis.leave.clear()
        service.admission.service_s = 0.0
        assert post(b"begun and never done" * 4, max_ms=500) == 504
        assert post(b"bytes" * 5) == 503
        assert post(b"never begun", max_ms=50) == 504
        analysis.leave.set()
        wait_until(lambda: service.pool.busy == 0)
        service.admission.service_s = 100.0
        assert post(b"no time") == 503
        found = get_metrics(url)
    assert during["dulian_queue_depth"][()] == 1
    assert during["dulian_inflight_requests"][()] == 3
    assert found["dulian_queue_depth"][()] == 0
    assert nonzero(found["dulian_admission_rejected_total"]) == {("queue",): 1, ("bytes",): 1, ("deadline",): 1}
    assert nonzero(found["dulian_deadline_exceeded_total"]) == {("queue",): 1, ("compute",): 1}
    assert found["dulian_queue_wait_seconds_count"][()] == 4
    assert found["dulian_queue_wait_seconds_sum"][()] >= 0.05


def test_the_connection_too_many_is_a_rejection() -> None:
    with fake_service(FakeAnalysis()) as service, guarded(service, GuardLimits(connections=1)) as url:
        with connect(url) as first:
            first.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            assert first.recv(100).startswith(b"HTTP/1.1 200 ")
            assert status_of(url, b"") == 503
        found = get_metrics(url)
    assert nonzero(found["dulian_admission_rejected_total"]) == {("connections",): 1}
    assert found["dulian_http_requests_total"] == {("200", "GET", "/livez"): 1, ("503", OTHER, OTHER): 1}


def test_who_leaves_is_counted_once_and_has_no_status() -> None:
    analysis = FakeAnalysis()
    analysis.leave.clear()
    with fake_service(analysis) as service, guarded(service) as url:
        for body in (b"half", b"whole body"):
            with connect(url) as connection:
                connection.sendall(b"POST /v1/analyze HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n" + body)
                wait_until(lambda: service.admission.bytes_in_flight > 0)
            wait_until(lambda: scrape(service)["dulian_inflight_requests"][()] == 0)
            analysis.leave.set()
            wait_until(lambda: service.admission.bytes_in_flight == 0)
            analysis.leave.clear()
        found = scrape(service)
    assert found["dulian_client_disconnects_total"][()] == 2
    assert "dulian_http_requests_total" not in found
    assert found["dulian_request_body_bytes_sum"][()] == 10


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ({"type": "websocket.accept"}, "101"),
        ({"type": "websocket.http.response.start", "status": 401, "headers": []}, "401"),
        ({"type": "websocket.close", "code": 1000}, "403"),
    ],
)
def test_a_websocket_counts_once(first: dict[str, Any], code: str) -> None:
    sent: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(first)
        await send({"type": "websocket.send", "text": "a frame's answer"})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    with fake_service(FakeAnalysis()) as service:
        scope = {"type": "websocket", "path": "/v1/stream", "app": create_app(service)}
        asyncio.run(Measured(application, service.metrics)(scope, receive, send))
        found = scrape(service)
    assert [message["type"] for message in sent] == [first["type"], "websocket.send"]
    assert found["dulian_http_requests_total"] == {(code, "GET", "/v1/stream"): 1}
    assert "dulian_http_request_duration_seconds_count" not in found


def test_nothing_that_a_client_sends_becomes_a_label() -> None:
    with fake_service(FakeAnalysis()) as service, guarded(service) as url, httpx.Client(base_url=url) as client:

        def attack(number: int) -> None:
            mark = f"mark{number}"
            headers = {"x-request-id": mark, "content-type": f"image/{mark}", "user-agent": mark, "host": mark}
            for path in (f"/{mark}", f"/images/{mark}", f"/v1/analyze?{mark}=1", f"/livez/{mark}", f"/%0a{mark}"):
                client.post(path, content=mark.encode(), headers=headers)
                client.request("PROPFIND", path, headers=headers)
            status_of(url, f"{mark} / HTTP/1.1\r\n\r\n".encode())

        for number in range(3):
            attack(number)
        client.get("/metrics")
        before = client.get("/metrics").text
        for number in range(3, 30):
            attack(number)
        after = client.get("/metrics").text
    assert "mark" not in after
    assert len(after.splitlines()) == len(before.splitlines())
    known = {"/images/{picture_id}", "/v1/analyze", "/metrics", OTHER}
    assert {route for _, _, route in readings(after)["dulian_http_requests_total"]} == known


def test_scrapes_come_while_pictures_are_analysed() -> None:
    with fake_service(FakeAnalysis(0.001), workers=2) as service, guarded(service) as url:

        def post(number: int) -> int:
            return httpx.post(f"{url}/v1/analyze", content=b"x" * (number + 1)).status_code

        def look(number: int) -> float:
            answer = httpx.get(f"{url}/metrics")
            assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            return readings(answer.text)["dulian_faces_detected_count"][()]

        with ThreadPoolExecutor(3) as posters, ThreadPoolExecutor(3) as lookers:
            statuses = posters.map(post, range(60))
            looks = list(lookers.map(look, range(20)))
            assert set(statuses) == {200}
        found = get_metrics(url)
    assert max(looks) <= 60
    assert found["dulian_faces_detected_count"][()] == 60
    assert found["dulian_request_body_bytes_sum"][()] == sum(range(61))
    assert found["dulian_request_body_bytes_bucket"]["+Inf",] == 60
    assert found["dulian_http_requests_total"] == {
        ("200", "POST", "/v1/analyze"): 60,
        ("200", "GET", "/metrics"): 20,
    }


def test_services_count_for_themselves_and_nothing_is_global() -> None:
    with fake_service(FakeAnalysis()) as one, fake_service(FakeAnalysis()) as other:
        with served(create_app(one)) as url:
            httpx.get(f"{url}/livez")
            found = get_metrics(url)
        assert found["dulian_http_requests_total"] == {("200", "GET", "/livez"): 1}
        assert "dulian_http_requests_total" not in scrape(other)
    assert b"dulian" not in prometheus_client.generate_latest()


def test_rehearsals_leave_no_trace() -> None:
    with fake_service(FakeAnalysis()) as service:
        before = scrape(service)
        asyncio.run(rehearse(create_app(service), service))
        after = scrape(service)
    assert {name: counts for name, counts in after.items() if name.startswith("dulian_") and "memory" not in name} == {
        name: counts for name, counts in before.items() if name.startswith("dulian_") and "memory" not in name
    }


def test_draining_shows() -> None:
    with fake_service(FakeAnalysis()) as service:
        assert scrape(service)["dulian_draining"][()] == 0
        service.draining = True
        assert scrape(service)["dulian_draining"][()] == 1


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────


def seen(faces: int, skipped: int = 0) -> Any:
    timings = SimpleNamespace(sniff=5.0, decode=10.0, detect=20.0, attributes=40.0)
    return lambda data, options: (SimpleNamespace(faces=range(faces), skipped=skipped, timings_ms=timings), None)


@pytest.mark.parametrize(
    ("profile", "faces", "attributes", "batches"),
    [
        ("standard", 0, {"age", "gender"}, []),
        ("standard", 1, {"age", "gender"}, [1, 1]),
        ("standard", 10, {"age", "gender"}, [8, 2, 8, 2]),
        ("standard", 10, {"age"}, [8, 2]),
        ("standard", 10, set(), []),
        ("classic", 3, {"gender"}, [1, 1, 1]),
    ],
)
def test_faces_stages_and_batches(profile: str, faces: int, attributes: Any, batches: list[int]) -> None:
    with fake_service(FakeAnalysis()) as service:
        service.networks = PROFILES[profile].rows
        service.metrics.reset()
        service.metrics.measured(seen(faces, skipped=2))(b"", AnalyzeOptions(attributes=frozenset(attributes)))
        found = scrape(service)
    assert found["dulian_faces_detected_sum"][()] == faces + 2
    assert found["dulian_batch_size_count"][()] == len(batches)
    assert found["dulian_batch_size_sum"][()] == sum(batches)
    estimated = {("attributes",): 0.04} if batches else {}
    always = {("sniff",): 0.005, ("decode",): 0.01, ("detect",): 0.02}
    assert nonzero(found["dulian_stage_duration_seconds_sum"]) == {**always, **estimated}
    assert len(found["dulian_model_info"]) == len(PROFILES[profile].rows)


def test_refused_pictures_have_a_reason_and_a_format() -> None:
    errors = {b"BM": InputTooLargeError(""), JPEG: ImageTruncatedError(""), b"GIF89a": ImageTruncatedError("")}

    def refuse(data: bytes, options: AnalyzeOptions) -> Any:
        raise errors[data]

    with fake_service(FakeAnalysis()) as service:
        for data, error in errors.items():
            with pytest.raises(type(error)):
                service.metrics.measured(refuse)(data, AnalyzeOptions())
        found = scrape(service)
    assert found["dulian_images_rejected_total"] == {
        (OTHER, "input_too_large"): 1,
        ("jpeg", "image_truncated"): 1,
        ("gif", "image_truncated"): 1,
    }
    assert found["dulian_faces_detected_count"][()] == 0


def test_what_was_looked_for_in_caches() -> None:
    with fake_service(FakeAnalysis()) as service:
        service.metrics.count_cached("memory", "hit")
        service.metrics.count_cached("redis", "error")
        assert nonzero(scrape(service)["dulian_cache_requests_total"]) == {("hit", "memory"): 1, ("error", "redis"): 1}


@pytest.mark.weights
def test_a_real_picture_passes_all_stages(model_store: ModelStore, samples: Path) -> None:
    service = make_service(open_profile(find_profile("standard"), model_store), 1, share=Share(processes=4))
    try:
        with served(create_app(service)) as url:
            picture = (samples / "astronaut.png").read_bytes()
            assert httpx.post(f"{url}/v1/analyze?annotate=base64", content=picture).status_code == 200
            assert httpx.post(f"{url}/v1/analyze", content=picture[:1000]).status_code == 422
            found = get_metrics(url)
    finally:
        service.pool.close()
    memory = memory_limit_bytes() or physical_memory_bytes()
    assert memory
    assert found["dulian_memory_limit_bytes"][()] == memory // 4
    stages = found["dulian_stage_duration_seconds_count"]
    once = ("sniff", "decode", "detect", "attributes", "draw", "encode")
    assert stages == {("read",): 2, **{(stage,): 1 for stage in once}}
    assert all(found["dulian_stage_duration_seconds_sum"].values())
    assert found["dulian_faces_detected_sum"][()] == 1
    assert found["dulian_images_rejected_total"] == {("png", "image_truncated"): 1}
    assert {(engine, name) for engine, name, _, _ in found["dulian_model_info"]} == {
        ("onnxruntime", row.name) for row in service.networks
    }


# ── the process ──────────────────────────────────────────────────────────────────────────────────


class FakeProcess:
    """A clock, and a process that has used what a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.cpu_s = 7.0
        self.memory: int | None = 50
        monkeypatch.setattr(traffic, "time", SimpleNamespace(monotonic=lambda: self.now, process_time=lambda: 0.0))

    def look(self) -> tuple[float, int | None]:
        return self.cpu_s, self.memory


def test_processor_time_is_of_the_time_between_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    process = FakeProcess(monkeypatch)
    use = ProcessUse(process.look)
    assert use.cpu_percent == 0
    shares = []
    for seconds, used in ((1.0, 0.5), (0.1, 0.1), (0.9, 0.1), (2.0, 3.0)):
        process.now += seconds
        process.cpu_s += used
        use.sample(None)
        shares.append(use.cpu_percent)
    assert shares == [50.0, 50.0, 20.0, 150.0]  # over a tenth of a second it would be noise


def test_resource_usage_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    process = FakeProcess(monkeypatch)
    process.memory = 3 * 2**20
    use = ProcessUse(process.look)
    usage = use.resource_usage()
    assert (usage["cpu_percent"], usage["memory_mb"]) == (0.0, 3.0)
    assert abs(datetime.now(UTC) - datetime.fromtimestamp(usage["timestamp"], UTC)) < timedelta(minutes=5)
    process.memory = None
    assert use.resource_usage() == usage
    use.sample(None)
    assert use.resource_usage()["memory_mb"] is None


def test_high_memory_is_told_once_until_it_was_well_below(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    process = FakeProcess(monkeypatch)
    with fake_service(FakeAnalysis()) as service, caplog.at_level(logging.INFO, "dulian.service"):
        service.memory_limit_bytes = 100
        service.process = ProcessUse(process.look)
        service.metrics.reset()
        told, shown = [], []
        for process.memory in (80, 81, 95, 79, 76, 90, 75, 74, 85, None, 50):
            caplog.clear()
            service.process.sample(service.memory_limit_bytes)
            told += [(record.levelname, record.message, vars(record)["fields"]) for record in caplog.records]
            shown.append(int(scrape(service)["dulian_memory_high"][()]))
        found = scrape(service)
    assert told == [
        ("WARNING", "memory_high", {"used_bytes": used, "limit_bytes": 100, "used_ratio": used / 100})
        for used in (81, 85)
    ]
    assert shown == [0, 1, 1, 1, 1, 1, 1, 0, 1, 1, 0]
    assert found["dulian_memory_used_bytes"][()] == 50
    assert found["dulian_memory_limit_bytes"][()] == 100
    assert found["dulian_memory_used_ratio"][()] == 0.5


def test_without_a_limit_nothing_is_high(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    process = FakeProcess(monkeypatch)
    use = ProcessUse(process.look)
    use.sample(None)
    assert not use.memory_high
    assert not caplog.records


def test_the_library_is_kept_from_writing_files(tmp_path: Path) -> None:
    code = "import os\nfrom dulian.service.start import forbid_metrics_files\nforbid_metrics_files()\n"
    code += "from dulian.service.metrics import Metrics\nMetrics().count_refusal(503)\nprint(os.listdir({!r}))"
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "prometheus_multiproc_dir": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code.format(str(tmp_path))],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=environment,
    )
    assert done.stdout == "[]\n"
    assert forbid_metrics_files() is None


# ── a port of its own ────────────────────────────────────────────────────────────────────────────


@contextmanager
def two_ports(analysis: FakeAnalysis, *, grace_s: float = 0.0) -> Iterator[tuple[DrainingServer, Service, str, str]]:
    """A server in a thread, with the addresses of its main port and of its metrics port."""
    with fake_service(analysis) as service, bind("127.0.0.1", 0) as listener, bind("127.0.0.1", 0) as aside:
        server = DrainingServer(create_app(service, metrics=False), service, grace_s=grace_s, metrics_listener=aside)
        main, other = (f"http://127.0.0.1:{one.getsockname()[1]}" for one in (listener, aside))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: answers(f"{other}/livez"))
            yield server, service, main, other
        finally:
            analysis.leave.set()
            server.should_exit = True
            thread.join(PATIENCE_S)
            server.watchdog.stop()
            assert not thread.is_alive()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def test_the_metrics_port_serves_metrics_and_probes_alone() -> None:
    with two_ports(FakeAnalysis()) as (_, _, main, other):
        here = {path: httpx.get(main + path).status_code for path in ("/metrics", "/livez", "/readyz", "/v1/status")}
        there = {path: httpx.get(other + path).status_code for path in (*here, "/openapi.json", "/docs", "/v1/analyze")}
        paths = httpx.get(f"{main}/openapi.json").json()["paths"]
        found = get_metrics(other)
        refused = status_of(other, b"GARBAGE\r\n\r\n")
        after = get_metrics(other)
    assert here == {"/metrics": 404, "/livez": 200, "/readyz": 200, "/v1/status": 200}
    assert {path for path, status in there.items() if status == 200} == {"/metrics", "/livez", "/readyz"}
    assert set(there.values()) == {200, 404}
    assert "/metrics" not in paths
    assert found["dulian_http_requests_total"]["404", "GET", OTHER] == 1 + 4
    assert found["dulian_http_requests_total"]["200", "GET", "/metrics"] == 1
    assert refused == 400
    assert after["dulian_http_requests_total"]["400", OTHER, OTHER] == 1


def test_the_metrics_port_answers_until_the_last_work_is_done() -> None:
    analysis = FakeAnalysis()
    with two_ports(analysis) as (server, service, main, other), ThreadPoolExecutor(1) as clients:
        analysis.leave.clear()
        accepted = clients.submit(httpx.post, f"{main}/v1/analyze", content=b"accepted", timeout=PATIENCE_S)
        wait_until(lambda: service.pool.busy == 1)
        server.handle_exit(signal.SIGTERM, None)
        wait_until(lambda: not answers(f"{main}/livez"))
        assert get_metrics(other)["dulian_draining"][()] == 1
        with connect(other) as watcher:
            watcher.sendall(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert watcher.recv(65536).startswith(b"HTTP/1.1 503 ")
            analysis.leave.set()
            assert accepted.result().status_code == 200
            assert watcher.recv(65536) == b""


def test_a_process_that_has_a_successor_leaves_it_the_metrics_port() -> None:
    analysis = FakeAnalysis()
    with two_ports(analysis) as (server, service, main, other), ThreadPoolExecutor(1) as clients:
        analysis.leave.clear()
        accepted = clients.submit(httpx.post, f"{main}/v1/analyze", content=b"accepted", timeout=PATIENCE_S)
        wait_until(lambda: service.pool.busy == 1)
        server.handle_exit(signal.SIGHUP, None)
        wait_until(lambda: not answers(f"{other}/livez"))
        assert not accepted.done()
        analysis.leave.set()
        assert accepted.result().status_code == 200


def test_the_server_looks_at_its_process_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int | None] = []
    monkeypatch.setattr(ProcessUse, "sample", lambda self, limit: looks.append(limit))
    with two_ports(FakeAnalysis()) as (_, service, _, _):
        wait_until(lambda: len(looks) >= 2)
        assert set(looks) == {service.memory_limit_bytes}


def test_each_process_has_a_metrics_port_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(start, "bind", lambda *address: asked.append(address))
    for port in (None, 0, 9180):
        for index in (0, 1, 2):
            bind_metrics(Settings(metrics_port=port, host="::1"), index)
    assert asked == [("::1", 0)] * 3 + [("::1", 9180), ("::1", 9181), ("::1", 9182)]
    with pytest.raises(BackendError, match="leaves none for process 1"):
        bind_metrics(Settings(metrics_port=65535), 1)


# ── the documents ────────────────────────────────────────────────────────────────────────────────


def described() -> dict[str, tuple[str, frozenset[str]]]:
    cells = [row for row in rows(text_of("operations.md")) if row[0].startswith(("`dulian_", "`process_"))]
    return {
        name.strip("`"): (kind, frozenset(label.strip(" `") for label in labels.split(",") if label != "–"))
        for name, kind, labels, _ in cells
    }


def test_every_metric_is_described_and_none_that_does_not_exist() -> None:
    refusal = FakeAnalysis(error=ImageTruncatedError(""))
    with fake_service(refusal) as service, guarded(service) as url:
        service.networks = PROFILES["standard"].rows
        service.metrics.reset()
        httpx.post(f"{url}/v1/analyze", content=JPEG)
        service.metrics.count_rpc("dulian.v1.Dulian/Analyze", "OK", 0.01)
        text = httpx.get(f"{url}/metrics").text
    found = {}
    for family in text_string_to_metric_families(text):
        labels = frozenset().union(*(sample.labels for sample in family.samples)) - {"le"}
        suffix = "_total" if family.type == "counter" else ""
        found[family.name + suffix] = family.type, labels
    assert found == described()


def test_every_value_of_a_bounded_label_is_described() -> None:
    page = text_of("operations.md")
    found = readings(asyncio.run(Metrics().scrape()).decode())
    for name in ("admission_rejected_total", "deadline_exceeded_total", "stage_duration_seconds_sum"):
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `dulian_{name.removesuffix('_sum')}`")]
        assert found[f"dulian_{name}"]
        assert all(f"`{value}`" in row for (value,) in found[f"dulian_{name}"])
