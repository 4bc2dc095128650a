"""Networks renewed while a service serves: tried first, and where they fail the old ones answer on."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from tests.contract.test_runtimes import REFERENCE
from tests.service.processes import command, finished, running
from tests.service.services import PATIENCE_S, wait_until
from tests.service.test_idle import FakeFactory, Opener, ask, fake_networks, unloading
from tests.service.test_supervisor import TWO_CORES, Clients, children, next_event

from dulian.errors import GoldenError
from dulian.service.compute import ComputePool
from dulian.service.networks import Networks
from dulian.service.renewal import Renewal
from dulian.store import ModelStore

# Put before everything a process imports: where a file of that name lies in the folder, the shipped answers are others.
SPOILT = """
import importlib.util, sys
from pathlib import Path

class Spoiler:
    def find_spec(self, name, path=None, target=None):
        if name != "dulian.service.golden":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def execute_and_spoil(module):
            execute(module)
            whole = module.golden_answers()
            def more(outputs):
                return {name: [value + 1 for value in values] for name, values in outputs.items()}
            spoilt = {sha256: more(outputs) for sha256, outputs in whole.items()}
            is_spoilt = Path(__file__).with_name("spoilt").exists
            module.golden_answers = lambda: spoilt if is_spoilt() else whole
        spec.loader.exec_module = execute_and_spoil
        return spec

sys.meta_path.insert(0, Spoiler())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sitecustomize.py").write_text(SPOILT)
    return tmp_path


def spoiling(folder: Path) -> str:
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))


@pytest.fixture(scope="module")
def picture(samples: Path) -> bytes:
    return (samples / "astronaut.png").read_bytes()


# ── the pieces ───────────────────────────────────────────────────────────────────────────────────


def test_every_thread_makes_its_own_anew_before_its_next_job() -> None:
    order: list[str] = []
    pool = ComputePool(2, lambda: order.append("prepared"), renew=lambda: order.append("renewed"))
    pool.start()
    pool.renew()
    wait_until(lambda: order.count("renewed") == 2)
    pool.renew()
    pool.close(PATIENCE_S)
    assert order.count("renewed") in (2, 3, 4)  # those that end need nothing new
    assert order[:2] == ["prepared", "prepared"]


def test_who_has_nothing_open_needs_nothing_new() -> None:
    unloaded, renewed = threading.Event(), threading.Event()
    pool = ComputePool(1, lambda: None, unload=unloaded.set, unload_after_s=0.01, renew=renewed.set)
    pool.start()
    assert unloaded.wait(PATIENCE_S)
    pool.renew()
    pool.close(PATIENCE_S)
    assert not renewed.is_set()


def test_new_analyzers_are_of_the_new_networks_and_old_ones_are_let_go() -> None:
    networks, first = fake_networks()
    networks.new_analyzer()
    networks.renew()
    assert first() is None
    networks.close()
    assert networks._factory is None
    networks.renew()
    assert networks._factory is None  # in a long pause they stay closed


@pytest.mark.parametrize("trouble", ["others", "wrong", "odd"])
def test_what_cannot_be_opened_replaces_nothing(trouble: str, caplog: pytest.LogCaptureFixture) -> None:
    def reopen() -> FakeFactory:
        if trouble == "others":
            return FakeFactory("1")
        raise GoldenError("computes wrongly") if trouble == "wrong" else KeyError("odd")

    networks, first = fake_networks(reopen)
    pool = ComputePool(1, lambda: None)
    renewal = Renewal(networks, pool)
    with caplog.at_level("INFO", "dulian.service"):
        renewal.begin()
        wait_until(lambda: len(caplog.records) == 2)
    assert [record.message for record in caplog.records] == ["renewing", "renewal_abandoned"]
    assert first() is not None
    assert pool._renewals == 0


def test_one_at_a_time() -> None:
    begun: list[int] = []
    leave = threading.Event()

    def reopen() -> FakeFactory:
        begun.append(1)
        leave.wait(PATIENCE_S)
        return FakeFactory()

    renewal = Renewal(Networks(cast(Any, FakeFactory()), cast(Any, reopen)), ComputePool(1, lambda: None))
    for _ in range(3):
        renewal.begin()
    leave.set()
    assert renewal._thread
    renewal._thread.join(PATIENCE_S)
    assert begun == [1]


@pytest.mark.weights
def test_threads_change_over_and_the_old_networks_are_gone(model_store: ModelStore, samples: Path) -> None:
    opener = Opener(model_store, "standard")
    picture = (samples / "astronaut.png").read_bytes()
    with unloading(opener, after_s=math.inf) as (service, url):
        before = ask(url, picture)
        assert service.renew
        service.renew()
        wait_until(lambda: len(opener.opened) == 2 and all(one() is None for one in opener.opened[0]))
        assert ask(url, picture) == before
        assert all(one() is not None for one in opener.opened[1])


# ── processes ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.weights
def test_a_process_that_is_alone_renews_its_networks_and_no_client_sees_it(
    model_store: ModelStore, picture: bytes, folder: Path
) -> None:
    with running(model_store, PYTHONPATH=spoiling(folder)) as (process, url, _), Clients(url, picture) as clients:
        process.send_signal(signal.SIGHUP)
        next_event(process, "renewed")
        clients.answer(10)
        (folder / "spoilt").touch()
        process.send_signal(signal.SIGHUP)
        assert "computes wrongly on this machine" in next_event(process, "renewal_abandoned")["reason"]
        clients.answer(10)
        assert httpx.get(f"{url}/readyz").status_code == 200
        clients.__exit__()
        assert (set(clients.statuses), clients.broken) == ({200}, 0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


@TWO_CORES
@pytest.mark.weights
def test_processes_that_would_compute_wrongly_replace_nobody(
    model_store: ModelStore, picture: bytes, folder: Path
) -> None:
    with running(model_store, "--workers", "2", PYTHONPATH=spoiling(folder)) as (process, url, _):
        first = children(process.pid)
        (folder / "spoilt").touch()
        with Clients(url, picture) as clients:
            process.send_signal(signal.SIGHUP)
            assert "computes wrongly on this machine" in next_event(process, "worker_lost")["reason"]
            next_event(process, "renewal_abandoned")
            clients.answer(10)
        assert children(process.pid) == first
        assert (set(clients.statuses), clients.broken) == ({200}, 0)


@pytest.mark.weights
@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=TWO_CORES)])
def test_a_service_that_would_compute_wrongly_never_listens(
    workers: str, model_store: ModelStore, folder: Path
) -> None:
    (folder / "spoilt").touch()
    options = ("--port", "0", "--offline", "--model-dir", str(model_store.write_dir), "--workers", workers)
    code, out, err = finished(command(*options, PYTHONPATH=spoiling(folder)))
    assert (code, out) == (3, "")
    *events, line = err.splitlines()
    assert line.startswith(f"dulian: {REFERENCE} computes wrongly on this machine: ")
    assert "listening" not in [json.loads(event)["event"] for event in events]
