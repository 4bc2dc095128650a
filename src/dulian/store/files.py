"""The folder of models: one writer at a time, and what the system refuses in words that help."""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dulian.errors import WeightsError
from dulian.files import PART_PREFIX, shown

LOCK_NAME = ".dulian-lock"
STAGING_PREFIX = ".dulian-pull-"


def sha256_hex(data: bytes) -> str:
    """The sha256 in the spelling of the catalog."""
    return hashlib.sha256(data).hexdigest()


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
