"""Stores: what is listed and how little at a time, what is tried again, and that no cut answer passes for a picture."""

from __future__ import annotations

import json
import random
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from dulian.batch.inputs import open_reader, pages, trying
from dulian.batch.patience import Patience
from dulian.batch.records import Input
from dulian.errors import InputNotFoundError, InputTooLargeError, InputUnavailableError, MalformedInputError
from tests.batch.input_kinds import ALBUM, BESIDE, listed, problems, put, read_all, tar_bytes, zip_bytes
from tests.batch.stores import S3Bucket, faulty

HttpAnswer = Callable[[str, dict[str, str]], tuple[int, dict[str, str], bytes]]


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trying, "Patience", FourPauses)


class FourPauses(Patience):
    """Without waiting."""

    left = 4

    def wait(self) -> bool:
        self.left -= 1
        return self.left >= 0


class Failing(MemoryFileSystem):
    """The memory of fsspec, which fails as ``faults`` say, request by request, and notes what it is asked."""

    faults: ClassVar[list[Exception | int | None]] = []
    asked: ClassVar[list[tuple[int | None, int | None]]] = []

    def _befall(self) -> int | None:
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        return fault

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        self.asked.append((start, end))
        cut = self._befall()
        data: bytes = super().cat_file(path, start, end, **options)
        return data[:cut]

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        self._befall()
        return super().ls(path, detail, **options)

    def info(self, path: str, **options: Any) -> Any:
        self._befall()
        return super().info(path, **options)


@pytest.fixture
def failing() -> Iterator[type[Failing]]:
    fsspec.register_implementation("memory", Failing, clobber=True)
    Failing.store.clear()
    Failing.faults.clear()
    Failing.asked.clear()
    yield Failing
    fsspec.register_implementation("memory", MemoryFileSystem, clobber=True)
    MemoryFileSystem.store.clear()


class HttpError(OSError):
    def __init__(self, status_code: int) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code


PICTURE = Input(source="memory://b/a.jpg", size=10, version="1")
OF_LIST = Input(source="memory://b/a.jpg")


@pytest.mark.parametrize("wanted", [PICTURE, OF_LIST], ids=["listed", "of a list"])
@pytest.mark.parametrize(
    "fault",
    [
        *(HttpError(500), HttpError(503), HttpError(429), TimeoutError("late"), ConnectionResetError("cut")),
        *(OSError("which one?"), RuntimeError("who knows")),
    ],
    ids=str,
)
def test_what_passes_is_tried_again_and_what_nobody_knows(
    failing: type[Failing], fault: Exception, wanted: Input
) -> None:
    put({"b/a.jpg": b"0123456789"})
    failing.faults[:] = [fault] * 4
    assert read_all([wanted]) == [b"0123456789"]


@pytest.mark.parametrize("wanted", [PICTURE, OF_LIST], ids=["listed", "of a list"])
def test_when_patience_ends_it_is_unavailable(failing: type[Failing], wanted: Input) -> None:
    put({"b/a.jpg": b"0123456789"})
    failing.faults[:] = [HttpError(503)] * 6
    with pytest.raises(InputUnavailableError, match=r"memory://b/a\.jpg after 5 tries: status 503"):
        read_all([wanted])
    assert len(failing.faults) == 1


@pytest.mark.parametrize(
    "fault", [HttpError(403), HttpError(400), PermissionError("no"), FileNotFoundError("none")], ids=str
)
def test_what_does_not_pass_is_not_tried_again(failing: type[Failing], fault: Exception) -> None:
    put({"b/a.jpg": b"0123456789"})
    failing.faults[:] = [fault, HttpError(500)]
    with pytest.raises(InputNotFoundError, match=r"cannot read memory://b/a\.jpg"):
        read_all([PICTURE])
    assert len(failing.faults) == 1


def test_a_cut_answer_is_no_picture(failing: type[Failing]) -> None:
    put({"b/a.jpg": b"0123456789"})
    failing.faults[:] = [5, None, 9]
    assert read_all([PICTURE]) == [b"0123456789"]
    failing.faults[:] = [5, None] * 9
    with pytest.raises(InputUnavailableError, match="5 of 10 bytes"):
        read_all([PICTURE])


def test_an_object_that_has_grown_is_read_whole_or_refused(failing: type[Failing]) -> None:
    put({"b/a.jpg": b"0123456789abcdef"})
    assert read_all([PICTURE]) == [b"0123456789abcdef"]
    with pytest.raises(InputTooLargeError):
        read_all([PICTURE], max_bytes=12)
    assert max(end or 0 for _, end in failing.asked[2:]) <= 13


def test_what_is_too_large_is_refused_before_it_is_fetched(failing: type[Failing]) -> None:
    put({"b/a.jpg": b"0123456789"})
    for wanted in (PICTURE, OF_LIST):
        with pytest.raises(InputTooLargeError):
            read_all([wanted], max_bytes=9)
    assert failing.asked == []


