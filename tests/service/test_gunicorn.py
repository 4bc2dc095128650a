"""The service under a real gunicorn: equal answers, counts that add up, and ends that no client sees."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from tests.promises.harness import Server
from tests.service.crews import gunicorn_server, named, start_gunicorn, workers_of
from tests.service.services import PATIENCE_S, wait_until
from tests.service.test_supervisor import Clients

from dulian import load_analyzer
from dulian.machine import effective_cores
from dulian.service.gunicorn import app
from dulian.store import ModelStore

CLIENTS = 8


@pytest.fixture(scope="module")
def picture(samples: Path) -> bytes:
    return (samples / "astronaut.png").read_bytes()


def metrics_urls(server: Server) -> dict[int, str]:
    """Where each worker's metrics are, by its slot."""
    return {one["worker"]: f"http://127.0.0.1:{one['port']}/metrics" for one in named(server, "metrics_listening")}


def counted(url: str) -> int:
    """Pictures that a worker says it has answered."""
    found = re.search(r'requests_total\{code="200",method="POST",route="/v1/analyze"\} (\d+)', httpx.get(url).text)
    return int(found[1]) if found else 0


def all_counted(server: Server) -> int:
    return sum(map(counted, metrics_urls(server).values()))


def restarts(server: Server) -> int:
    pages = [httpx.get(url).text for url in metrics_urls(server).values()]
    return sum(int(re.findall(r"^dulian_worker_restarts_total (\d+)", page, re.MULTILINE)[0]) for page in pages)


@pytest.mark.weights
def test_two_workers_answer_alike_and_one_that_is_killed_costs_its_own_requests_alone(
    model_store: ModelStore, picture: bytes, tmp_path: Path
) -> None:
    faces = load_analyzer(model_dir=model_store.write_dir).analyze(picture).to_dict()["faces"]
    with gunicorn_server(model_store, tmp_path, DULIAN_METRICS_PORT="0", DULIAN_GRACE_S="20") as server:
        ready = named(server, "worker_ready")
        assert {one["worker"] for one in ready} == {0, 1}
        assert all(one["memory_bytes"] > 50 * 2**20 for one in ready)
        assert {one["threads"] for one in named(server, "models_ready")} == {max(1, effective_cores() // 2)}
        sent = 0
        while not all(map(counted, metrics_urls(server).values())) or sent < 6:
            answer = httpx.post(f"{server.url}/v1/analyze", content=picture, timeout=PATIENCE_S)
            assert answer.json()["faces"] == faces
            sent += 1
        assert all_counted(server) == sent

        with Clients(server.url, picture, CLIENTS) as clients:
            victim = next(one for one in ready if one["worker"] == 0)["pid"]
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: len(named(server, "worker_ready")) == 3)
            clients.answer(2 * CLIENTS)
        assert set(clients.statuses) == {200}
        assert clients.broken <= CLIENTS  # none broke twice: it would have been raised
        again = named(server, "worker_ready")[-1]
        assert (again["worker"], victim in workers_of(server), len(workers_of(server))) == (0, False, 2)
        wait_until(lambda: counted(metrics_urls(server)[0]) > 0)
        assert restarts(server) == 1
        assert len({(one["worker"], one["port"]) for one in named(server, "metrics_listening")}) == 2
        end_under_load(server, picture)


def end_under_load(server: Server, picture: bytes) -> None:
    """SIGTERM to gunicorn: what is accepted is answered."""
    answers: list[int | str] = []

    def post() -> None:
        try:
            answers.append(httpx.post(f"{server.url}/v1/analyze", content=picture, timeout=PATIENCE_S).status_code)
        except httpx.TransportError as error:
            answers.append(repr(error))

    posters = [threading.Thread(target=post) for _ in range(16)]
    before = all_counted(server)
    for poster in posters:
        poster.start()
    wait_until(lambda: all_counted(server) > before)
    pids = workers_of(server)
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: len(answers) == 16)
    assert answers == [200] * 16
    for pid in pids:
        os.kill(pid, signal.SIGINT)  # enough of the grace
    assert server.process.wait(PATIENCE_S) == 0
    wait_until(lambda: len(named(server, "stopped")) == 2)


