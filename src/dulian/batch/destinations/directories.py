"""Folders below a folder, held open while they are used, so that no link that is put there leads out of it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

# Windows opens no folders: there, each part is looked at before it is used.
BY_DESCRIPTOR = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")

_COMMON_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
_READ_FLAGS = _COMMON_FLAGS | os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
_WRITE_FLAGS = _COMMON_FLAGS | os.O_WRONLY | os.O_CREAT | os.O_EXCL
_FOLDER_FLAGS = _COMMON_FLAGS | os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)


class Directory:
    """A folder; all names are those of files right in it. Everything raises :class:`OSError`."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self._path = path
        self._descriptor = descriptor

    def open_new(self, name: str) -> int:
        """A descriptor of a file that was not there."""
        return os.open(self._at(name), _WRITE_FLAGS, 0o666, dir_fd=self._descriptor)

    def open_regular(self, name: str) -> int:
        """A descriptor of a regular file, to read; links, pipes and devices are refused without being followed."""
        if _is_link(self.stat(name)):
            raise OSError(errno.ELOOP, "it is a link, which is not followed")
        descriptor = os.open(self._at(name), _READ_FLAGS, dir_fd=self._descriptor)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def stat(self, name: str) -> os.stat_result:
        """What is there, links not followed."""
        return os.stat(self._at(name), dir_fd=self._descriptor, follow_symlinks=False)

    def link(self, name: str, to: Directory, new_name: str) -> bool:
        """Give a file a second name, if that is not there yet."""
        try:
            os.link(
                self._at(name),
                to._at(new_name),
                src_dir_fd=self._descriptor,
                dst_dir_fd=to._descriptor,
                follow_symlinks=os.link not in os.supports_follow_symlinks,
            )
        except FileExistsError:
            # A network file system whose answer was lost asks again, and meets its own link.
            return self.stat(name).st_nlink > 1 and os.path.samestat(self.stat(name), to.stat(new_name))
        return True

    def rename(self, name: str, to: Directory, new_name: str) -> None:
        """Move a file, over what is there."""
        os.replace(self._at(name), to._at(new_name), src_dir_fd=self._descriptor, dst_dir_fd=to._descriptor)

    def unlink(self, name: str) -> None:
        """Remove a file; none is fine."""
        with suppress(FileNotFoundError):
            os.unlink(self._at(name), dir_fd=self._descriptor)

    def names(self) -> Iterator[str]:
        """All that are no folders."""
        with os.scandir(self._path if self._descriptor is None else self._descriptor) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    yield entry.name

    def sync(self) -> None:
        """Make names survive a power cut; Windows has no such call and needs none."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)

    @contextmanager
    def below(self, name: str, *, make: bool) -> Iterator[Directory]:
        """A folder in this one; made if need be."""
        if make:
            with suppress(FileExistsError):
                os.mkdir(self._at(name), dir_fd=self._descriptor)
                self.sync()
        if _is_link(self.stat(name)):
            raise OSError(errno.ELOOP, f"{name} is a link, and files stay inside the output")
        with _opened(self._at(name), self._path / name, self._descriptor) as folder:
            yield folder

    def _at(self, name: str) -> str:
        return str(self._path / name) if self._descriptor is None else name


@contextmanager
def open_below(base: Path, parts: Sequence[str], *, make: bool) -> Iterator[Directory]:
    """The folder of these parts below ``base``, which may itself be a link; made if need be.

    Raises:
        OSError: It is not there, a part of it is a link or no folder, or it cannot be made.
    """
    if make:
        _make_folders(base)
    with _opened(str(base), base, None) as folder, _descend(folder, parts, make=make) as found:
        yield found


@contextmanager
def _descend(folder: Directory, parts: Sequence[str], *, make: bool) -> Iterator[Directory]:
    if not parts:
        yield folder
        return
    with folder.below(parts[0], make=make) as child, _descend(child, parts[1:], make=make) as found:
        yield found


@contextmanager
def _opened(name: str, path: Path, parent: int | None) -> Iterator[Directory]:
    if not BY_DESCRIPTOR:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        yield Directory(path, None)
        return
    # The folder that a person names may be a link; those below it may not.
    flags = _FOLDER_FLAGS if parent is not None else _FOLDER_FLAGS & ~os.O_NOFOLLOW
    descriptor = os.open(name, flags, dir_fd=parent)
    try:
        yield Directory(path, descriptor)
    finally:
        os.close(descriptor)


def _make_folders(path: Path) -> None:
    if path.is_dir():
        return
    _make_folders(path.parent)
    with suppress(FileExistsError):
        os.mkdir(path)
    with _opened(str(path.parent), path.parent, None) as parent:
        parent.sync()


def _is_link(info: os.stat_result) -> bool:
    tags = (getattr(stat, "IO_REPARSE_TAG_SYMLINK", None), getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", None))
    return stat.S_ISLNK(info.st_mode) or getattr(info, "st_reparse_tag", 0) in tags
