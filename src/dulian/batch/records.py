"""The record of one input: a result, a typed error, or that it is the same picture as another one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dulian.errors import DulianError
from dulian.sources import printable

Record = dict[str, Any]
"""JSON types only. Always ``source`` (the input's name, unique in its job) and ``status``:

``ok``         … and ``sha256``, ``bytes`` of what was read, and all fields of :func:`dulian.serialize.to_dict`
``error``      … and ``error`` = {``code``, ``message``}; ``sha256`` and ``bytes`` where it could be read
``duplicate``  … and ``same_as``, the ``source`` of the input with the same bytes, which has the result
"""

OK, ERROR, DUPLICATE = "ok", "error", "duplicate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One line of a manifest.

    ``source`` is the name that the record will bear: printable text, unique in the job. ``path`` is how it is opened
    where that differs (a file name that is no text). ``size`` in bytes and ``version`` (time of change, ETag, CRC) are
    what its listing says, and part of the job's identity. ``offset`` is where it begins in an archive that can be read
    from there. ``same_as`` names an input with the same bytes. ``problem`` is the code and the message of the error
    that it gets without being opened: links, devices, what cannot be listed.
    """

    source: str
    path: str | None = None
    size: int | None = None
    version: str | None = None
    offset: int | None = None
    same_as: str | None = None
    problem: tuple[str, str] | None = None

    @property
    def location(self) -> str:
        """What to open."""
        return self.source if self.path is None else self.path

    def to_line(self) -> bytes:
        """Its line in a manifest: ASCII, because names may hold what is no text."""
        fields = {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}
        return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Input:
        """The input of a line that :meth:`to_line` made."""
        fields = json.loads(line)
        if fields.get("problem"):
            fields["problem"] = tuple(fields["problem"])
        return cls(**fields)


def ok_record(source: str, sha256: str, size: int, result: Mapping[str, Any]) -> Record:
    """The record of a picture that was answered; ``result`` as :func:`dulian.serialize.to_dict` makes it."""
    return {"source": source, "status": OK, "sha256": sha256, "bytes": size, **result}


def error_record(source: str, code: str, message: str, *, sha256: str | None = None, size: int | None = None) -> Record:
    """The record of an input that could not be answered."""
    read = {} if sha256 is None else {"sha256": sha256, "bytes": size}
    return {"source": source, "status": ERROR, **read, "error": {"code": code, "message": printable(message)}}


def failed_record(source: str, error: DulianError, *, sha256: str | None = None, size: int | None = None) -> Record:
    """The record of an error that was raised."""
    return error_record(source, error.code, str(error), sha256=sha256, size=size)


def duplicate_record(source: str, same_as: str) -> Record:
    """The record of an input with the same bytes as another one, which has the result."""
    return {"source": source, "status": DUPLICATE, "same_as": same_as}
