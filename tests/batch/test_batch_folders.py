"""What folders have to withstand as a place for a batch's files: links, full and closed disks, processes that die."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import socket
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dulian.batch.destinations import Destination, directories, open_destination
from dulian.batch.destinations.folder import ABANDONED_AFTER_S
from dulian.batch.destinations.names import Temporary
from dulian.errors import DestinationError
from tests.batch import creator, racers
from tests.conftest import ROOT

PATIENCE_S = 60.0
POSIX = pytest.mark.skipif(os.name != "posix", reason="links, pipes and signals of POSIX systems")


# ── links and things that are no files ───────────────────────────────────────────────────────────


@POSIX
@pytest.mark.parametrize("by_descriptor", [True, False])
def test_links_in_it_are_not_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_descriptor: bool
) -> None:
    monkeypatch.setattr(directories, "BY_DESCRIPTOR", by_descriptor)
    elsewhere, place = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    (elsewhere / "kept").write_bytes(b"kept")
    destination = open_destination(place)
    destination.prepare()
    (place / "records").symlink_to(elsewhere)
    (place / "deep").mkdir()
    (place / "deep" / "pieces").symlink_to("../../elsewhere")
    for folder in ("records", "deep/pieces"):
        for attempt in (destination.create, destination.replace):
            with pytest.raises(DestinationError, match="link"):
                attempt(f"{folder}/new", b"1")
        with pytest.raises(DestinationError, match="link"):
            destination.read(f"{folder}/kept")
        with pytest.raises(DestinationError, match="link"):
            destination.remove(f"{folder}/kept")
        with pytest.raises(DestinationError, match="link"):
            list(destination.names(folder))
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == {"kept": b"kept"}
    assert list((place / "staging").iterdir()) == []


@POSIX
def test_staging_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    elsewhere, place = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    place.mkdir()
    (place / "staging").symlink_to(elsewhere)
    destination = open_destination(place)
    with pytest.raises(DestinationError, match="staging is a link"):
        destination.prepare()
    with pytest.raises(DestinationError, match="staging is a link"):
        destination.create("a", b"")
    assert list(elsewhere.iterdir()) == []


@POSIX
def test_a_link_under_a_final_name_is_neither_followed_nor_taken_for_a_file(tmp_path: Path) -> None:
    secret, place = tmp_path / "secret", tmp_path / "out"
    secret.write_bytes(b"secret")
    destination = open_destination(place)
    destination.prepare()
    (place / "job.json").symlink_to(secret)
    (place / "nowhere").symlink_to(tmp_path / "made")
    with pytest.raises(DestinationError, match="link"):
        destination.read("job.json")
    assert not destination.create("job.json", b"mine")
    assert not destination.create("nowhere", b"mine")
    destination.replace("job.json", b"mine")
    assert destination.read("job.json") == b"mine"
    assert secret.read_bytes() == b"secret"
    assert not (tmp_path / "made").exists()


@POSIX
def test_the_destination_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    destination = open_destination(tmp_path / "out")
    destination.prepare()
    assert destination.create("records/a", b"1")
    assert (tmp_path / "disk" / "records" / "a").read_bytes() == b"1"


@POSIX
def test_pipes_and_folders_are_no_files(tmp_path: Path) -> None:
    destination = open_destination(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name in ("pipe", "folder"):
        with pytest.raises(DestinationError, match="not a regular file"):
            destination.read(name)
    with pytest.raises(DestinationError, match="Not a directory"):
        destination.read("file/below")
    with pytest.raises(DestinationError, match="Not a directory"):
        destination.create("file/below", b"")
    with pytest.raises(DestinationError):
        destination.replace("folder", b"")
    assert list(destination.names("staging")) == []


def test_a_file_that_is_far_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "job.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DestinationError, match="more than"):
        open_destination(tmp_path).read("job.json")


# ── disks that are full, closed, or cannot do what is needed ─────────────────────────────────────


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k,nr_inodes=64", "dulian-tests", str(place)]
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root mounts a small file system")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_loses_nothing_and_leaves_no_parts(small_disk: Path) -> None:
    destination = open_destination(small_disk / "out")
    destination.prepare()
    committed = _fill(destination, 10_000)
    assert 10 < committed < 30
    with pytest.raises(DestinationError, match="No space left"):
        destination.replace("records/0", bytes(100_000))
    with pytest.raises(DestinationError, match="No space left"), destination.writing("merged") as stream:
        stream.writelines([bytes(1000)] * 1000)
    assert list(destination.names("staging")) == []
    assert sorted(destination.names("records"), key=int) == [str(number) for number in range(committed)]
    for number in range(committed):
        assert destination.read(f"records/{number}") == racers.bytes_of(number)[:10_000]
    destination.remove("records/0")
    destination.remove("records/1")
    assert destination.create(f"records/{committed}", racers.bytes_of(committed)[:10_000])


def test_a_disk_without_room_for_names_says_so(small_disk: Path) -> None:
    destination = open_destination(small_disk / "out")
    destination.prepare()
    assert _fill(destination, 0) > 10
    assert list(destination.names("staging")) == []


def _fill(destination: Destination, size: int) -> int:
    """How many files have room."""
    for number in range(100):
        try:
            assert destination.create(f"records/{number}", racers.bytes_of(number)[:size])
        except DestinationError as error:
            assert str(error) == f"{destination.url}: cannot write records/{number}: No space left on device"  # noqa: PT017
            return number
    pytest.fail("the disk is never full")


@POSIX
def test_a_folder_of_others_is_refused_with_the_reason(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root becomes somebody else")
    place = tmp_path / "out"
    open_destination(place).create("records/a", b"1")
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    script = """
        import os, sys
        from dulian.batch.destinations import open_destination
        from dulian.batch.destinations.folder import FolderDestination
        from dulian.errors import DestinationError
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        destination = open_destination(sys.argv[1])
        print(destination.read("records/a"))
        for attempt in (destination.prepare, lambda: destination.create("records/b", b""),
                        lambda: destination.replace("records/a", b""), lambda: destination.remove("records/a")):
            try:
                attempt()
            except DestinationError as error:
                print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    first, *others = done.stdout.splitlines()
    assert first == "b'1'"
    assert len(others) == 4
    assert all(line.startswith(f"{place}: cannot") and line.endswith("Permission denied") for line in others)
    assert (place / "records" / "a").read_bytes() == b"1"
    assert [path.name for path in (place / "records").iterdir()] == ["a"]


