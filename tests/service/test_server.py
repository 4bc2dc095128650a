"""The process round the application: what it refuses to start with, and how it starts and ends."""

from __future__ import annotations

import io
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import psutil
import pytest
from tests.service.processes import command, finished, running
from tests.service.services import PATIENCE_S, FakeAnalysis, fake_service, wait_until

from dulian.errors import BackendError, MalformedInputError
from dulian.service import start
from dulian.service.http import create_app
from dulian.service.log import configure_logging, log_event
from dulian.service.server import DrainingServer
from dulian.service.start import Share, available_memory, bind, check_host, processes_in_memory, share_out
from dulian.settings import Settings
from dulian.store import ModelStore


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "localhost", "::1"])
def test_this_machine_itself_may_always_ask(host: str) -> None:
    check_host(host, has_keys=False, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.test", "127.0.0.1.example.test", ""])
def test_others_may_ask_only_with_a_key_or_if_that_is_said(host: str) -> None:
    with pytest.raises(MalformedInputError, match="there is no key: everybody could use the service"):
        check_host(host, has_keys=False, insecure=False)
    check_host(host, has_keys=True, insecure=False)
    check_host(host, has_keys=False, insecure=True)


@pytest.mark.parametrize(
    ("workers", "threads", "cores", "room", "given"),
    [
        (1, "auto", 2, None, (1, 2)),
        (1, "auto", 1, None, (1, 1)),
        (1, 1, 8, None, (1, 1)),
        (1, 9, 2, None, (1, 2)),
        (2, "auto", 2, None, (2, 1)),
        (2, 2, 2, None, (2, 1)),
        (3, "auto", 8, None, (3, 2)),
        (4, 2, 8, None, (4, 2)),
        (5, 2, 8, None, (5, 1)),
        (64, 1, 2, None, (2, 1)),
        ("auto", "auto", 1, None, (1, 1)),
        ("auto", "auto", 2, None, (1, 2)),
        ("auto", "auto", 3, None, (1, 3)),
        ("auto", "auto", 16, None, (8, 2)),
        ("auto", "auto", 16, 3, (3, 5)),
        ("auto", "auto", 16, 40, (8, 2)),
        ("auto", 4, 16, None, (4, 4)),
        ("auto", 1, 16, None, (8, 1)),
        ("auto", 9, 4, None, (1, 4)),
    ],
)
def test_threads_never_exceed_the_cores(
    workers: Any, threads: Any, cores: int, room: int | None, given: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "dulian.service"):
        assert share_out(workers, threads, cores, room=room) == given
    assert given[0] * given[1] <= cores
    fits = workers in ("auto", given[0]) and threads in ("auto", given[1])
    assert [record.message for record in caplog.records] == ([] if fits else ["threads_reduced"])


@pytest.mark.parametrize(
    ("limit", "physical", "room"),
    [(None, None, 1), (None, 64 * 2**30, 100), (2**30, 64 * 2**30, 2), (100 * 2**20, 64 * 2**30, 1)],
)
def test_auto_counts_the_processes_that_there_is_memory_for(
    monkeypatch: pytest.MonkeyPatch, limit: int | None, physical: int | None, room: int
) -> None:
    monkeypatch.setattr(start, "memory_limit_bytes", lambda: limit)
    monkeypatch.setattr(start, "physical_memory_bytes", lambda: physical)
    memory = available_memory()
    assert min(processes_in_memory(Settings(), memory), 100) == room
    larger = (Settings(profile="classic"), Settings(cache_mb=5000), Settings(max_bytes_in_flight_mb=5000))
    most = max(2, processes_in_memory(Settings(), memory))
    assert all(processes_in_memory(settings, memory) < most for settings in larger)


def test_a_taken_port_and_an_unknown_host_are_told() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        first.listen()
        with pytest.raises(BackendError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            bind("127.0.0.1", port)
    with pytest.raises(BackendError, match="cannot listen on nowhere.invalid"):
        bind("nowhere.invalid", 1)


# ── the log ──────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def restored(*names: str) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    try:
        yield
    finally:
        for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)


def test_every_event_is_one_line_of_json(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with restored("dulian.service", "uvicorn", "python_multipart"):
        configure_logging()
        log_event("begun", number=3, path=Path("a\nb"))
        log_event("failed", level=logging.ERROR, error=ValueError("two\nlines"))
        logging.getLogger("uvicorn.error").info("chatter")
        logging.getLogger("uvicorn.error").warning("a %s", "warning")
        logging.getLogger("python_multipart.multipart").warning("quotes a body")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("begun", "info"),
        ("failed", "error"),
        ("a warning", "warning"),
    ]
    assert lines[0]["number"] == 3
    assert "two\nlines" in lines[1]["traceback"]


# ── the end ──────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def draining_server(
    analysis: FakeAnalysis, *, grace_s: float, processes: int = 1
) -> Iterator[tuple[DrainingServer, str]]:
    """As in production, but in a thread, where the signals have to be sent by hand."""
    with fake_service(analysis) as service, bind("127.0.0.1", 0) as listener:
        service.share = Share(processes=processes)
        server = DrainingServer(create_app(service), service, grace_s=grace_s)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield server, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            analysis.leave.set()
            server.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def refuses(url: str) -> bool:
    try:
        httpx.get(f"{url}/livez")
    except httpx.TransportError:
        return True
    return False


