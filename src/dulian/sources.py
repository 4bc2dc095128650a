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
from pathlib import Path

from dulian.errors import InputNotFoundError, InputTooLargeError

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
    """
    found: dict[Path, Source] = {}
    for argument in arguments:
        for source in _expand(argument):
            found.setdefault(source.path, source)
    return list(found.values())


def read_source(source: Source, *, max_bytes: int) -> bytes:
    """The bytes of a source, at most ``max_bytes``.

    Raises:
        InputNotFoundError: It does not exist, is no regular file or cannot be read.
        InputTooLargeError: It is larger.
    """
    if str(source.path) == STDIN:
        return _at_most(sys.stdin.buffer.read(max_bytes + 1), max_bytes, "standard input")
    return read_file(source.path, max_bytes=max_bytes)


def read_file(path: Path, *, max_bytes: int) -> bytes:
    """The bytes of a regular file, at most ``max_bytes``; devices and pipes are refused without waiting for them.

    Raises:
        InputNotFoundError: It does not exist, is no regular file or cannot be read.
        InputTooLargeError: It is larger.
    """
    name = printable(str(path))
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputNotFoundError(f"cannot read {name}: {reason}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputNotFoundError(f"cannot read {name}: not a regular file")
    with open(descriptor, "rb") as file:
        return _at_most(file.read(max_bytes + 1), max_bytes, name)


def printable(text: str) -> str:
    """Text without lone surrogates and control characters, which file names may hold, shown as escapes."""
    decodable = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in decodable
    )


def _expand(argument: str) -> Iterator[Source]:
    path = Path(argument)
    if argument == STDIN:
        yield Source(path, path)
    elif path.is_dir():
        yield from _walk(path)
    elif not os.path.lexists(path) and glob.has_magic(argument):
        matches = sorted(glob.glob(argument, recursive=True))
        if not matches:
            yield Source(path, Path(path.name))
        for match in matches:
            yield from _walk(Path(match)) if os.path.isdir(match) else [Source(Path(match), Path(Path(match).name))]
    else:
        yield Source(path, Path(path.name))


def _walk(folder: Path) -> Iterator[Source]:
    """Pictures below a folder, in sorted order; links to folders are not followed."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES:
                path = Path(parent, name)
                yield Source(path, path.relative_to(folder))


def _at_most(data: bytes, max_bytes: int, name: str) -> bytes:
    if len(data) > max_bytes:
        raise InputTooLargeError(f"{name} is larger than the limit of {max_bytes} bytes")
    return data