@pytest.fixture
def models(model_store: ModelStore, tmp_path: Path) -> ModelStore:
    """A folder of models that may be damaged."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("face_detection_yunet_2023mar_symbolic.onnx", "age-v1-flushed.onnx", "gender-v1-flushed.onnx"):
        shutil.copy(model_store.write_dir / name, folder / name)
    return ModelStore(model_dir=folder, offline=True)


@pytest.mark.weights
def test_a_reload_is_seen_by_nobody_and_what_cannot_start_replaces_nobody(
    models: ModelStore, picture: bytes, tmp_path: Path
) -> None:
    nowhere = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    hasty = ("--preload", "--graceful-timeout", "1")  # for so long gunicorn waits for the old ones
    with gunicorn_server(models, tmp_path, *hasty, DULIAN_METRICS_PORT="0", **nowhere) as server:
        first, ports = workers_of(server), metrics_urls(server)
        with Clients(server.url, picture, CLIENTS) as clients:
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: len(workers_of(server)) == 2 and not workers_of(server) & first)
            clients.answer(2 * CLIENTS)
            second = workers_of(server)
            assert metrics_urls(server) == ports
            assert restarts(server) == 0

            detector = models.write_dir / "face_detection_yunet_2023mar_symbolic.onnx"
            whole = detector.read_bytes()
            detector.write_bytes(whole[:-1] + b"!")
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: len(named(server, "worker_lost")) == 2)
            assert "yunet" in named(server, "worker_lost")[0]["reason"]
            clients.answer(2 * CLIENTS)
            assert workers_of(server) >= second
            wait_until(lambda: workers_of(server) == second)
            detector.write_bytes(whole)
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: not workers_of(server) & second)
            clients.answer(2 * CLIENTS)
        assert (set(clients.statuses), clients.broken) == ({200}, 0)


@pytest.mark.weights
def test_one_that_hangs_is_replaced_and_others_live_on(model_store: ModelStore, picture: bytes, tmp_path: Path) -> None:
    with gunicorn_server(model_store, tmp_path, "--timeout", "8") as server:
        hung, other = sorted(workers_of(server))
        os.kill(hung, signal.SIGSTOP)
        wait_until(lambda: len(named(server, "worker_ready")) >= 3)
        assert hung not in workers_of(server)
        assert other in workers_of(server)
        assert httpx.post(f"{server.url}/v1/analyze", content=picture, timeout=PATIENCE_S).status_code == 200


@pytest.mark.weights
def test_after_so_many_requests_another_takes_the_place(
    model_store: ModelStore, picture: bytes, tmp_path: Path
) -> None:
    with gunicorn_server(model_store, tmp_path, "--max-requests", "5") as server:
        first = workers_of(server)
        with Clients(server.url, picture, 3) as clients:
            for count in (3, 4):
                wait_until(lambda: len(named(server, "worker_ready")) >= count)  # noqa: B023 - at once
            wait_until(lambda: not workers_of(server) & first)
            clients.answer(10)
        assert (set(clients.statuses), clients.broken) == ({200}, 0)
        course = [one["event"] for one in server.events if one["event"] in ("worker_ready", "stopped")]
        assert course[:5] == ["worker_ready", "worker_ready", "stopped", "worker_ready", "stopped"]
        server.process.kill()
        wait_until(lambda: not any(Path(f"/proc/{one['pid']}").exists() for one in named(server, "worker_ready")))


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (("--bind", "0.0.0.0:0"), {}, "can be reached from outside"),
        (("--bind", "[::1]:0", "--bind", "127.0.0.1:0"), {}, "one address"),
        (("--certfile", __file__, "--keyfile", __file__), {}, "TLS is a proxy's task"),
        ((), {"DULIAN_PROFILES": "x"}, "unknown variable DULIAN_PROFILES"),
        ((), {"DULIAN_MODEL_DIR": "/nowhere", "DULIAN_OFFLINE": "1"}, "face_detection_yunet"),
    ],
    ids=["outside", "two addresses", "tls", "settings", "no networks"],
)
def test_what_cannot_be_served_is_refused_in_a_line(
    arguments: tuple[str, ...], environment: dict[str, str], said: str, tmp_path: Path
) -> None:
    if any(Path(folder).exists() for folder in ("/root/models", "/usr/share/dulian/models")):
        pytest.skip("this machine has a system folder of models")
    process = start_gunicorn(tmp_path, *arguments, XDG_CACHE_HOME=str(tmp_path), **environment)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3
    assert "Traceback" not in err
    assert any("dulian: " in line and said in line for line in err.splitlines())


def test_a_worker_of_another_class_says_which_it_should_be() -> None:
    heads: list[str] = []
    (body,) = app({}, lambda status, _: heads.append(status))
    assert heads == ["500 Internal Server Error"]
    assert b"-k dulian.service.gunicorn.Worker" in body


def test_gunicorns_own_process_imports_neither_networks_nor_a_web_framework(tmp_path: Path) -> None:
    code = "import sys, json, dulian.service.gunicorn; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert not {"cv2", "numpy", "onnxruntime", "fastapi", "uvicorn"} & set(json.loads(done.stdout))
