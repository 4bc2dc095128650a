"""Puts files of the catalog into the write folder: what this machine has, what is fetched, what a person brings.

A person may bring a wheel or tarball, a folder of files, or a single file of whatever name; it is known by its content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dulian.errors import InputNotFoundError, MalformedInputError, WeightsError
from dulian.files import open_regular, read_regular, shown, write_atomically
from dulian.models import catalog
from dulian.models.rows import ModelRow, Package, Source, WeightsFile
from dulian.store.archives import is_named_after, read_member, verify_archive
from dulian.store.directories import Damaged, Directories, Found
from dulian.store.originals import (
    MAX_TEXT_BYTES,
    Notify,
    accepted,
    catalog_files,
    converted,
    is_text,
    max_bytes,
    tell_nobody,
)

How = Literal["already there", "copied", "converted", "fetched", "imported", "kept for later"]
Fetch = Callable[[WeightsFile], bytes]
# Reads one file of the catalog, and judges it while reading.
Offers = dict[WeightsFile, Callable[[], bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """One file that a pull or an import put, or found, in its place; ``lacks`` names what it cannot work without."""

    file: WeightsFile
    path: Path
    how: How
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Installer:
    """Takes what is on this machine where it can, and calls ``fetch`` for the rest.

    The caller holds the lock of the write folder.
    """

    directories: Directories
    fetch: Fetch
    notify: Notify

    def settled(self, file: WeightsFile) -> Installed | None:
        """The file, if it already is where it is wanted.

        Raises:
            WeightsError: A damaged file in a folder that is searched earlier would hide whatever is put.
        """
        return self._settled(file, self.directories.look(file, self.notify))

    def install(self, row: ModelRow) -> tuple[Installed, bytes]:
        """What a session of this network loads; another process may have put it while this one waited."""
        if not row.originals or self._found(row.weights) is not None:
            return self.install_file(row.weights)
        data = converted(row, tuple(self._obtained(file) for file in row.originals))
        return self._put(row.weights, data, "converted"), data

    def install_file(self, file: WeightsFile) -> tuple[Installed, bytes]:
        """One file as published."""
        seen = self.directories.look(file, self.notify)
        settled = self._settled(file, seen)
        if isinstance(seen, Found):
            return settled or self._put(file, seen.data, "copied"), seen.data
        data = self.fetch(file)
        return self._put(file, data, "fetched"), data

    def import_files(self, offers: Offers) -> Iterator[Installed]:
        """Those of the offers that belong into this folder, converted as far as their counterparts are here."""
        for row in one_row_each(catalog.all_rows()):
            if row.weights in offers:
                yield self._put(row.weights, offers[row.weights](), "imported")
            elif any(file in offers for file in row.originals):
                yield from self._import_originals(row, offers)

    def import_samples(self, offers: Offers) -> Iterator[Installed]:
        """The sample pictures among the offers."""
        for file in catalog.SAMPLES:
            if file in offers:
                yield self._put(file, offers[file](), "imported")

    def _import_originals(self, row: ModelRow, offers: Offers) -> Iterator[Installed]:
        here = {file: found.data for file in row.originals if file not in offers and (found := self._found(file))}
        lacks = tuple(file.name for file in row.originals if file not in offers and file not in here)
        if lacks:
            for file in row.originals:
                if file in offers:
                    yield self._put(file, offers[file](), "kept for later", lacks=lacks)
            return
        data = converted(row, tuple(here[file] if file in here else offers[file]() for file in row.originals))
        yield self._put(row.weights, data, "converted")

    def _settled(self, file: WeightsFile, seen: Found | Damaged | None) -> Installed | None:
        if isinstance(seen, Damaged) and not self.directories.is_hidden_by_write(seen.path):
            self.directories.refuse(seen, file)
        if isinstance(seen, Found) and self.directories.is_wanted_at(seen.path):
            return Installed(file=file, path=seen.path, how="already there")
        return None

    def _found(self, file: WeightsFile) -> Found | None:
        seen = self.directories.look(file, self.notify)
        return seen if isinstance(seen, Found) else None

    def _obtained(self, file: WeightsFile) -> bytes:
        found = self._found(file)
        return found.data if found else self.fetch(file)

    def _put(self, file: WeightsFile, data: bytes, how: How, *, lacks: tuple[str, ...] = ()) -> Installed:
        folder: Path = self.directories.write
        folder.mkdir(exist_ok=True)
        write_atomically(folder / file.name, data)
        return Installed(file=file, path=folder / file.name, how=how, lacks=lacks)


def one_row_each(rows: Iterable[ModelRow]) -> tuple[ModelRow, ...]:
    """The first row of each file: two networks of the catalog may be one file, read in two ways."""
    first: dict[WeightsFile, ModelRow] = {}
    for row in rows:
        first.setdefault(row.weights, row)
    return tuple(first.values())


# ── what a person brings ─────────────────────────────────────────────────────────────────────────


def read_offers(path: Path, notify: Notify) -> Offers:
    """What of the catalog the path offers.

    Raises:
        InputError: There is no such file or folder, or it is a pipe or a device.
        WeightsError: Nothing in it is known, or a file bears a known name but is another.
    """
    offers: Offers = {}
    with _readable(path):
        for entry in _entries(path):
            offers.update(_recognised(entry, notify))
    if not offers:
        archives = ", ".join(package.requirement for package in _packages())
        raise WeightsError(f"{shown(path)} holds no file the catalog knows; it takes weights files, or {archives}")
    return offers


def _entries(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(entry for entry in path.iterdir() if entry.is_file())
    path.stat()
    if not path.is_file():
        raise MalformedInputError(f"{shown(path)} is neither a file nor a folder")
    return [path]


def _recognised(path: Path, notify: Notify) -> Offers:
    size = path.stat().st_size
    for package in _packages():
        if size == package.archive_bytes and _digest(path, size) == package.sha256:
            return {
                file: _from_archive(path, source, file, notify)
                for file in catalog_files()
                for source in file.sources
                if source.package == package
            }
        if is_named_after(path, package):
            verify_archive(path, package)
    file = _known_by_content(path, size) or _known_by_name(path)
    if file is None:
        return {}
    # A damaged file is refused now, before anything is installed.
    _from_file(path, file, tell_nobody)()
    return {file: _from_file(path, file, notify)}


def _from_archive(path: Path, source: Source, file: WeightsFile, notify: Notify) -> Callable[[], bytes]:
    def read() -> bytes:
        with _readable(path):
            data = read_member(path, source, file)
        return accepted(file, data, where=f"{source.member} in {shown(path)}", notify=notify)

    return read


def _from_file(path: Path, file: WeightsFile, notify: Notify) -> Callable[[], bytes]:
    def read() -> bytes:
        with _readable(path):
            data = read_regular(path, max_bytes(file))
        return accepted(file, data, where=shown(path), notify=notify)

    return read


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what the operating system says about a path that a person named into an error of the input."""
    try:
        yield
    except (FileNotFoundError, PermissionError) as error:
        raise InputNotFoundError(f"cannot read {shown(path)}: {error.strerror}") from error
    except OSError as error:
        raise MalformedInputError(f"cannot read {shown(path)}: {error.strerror}") from error


def _packages() -> tuple[Package, ...]:
    return tuple(dict.fromkeys(source.package for file in catalog_files() for source in file.sources))


def _known_by_content(path: Path, size: int) -> WeightsFile | None:
    candidates = [file for file in catalog_files() if size == file.size or (is_text(file) and size <= MAX_TEXT_BYTES)]
    if not candidates:
        return None
    found = _digest(path, size)
    return next((file for file in candidates if found == file.sha256 or found in file.equivalents), None)


def _known_by_name(path: Path) -> WeightsFile | None:
    return next((file for file in catalog_files() if path.name in (file.name, *file.aliases)), None)


def _digest(path: Path, size: int) -> str:
    with open_regular(path, size) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
