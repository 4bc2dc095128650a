"""Several processes behind one socket: real ones that serve, and small ones that fail in every way they can."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tests.service.processes import command, finished, running
from tests.service.services import PATIENCE_S, wait_until

from dulian.machine import effective_cores
from dulian.service.supervisor import MAX_PAUSE_S, pause_s
from dulian.store import ModelStore

TWO_CORES = pytest.mark.skipif(effective_cores() < 2, reason="two processes need two cores")


def children(pid: int) -> set[int]:
    return {child.pid for child in psutil.Process(pid).children()}


def ended(pids: set[int]) -> bool:
    return not any(psutil.pid_exists(pid) for pid in pids)


# ── processes that serve ─────────────────────────────────────────────────────────────────────────


class Clients:
    """A few clients that post pictures one after the other, and ask once more where a connection breaks."""

    def __init__(self, url: str, picture: bytes, count: int = 3) -> None:
        self.statuses: list[int] = []
        self.broken = 0
        self._url = f"{url}/v1/analyze"
        self._picture = picture
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._post_on, args=(number,)) for number in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        self.answer(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def answer(self, more: int) -> None:
        """Wait until so many more pictures are answered."""
        wanted = len(self.statuses) + more
        wait_until(lambda: len(self.statuses) >= wanted)

    def _post_on(self, number: int) -> None:
        # The first keeps its connection, the others come anew each time.
        with httpx.Client(timeout=PATIENCE_S) as kept:
            while not self._stop.is_set():
                post = kept.post if number == 0 else httpx.post
                try:
                    answer = post(self._url, content=self._picture, timeout=PATIENCE_S)
                except httpx.TransportError:
                    self.broken += 1
                    answer = post(self._url, content=self._picture, timeout=PATIENCE_S)
                self.statuses.append(answer.status_code)


@pytest.fixture(scope="module")
def picture(samples: Path) -> bytes:
    return (samples / "astronaut.png").read_bytes()


@TWO_CORES
@pytest.mark.weights
def test_two_processes_answer_are_replaced_and_renewed_and_no_client_sees_it(
    model_store: ModelStore, picture: bytes
) -> None:
    with running(model_store, "--workers", "2", "--threads", "2", DULIAN_MAX_QUEUED="9") as (process, url, events):
        first = children(process.pid)
        names = [event["event"] for event in events]
        assert names[0] == "threads_reduced"
        assert sorted(names[1:]) == ["listening", *["models_ready"] * 2, *["worker_ready"] * 2]
        assert events[0]["given"] == {"workers": 2, "threads": effective_cores() // 2}
        assert {(event["worker"], event["pid"]) for event in events if "pid" in event} == set(enumerate(sorted(first)))
        with Clients(url, picture) as clients:
            seen: dict[int, Any] = {}
            while len(seen) < 2:
                status = httpx.get(f"{url}/v1/status").json()
                seen[status["process"]] = status["processes"], status["workers"], status["queue"]["limit"]
            assert seen == dict.fromkeys((0, 1), (2, effective_cores() // 2, 9))

            victim = min(first)
            os.kill(victim, signal.SIGKILL)
            assert next_event(process, "worker_lost")["reason"] == "process 0 was ended by signal 9"
            next_event(process, "worker_ready")
            clients.answer(10)
            wait_until(lambda: "dulian_worker_restarts_total 1.0" in httpx.get(f"{url}/metrics").text)
            assert len(children(process.pid)) == 2
            assert children(process.pid) & first == first - {victim}

            broken = clients.broken
            second = children(process.pid)
            process.send_signal(signal.SIGHUP)
            next_event(process, "renewed")
            clients.answer(10)
            assert len(children(process.pid)) == 2
            assert not children(process.pid) & second
        assert set(clients.statuses) == {200}
        assert clients.broken == broken  # nothing broke by the renewal, with or without another try


@TWO_CORES
@pytest.mark.weights
def test_all_finish_what_they_accepted(model_store: ModelStore, picture: bytes) -> None:
    with running(model_store, "--workers", "2", DULIAN_GRACE_S="20") as (process, url, _):
        answers: list[int] = []

        def post() -> None:
            answers.append(httpx.post(f"{url}/v1/analyze", content=picture, timeout=PATIENCE_S).status_code)

        posters = [threading.Thread(target=post) for _ in range(16)]
        for poster in posters:
            poster.start()
        wait_until(lambda: bool(answers))
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 503)
        wait_until(lambda: all(httpx.get(f"{url}/readyz").status_code == 503 for _ in range(20)))
        for poster in posters:
            poster.join(PATIENCE_S)
        workers = children(process.pid)
        process.send_signal(signal.SIGTERM)  # enough of the grace
        code, out, err = finished(process)
    assert (code, out) == (0, "")
    assert answers == [200] * 16
    assert ended(workers)
    assert [json.loads(line)["event"] for line in err.splitlines()][-1] == "stopped"


@TWO_CORES
@pytest.mark.weights
def test_none_outlives_a_supervisor_that_was_killed(model_store: ModelStore) -> None:
    with running(model_store, "--workers", "2") as (process, url, _):
        workers = children(process.pid)
        assert len(workers) == 2
        process.kill()
        wait_until(lambda: ended(workers))
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/livez")


@TWO_CORES
def test_two_processes_that_cannot_start_are_one_line_and_exit_code_3(tmp_path: Path) -> None:
    if any(Path(folder).exists() for folder in ("/root/models", "/usr/share/dulian/models")):
        pytest.skip("this machine has a system folder of models")
    folders = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "DULIAN_MODEL_DIR": str(tmp_path)}
    code, out, err = finished(command("--port", "0", "--offline", "--workers", "2", **folders))
    assert (code, out) == (3, "")
    (line,) = err.splitlines()
    assert line.startswith("dulian: face_detection_yunet_2023mar_symbolic.onnx is missing")


def next_event(process: subprocess.Popen[str], name: str) -> Any:
    """Read on in the log up to an event."""
    assert process.stderr
    for line in process.stderr:
        event = json.loads(line)
        if event["event"] == name:
            return event
    raise AssertionError(f"no {name}")


# ── processes that fail ──────────────────────────────────────────────────────────────────────────

SUPERVISOR = """
import sys
from dulian.errors import BackendError
from dulian.service import supervisor
from dulian.service.log import configure_logging
from dulian.service.start import Share, bind
from dulian.settings import Settings