def test_a_file_system_without_hard_links_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(DestinationError, match=r"no hard links.*choose a folder on another one \(ext4"):
        open_destination(tmp_path).prepare()
    assert list((tmp_path / "staging").iterdir()) == []


def test_a_file_system_whose_links_go_over_what_is_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directories.Directory, "link", lambda self, name, to, new: self.rename(name, to, new) or True)
    with pytest.raises(DestinationError, match="puts a file over one that is there"):
        open_destination(tmp_path).prepare()


def test_a_link_whose_answer_was_lost_is_known_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    linked = os.link

    def link_twice(*arguments: object, **options: object) -> None:
        linked(*arguments, **options)  # type: ignore[arg-type]
        linked(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", link_twice)
    destination = open_destination(tmp_path)
    assert destination.create("a", b"1")
    assert not destination.create("a", b"1")


def test_an_error_of_the_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    destination = open_destination(tmp_path)
    destination.prepare()

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(DestinationError, match="cannot write a: Input/output error"):
        destination.create("a", b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["staging"]
    assert list((tmp_path / "staging").iterdir()) == []


# ── processes that die ───────────────────────────────────────────────────────────────────────────


def test_what_is_returned_from_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file before it has its name, and then the folders that hold the new names."""
    calls: list[str] = []
    sync, link = os.fsync, os.link

    def noting_sync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        kind = "file" if path.parent.name == "staging" else str(path.relative_to(tmp_path))
        calls.append(kind)
        sync(descriptor)

    def noting_link(*arguments: object, **options: object) -> None:
        calls.append("link")
        link(*arguments, **options)  # type: ignore[arg-type]

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not say what a descriptor stands for")
    destination = open_destination(tmp_path / "out")
    monkeypatch.setattr(os, "fsync", noting_sync)
    monkeypatch.setattr(os, "link", noting_link)
    destination.create("records/a", b"1")
    assert calls == [".", "out", "out", "file", "link", "out/records"]
    calls.clear()
    assert not destination.create("records/a", b"1")
    assert calls == ["file", "link", "out/records"]


@POSIX
def test_killed_twenty_times_in_the_middle_nothing_is_torn(tmp_path: Path) -> None:
    destination = open_destination(tmp_path / "out")
    destination.prepare()
    chance = random.Random(8)
    said: list[str] = []
    leftovers = 0
    for life in range(20):
        command = [sys.executable, "-m", "tests.batch.creator", str(tmp_path / "out"), str(life)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        said += [process.stdout.readline().strip() for _ in range(chance.randint(1, 20))]
        threading.Event().wait(chance.random() * 0.003)
        process.kill()
        process.communicate(timeout=PATIENCE_S)
        leftovers += len(list((tmp_path / "out" / "staging").iterdir()))
    found = [f"records/{name}" for name in destination.names("records")]
    assert {*said} <= {*found}
    assert all(destination.read(name) == creator.bytes_of(name) for name in found)
    assert leftovers, "no kill came in the middle"
    destination.prepare()
    assert list(destination.names("staging")) == []


@POSIX
def test_only_what_nobody_writes_any_more_is_swept(tmp_path: Path) -> None:
    mine = Temporary.of_this_process()
    ended = multiprocessing.get_context("spawn").Process()
    ended.start()
    ended.join(PATIENCE_S)
    assert ended.pid
    staging = tmp_path / "staging"
    staging.mkdir()
    alive = {
        "mine": mine.new_name("records/a@b.jsonl"),
        "of another process": Temporary(mine.host, os.getppid()).new_name("a"),
        "of another machine": Temporary("elsewhere", ended.pid).new_name("a"),
        "of somebody else": "notes@2026.txt",
    }
    dead = {
        "dead": Temporary(mine.host, ended.pid).new_name("a"),
        "of another machine, old": Temporary("elsewhere", 1).new_name("a"),
    }
    for name in (*alive.values(), *dead.values()):
        (staging / name).write_bytes(b"half")
    old = (staging / alive["mine"]).stat().st_mtime - ABANDONED_AFTER_S - 60
    os.utime(staging / dead["of another machine, old"], (old, old))
    os.utime(staging / alive["of somebody else"], (old, old))
    open_destination(tmp_path).prepare()
    assert {path.name for path in staging.iterdir()} == {*alive.values()}


def test_names_of_temporary_files_say_who_writes_them() -> None:
    mine = Temporary.of_this_process()
    name = mine.new_name("pictures/000012/" + "读" * 80 + ".jpg")
    assert len(name.encode()) < 255
    assert Temporary.parse(name) == mine
    assert mine.pid == os.getpid()
    assert socket.gethostname().split(".")[0] in mine.host
    assert not mine.is_dead()
    for other in ("a", "a@b", "a@host@x1@token", "@@@", "a@host@-1@token"):
        assert Temporary.parse(other) is None
