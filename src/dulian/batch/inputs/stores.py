"""Objects of stores that fsspec has a driver for: looked up, read bounded and whole, and read as a file in pieces."""

from __future__ import annotations

import importlib
import io
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar

from dulian.batch.inputs.names import Place
from dulian.batch.inputs.trying import REQUEST_S, Failures, tried
from dulian.errors import InputNotFoundError, InputTooLargeError, MalformedInputError, MissingDependencyError
from dulian.sources import printable

T = TypeVar("T")

_CONNECT_S, _READ_S = 5, 15
_CONNECTIONS = 32
_BUFFER = 2**20
_KNOWN_SIZES = 10_000
# Their drivers report each try that fails, with its traceback; without any handler that lands on the terminal.
_TALKATIVE = ("gcsfs", "azure")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Driver:
    """``failures`` are what it raises besides what any driver does; ``passing`` and ``final`` as in `Failures`."""

    extra: str | None = None
    failures: tuple[str, ...] = ()
    passing: tuple[str, ...] = ()
    final: tuple[str, ...] = ()
    options: Callable[[], Mapping[str, Any]] = dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An object as a listing tells it; ``key`` is its name in its bucket."""

    key: str
    size: int | None
    version: str | None
    is_folder: bool = False


def _s3_options() -> Mapping[str, Any]:
    # One try each: `tried` counts them, and it alone knows when to give up.
    retries = {"total_max_attempts": 1, "mode": "standard"}
    timeouts = {"connect_timeout": _CONNECT_S, "read_timeout": _READ_S}
    return {"config_kwargs": {"retries": retries, "max_pool_connections": _CONNECTIONS, **timeouts}}


def _gcs_options() -> Mapping[str, Any]:
    import aiohttp

    return {"requests_timeout": aiohttp.ClientTimeout(sock_connect=_CONNECT_S, sock_read=_READ_S)}


def _azure_options() -> Mapping[str, Any]:
    return {"connection_timeout": _CONNECT_S, "read_timeout": _READ_S}


_CONNECTION = ("aiohttp.ClientPayloadError", "aiohttp.ClientConnectionError")
_S3 = _Driver(
    extra="s3",
    passing=(
        *_CONNECTION,
        "botocore.exceptions.ConnectionError",
        "botocore.exceptions.HTTPClientError",
        "botocore.exceptions.IncompleteReadError",
    ),
    failures=("botocore.exceptions.BotoCoreError", "botocore.exceptions.ClientError", "aiohttp.ClientError"),
    final=(
        "botocore.exceptions.NoCredentialsError",
        "botocore.exceptions.PartialCredentialsError",
        "botocore.exceptions.ProfileNotFound",
        "botocore.exceptions.ParamValidationError",
    ),
    options=_s3_options,
)
_GCS = _Driver(
    extra="gcs",
    passing=_CONNECTION,
    failures=(
        "gcsfs.retry.HttpError",
        "gcsfs.retry.ChecksumError",
        "google.auth.exceptions.GoogleAuthError",
        "aiohttp.ClientError",
    ),
    final=("google.auth.exceptions.DefaultCredentialsError",),
    options=_gcs_options,
)
_AZURE = _Driver(
    extra="azure",
    passing=(
        *_CONNECTION,
        "azure.core.exceptions.ServiceRequestError",
        "azure.core.exceptions.ServiceResponseError",
        "azure.core.exceptions.IncompleteReadError",
    ),
    failures=("azure.core.exceptions.AzureError", "aiohttp.ClientError"),
    final=("azure.core.exceptions.ClientAuthenticationError",),
    options=_azure_options,
)
_DRIVERS = {"s3": _S3, "gs": _GCS, "gcs": _GCS, "az": _AZURE, "abfs": _AZURE, "abfss": _AZURE, "memory": _Driver()}


class Store:
    """One scheme, with one account, in this process; used by any number of threads.

    Every method that asks the store raises :class:`InputUnavailableError` if all tries fail, and
    :class:`InputNotFoundError` if it refuses.
    """

    def __init__(self, scheme: str, account: str | None) -> None:
        self.scheme = scheme
        self._driver, self._account = _DRIVERS[scheme], account
        self._opening = threading.Lock()
        # Of archives, which are opened again for every member.
        self._sizes: dict[str, int] = {}

    @cached_property
    def filesystem(self) -> Any:
        """What fsspec calls it. Made anew in every process, because none survives a fork.

        Raises:
            MissingDependencyError: Its driver is not installed.
            MalformedInputError: It lacks something that its environment has to say, such as an account.
        """
        import fsspec

        for name in _TALKATIVE:
            logging.getLogger(name).addHandler(logging.NullHandler())
        account = {} if self._account is None else {"account_name": self._account}
        try:
            options = {**self._driver.options(), **account}
            made = fsspec.filesystem(self.scheme, skip_instance_cache=True, use_listings_cache=False, **options)
        except ImportError as error:
            extra = self._driver.extra
            raise MissingDependencyError(f"{self.scheme}:// needs a driver: pip install 'dulian[{extra}]'") from error
        except ValueError as error:
            raise MalformedInputError(f"cannot open {self.scheme}://: {error}") from error
        return _with_one_try(self.scheme, made)

    @cached_property
    def _failures(self) -> Failures:
        return Failures(
            (OSError, EOFError, ValueError, RuntimeError, *map(_class, self._driver.failures)),
            tuple(map(_class, self._driver.passing)),
            tuple(map(_class, self._driver.final)),
        )

    def ask(self, request: Callable[[], T], name: str) -> T:
        """The answer of a request about what has this name; raises FileNotFoundError if there is no such thing."""
        return tried(request, failures=self._failures, name=name)

    def open(self) -> None:
        """Make sure that it can be used, from one thread at a time."""
        with self._opening:
            _ = self.filesystem, self._failures

    def path(self, place: Place) -> str:
        """What the driver calls a place."""
        bucket = place.bucket.partition("@")[0]
        path = f"{bucket}/{place.key}" if place.key else bucket
        return f"/{path}" if self.scheme == "memory" else path

    def find(self, place: Place) -> Found | None:
        """The object or the folder of exactly this name; None if there is none."""
        try:
            info = self.ask(partial(self.filesystem.info, self.path(place)), place.address)
        except FileNotFoundError:
            return None
        return found_of(info, place.key)

    def read(self, place: Place, size: int | None, max_bytes: int) -> bytes:
        """All bytes of an object; ``size`` is what its listing said.

        One byte more is asked for, so that it shows if the object has grown.

        Raises:
            InputNotFoundError: There is no such object.
            InputTooLargeError: It is larger than is accepted.
        """
        expected = size

        def attempt() -> bytes:
            nonlocal expected
            if expected is None:
                expected = self._size(place)
            if expected > max_bytes:
                raise InputTooLargeError(f"more than {max_bytes:,} bytes are not accepted")
            data = self._range(place, 0, expected + 1) if expected else b""
            if len(data) != expected:
                told, expected = expected, None
                raise ConnectionError(f"{len(data):,} of {told:,} bytes came")
            return data

        return self._existing(attempt, place)

    def stream(self, place: Place, *, buffer: int = _BUFFER) -> io.BufferedReader:
        """An object as a file that can be read from any place, so many bytes at once.

        Raises:
            InputNotFoundError: There is no such object.
        """
        size = self._sizes.get(place.path)
        if size is None:
            size = self._existing(partial(self._size, place), place)
            if len(self._sizes) < _KNOWN_SIZES:
                self._sizes[place.path] = size
        return io.BufferedReader(_Ranges(partial(self._read_range, place), size), buffer)

    def _read_range(self, place: Place, start: int, end: int) -> bytes:
        def attempt() -> bytes:
            data = self._range(place, start, end)
            if len(data) != end - start:
                raise ConnectionError(f"{len(data):,} of {end - start:,} bytes came")
            return data

        return self._existing(attempt, place)

    def _range(self, place: Place, start: int, end: int) -> bytes:
        data: bytes = self.filesystem.cat_file(self.path(place), start=start, end=end, timeout=REQUEST_S)
        return data

    def _size(self, place: Place) -> int:
        info = self.filesystem.info(self.path(place))
        if info["type"] == "directory" or info.get("size") is None:
            raise FileNotFoundError(place.address)
        return int(info["size"])

    def _existing(self, attempt: Callable[[], T], place: Place) -> T:
        try:
            return self.ask(attempt, place.address)
        except FileNotFoundError as error:
            raise InputNotFoundError(f"cannot read {printable(place.address)}: no such object") from error


class Stores:
    """The stores that a process uses, each opened when it is first asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stores: dict[tuple[str, str | None], Store] = {}

    def of(self, place: Place) -> Store:
        """The store of a place.

        Raises:
            MissingDependencyError: Its driver is not installed.
            MalformedInputError: It cannot be opened as things are.
        """
        scheme = place.scheme or ""
        account = place.bucket.partition("@")[2].partition(".")[0] or None
        with self._lock:
            store = self._stores.setdefault((scheme, account), Store(scheme, account))
        store.open()
        return store

    def close(self) -> None:
        """Let go of all connections."""
        with self._lock:
            self._stores.clear()


