"""Pictures below a folder of this machine. Nothing is opened, and no link is followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from dulian.batch.inputs.names import file_input, is_picture, refused_input
from dulian.batch.inputs.patterns import Selection
from dulian.batch.records import Input

LINK = "a link, which is not followed"
SPECIAL = "not a regular file"
FOLDER = "a folder"


@dataclass(slots=True)
class Tally:
    """What a listing counts."""

    left_alone: int = 0


@dataclass(slots=True)
class _Content:
    files: list[str]
    folders: list[str]
    failure: str | None = None


def local_input(name: str, *, below: str = "") -> Input:
    """The input of one path, by what lies there: a file with its size and time of change, or something refused."""
    try:
        info = os.lstat(os.path.join(below, name))
    except (OSError, ValueError) as error:
        return refused_input(name, reason_of(error))
    if stat.S_ISREG(info.st_mode):
        return file_input(name, size=info.st_size, version=str(info.st_mtime_ns))
    if stat.S_ISLNK(info.st_mode):
        return refused_input(name, LINK)
    return refused_input(name, FOLDER if stat.S_ISDIR(info.st_mode) else SPECIAL)


def walk(root: str, selection: Selection, tally: Tally) -> Iterator[Input]:
    """What a selection takes below a folder: its files by name, then its folders; hidden things are left alone."""
    pending = [""]
    while pending:
        folder = pending.pop()
        path = os.path.join("" if root == "." else root, folder)
        content = _scan(path or ".", folder, selection, tally)
        if content.failure is not None:
            yield refused_input(path.rstrip(os.sep) or path or ".", content.failure)
        # From the end, so that names that have been told are let go.
        content.files.sort(reverse=True)
        while content.files:
            yield local_input(path + content.files.pop())
        pending += (f"{folder}{name}{os.sep}" for name in sorted(content.folders, reverse=True))


def reason_of(error: OSError | ValueError) -> str:
    """Why something cannot be opened, without its name."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _scan(path: str, folder: str, selection: Selection, tally: Tally) -> _Content:
    content = _Content([], [])
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    _sort_in(entry, f"{folder}{entry.name}".replace(os.sep, "/"), selection, content, tally)
    except OSError as error:
        content.failure = reason_of(error)
    return content


def _sort_in(entry: os.DirEntry[str], path: str, selection: Selection, content: _Content, tally: Tally) -> None:
    is_link, is_folder = entry.is_symlink(), entry.is_dir(follow_symlinks=False)
    if is_folder:
        if selection.enters(path):
            content.folders.append(entry.name)
    elif is_link and _leads_to_folder(entry):
        if selection.enters(path):
            content.files.append(entry.name)
    elif selection.matches(path):
        is_plain = is_link or entry.is_file(follow_symlinks=False)
        if is_plain and not selection.any_suffix and not is_picture(entry.name):
            tally.left_alone += 1
        else:
            content.files.append(entry.name)


def _leads_to_folder(link: os.DirEntry[str]) -> bool:
    """Whether a link is to be reported as one to a folder; a loop could be one."""
    try:
        return link.is_dir()
    except OSError:
        return True
