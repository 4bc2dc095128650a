"""What the store tells about a file: what is known of it, and what was done with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dulian.models.catalog import WeightsFile

State = Literal["ready", "missing", "damaged"]
How = Literal["already there", "copied", "converted", "fetched", "imported", "kept for later"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """What is known of one file without fetching or converting anything."""

    file: WeightsFile
    state: State
    path: Path | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """One file that a pull or an import put, or found, in its place; ``lacks`` names what it cannot work without."""

    file: WeightsFile
    path: Path
    how: How
    lacks: tuple[str, ...] = ()
