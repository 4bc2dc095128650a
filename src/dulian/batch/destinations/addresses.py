"""Which addresses are accepted, and the driver for each kind."""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from dulian.errors import MalformedInputError, MissingDependencyError
from dulian.sources import printable

if TYPE_CHECKING:
    from dulian.batch.destinations.driver import Driver

# One letter is a drive of Windows.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRow:
    """Where a driver lives, the module it needs, and the extra that brings that."""

    module: str
    name: str
    requires: str
    extra: str | None = None


_S3 = StoreRow(module="dulian.batch.destinations.s3", name="S3Driver", requires="s3fs", extra="s3")
_GCS = StoreRow(module="dulian.batch.destinations.gcs", name="GcsDriver", requires="gcsfs", extra="gcs")
_AZURE = StoreRow(module="dulian.batch.destinations.azure", name="AzureDriver", requires="adlfs", extra="azure")
_MEMORY = StoreRow(module="dulian.batch.destinations.memory", name="MemoryDriver", requires="fsspec")

STORES: dict[str, StoreRow] = {
    "s3": _S3,
    "gs": _GCS,
    "gcs": _GCS,
    "az": _AZURE,
    "abfs": _AZURE,
    "abfss": _AZURE,
    "memory": _MEMORY,
}


def scheme_of(place: str) -> str | None:
    """The scheme of an address, small; None for a path."""
    found = _ADDRESS.match(place)
    return found[1].lower() if found else None


def path_of(place: str) -> Path:
    """The path that a path or a ``file://`` address stands for.

    Raises:
        MalformedInputError: The address is of another machine.
    """
    if scheme_of(place) != "file":
        return Path(place)
    path = place[len("file://") :]
    if not path.startswith("/"):
        raise MalformedInputError(f"{printable(place)!r} is no file of this machine: file:///folder")
    return Path(path[1:] if re.match("/[A-Za-z]:", path) else path)


def check_address(address: str) -> str:
    """An address of a place in a store, without a slash at its end.

    Raises:
        MalformedInputError: It is of no kind that is accepted, names no bucket, or holds what may be secret.
    """
    scheme = scheme_of(address)
    if scheme not in STORES:
        accepted = ", ".join(f"{name}://" for name in STORES)
        raise MalformedInputError(f"{scheme}:// cannot be written to; choose a folder, file://, {accepted}")
    # What is refused is not repeated: messages go into logs.
    try:
        parts = urlsplit(address)
        has_secrets = bool(parts.password or (parts.username and STORES[scheme] is not _AZURE))
    except ValueError as error:
        raise MalformedInputError(f"a {scheme}:// address is damaged: {error}") from error
    if has_secrets:
        raise MalformedInputError(
            f"a {scheme}:// address holds a user or a password; credentials are taken from the environment and from the"
            " files of the store's own tools"
        )
    if parts.query or parts.fragment or "?" in address or "#" in address:
        raise MalformedInputError(f"a {scheme}:// address holds '?' or '#'; a place in a store has neither")
    if not parts.netloc:
        raise MalformedInputError(f"{printable(address)!r} names no bucket: {scheme}://bucket/folder")
    folders = parts.path.strip("/").split("/")
    if any(part in (".", "..") or (not part and len(folders) > 1) for part in folders) or not address.isprintable():
        raise MalformedInputError(f"{printable(address)!r} is no place in a store: {scheme}://bucket/folder")
    return address.rstrip("/")


def open_driver(address: str) -> Driver:
    """The driver for an address that :func:`check_address` has let pass.

    Raises:
        MissingDependencyError: Its library is not installed.
    """
    scheme = cast(str, scheme_of(address))
    row = STORES[scheme]
    if importlib.util.find_spec(row.requires) is None:
        raise MissingDependencyError(f"{scheme}:// needs {row.requires}; pip install 'dulian[{row.extra}]'")
    return cast("Driver", getattr(importlib.import_module(row.module), row.name)())
