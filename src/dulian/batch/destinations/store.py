"""Files in an object store: put under their name by requests that the store refuses if the name is taken."""

from __future__ import annotations

import io
import os
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from dulian.batch.destinations.addresses import open_driver
from dulian.batch.destinations.driver import MAX_CREATE_BYTES, Driver
from dulian.batch.destinations.names import Temporary, folders_of, parts_of
from dulian.batch.destinations.parts import PartFile
from dulian.batch.failures import reason_of
from dulian.batch.patience import Patience
from dulian.batch.shards import STAGING
from dulian.errors import DestinationError
from dulian.sources import printable

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

PATIENCE_S = 30.0
_NO_CONDITION = (
    "this store does not refuse to put a file over one that is there (If-None-Match: * of S3 and Azure,"
    " ifGenerationMatch=0 of Google), without which no file can be committed exactly once. Amazon S3, Google Cloud"
    " Storage, Azure Blob Storage, MinIO, Ceph and Cloudflare R2 do; choose another store, or a folder"
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoreDestination:
    """See :class:`dulian.batch.destinations.Destination`.

    A request whose answer is lost may have been carried out, and HTTP clients ask again without saying so. So if
    :meth:`create` finds the name taken, it looks whether what lies there bears its own token.
    """

    url: str
    patience_s: float = PATIENCE_S
    # Connections belong to one process: whoever is forked makes its own, and leaves those of its parent untouched.
    _processes: dict[int, _Opened] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __reduce__(self) -> tuple[Callable[..., StoreDestination], tuple[str, float]]:
        return StoreDestination, (self.url, self.patience_s)

    def prepare(self) -> None:
        probe = f"{STAGING}/{Temporary.of_this_process().new_name('probe')}"
        made = self.create(probe, b"first")
        try:
            if not made or self.create(probe, b"second") or self.read(probe) != b"first":
                raise DestinationError(f"{self.url}: {_NO_CONDITION}")
        finally:
            self.remove(probe)

    def create(self, name: str, data: bytes) -> bool:
        path, doing = self._path(name), f"cannot write {printable(name)}"
        if len(data) > MAX_CREATE_BYTES:
            raise DestinationError(f"{self.url}: {doing}: {len(data):,} bytes are more than {MAX_CREATE_BYTES:,}")
        opened, patience, token = self._opened(doing), Patience(self.patience_s), secrets.token_hex(16)
        while True:
            try:
                opened.driver.create(opened.filesystem, path, data, token=token)
            except opened.driver.failures as error:
                outcome = opened.driver.outcome_of(error)
                if outcome == "exists":
                    return bool(self._find(doing, lambda one: one.driver.has_token(one.filesystem, path, token)))
                if outcome == "unsupported":
                    raise DestinationError(f"{self.url}: {_NO_CONDITION}") from error
                if outcome != "passing" or not patience.wait():
                    raise self._failure(doing, error) from error
            else:
                return True

    def replace(self, name: str, data: bytes) -> None:
        path = self._path(name)
        self._ask(f"cannot write {printable(name)}", lambda one: one.driver.replace(one.filesystem, path, data))

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        path, doing = self._path(name), f"cannot write {printable(name)}"
        with _spool(f"{self.url}: {doing}") as (stream, local):
            yield cast(BinaryIO, stream)
            if not stream.closed:
                stream.flush()
            size = os.path.getsize(local)
            self._ask(doing, lambda one: one.driver.upload(one.filesystem, str(local), path, size))

    def read(self, name: str) -> bytes | None:
        path = self._path(name)
        return self._find(f"cannot read {printable(name)}", lambda one: one.driver.read(one.filesystem, path))

    def names(self, folder: str) -> Iterator[str]:
        parts, doing, token = folders_of(folder), f"cannot list {printable(folder) or 'it'}", None
        while True:
            ask = partial(self._page, parts, token)
            names, token = self._find(doing, ask) or ([], None)
            yield from names
            if token is None:
                return

    def remove(self, name: str) -> None:
        path = self._path(name)
        self._find(f"cannot remove {printable(name)}", lambda one: one.driver.remove(one.filesystem, path))

    def _page(self, parts: tuple[str, ...], token: Any, one: _Opened) -> tuple[list[str], Any]:
        return one.driver.page(one.filesystem, "/".join([one.root, *parts]), token)

    def _path(self, name: str) -> str:
        parts_of(name)
        return f"{self._opened(f'cannot open {printable(name)}').root}/{name}"

    def _ask(self, doing: str, request: Callable[[_Opened], T]) -> T:
        """The answer to a request that may be made any number of times."""
        opened, patience = self._opened(doing), Patience(self.patience_s)
        while True:
            try:
                return request(opened)
            except opened.driver.failures as error:
                if opened.driver.outcome_of(error) != "passing" or not patience.wait():
                    raise self._failure(doing, error) from error

    def _find(self, doing: str, request: Callable[[_Opened], T]) -> T | None:
        """The same, of something that may not be there."""

        def ask(one: _Opened) -> T | None:
            try:
                return request(one)
            except one.driver.failures as error:
                if one.driver.outcome_of(error) == "absent":
                    return None
                raise

        return self._ask(doing, ask)

    def _opened(self, doing: str) -> _Opened:
        process = os.getpid()
        opened = self._processes.get(process) or self._processes.setdefault(process, _Opened(self.url))
        try:
            opened.open()
        except opened.driver.failures as error:
            raise self._failure(doing, error) from error
        return opened

    def _failure(self, doing: str, error: Exception) -> DestinationError:
        reason = reason_of(error)
        if isinstance(error, FileNotFoundError):  # of which drivers say no more than the address
            reason = "there is no such bucket, or no right to see it"
        return DestinationError(f"{self.url}: {doing}: {reason}")


class _Opened:
    """The driver and the filesystem of one process."""

    filesystem: AbstractFileSystem
    root: str

    def __init__(self, url: str) -> None:
        self.driver: Driver = open_driver(url)
        self._url = url
        self._lock = threading.Lock()
        self._ready = False

    def open(self) -> None:
        with self._lock:
            if not self._ready:
                self.filesystem = self.driver.open_filesystem(self._url)
                self.root = self.filesystem._strip_protocol(self._url).rstrip("/")
                self._ready = True


@contextmanager
def _spool(doing: str) -> Iterator[tuple[io.BufferedWriter[PartFile], Path]]:
    """A local file, because what is sent in part cannot be taken back."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="dulian-")
    except OSError as error:
        raise DestinationError(f"{doing}: {error.strerror}") from error
    with folder:
        path = Path(folder.name, "part")
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        except OSError as error:
            raise DestinationError(f"{doing}: {error.strerror}") from error
        raw = PartFile(descriptor, f"{doing} (in {folder.name} first)")
        stream = io.BufferedWriter(raw)
        try:
            yield stream, path
        finally:
            raw.given_up = True
            stream.close()
            os.close(descriptor)
