"""Where a batch's files lie: one contract for folders, memory and stores, and which addresses are accepted."""

from __future__ import annotations

import json
import os
import pickle
import random
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dulian.batch.destinations import Destination, directories, open_destination
from dulian.batch.destinations.folder import FolderDestination
from dulian.errors import MalformedInputError
from tests.batch import racers
from tests.batch.azurite import AzureContainer
from tests.batch.gcs import GcsBucket
from tests.batch.stores import DRIVERS, S3Bucket
from tests.conftest import ROOT

pytestmark = DRIVERS
PATIENCE_S = 60.0
RACERS = 32
POSIX = pytest.mark.skipif(os.name != "posix", reason="links, pipes and signals of POSIX systems")
ODD_NAMES = [
    "job.json",
    "pictures/000012/034_读脸 ü%20+&=@~!,;().jpg",
    "records/" + "x" * 251 + ".jpg",
    "manifest/" + "/".join("abcdefgh"),
    ".hidden",
    "[a]*.jsonl",
]
HOSTILE_NAMES = ["", "/etc/x", "../x", "a/../../x", "a//b", "a/", "./a", "a\0b", "a\\..\\b", "a\udc80", "x" * 256]


class DestinationContract:
    """What every destination does; subclasses say where it lies."""

    processes = 0
    races = 30

    @pytest.fixture
    def destination(self) -> Destination:
        raise NotImplementedError

    @pytest.fixture
    def impatient_threads(self) -> Iterator[None]:
        """Threads that are interrupted wherever they are."""
        usual = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        yield
        sys.setswitchinterval(usual)

    def test_is_ready_when_prepared_and_holds_nothing(self, destination: Destination) -> None:
        destination.prepare()
        destination.prepare()
        assert [*destination.names("staging"), *destination.names("records"), *destination.names("")] == []

    def test_creates_a_name_once(self, destination: Destination) -> None:
        assert destination.create("records/000001.jsonl", b"first")
        assert not destination.create("records/000001.jsonl", b"second")
        assert not destination.create("records/000001.jsonl", b"first")
        assert destination.read("records/000001.jsonl") == b"first"
        assert list(destination.names("staging")) == []

    def test_is_the_same_place_in_another_copy(self, destination: Destination) -> None:
        copy: Destination = pickle.loads(pickle.dumps(destination))
        assert copy.url == destination.url
        if self.processes or isinstance(destination, FolderDestination):
            assert destination.create("a", b"1")
            assert not copy.create("a", b"2")
            assert copy.read("a") == b"1"

    @pytest.mark.parametrize("size", [0, 1, 3_000_000])
    def test_gives_back_what_it_was_given(self, destination: Destination, size: int) -> None:
        data = random.Random(size).randbytes(size)
        assert destination.create("x/created", data)
        destination.replace("x/replaced", data)
        with destination.writing("x/written") as stream:
            stream.write(data)
        assert {destination.read(f"x/{name}") == data for name in destination.names("x")} == {True}
        assert sorted(destination.names("x")) == ["created", "replaced", "written"]

    def test_one_of_many_threads_wins(self, destination: Destination, impatient_threads: None) -> None:
        destination.create("before", b"")
        together, wins = threading.Barrier(RACERS), []

        def run(racer: int) -> None:
            for race in range(self.races):
                together.wait(PATIENCE_S)
                if destination.create(racers.name_of(race), racers.bytes_of(racer)):
                    wins.append((race, racer))

        threads = [threading.Thread(target=run, args=(racer,)) for racer in range(RACERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        self.check_races(destination, wins)

    @POSIX
    def test_one_of_many_processes_wins(self, destination: Destination) -> None:
        if not self.processes:
            pytest.skip("this memory is one process's")
        command = [sys.executable, "-m", "tests.batch.racers", str(self.processes), str(self.races)]
        done = subprocess.run(
            command, cwd=ROOT, input=pickle.dumps(destination), capture_output=True, timeout=2 * PATIENCE_S, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        result = json.loads(done.stdout)
        assert not result["failed"], done.stderr.decode()
        self.check_races(destination, result["wins"])

    def check_races(self, destination: Destination, wins: Sequence[Sequence[int]]) -> None:
        assert sorted(race for race, _ in wins) == [*range(self.races)]
        for race, racer in wins:
            assert destination.read(racers.name_of(race)) == racers.bytes_of(racer)
        assert len([*destination.names("records")]) == self.races

    def test_replaces(self, destination: Destination) -> None:
        assert destination.create("status.json", b"old and long")
        destination.replace("status.json", b"new")
        assert destination.read("status.json") == b"new"

    def test_a_stream_replaces_when_it_ends_well(self, destination: Destination) -> None:
        destination.replace("merged.jsonl", b"old")
        with destination.writing("merged.jsonl") as stream:
            stream.write(b"new ")
            assert destination.read("merged.jsonl") == b"old"
            stream.write(b"lines")
        assert destination.read("merged.jsonl") == b"new lines"
        assert list(destination.names("staging")) == []

    def test_a_stream_may_be_closed_by_who_writes(self, destination: Destination) -> None:
        with destination.writing("merged.csv") as stream, stream:
            stream.write(b"a,b\n")
        assert destination.read("merged.csv") == b"a,b\n"

    def test_a_stream_that_fails_leaves_nothing(self, destination: Destination) -> None:
        destination.replace("merged.jsonl", b"old")

        def fail(name: str) -> None:
            with destination.writing(name) as stream:
                stream.write(b"half")
                raise OSError("of the one who writes")

        for name in ("merged.jsonl", "other.jsonl"):
            with pytest.raises(OSError, match="of the one who writes"):
                fail(name)
        assert destination.read("merged.jsonl") == b"old"
        assert destination.read("other.jsonl") is None
        assert list(destination.names("staging")) == []

    def test_reads_none_where_nothing_is(self, destination: Destination) -> None:
        assert destination.read("job.json") is None
        assert destination.read("no/such/folder/job.json") is None

    def test_names_what_lies_right_in_a_folder(self, destination: Destination) -> None:
        assert list(destination.names("records")) == []
        for name in ("records/a", "records/b", "records/deeper/c", "records2/d", "e"):
            destination.replace(name, b"")
        assert sorted(destination.names("records")) == ["a", "b"]
        assert list(destination.names("")) == ["e"]
        assert list(destination.names("records/deeper")) == ["c"]

    def test_removes(self, destination: Destination) -> None:
        destination.replace("pieces/a", b"1")
        destination.remove("pieces/a")
        destination.remove("pieces/a")
        destination.remove("no/such/folder")
        assert destination.read("pieces/a") is None
        assert list(destination.names("pieces")) == []
        assert destination.create("pieces/a", b"2")

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_takes_odd_names(self, destination: Destination, name: str) -> None:
        assert destination.create(name, b"1")
        assert not destination.create(name, b"2")
        assert destination.read(name) == b"1"
        folder, _, leaf = name.rpartition("/")
        assert leaf in destination.names(folder)
        destination.remove(name)
        assert destination.read(name) is None

    @pytest.mark.parametrize("name", HOSTILE_NAMES)
    def test_refuses_names_that_lead_out(self, destination: Destination, name: str) -> None:
        with pytest.raises(MalformedInputError):
            destination.create(name, b"")
        with pytest.raises(MalformedInputError):
            destination.replace(name, b"")
        with pytest.raises(MalformedInputError), destination.writing(name):
            pass
        with pytest.raises(MalformedInputError):
            destination.read(name)
        with pytest.raises(MalformedInputError):
            destination.remove(name)
        if name:
            with pytest.raises(MalformedInputError):
                list(destination.names(name))


class TestFolder(DestinationContract):
    processes = RACERS

    @pytest.fixture
    def destination(self, tmp_path: Path) -> Destination:
        return open_destination(tmp_path / "albums" / "out")


class TestFolderWithoutDescriptors(DestinationContract):
    """As on Windows, where folders cannot be held open."""

    @pytest.fixture
    def destination(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Destination:
        monkeypatch.setattr(directories, "BY_DESCRIPTOR", False)
        return open_destination(tmp_path / "albums" / "out")


class TestMemory(DestinationContract):
    races = 200

    @pytest.fixture
    def destination(self) -> Destination:
        return open_destination(f"memory://{secrets.token_hex(8)}/out")


class TestS3(DestinationContract):
    processes = 6
    races = 3

    @pytest.fixture
    def destination(self, s3_bucket: S3Bucket) -> Destination:
        return open_destination(s3_bucket.url)


class TestAzure(DestinationContract):
    processes = 6
    races = 3

    @pytest.fixture
    def destination(self, azure_container: AzureContainer) -> Destination:
        return open_destination(azure_container.url)


class TestGcs(DestinationContract):
    processes = 6
    races = 3

    @pytest.fixture
    def destination(self, gcs_bucket: GcsBucket) -> Destination:
        return open_destination(gcs_bucket.url)


# ── addresses ────────────────────────────────────────────────────────────────────────────────────


def test_paths_and_file_addresses_are_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path / "out", str(tmp_path / "out"), "out", Path("out"), f"file://{tmp_path}/out"):
        assert open_destination(place) == FolderDestination(tmp_path / "out")
    assert open_destination(Path("s3://bucket")).url.endswith("s3:/bucket")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", "empty"),
        ("http://host/folder", "choose a folder, file://, s3://, gs://"),
        ("https://host/folder", "choose"),
        ("ftp://host/folder", "choose"),
        ("hdfs://host/folder", "choose"),
        ("file://host/folder", "file:///folder"),
        ("s3://", "names no bucket"),
        ("s3:///key", "names no bucket"),
        ("s3://bucket/a/../b", "no place in a store"),
        ("s3://bucket/a//b", "no place in a store"),
        ("s3://bucket/a\nb", "no place in a store"),
        ("s3://KEY:hunter2@bucket/a", "user or a password"),
        ("s3://hunter2@bucket/a", "user or a password"),
        ("az://container/a?sig=hunter2", "holds '[?]'"),
        ("gs://bucket/a?token=hunter2", "holds '[?]'"),
        ("s3://bucket/a#hunter2", "holds '[?]' or '#'"),
        ("abfs://container:hunter2@account.dfs.core.windows.net/a", "user or a password"),
    ],
)
def test_other_addresses_are_refused_and_secrets_not_repeated(address: str, said: str) -> None:
    with pytest.raises(MalformedInputError, match=said) as caught:
        open_destination(address)
    assert "hunter2" not in str(caught.value)
