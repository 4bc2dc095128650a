"""A member of an archive, whatever the archive's kind."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """``offset`` is where it is read from: in a zip archive its local header, in a tar archive its first byte.

    The name is never a path on this machine. ``problem`` says why it is not read.
    """

    name: str
    size: int
    offset: int
    version: str
    problem: str | None = None
