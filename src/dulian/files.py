"""Bytes on disk: read once and bounded, written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from dulian.sources import printable

# What a writer that was killed leaves behind.
PART_PREFIX = ".dulian-part-"

# Absent on Windows: without it a pipe in the folder would block the open for ever.
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_LOOSE = stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP


def shown(path: Path) -> str:
    """The path as one line of printable text, whatever bytes its name has."""
    return printable(str(path))


def is_loose(path: Path) -> bool:
    """Whether others can read a file, or others or its group change it; asked of systems that have such rights.

    Raises:
        OSError: There is no such file.
    """
    return os.name == "posix" and bool(os.stat(path).st_mode & _LOOSE)


@contextmanager
def open_regular(path: Path, max_bytes: int) -> Iterator[BufferedReader]:
    """A regular file of bounded size, judged after opening so that nothing can be swapped between.

    Raises:
        OSError: It does not open, is a folder, pipe or device, or is larger than ``max_bytes``.
    """
    descriptor = os.open(path, _READ_FLAGS)
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if info.st_size > max_bytes:
            raise OSError(errno.EFBIG, f"{info.st_size} bytes, more than the {max_bytes} allowed", str(path))
    except OSError:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as stream:
        yield stream


def read_regular(path: Path, max_bytes: int) -> bytes:
    """All bytes of a regular file.

    Raises:
        OSError: As :func:`open_regular`.
    """
    with open_regular(path, max_bytes) as stream:
        return stream.read(max_bytes)


def write_atomically(path: Path, data: bytes, *, mode: int = 0o666, like: os.stat_result | None = None) -> None:
    """Put the bytes under their final name in one step; whoever looks sees the old file or the new one.

    The file gets ``mode``, less what the umask takes away, or the owner and the rights of what it is to be ``like``.

    Raises:
        OSError: The folder cannot be written; no part of the file is left behind.
    """
    with writing_atomically(path, mode=mode, like=like) as stream:
        stream.write(data)


@contextmanager
def writing_atomically(path: Path, *, mode: int = 0o666, like: os.stat_result | None = None) -> Iterator[BinaryIO]:
    """A stream whose bytes are in place, over what was there, when the block ends without an error.

    Raises:
        OSError: As :func:`write_atomically`.
    """
    part = path.with_name(f"{PART_PREFIX}{secrets.token_hex(8)}")
    descriptor = os.open(part, _WRITE_FLAGS, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            if like is not None:
                _liken(stream.fileno(), like)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _liken(descriptor: int, like: os.stat_result) -> None:
    if os.name == "nt":
        return
    with suppress(PermissionError):  # only root gives files away
        os.fchown(descriptor, like.st_uid, like.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(like.st_mode))


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
