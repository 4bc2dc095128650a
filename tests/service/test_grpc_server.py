"""The port for gRPC: its health, its reflection, its end, and what is said when it cannot be opened."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.conftest import ROOT
from tests.service.processes import command, finished, running
from tests.service.rpcs import Rpc, calling, failure
from tests.service.services import PATIENCE_S, FakeAnalysis, wait_until

from dulian.errors import BackendError, MissingDependencyError
from dulian.service import rpc_port
from dulian.service.rpc import dulian_pb2, dulian_pb2_grpc, server
from dulian.service.rpc.dulian_pb2 import AnalyzeRequest
from dulian.service.rpc.server import DULIAN, INFERENCE, RpcServer
from dulian.service.server import END_WITHIN_S
from dulian.service.start import bind
from dulian.settings import Settings
from dulian.store import ModelStore

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def health(run: Rpc) -> health_pb2_grpc.HealthStub:
    return health_pb2_grpc.HealthStub(run.channel)


def asked(name: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=name)


# ── health ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["", DULIAN, INFERENCE])
def test_health_follows_readiness(name: str) -> None:
    analysis = FakeAnalysis()
    with calling(analysis) as run:
        seen = health(run).Watch(asked(name), timeout=PATIENCE_S)
        assert health(run).Check(asked(name), timeout=PATIENCE_S).status == SERVING
        assert next(seen).status == SERVING
        run.service.draining = True
        assert next(seen).status == NOT_SERVING
        assert health(run).Check(asked(name), timeout=PATIENCE_S).status == NOT_SERVING
        run.service.draining = False
        assert next(seen).status == SERVING


def test_the_health_of_what_there_is_not() -> None:
    with calling(FakeAnalysis()) as run:
        refused = failure(lambda: health(run).Check(asked("other"), timeout=PATIENCE_S))
        watched = next(health(run).Watch(asked("other"), timeout=PATIENCE_S))
    assert refused.code() is grpc.StatusCode.NOT_FOUND
    assert watched.status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


# ── the end ──────────────────────────────────────────────────────────────────────────────────────


def test_what_was_accepted_is_answered_and_nothing_more_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who watches the health keeps the end waiting no longer than the last answer does."""
    monkeypatch.setattr(server, "LAST_WORDS_S", 0.5)
    analysis = FakeAnalysis()
    with calling(analysis) as run:
        watched = health(run).Watch(asked(""), timeout=PATIENCE_S)
        assert next(watched).status == SERVING
        analysis.leave.clear()
        working = run.dulian.Analyze.future(AnalyzeRequest(image=b"x"), timeout=PATIENCE_S)
        assert analysis.begun.acquire(timeout=PATIENCE_S)
        run.server.handle_exit(signal.SIGTERM, None)
        assert next(watched).status == NOT_SERVING
        wait_until(lambda: run.rpc._streams.ending.is_set())
        late = AnalyzeRequest(image=b"late")
        # In the moment in which it is told to go, a client's call may be cancelled.
        wait_until(lambda: code_of(lambda: run.dulian.Analyze(late, timeout=PATIENCE_S)) is grpc.StatusCode.UNAVAILABLE)
        time.sleep(2 * server.LAST_WORDS_S)
        assert not working.done()
        began = time.monotonic()
        analysis.leave.set()
        assert working.result().image.width == 80
        assert list(watched) == []
        assert time.monotonic() - began < END_WITHIN_S / 2  # a hang guard, not a measurement
    assert [data for data, _ in analysis.seen] == [b"x"]


def code_of(call: Any) -> grpc.StatusCode:
    """The status of a call that is not answered."""
    code = failure(call).code()
    assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    return code


def test_in_the_grace_calls_are_answered_and_health_says_that_it_ends() -> None:
    with calling(FakeAnalysis(), grace_s=60.0) as run:
        watched = health(run).Watch(asked(""), timeout=PATIENCE_S)
        assert next(watched).status == SERVING
        run.server.handle_exit(signal.SIGTERM, None)
        assert next(watched).status == NOT_SERVING
        assert run.dulian.Analyze(AnalyzeRequest(image=b"x"), timeout=PATIENCE_S).image.width == 80


# ── reflection ───────────────────────────────────────────────────────────────────────────────────


