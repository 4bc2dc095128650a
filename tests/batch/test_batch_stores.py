"""Commits to a real store over sockets that fail: nothing twice, nothing torn, nothing lost."""

from __future__ import annotations

import importlib.util
import os
import pickle
import random
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dulian.batch.destinations import open_destination, store
from dulian.batch.destinations.driver import MAX_CREATE_BYTES
from dulian.batch.destinations.store import StoreDestination
from dulian.batch.failures import outcome_of
from dulian.batch.patience import Patience
from dulian.errors import DestinationError, MissingDependencyError
from tests.batch.faulty_http import FaultyHttp, Request
from tests.batch.stores import DRIVERS, PAGE, Bucket, S3Bucket, faulty
from tests.conftest import ROOT

pytestmark = DRIVERS
PATIENCE_S = 60.0


@pytest.fixture
def behind(s3_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[S3Bucket, FaultyHttp]]:
    with faulty(s3_bucket, monkeypatch) as found:
        yield found


@pytest.fixture(params=["s3_bucket", "gcs_bucket", "azure_container"], ids=["s3", "gcs", "azure"])
def any_store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Bucket, FaultyHttp]]:
    stored: Bucket = request.getfixturevalue(request.param)
    with faulty(stored, monkeypatch) as found:
        yield found


@pytest.fixture
def bucket(behind: tuple[S3Bucket, FaultyHttp]) -> S3Bucket:
    return behind[0]


@pytest.fixture
def proxy(behind: tuple[S3Bucket, FaultyHttp]) -> FaultyHttp:
    return behind[1]


def first(count: int, fault: str, method: str = "PUT") -> Callable[[Request, int], str | None]:
    """A fault of the first so many requests of a kind."""
    left = [count]

    def choose(request: Request, number: int) -> str | None:
        if request.method != method or not left[0]:
            return None
        left[0] -= 1
        return fault

    return choose


def puts(proxy: FaultyHttp) -> list[Request]:
    return [request for request, _ in proxy.seen if request.method == "PUT"]


# ── one fault at a time ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fault", ["500", "503", "409", "refused", "slow"])
def test_a_commit_is_tried_again(bucket: S3Bucket, proxy: FaultyHttp, fault: str) -> None:
    proxy.choose = first(2, fault)
    assert open_destination(bucket.url).create("records/a", b"mine")
    assert proxy.faults() == (1 if fault == "slow" else 2)
    assert bucket.objects() == {"records/a": b"mine"}


@pytest.mark.parametrize("fault", ["lost", "cut"])
def test_a_commit_whose_answer_was_lost_is_known_again(any_store: tuple[Bucket, FaultyHttp], fault: str) -> None:
    bucket, proxy = any_store
    destination = open_destination(bucket.url)
    proxy.choose = first(1, fault, "POST" if bucket.scheme == "gs" else "PUT")
    assert destination.create("records/a", b"mine")
    assert proxy.faults() == 1
    assert bucket.objects() == {"records/a": b"mine"}
    assert not destination.create("records/a", b"mine")


def test_after_an_unclear_answer_what_others_committed_stays_theirs(bucket: S3Bucket, proxy: FaultyHttp) -> None:
    def choose(request: Request, number: int) -> str | None:
        if request.method == "PUT" and not proxy.faults():
            bucket.put("records/a", b"theirs")
            return "refused"
        return None

    proxy.choose = choose
    assert not open_destination(bucket.url).create("records/a", b"mine")
    assert bucket.objects() == {"records/a": b"theirs"}


def test_every_commit_is_one_request_with_the_condition_however_large(any_store: tuple[Bucket, FaultyHttp]) -> None:
    bucket, proxy = any_store
    data = bytes(104_857_600)  # from here on the drivers would send parts
    destination = open_destination(bucket.url)
    assert destination.create("pictures/a.jpg", data)
    assert not destination.create("pictures/a.jpg", data[:10])
    large, small = (request for request, _ in proxy.seen if request.method in ("PUT", "POST"))
    assert len(large.body) >= len(data) > len(small.body)
    for request in (large, small):
        assert request.headers.get("if-none-match") == "*" or "ifGenerationMatch=0" in request.target


