"""Pictures stay in memory: no file is written, no root is needed that can be, and nothing of them is in the log."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from PIL import Image
from websockets.sync.client import connect

from dulian.store import ModelStore
from tests.promises.harness import PATIENCE_S, Server, dulian_server

pytestmark = pytest.mark.weights

NAME = "GeheimesFoto-of-Alice"
FORMATS = {"JPEG": {}, "PNG": {}, "WEBP": {}, "BMP": {}, "GIF": {}, "TIFF": {}, "AVIF": {}}


# ── what a service is asked ──────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def photos(samples: Path) -> dict[str, bytes]:
    """One portrait in every format, and one file as large as a body may be."""
    portrait = Image.open(samples / "astronaut.png").convert("RGB")
    made = {}
    for kind in FORMATS:
        file = io.BytesIO()
        portrait.save(file, kind)
        made[kind] = file.getvalue()
    made["large"] = made["JPEG"] + bytes(9 * 2**20)
    return made


def ask_everything(server: Server, photos: Mapping[str, bytes]) -> Counter[int]:
    """Photos of all kinds on all routes, good and bad; how often which status came back."""
    statuses: Counter[int] = Counter()
    small = photos["JPEG"]
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        for photo in photos.values():
            upload = {"image": (f"{NAME}.jpg", photo)}
            routes = ("/v1/analyze", "/v1/analyze?annotate=base64", "/predict", "/api/analyze", "/analyze")
            answers = [client.post(route, files=upload) for route in routes]
            answers.append(client.get(answers[2].json()["output_image"]))
            answers.append(client.post("/v1/analyze", content=photo, headers={"accept": "image/jpeg"}))
            statuses.update(answer.status_code for answer in answers)
        encoded = base64.b64encode(small).decode()
        several = [("image", (f"{NAME}.jpg", photo)) for kind, photo in photos.items() if kind != "large"]
        bad = {"image": (f"{NAME}.jpg", small[:5000])}
        for answer in (
            client.post("/v1/analyze", json={"image": encoded}),
            client.post("/v1/batch", files=several),
            client.post("/v1/analyze", files=bad),
            client.post("/predict", files=bad),
            client.post("/v1/analyze", content=b"no picture"),
            client.post("/v1/analyze", content=bytes(11 * 2**20)),
            *(client.get(path) for path in ("/readyz", "/metrics", "/v1/status", "/openapi.json", "/docs")),
        ):
            statuses[answer.status_code] += 1
    with connect(f"ws://127.0.0.1:{server.port}/v1/stream", compression=None, max_size=None, proxy=None) as stream:
        for _ in range(3):
            stream.send(json.dumps({"id": NAME, "options": {"annotate": "base64"}}))
            stream.send(small)
            statuses[200 if "faces" in json.loads(stream.recv(PATIENCE_S)) else 0] += 1
    return statuses


ASKED = {200: 7 * 8 + 2 + 5 + 3, 413: 1, 415: 1, 422: 2}
# What a process would write for itself: the traces of tests under coverage, and compiled modules.
NO_TRACES = {"COVERAGE_PROCESS_CONFIG": None, "COVERAGE_PROCESS_START": None, "PYTHONDONTWRITEBYTECODE": "1"}
# What would keep engines from reporting although dulian does not.
FREE_TO_REPORT = {"ORT_DISABLE_TELEMETRY": None, "CI": None, "TF_BUILD": None, "JENKINS_URL": None}


class Homes(NamedTuple):
    """Empty folders where programs like to leave something."""

    cwd: Path
    environment: dict[str, str | None]

    def left(self) -> list[Path]:
        return list(self.cwd.parent.rglob("*/*"))


@pytest.fixture
def homes(tmp_path: Path) -> Homes:
    places = {name: tmp_path / name for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_DATA_HOME", "cwd")}
    for place in places.values():
        place.mkdir()
    cwd = places.pop("cwd")
    return Homes(cwd, {**NO_TRACES, **FREE_TO_REPORT, **{name: str(place) for name, place in places.items()}})


# ── what the kernel sees ─────────────────────────────────────────────────────────────────────────

OPENS = ("open", "openat", "openat2", "creat")
WRITES = ("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range", "splice", "ftruncate")
CHANGES = (
    *("mkdir", "mkdirat", "mknod", "mknodat", "rename", "renameat", "renameat2", "link", "linkat", "symlink"),
    *("symlinkat", "truncate", "unlink", "unlinkat", "rmdir"),
)
ASKS_FOR_SILENCE = ("prctl", "setrlimit", "prlimit64")
# What is no file: sockets, pipes, memory and the place where nothing stays.
NO_FILE = re.compile(r"(socket|pipe|anon_inode|UNIX|UNIX-STREAM|TCP|TCPv6|NETLINK):|/memfd:|/dev/null")
_CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)")


def written_files(trace: str) -> Iterator[str]:
    """The calls in a trace by which a file is made, changed or opened for that."""
    for line in trace.splitlines():
        found = _CALL.match(line)
        if not found:
            continue
        name, rest = found.groups()
        path = re.search(r'"([^"]*)"', rest)
        if name in CHANGES:
            yield line
        elif name in OPENS:
            changes = re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC|APPEND|TMPFILE)", rest)
            if (changes or name == "creat") and not (path and path[1] == "/dev/null"):
                yield line
        elif name in WRITES:
            files = re.findall(r"\d+<([^>]*)>", rest)
            if not files or not all(NO_FILE.match(file) for file in files[:1]):
                yield line


@contextmanager
def traced(store: ModelStore, homes: Homes, log: Path, *arguments: str) -> Iterator[Server]:
    """A service under the eyes of strace, from its first moment on."""
    calls = ",".join(f"?{name}" for name in (*OPENS, *WRITES, *CHANGES, *ASKS_FOR_SILENCE, "connect"))
    strace = ["strace", "-D", "-f", "-qq", "-y", "-s", "80", "--seccomp-bpf", "-o", str(log), "-e", f"trace={calls}"]
    if not shutil.which("strace") or subprocess.run([*strace, "true"], capture_output=True).returncode:
        pytest.skip("strace is not installed, or may not trace here")
    with dulian_server(store, *arguments, wrapper=strace, cwd=homes.cwd, **homes.environment) as server:
        yield server


def test_no_file_is_written_while_photos_are_analysed(
    model_store: ModelStore, photos: dict[str, bytes], homes: Homes, tmp_path: Path
) -> None:
    """By what the kernel is asked for, from the first moment of the process to the last; and nobody is told."""
    log = tmp_path / "trace"
    with traced(model_store, homes, log, "--cache-mb", "8") as server:
        limits = Path(f"/proc/{server.process.pid}/limits").read_text()
        assert ask_everything(server, photos) == ASKED
        assert server.stop() == 0
    trace = log.read_text(errors="replace")
    assert "_symbolic.onnx" in trace  # it does see files
    assert re.search(r"write\(\d+<(socket|anon_inode|pipe|TCP|UNIX)", trace)
    assert list(written_files(trace)) == []
    assert calls_to_others(trace) == []
    assert homes.left() == []
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
    assert "PR_SET_DUMPABLE, SUID_DUMP_DISABLE" in trace
    assert told_nothing(server)


@pytest.mark.parametrize("engine", ["openvino", "opencv"])
def test_no_engine_writes_or_reports_to_its_makers(
    engine: str, model_store: ModelStore, photos: dict[str, bytes], homes: Homes, tmp_path: Path
) -> None:
    """The one above has the third. Where an engine reports, it does so at its import."""
    if importlib.util.find_spec(engine.replace("opencv", "cv2")) is None:
        pytest.skip(f"{engine} is not installed")
    log = tmp_path / "trace"
    with traced(model_store, homes, log, "--engine", engine) as server:
        assert httpx.post(f"{server.url}/v1/analyze", content=photos["JPEG"]).json()["faces"]
        assert server.stop() == 0
    trace = log.read_text(errors="replace")
    assert "_symbolic.onnx" in trace
    assert list(written_files(trace)) == []
    assert calls_to_others(trace) == []
    assert homes.left() == []


REPORTS = """
import os, sys
from dulian.quiet import without_reports
with without_reports():
    print(os.environ["ORT_DISABLE_TELEMETRY"], sys.modules.get("openvino_telemetry", "none is hidden"))