def test_waiting_ends_when_patience_does(failing: type[Failing], monkeypatch: pytest.MonkeyPatch) -> None:
    put({"b/a.jpg": b"0123456789"})
    monkeypatch.setattr(trying, "Patience", Patience)
    monkeypatch.setattr(trying, "PATIENCE_S", 0.0)
    failing.faults[:] = [HttpError(503)] * 2
    with pytest.raises(InputUnavailableError, match="after 1 try"):
        read_all([PICTURE])
    assert len(failing.faults) == 1


def test_archives_in_stores_are_read_over_failures(failing: type[Failing]) -> None:
    put({"b/a.zip": zip_bytes(ALBUM), "b/a.tar": tar_bytes(ALBUM), "b/a.tgz": tar_bytes(ALBUM, "gz")})
    for name in ("a.zip", "a.tar", "a.tgz"):
        failing.faults[:] = [HttpError(500), None, 3, HttpError(503), TimeoutError(), None, 0]
        assert read_all(listed(f"memory://b/{name}")) == list(ALBUM.values())


def test_a_member_in_a_store_costs_one_request(failing: type[Failing]) -> None:
    noise = random.Random(4)
    files = {f"{number}.jpg": noise.randbytes(size) for number, size in enumerate((10, 3_000_000, 70_000))}
    stored, deflated = zip_bytes(files, zipfile.ZIP_STORED), zip_bytes(files)
    put({"b/a.tar": tar_bytes(files), "b/stored.zip": stored, "b/deflated.zip": deflated})
    for name in ("a.tar", "stored.zip", "deflated.zip"):
        inputs = listed(f"memory://b/{name}")
        failing.asked.clear()
        assert read_all(inputs, max_bytes=5_000_000) == list(files.values())
        assert len(failing.asked) == 3
        assert sum((end or 0) - (start or 0) for start, end in failing.asked) < 3_080_000


def test_a_listing_that_fails_is_an_error_and_no_short_album(failing: type[Failing]) -> None:
    put({f"b/album/{name}": data for name, data in ALBUM.items()})
    failing.faults[:] = [HttpError(503), None, None, HttpError(503), HttpError(500)]
    assert len(listed("memory://b/album")) == len(ALBUM)
    failing.faults[:] = [None, None, *[HttpError(503)] * 5]
    with pytest.raises(InputUnavailableError):
        listed("memory://b/album")
    failing.faults[:] = [PermissionError("closed")]
    with pytest.raises(InputNotFoundError, match="closed"):
        listed("memory://b/album")


def test_what_is_not_there_is_an_input_of_its_own(failing: type[Failing]) -> None:
    put({"b/other.jpg": b"x"})
    assert list(problems(listed("memory://b/album", "memory://b/a.jpg", "memory://b/a.zip"))) == [
        "memory://b/album",
        "memory://b/a.jpg",
        "memory://b/a.zip",
    ]


def test_odd_keys(failing: type[Failing]) -> None:
    keys = ["new\nline.jpg", "a.zip::b.jpg", "me[1].jpg", "50%.jpg", "q?x=1.jpg", "#h.jpg", " b.jpg", "读.jpg"]
    put({f"b/album/{key}": key.encode() for key in keys})
    inputs = [Input.from_line(one.to_line()) for one in listed("memory://b/album")]
    assert sorted(read_all(inputs)) == sorted(key.encode() for key in keys)
    assert read_all(listed("memory://b/album/me[1].jpg")) == [b"me[1].jpg"]


def test_a_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from dulian.errors import MissingDependencyError

    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'dulian\[s3\]'"):
        listed("s3://bucket/album")


def test_an_azure_address_without_an_account_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING", raising=False)
    monkeypatch.setenv("AZURE_STORAGE_ANON", "true")
    with pytest.raises(MalformedInputError, match="cannot open az://"):
        listed("az://container/album")


# ── S3, over real sockets ────────────────────────────────────────────────────────────────────────


