"""The unit, read by systemd's own tools; and what it forbids, held against what the service does."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import pytest

from dulian.service.watchdog import EXIT_HUNG
from dulian.settings import Settings, read_file
from dulian.store import SYSTEM_DIRS, ModelStore
from tests.deploy.commands import parse
from tests.deploy.programs import DEPLOY, free_ports, needed, program, replaced
from tests.service.services import PATIENCE_S, wait_until

FOLDER = DEPLOY / "systemd"
UNIT = (FOLDER / "dulian.service").read_text("utf-8")
COMMAND = "/opt/dulian/bin/dulian"
OURS = str(Path(sys.executable).parent / "dulian")
# 0 is locked up entirely, 10 is an ordinary service.
MOST_EXPOSED = 20  # tenths
BAD_SETTINGS = 2
MDWE = "import ctypes, os, sys; libc = ctypes.CDLL(None); print(libc.prctl(65, 1, 0, 0, 0), flush=True); {}"


class _Unit(configparser.RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr


@pytest.fixture(scope="module")
def service() -> Mapping[str, str]:
    """What stands in [Service]; of a word that stands there twice the last."""
    unit = _Unit(strict=False)
    unit.read_string(UNIT)
    return unit["Service"]


def in_this_environment(tmp_path: Path) -> Path:
    unit = tmp_path / "dulian.service"
    unit.write_text(replaced(UNIT, {COMMAND: OURS}))
    return unit


def systemd_analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [needed("systemd-analyze", "systemd"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_systemd_understands_it(tmp_path: Path) -> None:
    unit = in_this_environment(tmp_path)
    done = systemd_analyze("verify", "--man=no", unit)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("ProtectProc=invisible", "ProtectProc=unseen"))
    assert "unseen" in systemd_analyze("verify", "--man=no", unit).stderr


def test_systemd_finds_it_locked_up(tmp_path: Path) -> None:
    unit = in_this_environment(tmp_path)
    done = systemd_analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", unit)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd cannot judge a unit that it has not loaded")
    assert done.returncode == 0, done.stdout[-400:]
    unit.write_text(re.sub(r"^(Capability|Restrict|Protect|SystemCall|Private).*\n", "", UNIT, flags=re.MULTILINE))
    assert systemd_analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", unit).returncode != 0


def test_commands_and_settings_exist(service: Mapping[str, str]) -> None:
    for word, command in (("ExecStart", "dulian serve"), ("ExecStartPre", "dulian config check")):
        executable, *rest = shlex.split(service[word])
        assert (executable, parse(rest)) == (COMMAND, command)
    assert service["Environment"] == "DULIAN_CONFIG=/etc/dulian/dulian.toml"
    settings = Settings(**read_file(FOLDER / "dulian.toml"))
    assert (settings.host, settings.offline) == ("127.0.0.1", True)
    assert str(SYSTEM_DIRS[-1]) in UNIT
    assert str(SYSTEM_DIRS[-1]) in (FOLDER / "dulian.toml").read_text()
    # The lines that are commented out: a secret that systemd hands over is one that has a setting.
    (of_secret,) = re.findall(r"dulian\.toml: (\w+) = ", UNIT)
    assert of_secret in Settings.model_fields


def test_it_has_time_to_end_and_is_started_again(service: Mapping[str, str]) -> None:
    assert service["KillSignal"] == "SIGTERM"
    assert int(service["TimeoutStopSec"]) > Settings().grace_s + 30
    assert "-HUP $MAINPID" in service["ExecReload"]
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == str(BAD_SETTINGS)
    assert str(EXIT_HUNG) not in service["RestartPreventExitStatus"]


def test_the_user_is_the_one_that_is_made(service: Mapping[str, str]) -> None:
    made = re.findall(r"^u (\w+) ", (FOLDER / "dulian.sysusers.conf").read_text(), flags=re.MULTILINE)
    assert made == [service["User"]] == [service["Group"]]


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DULIAN_GRACE_S", "0")


# ── what it forbids ──────────────────────────────────────────────────────────────────────────────


def answers_a_photo(command: Sequence[str], store: ModelStore, samples: Path, log: Path) -> None:
    """The service, started by this, answers, and ends in order."""
    (port,) = free_ports(1)
    photo = (samples / "astronaut.png").read_bytes()
    address = f"http://127.0.0.1:{port}"
    options = ("--port", str(port), "--offline", "--model-dir", str(store.write_dir))

    def is_ready() -> bool:
        try:
            return httpx.get(f"{address}/readyz").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    with program([*command, "serve", *options], log, ready=is_ready, stop_s=4 * PATIENCE_S) as process:
        assert len(httpx.post(f"{address}/v1/analyze", content=photo, timeout=PATIENCE_S).json()["faces"]) == 1
    assert process.returncode == 0, log.read_text()


@pytest.mark.weights
@pytest.mark.usefixtures("no_grace")
def test_it_makes_no_code_at_run_time(
    service: Mapping[str, str], model_store: ModelStore, samples: Path, tmp_path: Path
) -> None:
    """MemoryDenyWriteExecute, as the kernel itself has it."""
    assert service["MemoryDenyWriteExecute"] == "yes"
    code = MDWE.format("os.execv(sys.argv[1], sys.argv[1:])")
    control = MDWE.format("import mmap; mmap.mmap(-1, 4096, prot=7)")
    done = subprocess.run([sys.executable, "-c", control], capture_output=True, text=True)
    if not done.stdout.startswith("0"):
        pytest.skip("this kernel (before 6.3) does not forbid it")
    assert "PermissionError" in done.stderr
    answers_a_photo([sys.executable, "-c", code, OURS], model_store, samples, tmp_path / "log")


@pytest.mark.weights
@pytest.mark.usefixtures("no_grace")
def test_its_system_calls_are_allowed(model_store: ModelStore, samples: Path, tmp_path: Path) -> None:
    """SystemCallFilter: what strace sees of a life of the service is in the groups, as this systemd knows them."""
    strace, trace = needed("strace", "strace"), tmp_path / "trace"
    # As a grandchild: what is told to end is the service.
    command = [strace, "--daemonize", "--follow-forks", "--output", str(trace), OURS]
    answers_a_photo(command, model_store, samples, tmp_path / "log")
    wait_until(lambda: re.search(r"\+\+\+ exited with 0 \+\+\+\n\Z", trace.read_text(errors="replace")) is not None)
    seen = set(re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)[( ]", trace.read_text(errors="replace"), flags=re.MULTILINE))
    assert {"execve", "accept4", "futex", "prctl"} <= seen
    groups = re.findall(r"^SystemCallFilter=(~?)(@[\w-]+)$", UNIT, flags=re.MULTILINE)
    allowed = {call for sign, group in groups if not sign for call in calls_of(group)}
    allowed -= {call for sign, group in groups if sign for call in calls_of(group)} - ALWAYS
    assert seen - allowed - ALWAYS == set()


# systemd allows them whatever a filter says, since nothing could start without.
ALWAYS = {"execve", "exit", "exit_group", "rt_sigreturn", "sigreturn", "getrlimit", "brk", "mmap", "restart_syscall"}


def calls_of(group: str) -> set[str]:
    done = systemd_analyze("syscall-filter", "--no-pager", group)
    assert done.returncode == 0, done.stderr
    words = [line.strip() for line in done.stdout.splitlines()[1:]]
    named = {word for word in words if word and not word.startswith(("#", "@"))}
    return named.union(*(calls_of(word) for word in words if word.startswith("@")))