print("openvino_telemetry" in sys.modules)
"""


@pytest.mark.parametrize("setting", [None, "0"])
def test_what_the_user_says_about_reports_stays(setting: str | None, homes: Homes) -> None:
    environment = {**os.environ, **homes.environment, "ORT_DISABLE_TELEMETRY": setting}
    done = subprocess.run(
        [sys.executable, "-c", REPORTS],
        env={name: value for name, value in environment.items() if value is not None},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert done.stdout.split() == [setting or "1", "None", "False"]


def calls_to_others(trace: str) -> list[str]:
    """Connections that were begun to anywhere but this machine."""
    return [line for line in trace.splitlines() if " connect(" in line and re.search(r"sa_family=AF_INET6?\b", line)]


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ('7 openat(AT_FDCWD, "/tmp/x", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 9</tmp/x>', True),
        ('7 openat(AT_FDCWD, "/tmp", O_RDWR|O_TMPFILE|O_CLOEXEC, 0600 <unfinished ...>', True),
        ('7 openat(AT_FDCWD, "/etc/fonts.conf", O_RDONLY|O_CLOEXEC) = 9</etc/fonts.conf>', False),
        ('7 openat(AT_FDCWD, "/dev/null", O_RDWR|O_CLOEXEC) = 9</dev/null>', False),
        ('7 write(9</tmp/x>, "\\377\\330", 2) = 2', True),
        ('7 write(2<pipe:[123]>, "{}", 2) = 2', False),
        ('7 write(9<socket:[123]>, "\\0", 1) = 1', False),
        ('7 write(9<anon_inode:[eventfd]>, "\\1\\0\\0\\0\\0\\0\\0\\0", 8) = 8', False),
        ("7 ftruncate(9</memfd:dulian-pictures>, 123) = 0", False),
        ('7 mkdir("/tmp/y", 0777) = 0', True),
        ('7 rename("/tmp/x", "/tmp/y") = 0', True),
        ("7 +++ exited with 0 +++", False),
    ],
)
def test_a_written_file_is_noticed(line: str, written: bool) -> None:
    assert bool(list(written_files(line))) == written


# ── a root that cannot be written ────────────────────────────────────────────────────────────────

# Every file system but the kernel's own becomes read-only, for this process alone; then nothing may be writable.
READ_ONLY = """
set -e
for place in $(awk '$2 !~ "^/(proc|sys)" {print $2}' /proc/mounts); do
  mount -o remount,bind,ro "$place" 2>/dev/null || true
