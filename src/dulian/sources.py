"""Where pictures come from: files, folders, globs and standard input become ``(name, bytes)``.

Nobody below can tell a file from an upload. Names are for people and are never trusted.
"""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from dulian.errors import InputNotFoundError, InputTooLargeError, MalformedInputError

STDIN = "-"
# Which files of a folder are taken for pictures; a file named on the command line always is.
PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".avif"}
    | {".heic", ".heif"}
)


@dataclass(frozen=True, slots=True)
class Source:
    """One picture to be read; ``relative`` is its path below the folder it was found in."""

    path: Path
    relative: Path

    @property
    def name(self) -> str:
        """The path as text that any terminal and any JSON file can hold."""
        return printable(str(self.path))


def find_sources(arguments: Sequence[str]) -> list[Source]:
    """The pictures that paths, folders (recursively), globs and ``-`` stand for: sorted, each once.

    A path that does not exist is kept, so that it becomes an error of its own when it is read.

    Raises:
        MalformedInputError: An argument is empty, as an unset shell variable is.
    """
    found: dict[str, Source] = {}
    for argument in arguments:
        for source in _expand(argument):
            found.setdefault(os.path.abspath(source.path), source)
    return list(found.values())


def read_source(source: Source, *, max_bytes: int) -> bytes:
    """The bytes of a source, at most ``max_bytes``.

    Raises:
        InputNotFoundError: It does not exist, is no regular file or cannot be read.
        InputTooLargeError: It is larger.
    """
    if str(source.path) == STDIN:
        if sys.stdin is None:
            raise InputNotFoundError("standard input is closed")
        return _read_at_most(sys.stdin.buffer, max_bytes, "standard input")
    return read_file(source.path, max_bytes=max_bytes)


def read_file(path: Path, *, max_bytes: int, follow_links: bool = True) -> bytes:
    """The bytes of a regular file, at most ``max_bytes``; devices and pipes are refused without waiting for them.

    Raises:
        InputNotFoundError: It does not exist, is no regular file or cannot be read.
        InputTooLargeError: It is larger.
    """
    with open_file(path, follow_links=follow_links) as file:
        return _read_at_most(file, max_bytes, printable(str(path)))


def open_file(path: Path, *, follow_links: bool = True) -> BufferedReader:
    """A regular file, judged after opening so that nothing can be swapped between; nothing else is waited for.

    Raises:
        InputNotFoundError: It does not exist, is no regular file, or is a link and those are not followed.
    """
    name = printable(str(path))
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        if not follow_links:
            flags |= getattr(os, "O_NOFOLLOW", 0)
            if os.path.islink(path):  # tells which error it is, and all there is on Windows
                raise InputNotFoundError(f"cannot read {name}: a link, which is not followed")
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputNotFoundError(f"cannot read {name}: {reason}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputNotFoundError(f"cannot read {name}: not a regular file")
    return open(descriptor, "rb")


def printable(text: str) -> str:
    """Text without lone surrogates and control characters, which file names may hold, shown as escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def _expand(argument: str) -> Iterator[Source]:
    if not argument:
        raise MalformedInputError("an empty name is no picture; '.' is the current folder")
    path = Path(argument)
    if argument == STDIN:
        yield Source(path, path)
    elif path.is_dir():
        yield from _walk(path)
    elif not os.path.lexists(path) and glob.has_magic(argument):
        for match in sorted(glob.glob(argument, recursive=True)):
            yield from _walk(Path(match)) if os.path.isdir(match) else [Source(Path(match), Path(Path(match).name))]
    else:
        yield Source(path, Path(path.name))


def _walk(folder: Path) -> Iterator[Source]:
    """Pictures below a folder, in sorted order; links to folders are not followed, hidden things are left alone.

    A folder that cannot be listed is kept, so that it becomes an error of its own.
    """
    closed: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=lambda error: closed.append(Path(error.filename))):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES:
                path = Path(parent, name)
                yield Source(path, path.relative_to(folder))
    for path in closed:
        yield Source(path, path.relative_to(folder))


def _read_at_most(file: BinaryIO, max_bytes: int, name: str) -> bytes:
    try:
        data = file.read(max_bytes + 1)
    except OSError as error:
        raise InputNotFoundError(f"cannot read {name}: {error.strerror}") from error
    if data is None:  # what a non-blocking read of a special file may answer
        raise InputNotFoundError(f"cannot read {name}: it has nothing to read")
    if len(data) > max_bytes:
        raise InputTooLargeError(f"more than {max_bytes:,} bytes are not accepted")
    return data
