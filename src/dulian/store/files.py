"""Bytes on disk: read once and bounded, written whole or not at all, one writer per folder.

Nothing here knows a model or a package.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from filelock import FileLock, Timeout

from dulian.errors import WeightsError
from dulian.sources import printable

LOCK_NAME = ".dulian-lock"
PART_PREFIX = ".dulian-part-"
STAGING_PREFIX = ".dulian-pull-"

# Absent on Windows: without it a pipe in the folder would block the open for ever.
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def shown(path: Path) -> str:
    """The path as one line of printable text, whatever bytes its name has."""
    return printable(str(path))


def sha256_hex(data: bytes) -> str:
    """The sha256 in the spelling of the catalog."""
    return hashlib.sha256(data).hexdigest()


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


def write_atomically(path: Path, data: bytes) -> None:
    """Put the bytes under their final name in one step; whoever looks sees the old file or the new one.

    Raises:
        OSError: The folder cannot be written; no part of the file is left behind.
    """
    part = path.with_name(f"{PART_PREFIX}{secrets.token_hex(8)}")
    descriptor = os.open(part, _WRITE_FLAGS, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn what the operating system refuses while writing into one clear line."""
    try:
        yield
    except OSError as error:
        cure = "free some room" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "make it writable"
        raise WeightsError(
            f"cannot write to {shown(folder)}: {error.strerror or error}; "
            f"{cure} or choose another folder with --model-dir (DULIAN_MODEL_DIR)"
        ) from error


@contextmanager
def sole_writer(folder: Path, notify: Callable[[str], None]) -> Iterator[None]:
    """Be the only process that writes here; what killed writers left behind is removed first.

    Raises:
        OSError: The folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_NAME)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        notify(f"another process is filling {shown(folder)}; waiting for it")
        lock.acquire()
    try:
        _sweep(folder)
        yield
    finally:
        lock.release()


def _sweep(folder: Path) -> None:
    for staging in folder.glob(f"{STAGING_PREFIX}*"):
        shutil.rmtree(staging, ignore_errors=True)
    for part in (*folder.glob(f"{PART_PREFIX}*"), *folder.glob(f"*/{PART_PREFIX}*")):
        part.unlink(missing_ok=True)
