"""The commands of the operations page are executed, section by section, as an operator would type them.

How to write a block there:

- ``sh``: executed, with ``bash -euo pipefail``, in an empty home with ``me.jpg``, the models at hand, and ports of its
  own in place of 8080, 9180 and 9181. All blocks of one section (``##``) share one shell. A line that starts
  ``dulian serve`` or gunicorn may stay in the foreground: the test waits until it listens, and goes on. A section that
  asks a service and starts none has one running. ``pip`` does not install; what it is asked for has to be ours, or
  among PACKAGES.
- ``console``: never executed: what needs root, a service manager, containers or a cluster. Each command begins with
  ``$`` or ``#``, and is one of EXEMPT.
- any of DATA: files and answers, no commands.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import pytest
from tests.conftest import ROOT
from tests.docs.pages import text_of

from dulian.store import ModelStore

PAGE = text_of("operations.md")
EXEMPT = {
    *("apt-get", "systemctl", "journalctl", "useradd", "install", "docker", "docker-compose", "kubectl", "nginx"),
    *("promtool", "prometheus", "redis-server", "redis-cli", "sudo", "deploy/try-all"),
}
DATA = {"json", "conf", "ini", "toml", "yaml", "text", "promql", "nginx"}
PACKAGES = {"gunicorn"}
# Of the page → what is run. The id is an example; the newest key stands for it.
EXAMPLES = {"dulian keys revoke 1df16004": 'dulian keys revoke "$(dulian keys list | tail -1 | cut -d" " -f1)"'}
SERVES = re.compile(r"^(?:\w+=\S+ )*(?:dulian serve|gunicorn)\b")
PATIENCE_S = 300.0


@dataclass
class Section:
    """Blocks below one heading of the second level."""

    name: str
    blocks: list[tuple[str, str]] = field(default_factory=list)

    @property
    def shell(self) -> list[str]:
        return [text for language, text in self.blocks if language == "sh"]


def sections(page: str) -> list[Section]:
    found = [Section("")]
    for match in re.finditer(r"^## ([^\n]*)$|^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        if match[1]:
            found.append(Section(match[1]))
        else:
            found[-1].blocks.append((match[2], match[3]))
    return found


SECTIONS = sections(PAGE)
WITH_COMMANDS = {one.name: one for one in SECTIONS if one.shell}


def test_every_block_is_of_a_kind_that_is_known() -> None:
    kinds = {language for section in SECTIONS for language, _ in section.blocks}
    assert kinds <= {"sh", "console", *DATA}, f"see {__file__} for how to write a block"


def test_only_what_needs_root_or_a_manager_is_exempt() -> None:
    for section in SECTIONS:
        for text in (text for language, text in section.blocks if language == "console"):
            commands = [line[2:] for line in text.splitlines() if line.startswith(("$ ", "# "))]
            assert commands, text
            assert {line.split()[0] for line in commands} <= EXEMPT, text


def test_the_runbook_has_what_an_operator_looks_for() -> None:
    (runbook,) = (one for one in SECTIONS if one.name.startswith("Runbook"))
    text = "\n".join(runbook.shell)
    for command in (
        *("doctor --plan", "models pull", "models verify", "config check", "kill -HUP", "kill -TERM"),
        *("dulian keys revoke", "dulian serve", "/readyz"),
    ):
        assert command in text, command


# ── a shell of an operator ───────────────────────────────────────────────────────────────────────

PIP = """#!/usr/bin/env python3
import re, sys
words = [word for word in sys.argv[2:] if not word.startswith("-")]
assert sys.argv[1] == "install" and words, sys.argv
for word in words:
    name, extra = re.fullmatch(r"([\\w-]+)(?:\\[([\\w,-]+)\\])?(?:[=<>~]=?[\\w.]+)?", word).groups()
    assert name in PACKAGES, f"{name} is no package that this page may install"
    assert not extra or name == "dulian" and set(extra.split(",")) <= EXTRAS, f"there is no extra {extra}"
