"""Where models lie: the folders in their order, and what is found there under a file's name."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from dulian.errors import WeightsError
from dulian.files import read_regular, shown
from dulian.models.rows import WeightsFile
from dulian.store.originals import Notify, accepted, max_bytes, profile_of

State = Literal["ready", "missing", "damaged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file that is what the catalog says, with the very bytes that were judged."""

    path: Path
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """A file that bears the name but is another, cut short, or unreadable."""

    path: Path
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """What is known of one file without fetching or converting anything."""

    file: WeightsFile
    state: State
    path: Path | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Directories:
    """``folders`` are searched in order; ``write`` is the one of them that takes new files.

    With a ``model_dir``, a person named the write folder and a pull has to fill it, whatever others hold.
    """

    folders: tuple[Path, ...]
    write: Path
    model_dir: Path | None

    def look(self, file: WeightsFile, notify: Notify) -> Found | Damaged | None:
        """The first folder that has the file, by its name or an alias, decides.

        A folder that may not be entered counts as empty: ``/root/models`` is closed to other users.
        """
        for folder in self.folders:
            damaged: Damaged | None = None
            for name in (file.name, *file.aliases):
                seen = _look_at(folder / name, file, notify)
                if isinstance(seen, Found):
                    return seen
                damaged = damaged or seen
            if damaged:
                return damaged
        return None

    def state(self, file: WeightsFile, notify: Notify) -> FileState:
        """As :meth:`look`, for a report: without the bytes."""
        seen = self.look(file, notify)
        if isinstance(seen, Found):
            return FileState(file=file, state="ready", path=seen.path)
        if isinstance(seen, Damaged):
            return FileState(file=file, state="damaged", path=seen.path, note=seen.problem)
        return FileState(file=file, state="missing")

    def find(self, file: WeightsFile, notify: Notify) -> Found | None:
        """As :meth:`look`, but never passes over a damaged file.

        Raises:
            WeightsError: The file found is not the right one; the message says how to mend that.
        """
        seen = self.look(file, notify)
        if isinstance(seen, Damaged):
            self.refuse(seen, file)
        return seen

    def refuse(self, damaged: Damaged, file: WeightsFile) -> NoReturn:
        """Name the command that mends a damaged file, or what to do where no command can.

        Raises:
            WeightsError: Always.
        """
        if self.is_hidden_by_write(damaged.path) and self._is_writable():
            raise WeightsError(f"{damaged.problem}; mend it with {self.pull_command(file)}")
        raise WeightsError(
            f"{damaged.problem}; remove or replace it, or name another folder with --model-dir (DULIAN_MODEL_DIR)"
        )

    def pull_command(self, file: WeightsFile) -> str:
        """The command that puts a file where these folders look for it first."""
        where = f" --model-dir {shlex.quote(shown(self.model_dir))}" if self.model_dir else ""
        return f"'dulian models pull {profile_of(file)}{where}'"

    def is_hidden_by_write(self, path: Path) -> bool:
        """Whether a file put into the write folder comes before this one, or in its place."""
        return self.folders.index(self.write) <= self.folders.index(path.parent)

    def is_wanted_at(self, path: Path) -> bool:
        """Whether a right file at this path leaves nothing to do for a pull."""
        return path.parent == self.write or self.model_dir is None

    def described(self) -> str:
        """The folders in their order, for a message about a missing file."""
        return ", ".join(map(shown, self.folders))

    def _is_writable(self) -> bool:
        """Whether new files can be put into the write folder, which need not exist yet."""
        existing = next(folder for folder in (self.write, *self.write.absolute().parents) if os.path.exists(folder))
        return os.access(existing, os.W_OK)


def _look_at(path: Path, file: WeightsFile, notify: Notify) -> Found | Damaged | None:
    try:
        data = read_regular(path, max_bytes(file))
        return Found(path=path, data=accepted(file, data, where=shown(path), notify=notify))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if isinstance(error, PermissionError) and not _may_enter(path.parent):
            return None
        return Damaged(path=path, problem=f"{shown(path)} cannot be read: {error.strerror}")
    except WeightsError as error:
        return Damaged(path=path, problem=str(error))


def _may_enter(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.X_OK)
