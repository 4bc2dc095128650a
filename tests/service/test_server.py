"""The process round the application: what it refuses to start with, and how it starts and ends."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.service.services import PATIENCE_S, FakeAnalysis, fake_service, wait_until

from dulian.errors import BackendError, MalformedInputError
from dulian.service.http import create_app
from dulian.service.log import configure_logging, log_event
from dulian.service.server import DrainingServer
from dulian.service.start import bind, check_host, share_out
from dulian.settings import Settings, read_settings
from dulian.store import ModelStore


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "localhost", "::1"])
def test_this_machine_itself_may_always_ask(host: str) -> None:
    check_host(host, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.test", "127.0.0.1.example.test", ""])
def test_others_may_ask_only_if_that_is_said(host: str) -> None:
    with pytest.raises(MalformedInputError, match="there are no keys yet"):
        check_host(host, insecure=False)
    check_host(host, insecure=True)


@pytest.mark.parametrize(
    ("workers", "threads", "cores", "given"),
    [
        ("auto", 1, 2, (2, 1)),
        ("auto", 2, 2, (1, 2)),
        ("auto", 3, 8, (2, 3)),
        ("auto", 9, 2, (1, 2)),
        (1, 1, 8, (1, 1)),
        (4, 2, 8, (4, 2)),
        (5, 2, 8, (4, 2)),
        (64, 1, 2, (2, 1)),
    ],
)
def test_threads_never_exceed_the_cores(
    workers: Any, threads: int, cores: int, given: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "dulian.service"):
        assert share_out(workers, threads, cores) == given
    fits = given == (given[0] if workers == "auto" else workers, threads)
    assert [record.message for record in caplog.records] == ([] if fits else ["threads_reduced"])


def test_a_taken_port_and_an_unknown_host_are_told() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        first.listen()
        with pytest.raises(BackendError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            bind("127.0.0.1", port)
    with pytest.raises(BackendError, match="cannot listen on nowhere.invalid"):
        bind("nowhere.invalid", 1)


def test_core_dumps_are_off() -> None:
    code = "import resource\nfrom dulian.service.start import forbid_core_dumps\nforbid_core_dumps()\n"
    code += "print(resource.getrlimit(resource.RLIMIT_CORE))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "(0, 0)\n"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"workers": "many"}, "setting workers: 'many' is neither auto nor a number from 1"),
        ({"workers": "0"}, "setting workers"),
        ({"threads": 0}, "setting threads"),
        ({"port": 70000}, "setting port"),
        ({"grace_s": 100}, "setting grace_s"),
    ],
)
def test_settings_that_make_no_sense(given: dict[str, Any], said: str) -> None:
    with pytest.raises(MalformedInputError, match=said):
        read_settings(**given)


def test_settings_given_come_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DULIAN_PORT", "1234")
    monkeypatch.setenv("DULIAN_WORKERS", "3")
    assert (read_settings(port=99).port, read_settings(port=None).port, read_settings().workers) == (99, 1234, 3)
    monkeypatch.setenv("DULIAN_PORT", "tcp://10.0.0.1:8080")
    assert Settings().port == 8080


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
def draining_server(analysis: FakeAnalysis, *, grace_s: float) -> Iterator[tuple[DrainingServer, str]]:
    """As in production, but in a thread, where the signals have to be sent by hand."""
    with fake_service(analysis) as service, bind("127.0.0.1", 0) as listener:
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
    analysis.leave.clear()
    answers: list[httpx.Response] = []
    with draining_server(analysis, grace_s=3600) as (server, url):
        poster = threading.Thread(target=lambda: answers.append(httpx.post(f"{url}/v1/analyze", content=b"accepted")))
        poster.start()
        assert analysis.begun.acquire(timeout=PATIENCE_S)
        server.handle_exit(signal.SIGTERM, None)
        assert httpx.get(f"{url}/readyz").status_code == 503
        assert httpx.get(f"{url}/livez").status_code == 200
        server.handle_exit(signal.SIGTERM, None)
        wait_until(lambda: refuses(url))
        assert not answers
        analysis.leave.set()
        poster.join(PATIENCE_S)
        assert [answer.status_code for answer in answers] == [200]


def test_an_interrupt_asks_for_no_grace_and_a_third_signal_for_no_patience() -> None:
    with draining_server(FakeAnalysis(), grace_s=3600) as (server, url):
        server.handle_exit(signal.SIGINT, None)
        wait_until(lambda: server.should_exit)
        server.handle_exit(signal.SIGINT, None)
        assert server.force_exit
        wait_until(lambda: refuses(url))


# ── the command ──────────────────────────────────────────────────────────────────────────────────


def command(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DULIAN_")}
    return subprocess.Popen(
        [sys.executable, "-m", "dulian", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**clean, "LANG": "C.UTF-8", **environment},
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


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


@contextmanager
def running(
    store: ModelStore, *arguments: str, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], str, list[Any]]]:
    """A real process, ready; its address and the events so far."""
    environment = {"DULIAN_GRACE_S": "0", **environment}
    process = command("--port", "0", "--offline", "--model-dir", str(store.write_dir), *arguments, **environment)
    try:
        assert process.stderr
        events = [json.loads(process.stderr.readline()) for _ in range(2)]
        yield process, f"http://127.0.0.1:{events[-1]['port']}", events
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        for pipe in (process.stdout, process.stderr):
            assert pipe
            pipe.close()


@pytest.mark.weights
def test_a_process_is_warm_before_it_listens_and_finishes_what_it_accepted(
    model_store: ModelStore, samples: Path
) -> None:
    picture = (samples / "astronaut.png").read_bytes()
    with running(model_store, "--workers", "1") as (process, url, events):
        assert [event["event"] for event in events] == ["models_ready", "listening"]
        assert (events[0]["profile"], events[0]["workers"]) == ("standard", 1)
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
def test_nothing_is_written_while_analysing(model_store: ModelStore, samples: Path) -> None:
    """Neither a file that is there afterwards nor one that was: no write, creation or rename by any thread."""
    code = AUDITED.format(store=str(model_store.write_dir), samples=str(samples))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["200", "200", "200", "200", "413", "noticed"]


# Audit hooks see every open of the interpreter; Pillow, OpenCV and the engines get bytes, not paths.
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

asyncio.run(main())
assert not writes, writes
tempfile.TemporaryFile().close()
print("noticed" if writes else "blind")
service.pool.close()
"""