@pytest.fixture
def album_on_s3(s3_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> S3Bucket:
    monkeypatch.setattr(pages, "_PAGE", 2)
    for name, data in {**ALBUM, **BESIDE}.items():
        s3_bucket.put(name, data)
    s3_bucket.put("folder/", b"")
    return s3_bucket


def test_s3_is_listed_page_by_page_and_read(album_on_s3: S3Bucket) -> None:
    url = album_on_s3.url
    inputs = listed(url)
    assert problems(inputs) == {}
    assert {
        one.source.removeprefix(f"{url}/"): data for one, data in zip(inputs, read_all(inputs), strict=True)
    } == ALBUM
    assert all(one.version and one.size is not None for one in inputs)
    assert inputs == listed(f"{url}/") == listed(f"{url}/**")
    assert [one.source for one in listed(f"{url}/s*/*.PNG")] == [f"{url}/sub/b.PNG"]
    assert [one.source for one in listed(f"{url}/a.jpg")] == [f"{url}/a.jpg"]
    assert len(listed(f"s3://{album_on_s3.name}")) == len(ALBUM)


def test_s3_says_what_is_not_there(album_on_s3: S3Bucket) -> None:
    missing = [f"{album_on_s3.url}/none", f"{album_on_s3.url}/none.jpg", "s3://no-such-bucket-here/album"]
    assert list(problems(listed(*missing))) == missing
    with pytest.raises(InputNotFoundError, match="no such object"):
        read_all([Input(source=f"{album_on_s3.url}/none.jpg", size=5)])


def test_archives_and_lists_on_s3(s3_bucket: S3Bucket) -> None:
    s3_bucket.put("a.zip", zip_bytes(ALBUM))
    s3_bucket.put("a.tar", tar_bytes(ALBUM))
    s3_bucket.put("a.tar.gz", tar_bytes(ALBUM, "gz"))
    s3_bucket.put("list.txt", "".join(f"{s3_bucket.url}/a.zip::{name}\n" for name in ALBUM).encode())
    for name in ("a.zip", "a.tar", "a.tar.gz", "list.txt"):
        assert read_all(listed(f"{s3_bucket.url}/{name}")) == list(ALBUM.values())


def test_s3_over_a_line_that_fails(album_on_s3: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = ["500", None, "cut", "503", None, "refused", "lost", None, "slow"]
    with faulty(album_on_s3, monkeypatch) as (behind, proxy):
        proxy.choose = lambda request, number: faults[number % len(faults)]
        inputs = listed(behind.url)
        reader = open_reader(base=".", max_bytes=10**6)
        with ThreadPoolExecutor(4) as threads:
            read = list(threads.map(reader.read, inputs * 5))
        reader.close()
        assert proxy.faults() > 10
    assert sorted(read) == sorted([*ALBUM.values()] * 5)


def test_s3_that_only_fails_is_unavailable_after_five_requests(
    album_on_s3: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty(album_on_s3, monkeypatch) as (behind, proxy):
        for fault in ("503", "cut"):
            proxy.choose = lambda request, number, fault=fault: fault  # type: ignore[misc]
            asked = len(proxy.seen)
            with pytest.raises(InputUnavailableError, match="after 5 tries"):
                read_all([Input(source=f"{behind.url}/sub/b.PNG", size=len(ALBUM["sub/b.PNG"]))])
            assert len(proxy.seen) - asked == 5


def test_missing_credentials_are_said_at_once(
    s3_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(InputNotFoundError, match="credentials"):
        listed(s3_bucket.url)


# ── Google's and Microsoft's drivers, before a server that speaks as much of their protocols as is asked ─────────


@pytest.fixture
def http_server() -> Iterator[Callable[[HttpAnswer], int]]:
    """Starts a server that answers with a function of path and headers; all end with the test."""
    servers = []

    def start(answer: HttpAnswer) -> int:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, headers, body = answer(self.path, dict(self.headers))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        return server.server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def ranged(data: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    wanted = headers.get("Range") or headers.get("x-ms-range")
    if wanted is None:
        return 200, {}, data
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    part = data[int(first) : int(last) + 1]
    return 206, {"Content-Range": f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"}, part


def test_google_cloud_storage(
    http_server: Callable[[HttpAnswer], int], monkeypatch: pytest.MonkeyPatch, no_long_waits: None
) -> None:
    monkeypatch.setattr(pages, "_PAGE", 2)
    names = sorted(ALBUM)
    asked: list[str] = []

    def answer(path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        asked.append(path)
        parts = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/storage/v1/b/bucket/o":
            prefix, at = query.get("prefix", ""), int(query.get("pageToken", 0))
            found = [name for name in names if f"album/{name}".startswith(prefix)]
            items = [
                {"name": f"album/{name}", "size": str(len(ALBUM[name])), "generation": "7", "bucket": "bucket"}
                for name in found[at : at + 2]
            ]
            more = {"nextPageToken": str(at + 2)} if at + 2 < len(found) else {}
            body = {"kind": "storage#objects", "items": items, **more}
            return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()
        name = unquote(parts.path.rpartition("/o/")[2]).removeprefix("album/")
        if name not in ALBUM:
            return 404, {}, b"{}"
        if query.get("alt") == "media":
            return ranged(ALBUM[name], headers)
        return 200, {}, json.dumps({"name": f"album/{name}", "size": len(ALBUM[name]), "generation": "7"}).encode()

    port = http_server(answer)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    for scheme in ("gs", "gcs"):
        inputs = listed(f"{scheme}://bucket/album")
        assert [one.source for one in inputs] == [f"{scheme}://bucket/album/{name}" for name in names]
        assert {one.version for one in inputs} == {"7"}
        assert read_all(inputs) == [ALBUM[name] for name in names]
    assert sum("pageToken" in path for path in asked) >= 4