"""


@pytest.fixture
def home(tmp_path: Path, model_store: ModelStore, samples: Path) -> Path:
    """A home with a picture and models, and a pip that only looks at what it is asked for."""
    (tmp_path / "home").mkdir()
    models, tools = tmp_path / "models", tmp_path / "bin"
    models.mkdir()
    tools.mkdir()
    for file in model_store.write_dir.iterdir():
        (models / file.name).symlink_to(file)
    picture = cv2.imread(str(samples / "astronaut.png"))
    assert picture is not None
    cv2.imwrite(str(tmp_path / "home/me.jpg"), picture)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    script = PIP.replace("in PACKAGES", f"in {PACKAGES | {'dulian'}!r}").replace("<= EXTRAS", f"<= {set(extras)!r}")
    (tools / "pip").write_text(script.replace("/usr/bin/env python3", sys.executable))
    (tools / "pip").chmod(0o700)
    os.mkfifo(tmp_path / "go")
    return tmp_path


def free_ports() -> dict[str, str]:
    """Free ports in place of the page's: one, and two that follow each other."""
    with ExitStack() as sockets:

        def bound(port: int) -> int:
            taken = sockets.enter_context(socket.socket())
            taken.bind(("127.0.0.1", port))
            return int(taken.getsockname()[1])

        main = bound(0)
        for _ in range(100):
            metrics = bound(0)
            with suppress(OSError, OverflowError):
                return {"8080": str(main), "9180": str(metrics), "9181": str(bound(metrics + 1))}
    raise RuntimeError("no two free ports follow each other")


class Shell:
    """Runs a script, and everything that it has left running until it is closed."""

    def __init__(self, script: str, home: Path, **environment: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("DULIAN_", "XDG_"))}
        path = os.pathsep.join((str(home / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]))
        base = {"HOME": str(home / "home"), "PATH": path, "LANG": "C.UTF-8", "DULIAN_MODEL_DIR": str(home / "models")}
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=home / "home",
            env={**clean, **base, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in list(self.lines) if line.startswith('{"time"')]

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def finish(self) -> int:
        return self._process.wait(PATIENCE_S)

    def close(self) -> None:
        """End what is left of its session; processes of a service end with the one that watches them."""
        for sig in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, sig)
            until = time.monotonic() + 20
            while self._reader.is_alive() and time.monotonic() < until:  # the pipe is open as long as anybody lives
                time.sleep(0.01)
        self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert self._process.stdout
        self._process.stdout.close()


def wait_until(condition: Callable[[], bool]) -> None:
    """A hang guard, which has to outlast all commands up to the next signal."""
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def go_on(home: Path) -> bool:
    """Let a shell go on that waits; False if it does not wait yet."""
    try:
        pipe = os.open(home / "go", os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return False
    os.write(pipe, b"\n")
    os.close(pipe)
    return True


WAIT = (
    'curl --silent --fail --retry 100 --retry-delay 1 --retry-connrefused -o /dev/null "http://127.0.0.1:8080/readyz"'
)


def script_of(section: Section, ports: dict[str, str]) -> str:
    """The commands of a section, with what is an example replaced, and what serves in the background."""
    lines: list[str] = []
    for line in "\n".join(section.shell).splitlines():
        if SERVES.match(line) and "&" not in line:
            line = f"{line} &\n{WAIT}"
        lines.append(EXAMPLES.get(line.strip(), line))
        if "kill -HUP" in line:
            lines.append("read -r _ < ../go")  # until the test has seen in the log that it is done
    text = "\n".join(lines)
    if "127.0.0.1:8080" in text and not any(SERVES.match(line) for line in lines):
        text = f"dulian serve &\n{WAIT}\n{text}"
    for port, free in ports.items():
        text = re.sub(rf"(?<!\d){port}(?!\d)", free, text)
    return text


@pytest.mark.weights
@pytest.mark.skipif(subprocess.call(["which", "curl"], stdout=subprocess.DEVNULL) != 0, reason="curl is not installed")
@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_every_command_works(name: str, home: Path) -> None:
    ports = free_ports()
    script = script_of(WITH_COMMANDS[name], ports)
    shell = Shell(script, home, DULIAN_PORT=ports["8080"], DULIAN_GRACE_S="0")
    try:
        for count in range(script.count("kill -HUP")):
            wait_until(lambda: shell.ended or shell.events.count("renewed") > count)  # noqa: B023 - at once
            wait_until(lambda: shell.ended or go_on(home))
        code = shell.finish()
        assert code == 0, "\n".join([f"exit code {code} of:", script, "it said:", *shell.lines])
        assert "renewal_abandoned" not in shell.events
        if "kill -TERM" in script:
            wait_until(lambda: "stopped" in shell.events)
    finally:
        shell.close()
