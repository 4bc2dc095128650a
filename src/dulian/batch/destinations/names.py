"""Names below a destination, kept inside it; and the names of files that are not committed yet."""

from __future__ import annotations

import os
import re
import secrets
import socket
from dataclasses import dataclass

from dulian.errors import MalformedInputError
from dulian.sources import printable

# Folders hold names of 255 bytes; this leaves room for who writes it.
_MAX_STEM_BYTES = 100
_MAX_NAME_BYTES = 255


def parts_of(name: str) -> tuple[str, ...]:
    """The folders and the last part of a relative name.

    Raises:
        MalformedInputError: It leads out of its folder, or is no name that every system and store can hold.
    """
    parts = tuple(name.split("/"))
    if any(part in ("", ".", "..") for part in parts):
        raise MalformedInputError(f"{printable(name)!r} is no name inside the output: write folder/file, without '..'")
    if any(character in name for character in "\0\\") or (os.name == "nt" and ":" in name) or not _is_text(name):
        raise MalformedInputError(f"{printable(name)!r} is no name for a file that every system can hold")
    if any(len(part.encode()) > _MAX_NAME_BYTES for part in parts):
        raise MalformedInputError(f"{printable(name)[:80]!r}… is longer than {_MAX_NAME_BYTES} bytes")
    return parts


def folders_of(folder: str) -> tuple[str, ...]:
    """The parts of a relative folder; none for the destination itself.

    Raises:
        MalformedInputError: As :func:`parts_of`.
    """
    return parts_of(folder) if folder else ()


@dataclass(frozen=True, slots=True)
class Temporary:
    """Who writes a file that is not committed yet: ``stem@host@pid@token``."""

    host: str
    pid: int

    @classmethod
    def of_this_process(cls) -> Temporary:
        """This machine and this process."""
        return cls(_this_host(), os.getpid())

    @classmethod
    def parse(cls, name: str) -> Temporary | None:
        """Who wrote the file of this name; None if it is no such name."""
        parts = name.rsplit("@", 3)
        return cls(parts[1], int(parts[2])) if len(parts) == 4 and re.fullmatch("[0-9]+", parts[2]) else None

    def new_name(self, name: str) -> str:
        """A name that nobody else uses, for what will become ``name``."""
        stem = name.rpartition("/")[2].encode()[:_MAX_STEM_BYTES].decode(errors="ignore")
        return f"{stem}@{self.host}@{self.pid}@{secrets.token_hex(8)}"

    def is_dead(self) -> bool:
        """Whether it is sure that this process has ended: it was one of this machine, and is no more."""
        # Windows has no signal that does nothing, and what is sent instead would end the process.
        if os.name == "nt" or self.host != _this_host():
            return False
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:
            return False
        return False


def _this_host() -> str:
    """This machine, or this container of it: a number of a process means nothing outside its namespace."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:64]
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return host
    return f"{host}.{re.sub('[^0-9]', '', namespace)}"


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