def listed(run: Rpc) -> list[str]:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    stub = reflection_pb2_grpc.ServerReflectionStub(run.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = next(stub.ServerReflectionInfo(iter([request]), timeout=PATIENCE_S))
    return [service.name for service in answer.list_services_response.service]


def test_reflection_is_off_unless_it_is_wanted() -> None:
    with calling(FakeAnalysis()) as run:
        assert failure(lambda: listed(run)).code() is grpc.StatusCode.UNIMPLEMENTED
    with calling(FakeAnalysis(), reflection=True) as run:
        assert {DULIAN, INFERENCE, "grpc.health.v1.Health"} <= set(listed(run))


# ── the port ─────────────────────────────────────────────────────────────────────────────────────


def test_a_port_that_is_taken_is_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = command("--port", "0", "--grpc-port", str(port), "--offline")
        code, _, err = finished(process)
    assert code == 3
    assert f"cannot listen on 127.0.0.1 port {port}" in err.splitlines()[-1]


def test_a_port_that_is_taken_at_the_last_moment_is_an_error() -> None:
    with calling(FakeAnalysis()) as run:

        async def again() -> None:
            await RpcServer(run.service, "127.0.0.1", run.rpc.port).startup()

        with pytest.raises(BackendError, match=f"port {run.rpc.port} for gRPC"):
            asyncio.run(again())


def test_processes_share_a_port_and_others_do_not_get_it() -> None:
    settings = Settings(grpc_port=0)
    with rpc_port.reserved(settings, 2) as first:
        assert first.grpc_port
        with bind("127.0.0.1", first.grpc_port, shared=True) as one:
            one.listen()
            with bind("127.0.0.1", first.grpc_port, shared=True) as another:
                another.listen()
            with pytest.raises(BackendError, match="cannot listen"), rpc_port.reserved(first, 2):
                pytest.fail("another service got it")
    with rpc_port.reserved(settings, 1) as alone:
        assert alone.grpc_port == 0
    with rpc_port.reserved(Settings(), 2) as none:
        assert none.grpc_port is None


def test_without_the_extra_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "grpc" else find(name, *more))
    with pytest.raises(MissingDependencyError, match=re.escape("pip install 'dulian[grpc]'")):
        rpc_port.check_extra()


def test_the_command_says_so_and_nothing_of_grpc_is_imported_otherwise() -> None:
    hidden = "import sys; sys.modules['grpc'] = None; from dulian.cli import main; sys.argv[1:] = sys.argv[2:]; main()"
    line = [sys.executable, "-c", hidden, "x", "serve", "--port", "0", "--offline", "--grpc-port", "0"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=ROOT)
    assert done.returncode == 3
    assert "pip install 'dulian[grpc]'" in done.stderr.splitlines()[-1]
    imports = "import dulian.service.server, dulian.service.rpc_port, sys; print('grpc' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", imports], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert done.stdout == "False\n"


# ── the command ──────────────────────────────────────────────────────────────────────────────────


def port_of(events: list[Any]) -> int:
    """The port of the last process that told it."""
    port: int = [event["port"] for event in events if event["event"] == "grpc_listening"][-1]
    return port


@pytest.mark.weights
def test_the_command_serves_both(model_store: ModelStore, samples: Path) -> None:
    picture = next(samples.glob("astronaut*")).read_bytes()
    with (
        running(model_store, "--grpc-port", "0") as (process, _, events),
        grpc.insecure_channel(f"127.0.0.1:{port_of(events)}") as channel,
    ):
        answer = dulian_pb2_grpc.DulianStub(channel).Analyze(AnalyzeRequest(image=picture), timeout=PATIENCE_S)
        assert answer.faces
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.weights
def test_several_processes_answer_at_one_port(model_store: ModelStore, samples: Path) -> None:
    """The kernel shares out connections, so enough of them reach every process; each tells its own health."""
    picture = next(samples.glob("astronaut*")).read_bytes()
    environment = {"DULIAN_MODE": "throughput"}
    arguments = ("--grpc-port", "0", "--metrics-port", "0", "--workers", "2", "--threads", "1")
    with running(model_store, *arguments, **environment) as (process, _, events):
        metrics = [event["port"] for event in events if event["event"] == "metrics_listening"]
        if len(metrics) < 2:
            pytest.skip("this machine has one core, and so one process")

        def counts() -> list[float]:
            return [calls_of(port) for port in metrics]

        def ask() -> bool:
            with grpc.insecure_channel(f"127.0.0.1:{port_of(events)}", [("grpc.use_local_subchannel_pool", 1)]) as one:
                dulian_pb2_grpc.DulianStub(one).Analyze(AnalyzeRequest(image=picture), timeout=PATIENCE_S)
            return all(counts())

        wait_until(ask)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def calls_of(port: int) -> float:
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    found = re.findall(
        r'^dulian_grpc_requests_total\{code="OK",method="dulian.v1.Dulian/Analyze"\} (\S+)$', text, re.MULTILINE
    )
    return sum(map(float, found))


# ── what is committed ────────────────────────────────────────────────────────────────────────────


def test_the_generated_modules_are_those_of_the_protos(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "tools" / "generate_protos.py"), str(tmp_path)], check=True, timeout=60)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len(made) == 6
    for path in made:
        assert (ROOT / "src" / path).read_text("utf-8") == (tmp_path / path).read_text("utf-8"), path
    assert dulian_pb2.DESCRIPTOR.package == "dulian.v1"
    assert [*dulian_pb2.DESCRIPTOR.services_by_name["Dulian"].methods_by_name] == ["Analyze", "AnalyzeStream"]