def test_readiness_falls_first_then_the_socket_closes_and_accepted_work_is_answered() -> None:
    analysis = FakeAnalysis()
    answers: list[httpx.Response] = []
    with draining_server(analysis, grace_s=3600) as (server, url):
        analysis.leave.clear()
        rehearsed = len(analysis.seen)
        poster = threading.Thread(target=lambda: answers.append(httpx.post(f"{url}/v1/analyze", content=b"accepted")))
        poster.start()
        wait_until(lambda: len(analysis.seen) > rehearsed)
        server.handle_exit(signal.SIGTERM, None)
        assert httpx.get(f"{url}/readyz").status_code == 503
        assert httpx.get(f"{url}/livez").status_code == 200
        server.handle_exit(signal.SIGTERM, None)
        wait_until(lambda: refuses(url))
        assert not answers
        analysis.leave.set()
        poster.join(PATIENCE_S)
        assert [answer.status_code for answer in answers] == [200]


def test_one_of_several_processes_may_be_told_its_end_twice_and_keeps_its_grace() -> None:
    with draining_server(FakeAnalysis(), grace_s=3600, processes=2) as (server, url):
        for _ in range(3):
            server.handle_exit(signal.SIGTERM, None)
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 503)
        time.sleep(0.3)  # some ticks of the loop, each of which could end it
        assert not server.should_exit
        server.handle_exit(signal.SIGINT, None)
        wait_until(lambda: refuses(url))
        assert not server.force_exit


def test_a_process_whose_place_is_taken_accepts_nobody_and_answers_those_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dulian.service.server.RETIREMENT_S", 3600)
    with draining_server(FakeAnalysis(), grace_s=0, processes=2) as (server, url), httpx.Client() as kept:
        assert "connection" not in kept.get(f"{url}/readyz").headers
        server.handle_exit(signal.SIGHUP, None)
        wait_until(lambda: refuses(url))
        last = kept.get(f"{url}/readyz")
        assert (last.status_code, last.headers["connection"]) == (200, "close")
        server.handle_exit(signal.SIGINT, None)
        wait_until(lambda: server.should_exit)


def test_an_interrupt_asks_for_no_grace_and_a_third_signal_for_no_patience() -> None:
    with draining_server(FakeAnalysis(), grace_s=3600) as (server, url):
        server.handle_exit(signal.SIGINT, None)
        wait_until(lambda: server.should_exit)
        server.handle_exit(signal.SIGINT, None)
        assert server.force_exit
        wait_until(lambda: refuses(url))


# ── the command ──────────────────────────────────────────────────────────────────────────────────


def test_missing_weights_are_one_line_and_exit_code_3(tmp_path: Path) -> None:
    if any(Path(folder).exists() for folder in ("/root/models", "/usr/share/dulian/models")):
        pytest.skip("this machine has a system folder of models")
    cache = str(tmp_path / "cache")
    code, out, err = finished(command("--port", "0", "--offline", "--model-dir", str(tmp_path), XDG_CACHE_HOME=cache))
    assert (code, out) == (3, "")
    (line,) = err.splitlines()
    assert line.startswith("dulian: ")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--host", "0.0.0.0"), 2, "say --insecure"),
        (("--workers", "many"), 2, "'many' is neither auto nor a number"),
        (("--profile", "nonsense", "--port", "0", "--offline"), 3, "nonsense"),
        (("--engine", "tpu", "--port", "0", "--offline"), 3, "tpu"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], code: int, said: str) -> None:
    found, out, err = finished(command(*arguments))
    assert (found, out) == (code, "")
    (line,) = err.splitlines()
    assert line.startswith("dulian: ")
    assert said in line


@pytest.mark.weights
def test_a_process_is_warm_before_it_listens_and_finishes_what_it_accepted(
    model_store: ModelStore, samples: Path
) -> None:
    picture = (samples / "astronaut.png").read_bytes()
    with running(model_store, "--threads", "1") as (process, url, events):
        assert [event["event"] for event in events] == ["models_ready", "listening"]
        assert (events[0]["profile"], events[0]["threads"]) == ("standard", 1)
        assert not psutil.Process(process.pid).children()
        answers: list[int] = []

        def post() -> None:
            answers.append(httpx.post(f"{url}/v1/analyze", content=picture, timeout=PATIENCE_S).status_code)

        posters = [threading.Thread(target=post) for _ in range(12)]
        for poster in posters:
            poster.start()
        wait_until(lambda: httpx.get(f"{url}/v1/status").json()["requests_total"] == 12)
        process.send_signal(signal.SIGTERM)
        code, out, err = finished(process)
        for poster in posters:
            poster.join(PATIENCE_S)
    assert (code, out) == (0, "")
    assert answers == [200] * 12
    assert [json.loads(line)["event"] for line in err.splitlines()] == ["draining", "stopped"]