def test_what_is_too_large_for_one_request_is_refused(s3_bucket: S3Bucket) -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return MAX_CREATE_BYTES + 1

    with pytest.raises(DestinationError, match="cannot write a: 268,435,457 bytes are more than 268,435,456"):
        open_destination(s3_bucket.url).create("a", Huge())


@pytest.mark.parametrize("fault", ["500", "503", "refused", "cut", "lost", "slow"])
def test_reading_and_listing_are_tried_again(bucket: S3Bucket, proxy: FaultyHttp, fault: str) -> None:
    data = random.Random(1).randbytes(500_000)
    bucket.put("records/a", data)
    destination = open_destination(bucket.url)
    times = 1 if fault == "slow" else 2
    proxy.choose = first(times, fault, "GET")
    assert destination.read("records/a") == data
    assert proxy.faults() == times
    proxy.choose = first(times, fault, "GET")
    assert list(destination.names("records")) == ["a"]
    assert proxy.faults() == 2 * times


def test_a_cut_picture_of_several_requests_is_whole_in_the_end(bucket: S3Bucket, proxy: FaultyHttp) -> None:
    data = random.Random(2).randbytes(40_000_000)
    proxy.choose = first(3, "500")
    with open_destination(bucket.url).writing("merged.parquet") as stream:
        stream.write(data)
    assert proxy.faults() == 3
    assert any("uploadId" in request.target for request in puts(proxy)), "it was not sent in parts"
    assert bucket.objects() == {"merged.parquet": data}


def test_removing_is_tried_again(bucket: S3Bucket, proxy: FaultyHttp) -> None:
    bucket.put("pieces/a", b"")
    proxy.choose = first(1, "lost", "DELETE")
    open_destination(bucket.url).remove("pieces/a")
    assert bucket.objects() == {}


def test_the_driver_does_not_try_again_by_itself(bucket: S3Bucket, proxy: FaultyHttp) -> None:
    proxy.choose = first(100, "500")
    with pytest.raises(DestinationError, match="cannot write a"):
        StoreDestination(bucket.url, patience_s=0.0).create("a", b"")
    proxy.choose = first(100, "503", "GET")
    with pytest.raises(DestinationError, match="cannot read a"):
        StoreDestination(bucket.url, patience_s=0.0).read("a")
    assert Counter(request.method for request, _ in proxy.seen) == {"PUT": 1, "GET": 1}


class _ThreePauses(Patience):
    """Without waiting."""

    left = 3

    def wait(self) -> bool:
        self.left -= 1
        return self.left >= 0


def test_a_store_that_does_not_answer_is_an_error_in_the_end(
    bucket: S3Bucket, proxy: FaultyHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "Patience", _ThreePauses)
    proxy.choose = lambda request, number: "503"
    destination = StoreDestination(bucket.url)
    for attempt in (
        destination.prepare,
        lambda: destination.create("a", b""),
        lambda: destination.replace("a", b""),
        lambda: destination.read("a"),
        lambda: list(destination.names("")),
        lambda: destination.remove("a"),
    ):
        before = len(proxy.seen)
        with pytest.raises(DestinationError, match=f"^{bucket.url}: cannot .* a fault"):
            attempt()
        assert len(proxy.seen) - before == 4