supervisor.END_WITHIN_S = float(sys.argv[2])
supervisor.MAX_PAUSE_S = 0.2
configure_logging()
try:
    sys.exit(supervisor.Supervisor(
        Settings(), Share(processes=2), bind("127.0.0.1", 0), command=("-c", sys.argv[1])
    ).run())
except BackendError as error:
    print(error, file=sys.stderr)
    sys.exit(3)
"""
# What every child begins with. ``often`` is how many with its number there were before it.
CHILD = """
import json, os, signal, socket, sys, time
channel = socket.socket(fileno=int(sys.argv[1]))
orders = json.loads(channel.makefile().readline())
index = orders["share"]["index"]
often = len([name for name in os.listdir() if name.startswith(f"{index}.")])
open(f"{index}.{os.getpid()}", "w").close()
signal.signal(signal.SIGINT, signal.SIG_DFL)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda *_: os._exit(0))

def say(text):
    channel.sendall(text)

def serve():
    say(b"\\0")
    while channel.recv(1):
        pass

"""


DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
INTERRUPTIBLE = "signal.signal(signal.SIGINT, lambda *_: os._exit(0))\n"


@contextmanager
def supervised(child: str, folder: Path, *, end_within_s: float = 25.0) -> Iterator[subprocess.Popen[str]]:
    (folder / "json.py").write_text("raise SystemExit('whoever may write here may not decide what is run')")
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", SUPERVISOR, CHILD + child, str(end_within_s)],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        assert process.stderr
        process.stderr.close()
        wait_until(lambda: ended({int(name.suffix[1:]) for name in folder.glob("[0-9].*")}))


@pytest.mark.parametrize(
    ("child", "said"),
    [
        ("say(b'no networks'); sys.exit(3)", "no networks"),
        ("os._exit(1)", "process 0 ended with code 1|process 1 ended with code 1"),
        ("serve() if index else os.kill(os.getpid(), 9)", "process 0 was ended by signal 9"),
    ],
)
def test_a_service_that_cannot_start_ends_at_once(child: str, said: str, tmp_path: Path) -> None:
    with supervised(child, tmp_path) as process:
        _, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 3
        *events, line = err.splitlines()
        assert line in said.split("|")
        assert {json.loads(event)["event"] for event in events} <= {"worker_ready"}


def test_one_that_cannot_come_back_does_not_end_the_others(tmp_path: Path) -> None:
    child = """
