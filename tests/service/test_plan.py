"""Plans: the same decisions as the service's, from a measurement of the real thing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.service.processes import command as serve_command
from tests.service.processes import finished

from dulian.cli.plan import _lines
from dulian.errors import BackendError, MalformedInputError
from dulian.service import plan as plan_module
from dulian.service import start, worker
from dulian.service.plan import Measurement, Plan, check_cores, make_plan, measure, parse_memory
from dulian.service.start import WATCHER_BYTES, Share
from dulian.settings import Settings
from dulian.store import ModelStore

MEBI, GIBI = 2**20, 2**30


@pytest.mark.parametrize(
    ("text", "count"),
    [("1G", GIBI), ("512M", 512 * MEBI), ("2GiB", 2 * GIBI), ("1.5 gb", 3 * GIBI // 2), ("100000000", 10**8)],
)
def test_memory_is_written_as_containers_write_it(text: str, count: int) -> None:
    assert parse_memory(text) == count


@pytest.mark.parametrize("text", ["", "G", "0", "0G", "-1G", "1P", "1GG", "two", "1e9", "٣G"])
def test_what_is_no_memory_is_refused(text: str) -> None:
    with pytest.raises(MalformedInputError, match="write it as in 512M or 2G"):
        parse_memory(text)


@pytest.mark.parametrize("count", [0, -1, 1025])
def test_what_is_no_number_of_cores_is_refused(count: int) -> None:
    with pytest.raises(MalformedInputError, match="no number of cores"):
        check_cores(count)


def measured(settings: Settings, threads: int, picture: bytes) -> Measurement:
    del settings, picture
    return Measurement(
        threads=threads,
        requests_per_s=10.0 * threads,
        resident_bytes=200 * MEBI,
        cores_used=float(threads),
        seconds=3.0,
        clients=2 * threads,
    )


def planned(monkeypatch: pytest.MonkeyPatch, memory: int, cores: int, here: int = 2, **settings: Any) -> Plan:
    monkeypatch.setattr(plan_module, "measure", measured)
    monkeypatch.setattr(plan_module, "effective_cores", lambda: here)
    return make_plan(Settings(**settings), memory, cores, b"")


class Decided(Exception):
    pass


def decided(monkeypatch: pytest.MonkeyPatch, memory: int, cores: int, **settings: Any) -> tuple[int, int]:
    """What ``dulian serve --workers auto`` does on such a machine."""

    def tell(*given: Any, **_: Any) -> None:
        raise Decided(next(one for one in given if isinstance(one, Share)))

    monkeypatch.setattr(start, "effective_cores", lambda: cores)
    monkeypatch.setattr(start, "available_memory", lambda: memory)
    monkeypatch.setattr(start, "watch", tell)
    monkeypatch.setattr(worker, "work", tell)
    monkeypatch.setattr(start, "configure_logging", lambda: None)
    monkeypatch.setattr(start, "forbid_dumps", lambda: None)
    monkeypatch.setenv("XDG_CONFIG_HOME", os.devnull)
    with pytest.raises(Decided) as caught:
        start.serve(Settings(workers="auto", port=0, **settings), lambda: None)  # type: ignore[arg-type,return-value]
    share = caught.value.args[0]
    return share.processes, share.threads


@pytest.mark.parametrize("settings", [{}, {"profile": "classic"}, {"threads": 1}, {"cache_mb": 600}], ids=str)
@pytest.mark.parametrize("cores", [1, 2, 4, 7, 32])
@pytest.mark.parametrize("memory", [256 * MEBI, GIBI, 2 * GIBI, 64 * GIBI])
def test_a_plan_is_what_the_service_does(
    memory: int, cores: int, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(monkeypatch, memory, cores, **settings)
    assert (plan.workers, plan.threads) == decided(monkeypatch, memory, cores, **settings)
    assert f"--workers {plan.workers} --threads {plan.threads}" in plan.command


def test_what_is_expected_is_what_was_measured_times_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(monkeypatch, 8 * GIBI, 8)
    assert (plan.workers, plan.threads, plan.fits) == (4, 2, True)
    assert plan.requests_per_s == 4 * 20.0
    assert plan.usual_bytes == 4 * 200 * MEBI + WATCHER_BYTES
    assert plan.most_bytes == 4 * 400 * MEBI + WATCHER_BYTES
    on_one_core = planned(monkeypatch, 8 * GIBI, 8, here=1)
    assert (on_one_core.measured.threads, on_one_core.requests_per_s) == (1, 80.0)
    alone = planned(monkeypatch, GIBI, 2)
    assert (alone.workers, alone.usual_bytes, alone.most_bytes) == (1, 200 * MEBI, 400 * MEBI)


def test_too_little_memory_is_said_first(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(monkeypatch, 300 * MEBI, 2)
    assert not plan.fits
    assert _lines(plan)[0] == (
        "does not fit",
        "300 MiB are too little: this profile may take 400 MiB; the largest pictures may get the process killed",
    )
    assert "does not fit" not in dict(_lines(planned(monkeypatch, 400 * MEBI, 2)))


def test_a_measurement_that_was_held_up_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(monkeypatch, GIBI, 2)
    assert "too low" not in dict(_lines(plan))
    slow = Measurement(**{**{name: getattr(plan.measured, name) for name in Measurement.__slots__}, "cores_used": 0.9})
    held_up = Plan(**{**{name: getattr(plan, name) for name in Plan.__slots__}, "measured": slow})
    assert dict(_lines(held_up))["too low"] == (
        "it got 0.9 of 2 cores here, because others use them too; alone up to 44.4"
    )


def test_options_are_part_of_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(monkeypatch, GIBI, 2, profile="classic", engine="openvino", precision="bf16")
    assert plan.command == ("dulian serve --workers 1 --threads 2 --profile classic --engine openvino --precision bf16")


# ── the real thing ───────────────────────────────────────────────────────────────────────────────


def doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DULIAN_")}
    return subprocess.run(
        [sys.executable, "-m", "dulian", "doctor", *arguments],
        capture_output=True,
        text=True,
        env={**clean, **environment},
        timeout=120,
    )


@pytest.mark.weights
def test_a_real_process_is_measured_and_its_line_starts_a_service(model_store: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "dulian").mkdir()
    (tmp_path / "dulian/keys.json").write_text('{"version": 1, "keys": []}')  # nobody would be let in
    models = {"DULIAN_MODEL_DIR": str(model_store.write_dir), "DULIAN_OFFLINE": "1"}
    done = doctor("--plan", "2G", "1", "--json", XDG_CONFIG_HOME=str(tmp_path), **models)
    assert (done.returncode, done.stderr) == (0, "")
    plan = json.loads(done.stdout)
    assert (plan["workers"], plan["threads"], plan["fits"]) == (1, 1, True)
    assert plan["requests_per_s"] == plan["measured"]["requests_per_s"] > 0
    assert 100 * MEBI < plan["usual_bytes"] < plan["most_bytes"] == 400 * MEBI

    options = plan["command"].split()[2:]
    process = serve_command("--port", "0", *options, **models)
    assert process.stderr
    events = []
    while not events or events[-1]["event"] != "listening":
        events.append(json.loads(process.stderr.readline()))
    process.terminate()
    process.terminate()
    finished(process)
    assert [event["threads"] for event in events if event["event"] == "models_ready"] == [1]


@pytest.mark.weights
def test_no_process_is_left(model_store: ModelStore, samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "WARM_S", 0.1)
    monkeypatch.setattr(plan_module, "MEASURE_S", 0.1)
    settings = Settings(model_dir=model_store.write_dir, offline=True)
    before = psutil.Process().children()
    assert measure(settings, 1, (samples / "astronaut.png").read_bytes()).clients == 2
    with pytest.raises(BackendError, match="does not answer: status 415"):
        measure(settings, 1, b"no picture")
    assert psutil.Process().children() == before


def test_networks_that_are_not_there_are_a_line_and_exit_code_3(tmp_path: Path) -> None:
    if any(Path(folder).exists() for folder in ("/root/models", "/usr/share/dulian/models")):
        pytest.skip("this machine has a system folder of models")
    nowhere = {"DULIAN_MODEL_DIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "DULIAN_OFFLINE": "1"}
    done = doctor("--plan", "1G", "1", **nowhere)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("dulian: ")
    assert len(done.stderr.splitlines()) == 1