done
for folder in "$HOME" "$TMPDIR" . /tmp; do
  if touch "$folder/written" 2>/dev/null; then exit 9; fi
done
exec "$@"
"""


def read_only_root() -> list[str] | None:
    """A program that starts others where nothing can be written; None if this system has none."""
    for unshare in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]):
        wrapper = [*unshare, "sh", "-c", READ_ONLY, "sh"]
        if shutil.which("unshare") and not subprocess.run([*wrapper, "true"], capture_output=True).returncode:
            return wrapper
    bwrap = ["bwrap", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]
    if shutil.which("bwrap") and not subprocess.run([*bwrap, "true"], capture_output=True).returncode:
        return bwrap
    return None


def test_a_read_only_root_is_enough(model_store: ModelStore, photos: dict[str, bytes], homes: Homes) -> None:
    """P17, the part of it that concerns the service."""
    wrapper = read_only_root()
    if wrapper is None:
        pytest.skip("neither unshare nor bwrap can make a read-only root here")
    with dulian_server(model_store, wrapper=wrapper, cwd=homes.cwd, **homes.environment) as server:
        assert ask_everything(server, photos) == ASKED
        assert server.stop() == 0
        assert told_nothing(server)


# ── the log ──────────────────────────────────────────────────────────────────────────────────────


def told_nothing(server: Server) -> bool:
    """The log has the events of a service's life and no other; none tells of a picture, its name or what was seen."""
    assert [event["event"] for event in server.events] == ["models_ready", "listening", "draining", "stopped"]
    text = json.dumps(server.events)
    return not re.search(rf"{NAME}|female|(?<!\w)male|bucket|bbox|ffd8|/9j/|JFIF", text, re.IGNORECASE)


def test_a_log_that_tells_is_noticed(model_store: ModelStore) -> None:
    """Negative control."""
    events = [{"event": name} for name in ("models_ready", "listening", "draining", "stopped")]

    class Told:
        pass

    told = Told()
    told.events = events  # type: ignore[attr-defined]
    assert told_nothing(told)  # type: ignore[arg-type]
    events[2]["note"] = f"{NAME}.jpg"
    assert not told_nothing(told)  # type: ignore[arg-type]
