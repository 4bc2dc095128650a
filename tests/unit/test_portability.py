"""The library and the commands where nothing is as on Linux: no limits, locks, affinity, /proc, cgroups or glibc."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dulian import load_analyzer
from dulian.store import ModelStore

# Taken away before anything is imported: what other systems do not have.
ELSEWHERE = """
import builtins, ctypes, io, os, signal, sys

HIDDEN = {"resource", "fcntl", "grp", "pwd", "termios", "syslog"}
hidden_in = lambda name: name.partition(".")[0] in HIDDEN

class Absent:
    def find_spec(self, name, path=None, target=None):
        if hidden_in(name):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

for name in [name for name in sys.modules if hidden_in(name)]:
    del sys.modules[name]
sys.meta_path.insert(0, Absent())

for module, names in {
    os: ("sched_getaffinity", "sched_setaffinity", "memfd_create", "O_NONBLOCK", "fchmod", "posix_fallocate"),
    signal: ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT", "set_wakeup_fd", "siginterrupt", "pthread_sigmask"),
}.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)

plain_open, plain_stat = io.open, os.stat
def is_of_linux(path):
    try:
        text = os.fspath(path)
    except TypeError:
        return False
    text = os.fsdecode(text)
    return text.startswith(("/proc", "/sys"))
def open_elsewhere(file, *given, **named):
    if is_of_linux(file):
        raise FileNotFoundError(2, "No such file or directory", file)
    return plain_open(file, *given, **named)
builtins.open = io.open = open_elsewhere

plain_cdll = ctypes.CDLL
class CDLL(plain_cdll):
    def __init__(self, name=None, *given, **named):
        if name is None:
            raise OSError("there is no C library of that name")
        super().__init__(name, *given, **named)
ctypes.CDLL = CDLL
"""


def elsewhere(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DULIAN_")}
    return subprocess.run(
        [sys.executable, "-c", ELSEWHERE + program, *arguments],
        capture_output=True,
        text=True,
        env={**clean, **environment},
        timeout=120,
    )


def said(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


COMMAND = """
from dulian.cli import main
sys.argv = ["dulian", *sys.argv[1:]]
main()
"""


def test_the_disguise_hides_what_it_should() -> None:
    hidden = said(
        elsewhere(
            """
import json
found = [hasattr(os, "sched_getaffinity"), hasattr(signal, "SIGHUP")]
for attempt in ("import resource", "import fcntl", "open('/proc/meminfo')", "ctypes.CDLL(None)"):
    try:
        exec(attempt)
        found.append(True)
    except (ImportError, OSError):
        found.append(False)
print(json.dumps(found))
"""
        )
    )
    assert hidden == [False] * 6


def test_every_module_can_be_imported_but_gunicorns() -> None:
    """gunicorn itself is of POSIX alone."""
    program = """
import json, pkgutil
import dulian
failed = {}
for module in pkgutil.walk_packages(dulian.__path__, "dulian."):
    if module.name.endswith(("__main__", "_pb2", "_pb2_grpc")) or module.name == "dulian.service.gunicorn":
        continue
    try:
        __import__(module.name)
    except ModuleNotFoundError as error:
        if hidden_in(error.name) or error.name.startswith("dulian"):  # others are of extras that are not installed
            failed[module.name] = repr(error)
    except Exception as error:
        failed[module.name] = repr(error)
print(json.dumps(failed))
"""
    assert said(elsewhere(program)) == {}


@pytest.mark.weights
def test_the_library_answers_as_on_linux(model_store: ModelStore, samples: Path) -> None:
    program = """
import json, dulian
analyzer = dulian.load_analyzer(model_dir=sys.argv[1])
print(json.dumps(analyzer.analyze(sys.argv[2]).to_dict()["faces"]))
"""
    arguments = str(model_store.write_dir), str(samples / "astronaut.png")

    assert (
        said(elsewhere(program, *arguments))
        == load_analyzer(model_dir=arguments[0]).analyze(arguments[1]).to_dict()["faces"]
    )


@pytest.mark.weights
def test_the_commands_work(model_store: ModelStore, samples: Path, tmp_path: Path) -> None:
    models = {"DULIAN_MODEL_DIR": str(model_store.write_dir), "DULIAN_OFFLINE": "1", "XDG_CONFIG_HOME": str(tmp_path)}
    picture = str(samples / "astronaut.png")
    result = said(elsewhere(COMMAND, "analyze", "--json", picture, **models))
    assert len(result["faces"]) == 1
    found = said(elsewhere(COMMAND, "doctor", "--json", **models))
    assert (found["memory_physical"], found["memory_limit"], found["cores_quota"]) == (None, None, None)
    assert found["cores_used"] == os.cpu_count()
    for words in (
        ("analyze", picture, picture, "--output", str(tmp_path / "copies")),
        ("models", "list"),
        ("models", "verify"),
        ("keys", "create", "--name", "one"),
        ("keys", "list"),
        ("config", "check"),
        ("config", "show"),
        ("bench", "--runs", "1", "--profile", "standard"),
    ):
        done = elsewhere(COMMAND, *words, **models)
        assert done.returncode == 0, (words, done.stderr)


@pytest.mark.weights
def test_the_service_answers_too_in_one_process(model_store: ModelStore, samples: Path) -> None:
    program = """
import json, threading, urllib.request, _thread
from dulian.service import start
from dulian.settings import Settings
from dulian.store import ModelStore
from pathlib import Path

def ask(listener, **_):
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/analyze"
    def post():
        try:
            with urllib.request.urlopen(url, Path(sys.argv[2]).read_bytes(), timeout=60) as answer:
                print(json.dumps(json.load(answer)["faces"]))
        finally:
            _thread.interrupt_main()
    threading.Thread(target=post).start()

start.log_listening = ask
store = ModelStore(model_dir=Path(sys.argv[1]), offline=True)
start.serve(Settings(port=0, model_dir=sys.argv[1], offline=True), lambda: store)
"""
    done = elsewhere(program, str(model_store.write_dir), str(samples / "astronaut.png"), XDG_CONFIG_HOME=os.devnull)
    assert len(said(done)) == 1
