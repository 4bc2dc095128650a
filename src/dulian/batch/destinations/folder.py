"""Files in a folder of a file system: written aside, made durable, then linked under their name if it is free."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from dulian.batch.destinations.directories import Directory, open_below
from dulian.batch.destinations.names import Temporary, folders_of, parts_of
from dulian.batch.destinations.parts import PartFile
from dulian.batch.shards import STAGING
from dulian.errors import DestinationError
from dulian.sources import printable

# Of processes of other machines nobody here can tell whether they live.
ABANDONED_AFTER_S = 24 * 3600.0
# No file of a job comes near it; what does was put there by somebody else.
MAX_READ_BYTES = 1 << 30

_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL})


@dataclass(frozen=True, slots=True)
class FolderDestination:
    """See :class:`dulian.batch.destinations.Destination`. ``path`` is absolute."""

    path: Path

    @property
    def url(self) -> str:
        return printable(str(self.path))

    def prepare(self) -> None:
        with self._failing("cannot be written"), open_below(self.path, [STAGING], make=True) as staging:
            self._sweep(staging)
        probe = f"{STAGING}/{Temporary.of_this_process().new_name('probe')}"
        made = self.create(probe, b"first")
        try:
            if not made or self.create(probe, b"second") or self.read(probe) != b"first":
                raise DestinationError(f"{self.url}: this file system puts a file over one that is there already")
        finally:
            self.remove(probe)

    def create(self, name: str, data: bytes) -> bool:
        *folders, leaf = parts_of(name)
        doing = f"cannot write {printable(name)}"
        with (
            self._failing(doing),
            open_below(self.path, folders, make=True) as folder,
            self._part(leaf, doing) as part,
        ):
            part.stream.write(data)
            part.finish()
            created = self._link(part, folder, leaf)
            # Also if it was there: whoever is told so may rely on it.
            folder.sync()
            return created

    def replace(self, name: str, data: bytes) -> None:
        with self.writing(name) as stream:
            stream.write(data)

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        *folders, leaf = parts_of(name)
        doing = f"cannot write {printable(name)}"
        with self._part(leaf, doing) as part:
            yield cast(BinaryIO, part.stream)
            with self._failing(doing), open_below(self.path, folders, make=True) as folder:
                part.finish()
                part.staging.rename(part.name, folder, leaf)
                folder.sync()

    def read(self, name: str) -> bytes | None:
        *folders, leaf = parts_of(name)
        with self._failing(f"cannot read {printable(name)}"):
            try:
                with open_below(self.path, folders, make=False) as folder:
                    descriptor = folder.open_regular(leaf)
            except FileNotFoundError:
                return None
            with open(descriptor, "rb") as file:
                if os.fstat(descriptor).st_size > MAX_READ_BYTES:
                    raise OSError(errno.EFBIG, f"more than {MAX_READ_BYTES:,} bytes")
                return file.read(MAX_READ_BYTES)

    def names(self, folder: str) -> Iterator[str]:
        with (
            self._failing(f"cannot list {printable(folder) or 'it'}"),
            suppress(FileNotFoundError),
            open_below(self.path, folders_of(folder), make=False) as found,
        ):
            yield from found.names()

    def remove(self, name: str) -> None:
        *folders, leaf = parts_of(name)
        with (
            self._failing(f"cannot remove {printable(name)}"),
            suppress(FileNotFoundError),
            open_below(self.path, folders, make=False) as folder,
        ):
            folder.unlink(leaf)

    @contextmanager
    def _part(self, leaf: str, doing: str) -> Iterator[_Part]:
        """A file aside, which is gone when the block ends, unless it was moved."""
        with ExitStack() as stack:
            with self._failing(doing):
                staging = stack.enter_context(open_below(self.path, [STAGING], make=True))
                part = stack.enter_context(closing(_Part(staging, leaf, f"{self.url}: {doing}")))
            yield part

    def _link(self, part: _Part, folder: Directory, leaf: str) -> bool:
        try:
            return part.staging.link(part.name, folder, leaf)
        except OSError as error:
            if error.errno in _NO_HARD_LINKS:
                raise DestinationError(
                    f"{self.url}: this file system has no hard links, without which no file can be committed exactly"
                    " once; choose a folder on another one (ext4, XFS, Btrfs, ZFS, APFS, NTFS, NFS), or an object store"
                ) from error
            raise

    def _sweep(self, staging: Directory) -> None:
        """Remove what processes left behind that are no more."""
        mine = Temporary.of_this_process().new_name("clock")
        os.close(staging.open_new(mine))
        try:
            # The clock of the file system, which need not be that of this machine.
            now = staging.stat(mine).st_mtime
            for name in list(staging.names()):
                owner = Temporary.parse(name)
                with suppress(FileNotFoundError):
                    if owner and (owner.is_dead() or now - staging.stat(name).st_mtime > ABANDONED_AFTER_S):
                        staging.unlink(name)
        finally:
            staging.unlink(mine)

    @contextmanager
    def _failing(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DestinationError(f"{self.url}: {doing}: {error.strerror or error}") from error


class _Part:
    """A file that has no final name yet."""

    def __init__(self, staging: Directory, leaf: str, doing: str) -> None:
        self.staging = staging
        self.name = Temporary.of_this_process().new_name(leaf)
        self._descriptor = staging.open_new(self.name)
        self._raw = PartFile(self._descriptor, doing)
        self.stream = io.BufferedWriter(self._raw)

    def finish(self) -> None:
        """Everything is on the disk when it returns."""
        if not self.stream.closed:
            self.stream.flush()
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Let go of it, whatever could not be written."""
        self._raw.given_up = True
        self.stream.close()
        os.close(self._descriptor)
        with suppress(OSError):
            self.staging.unlink(self.name)