@pytest.mark.weights
def test_limits_that_are_set_are_shown_and_obeyed(model_store: ModelStore) -> None:
    limits = {
        "DULIAN_MAX_BODY_MB": "2",
        "DULIAN_MAX_BYTES_IN_FLIGHT_MB": "3",
        "DULIAN_MAX_PIXELS_MP": "50",
        "DULIAN_DEADLINE_S": "19",
        "DULIAN_BODY_TIMEOUT_S": "8",
        "DULIAN_MAX_QUEUED": "7",
        "DULIAN_MAX_CONNECTIONS": "6",
        "DULIAN_MAX_HEAD_KB": "4",
        "DULIAN_MAX_HEADERS": "20",
        "DULIAN_HEAD_TIMEOUT_S": "9",
    }
    with running(model_store, "--max-queued", "5", **limits) as (_, url, _events):
        shown = httpx.get(f"{url}/v1/limits").json()
        expected = {
            **{"body_bytes": 2 * 2**20, "bytes_in_flight": 3 * 2**20, "image_pixels": 50_000_000, "queue": 5},
            **{"deadline_ms": 19_000, "body_seconds": 8, "connections": 6, "head_bytes": 4096, "headers": 20},
            **{"head_seconds": 9, "image_fancy_pixels": 20_000_000},
        }
        assert {name: shown[name] for name in expected} == expected

        def status(**request: Any) -> int:
            return httpx.post(f"{url}/v1/analyze", timeout=PATIENCE_S, **request).status_code

        assert status(content=bytes(2 * 2**20 + 1)) == 413
        assert status(content=flat_png(7500, 6700)) == 413
        # More than OpenCV decodes of itself; the rest of the program's wall is raised with the limit.
        assert status(content=flat_png(7400, 6700)) == 200
        assert status(content=b"x", headers={"a": "b" * 4096}) == 431
        assert status(content=b"x", headers={f"a{number}": "b" for number in range(20)}) == 431
        with ExitStack() as clients:
            address = ("127.0.0.1", httpx.URL(url).port)
            held = [clients.enter_context(socket.create_connection(address, PATIENCE_S)) for _ in range(7)]
            assert held[-1].recv(100).startswith(b"HTTP/1.1 503")


def flat_png(width: int, height: int) -> bytes:
    done, data = cv2.imencode(".png", np.full((height, width), 200, np.uint8))
    assert done
    return data.tobytes()


@pytest.mark.weights
def test_nothing_is_written_while_analysing(model_store: ModelStore, samples: Path) -> None:
    """Neither a file that is there afterwards nor one that was: no write, creation or rename by any thread."""
    code = AUDITED.format(store=str(model_store.write_dir), samples=str(samples))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    articles = ["/predict 200", "drawn 200", "/api/analyze 200", "/analyze 200", "batch 200"]
    assert done.stdout.splitlines() == ["200", "200", "200", "200", "413", *articles, "noticed"]


# Audit hooks see every open of the interpreter; Pillow, OpenCV and the engines get bytes, not paths. Such a hook stays
# for good, and where threads are traced, for coverage, some then never run (CPython 3.11): hence an own process.
AUDITED = """
import asyncio, base64, os, sys, tempfile
from pathlib import Path
import httpx
from dulian.factory import open_profile
from dulian.models.catalog import find_profile
from dulian.service.http import create_app
from dulian.service.server import make_service
from dulian.store import ModelStore

store = ModelStore(model_dir=Path({store!r}), offline=True)
service = make_service(open_profile(find_profile("standard"), store), 1)
picture = (Path({samples!r}) / "astronaut.png").read_bytes()
writes = []

def watch(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        writes.append(arguments[0])
    if event in ("os.rename", "os.mkdir", "os.link", "os.truncate", "tempfile.mkstemp", "tempfile.mkdtemp"):
        writes.append(event)

async def main():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(service)), base_url="http://a") as client:
        await client.post("/v1/analyze", content=picture, headers={{"accept": "image/jpeg"}})
        sys.addaudithook(watch)
        requests = [
            dict(content=picture), dict(files={{"image": picture}}),
            dict(json={{"image": base64.b64encode(picture).decode()}}),
            dict(files={{"image": picture}}, headers={{"accept": "image/jpeg"}}),
            dict(files={{"image": bytes(11_000_000)}}),
        ]
        for request in requests:
            print((await client.post("/v1/analyze", **request)).status_code)
        for path in ("/predict", "/api/analyze", "/analyze"):
            answer = await client.post(path, files={{"image": picture}})
            print(path, answer.status_code)
            if path == "/predict":
                print("drawn", (await client.get(answer.json()["output_image"])).status_code)
        print("batch", (await client.post("/v1/batch", files=[("image", picture)] * 2)).status_code)

asyncio.run(main())
assert not writes, writes
tempfile.TemporaryFile().close()
print("noticed" if writes else "blind")
service.pool.close()
"""
