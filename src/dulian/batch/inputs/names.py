"""What a name stands for: a local file, an archive's member or an object of a store; and what its input is called."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import Any

from dulian.batch.records import Input
from dulian.errors import InputNotFoundError, MalformedInputError
from dulian.sources import PICTURE_SUFFIXES, printable

MEMBER = "::"
# In front of a name that would otherwise be taken for an archive's member: one file of exactly this name.
WHOLE = "file::"
STORES = ("s3", "gs", "gcs", "az", "abfs", "abfss", "memory")
ZIP_SUFFIXES = (".zip", ".cbz")
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ARCHIVE_SUFFIXES = (*ZIP_SUFFIXES, *TAR_SUFFIXES)
LIST_SUFFIXES = (".txt", ".lst", ".csv", ".tsv", ".parquet", ".jsonl")

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_WITH_ACCOUNT = ("abfs", "abfss", "az")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something lies: ``path`` on this machine, or below ``scheme`` in a store; ``member`` within an archive."""

    path: str
    scheme: str | None = None
    member: str | None = None

    @property
    def address(self) -> str:
        """The file or object, without the member."""
        return self.path if self.scheme is None else f"{self.scheme}://{self.path}"

    @property
    def bucket(self) -> str:
        """The first part of a store's path."""
        return self.path.partition("/")[0]

    @property
    def key(self) -> str:
        """What follows the bucket."""
        return self.path.partition("/")[2]


def place_of(name: str) -> Place:
    """What a source, a list's entry or an input's location stands for.

    Raises:
        MalformedInputError: It is empty, or an address of a kind that is not accepted.
    """
    if not name:
        raise MalformedInputError("an empty name is no picture; '.' is the current folder")
    if name.startswith(WHOLE):
        return _located(name.removeprefix(WHOLE), None)
    at = name.find(MEMBER)
    while at >= 0:
        if name[:at].lower().endswith(ARCHIVE_SUFFIXES):
            return _located(name[:at], name[at + len(MEMBER) :])
        at = name.find(MEMBER, at + 1)
    return _located(name, None)


def file_input(name: str, **fields: Any) -> Input:
    """The input of a file or object."""
    return _named(name, f"{WHOLE}{name}" if MEMBER in name and _is_ambiguous(name) else name, fields)


def member_input(archive: str, member: str, **fields: Any) -> Input:
    """The input of an archive's member."""
    name = f"{archive}{MEMBER}{member}"
    return _named(name, name, fields)


def refused_input(name: str, reason: str) -> Input:
    """The input of a file or object that is reported and not opened."""
    return file_input(name, problem=_unreadable(name, reason))


def refused_member(archive: str, member: str, reason: str) -> Input:
    """The input of a member that is reported and not opened."""
    return member_input(archive, member, problem=_unreadable(f"{archive}{MEMBER}{member}", reason))


def renamed(one: Input, name: str) -> Input:
    """The same input under the name that somebody wrote, by which it is opened too."""
    source = printable(name)
    return replace(one, source=source, path=None if source == name else name)


def moved(one: Input, folder: str) -> Input:
    """The same input, opened below a folder if it is opened at all and its name is relative."""
    place = place_of(one.location)
    if one.problem is not None or place.scheme is not None or os.path.isabs(place.path):
        return one
    path = os.path.join(folder, place.path)
    whole = path if place.member is None else f"{path}{MEMBER}{place.member}"
    return replace(one, path=f"{WHOLE}{whole}" if one.location.startswith(WHOLE) else whole)


def is_picture(name: str) -> bool:
    """Whether a file's name is a picture's."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES


def is_hidden(path: str) -> bool:
    """Whether a part of a path with ``/`` is hidden; ``.`` and ``..`` are not."""
    return any(part.startswith(".") and part not in (".", "..") for part in path.split("/"))


def _unreadable(name: str, reason: str) -> tuple[str, str]:
    return InputNotFoundError.code, f"cannot read {printable(name)}: {printable(reason)}"


def _named(name: str, location: str, fields: dict[str, Any]) -> Input:
    source = name if name.isprintable() else printable(name)
    return Input(source=source, path=None if location == source else location, **fields)


def _is_ambiguous(name: str) -> bool:
    return name.startswith(WHOLE) or place_of(name).member is not None


def _located(name: str, member: str | None) -> Place:
    found = _ADDRESS.match(name)
    if found is None:
        return Place(name, member=member)
    scheme, rest = found[1].lower(), name[found.end() :]
    if scheme == "file":
        return Place(_local_path(name, rest), member=member)
    if scheme not in STORES:
        accepted = ", ".join(f"{one}://" for one in ("file", *STORES))
        raise MalformedInputError(f"pictures are not read from {scheme}://; accepted are paths and {accepted}")
    _check_address(scheme, rest)
    return Place(rest, scheme, member)


def _local_path(name: str, rest: str) -> str:
    if not rest.startswith("/"):
        raise MalformedInputError(f"{printable(name)} names no path: file:// is followed by one that begins with /")
    return rest.lstrip("/") if os.name == "nt" else rest


def _check_address(scheme: str, rest: str) -> None:
    bucket = rest.partition("/")[0]
    if not bucket:
        raise MalformedInputError(f"{scheme}:// names no bucket or container")
    account = bucket.partition("@")[2]
    # A key or a password must not get into manifests and logs.
    if ":" in bucket or ("@" in bucket and not (scheme in _WITH_ACCOUNT and "." in account)):
        raise MalformedInputError(f"a {scheme}:// address names no user or password; drivers read them elsewhere")
    try:
        rest.encode()
    except UnicodeEncodeError as error:
        raise MalformedInputError(f"{scheme}://{printable(rest)} is no text, as names in stores are") from error