class _Ranges(io.RawIOBase):
    """A file whose bytes are fetched range by range."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._fetch, self._size, self._position = fetch, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        end = min(self._position + len(buffer), self._size)
        if end <= self._position:
            return 0
        data = self._fetch(self._position, end)
        buffer[: len(data)] = data
        self._position = end
        return len(data)


def found_of(info: Mapping[str, Any], key: str) -> Found:
    """What a driver tells of an object."""
    versions = (info.get(name) for name in ("ETag", "etag", "generation", "mtime", "last_modified", "created"))
    version = next((str(value).strip('"') for value in versions if value is not None), None)
    size = info.get("size")
    return Found(
        key=key,
        size=None if size is None else int(size),
        version=version,
        is_folder=info["type"] == "directory",
    )


def _class(name: str) -> type[BaseException]:
    module, _, attribute = name.rpartition(".")
    found: type[BaseException] = getattr(importlib.import_module(module), attribute)
    return found


def _with_one_try(scheme: str, filesystem: Any) -> Any:
    """Drivers that count tries by themselves are told not to, where they can be told."""
    if scheme == "s3":
        filesystem.retries = 1
    elif _DRIVERS[scheme] is _AZURE:
        filesystem.service_client._config.retry_policy.total_retries = 0
    return filesystem