if index == 0: serve()
if often: say(b'no networks'); sys.exit(3)
say(b'\\0'); time.sleep(0.2); os._exit(70)
"""
    with supervised(child, tmp_path) as process:
        next_event(process, "listening")
        reasons = [next_event(process, "worker_lost")["reason"] for _ in range(3)]
        assert reasons == ["process 1 ended with code 70", "no networks", "no networks"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def test_when_all_are_lost_and_cannot_come_back_the_service_ends(tmp_path: Path) -> None:
    child = """
if often: say(b'no networks'); sys.exit(3)
say(b'\\0'); time.sleep(0.2); os._exit(1)
"""
    with supervised(child, tmp_path) as process:
        _, err = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, err.splitlines()[-1]) == (3, "no networks")


def test_a_successor_that_cannot_start_leaves_the_old_ones_in_place(tmp_path: Path) -> None:
    with supervised("if often: say(b'no networks'); sys.exit(3)\nserve()", tmp_path) as process:
        next_event(process, "listening")
        before = children(process.pid)
        process.send_signal(signal.SIGHUP)
        assert next_event(process, "worker_lost")["reason"] == "no networks"
        next_event(process, "renewal_abandoned")
        assert children(process.pid) == before
        process.send_signal(signal.SIGHUP)
        next_event(process, "renewal_abandoned")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def test_one_that_dies_while_its_successor_starts_is_renewed_all_the_same(tmp_path: Path) -> None:
    child = """
others = [int(name[2:]) for name in os.listdir() if name.startswith(f"{index}.")]
if index == 0 and often == 1: os.kill(next(pid for pid in others if pid != os.getpid()), 9)
if often: time.sleep(0.3)
serve()
"""
    with supervised(child, tmp_path) as process:
        next_event(process, "listening")
        before = children(process.pid)
        process.send_signal(signal.SIGHUP)
        assert next_event(process, "worker_lost")["reason"] == "process 0 was ended by signal 9"
        next_event(process, "renewed")
        assert len(children(process.pid)) == 2
        assert not children(process.pid) & before


def test_who_comes_while_the_last_ones_finish_is_refused_and_not_left_waiting(tmp_path: Path) -> None:
    child = """
listener = orders["listeners"][0]
socket.socket(fileno=os.dup(listener)).listen()

def finish(*_):
    os.close(listener)
    while not os.path.exists("leave"): time.sleep(0.01)
    os._exit(0)

signal.signal(signal.SIGTERM, finish)
serve()
"""
    with supervised(child, tmp_path) as process:
        address = "127.0.0.1", next_event(process, "listening")["port"]
        socket.create_connection(address, PATIENCE_S).close()
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(address))
        assert process.poll() is None
        (tmp_path / "leave").touch()
        assert process.wait(PATIENCE_S) == 0


def refuses(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, PATIENCE_S).close()
    except OSError:
        return True
    return False


def test_an_interrupt_from_the_keyboard_is_heard_once(tmp_path: Path) -> None:
    child = """
heard = []
signal.signal(signal.SIGINT, lambda *_: heard.append(1))
say(b"\\0")
while not heard: time.sleep(0.01)
time.sleep(0.3)
os._exit(len(heard) - 1)
"""
    with supervised(child, tmp_path) as process:
        next_event(process, "listening")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does to all in the foreground
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(
    ("child", "signals", "end_within_s", "code"),
    [
        (f"{DEAF}serve()", [signal.SIGTERM], 0.3, 1),
        (f"{DEAF}{INTERRUPTIBLE}serve()", [signal.SIGTERM, signal.SIGTERM], 25.0, 0),
        (f"{INTERRUPTIBLE}serve()", [signal.SIGINT], 25.0, 0),
        ("signal.signal(signal.SIGTERM, lambda *_: os._exit(9))\nserve()", [signal.SIGTERM], 25.0, 1),
        ("serve()", [signal.SIGTERM], 25.0, 0),
    ],
    ids=["deaf", "hurried", "interrupted", "failing", "orderly"],
)
def test_the_end_is_bounded_and_its_code_tells_how_it_was(
    child: str, signals: list[signal.Signals], end_within_s: float, code: int, tmp_path: Path
) -> None:
    with supervised(child, tmp_path, end_within_s=end_within_s) as process:
        next_event(process, "listening")
        process.send_signal(signals[0])
        next_event(process, "draining")
        for sig in signals[1:]:
            process.send_signal(sig)
        assert process.wait(PATIENCE_S) == code


def test_pauses_grow_and_stay_bounded() -> None:
    assert [pause_s(falls) for falls in range(8)] == [0, 0, 0, 0, 1, 2, 4, 8]
    assert pause_s(50) == pause_s(5000) == MAX_PAUSE_S