def test_a_server_that_is_gone_is_an_error_in_the_end(s3_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty(s3_bucket, monkeypatch) as (bucket, proxy):
        destination = StoreDestination(bucket.url, patience_s=1.0)
        assert destination.create("a", b"")
        port = proxy.port
    with pytest.raises(DestinationError, match=f"127.0.0.1:{port}"):
        destination.create("b", b"")


def test_a_silent_server_is_not_waited_for_without_end(
    bucket: S3Bucket, proxy: FaultyHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dulian.batch.destinations.s3.SILENCE_S", 0.3)
    proxy.choose = first(2, "stuck")
    assert open_destination(bucket.url).create("a", b"1")
    assert proxy.faults() == 2


# ── everything at once ───────────────────────────────────────────────────────────────────────────


def test_over_bad_lines_nothing_is_twice_nothing_torn_nothing_lost(bucket: S3Bucket, proxy: FaultyHttp) -> None:
    chance, lock = random.Random(8), threading.Lock()
    faults = ["500", "503", "409", "refused", "cut", "lost", "slow"]

    def choose(request: Request, number: int) -> str | None:
        with lock:
            return chance.choice(faults) if chance.random() < 0.25 else None

    proxy.choose = choose
    names = [f"records/{number:06d}.jsonl" for number in range(40)]
    wins: Counter[str] = Counter()
    true_bytes: dict[str, set[bytes]] = {name: set() for name in names}

    def work(worker: int) -> None:
        destination = open_destination(bucket.url)
        order = random.Random(worker).sample(names, len(names))
        for name in order:
            data = f"{worker} {name}\n".encode() * 500
            if destination.create(name, data):
                with lock:
                    wins[name] += 1
                    true_bytes[name].add(data)
            else:
                assert destination.read(name)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert proxy.faults() > 30
    assert sorted(open_destination(bucket.url).names("records")) == [Path(name).name for name in names]
    found = bucket.objects()
    assert sorted(found) == names
    assert wins == Counter(names)
    assert all(true_bytes[name] == {found[name]} for name in names)
    for name, data in found.items():
        worker = int(data.split()[0])
        assert data == f"{worker} {name}\n".encode() * 500


# ── stores that cannot do it, and those who may not ──────────────────────────────────────────────


def test_a_store_that_ignores_the_condition_is_refused(bucket: S3Bucket, proxy: FaultyHttp) -> None:
    proxy.choose = lambda request, number: "unconditional"
    with pytest.raises(DestinationError, match=r"does not refuse to put a file over one.*MinIO, Ceph"):
        open_destination(bucket.url).prepare()
    assert bucket.objects() == {}


def test_a_store_that_knows_no_condition_is_refused(bucket: S3Bucket, proxy: FaultyHttp) -> None:
    proxy.choose = lambda request, number: "501" if "if-none-match" in request.headers else None
    with pytest.raises(DestinationError, match="does not refuse to put a file over one"):
        open_destination(bucket.url).prepare()


def test_a_probe_whose_answer_is_lost_is_no_reason_to_refuse(bucket: S3Bucket, proxy: FaultyHttp) -> None:
    destination = open_destination(bucket.url)
    proxy.choose = first(1, "lost")
    destination.prepare()
    assert proxy.faults() == 1
    assert bucket.objects() == {}


def test_a_bucket_that_is_not_there_is_an_error(s3_bucket: S3Bucket) -> None:
    destination = open_destination("s3://no-such-bucket-here/a")
    for attempt in (destination.prepare, lambda: destination.read("a"), lambda: list(destination.names("a"))):
        with pytest.raises(DestinationError, match="no such bucket"):
            attempt()


def test_credentials_that_are_missing_are_an_error_at_once(
    s3_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(DestinationError, match="(?i)credentials"):
        open_destination(s3_bucket.url).prepare()


def test_an_endpoint_that_is_none_is_an_error(s3_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "no address")
    with pytest.raises(DestinationError, match="no address"):
        open_destination(s3_bucket.url).prepare()


@pytest.mark.parametrize(
    ("address", "module", "extra"),
    [("s3://b/a", "s3fs", "s3"), ("gs://b/a", "gcsfs", "gcs"), ("az://b/a", "adlfs", "azure")],
)
def test_a_driver_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, address: str, module: str, extra: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find(name))
    with pytest.raises(MissingDependencyError, match=rf"needs {module}; pip install 'dulian\[{extra}\]'"):
        open_destination(address)


@pytest.mark.parametrize(
    "address", ["gs://bucket/a", "gcs://bucket", "az://c/a", "abfss://c@acc.dfs.core.windows.net/a"]
)
def test_the_other_stores_open_without_a_request(address: str) -> None:
    destination = open_destination(address)
    assert destination.url == address
    assert pickle.loads(pickle.dumps(destination)) == destination


# ── listing, spooling, processes ─────────────────────────────────────────────────────────────────


def test_names_come_page_by_page_and_are_always_new(bucket: S3Bucket, proxy: FaultyHttp) -> None:
    destination = open_destination(bucket.url)
    for number in range(PAGE + 5):
        bucket.put(f"records/{number:06d}.jsonl", b"")
    names = destination.names("records")
    assert next(names) == "000000.jsonl"
    assert len(proxy.seen) == 1
    assert len({*names}) == PAGE + 4
    assert len(proxy.seen) == 2
    bucket.put("records/new", b"")
    assert "new" in destination.names("records")


def test_a_full_disk_for_what_waits_to_be_sent_is_named(
    s3_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    opened = os.open
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "open", lambda path, *rest, **more: opened(_full(path), *rest, **more))
    with (
        pytest.raises(DestinationError, match=f"cannot write merged.csv [(]in {tmp_path}.*: No space left"),
        open_destination(s3_bucket.url).writing("merged.csv") as stream,
    ):
        stream.write(bytes(1_000_000))
    assert list(tmp_path.iterdir()) == []
    assert s3_bucket.objects() == {}


def _full(path: object) -> object:
    return "/dev/full" if str(path).endswith("part") else path


def test_importing_destinations_loads_no_driver() -> None:
    script = (
        "import sys, dulian.batch.destinations, dulian.batch.destinations.store;"
        "print({'fsspec', 's3fs', 'gcsfs', 'adlfs', 'aiohttp'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ── what failures mean ───────────────────────────────────────────────────────────────────────────


class _WithStatus(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status_code = status


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (FileExistsError(), "exists"),
        (_WithStatus(412), "exists"),
        (_WithStatus(409), "passing"),
        (_WithStatus(429), "passing"),
        (_WithStatus(500), "passing"),
        (_WithStatus(503), "passing"),
        (_WithStatus(501), "unsupported"),
        (_WithStatus(404), "absent"),
        (FileNotFoundError(), "absent"),
        (_WithStatus(403), "final"),
        (PermissionError(), "final"),
        (ValueError(), "final"),
        (TimeoutError(), "passing"),
        (ConnectionResetError(), "passing"),
        (_WithStatus(425), "passing"),
        (OSError("Forbidden: a"), "final"),
        (RuntimeError(), "unknown"),
    ],
)
def test_failures_are_told_apart(error: Exception, outcome: str) -> None:
    assert outcome_of(error, ()) == outcome


def test_azure_s_conflicts_are_not_all_files_that_exist() -> None:
    azure = pytest.importorskip("azure.core.exceptions", reason="adlfs is not installed")
    from dulian.batch.destinations.azure import AzureDriver

    def conflict(code: str) -> Exception:
        error: Exception = azure.ResourceExistsError("a conflict")
        error.status_code, error.error_code = 409, code  # type: ignore[attr-defined]
        return error

    assert AzureDriver().outcome_of(conflict("BlobAlreadyExists")) == "exists"
    assert AzureDriver().outcome_of(conflict("LeaseIdMissing")) == "passing"


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    patience = Patience(30.0)
    tries = 0
    while patience.wait():
        tries += 1
    assert 24.0 < now[0] <= 30.0
    assert 8 <= tries <= 16
