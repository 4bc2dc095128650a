"""Which paths a glob means: ``*``, ``?``, ``[…]`` within a part, ``**`` for any number of parts."""

from __future__ import annotations

import glob
import re
from pathlib import PurePath
from typing import Protocol

from dulian.errors import MalformedInputError

ANY_DEPTH = "**"


class Selection(Protocol):
    """What a walk takes; paths are relative to where it begins, with ``/``."""

    any_suffix: bool
    """Files are taken whatever their suffix."""

    def matches(self, path: str) -> bool:
        """Whether a file is meant."""
        ...

    def enters(self, path: str) -> bool:
        """Whether files that are meant may lie in a folder."""
        ...


class Everything:
    """All that lies there, as far as its name is a picture's."""

    any_suffix = False

    def matches(self, path: str) -> bool:
        return True

    def enters(self, path: str) -> bool:
        return True


class Pattern:
    """A glob below the part of it that is fixed. A folder that it matches stands for all pictures below.

    A pattern that spells a suffix out takes the files that it matches as if each of them had been named.

    Raises:
        MalformedInputError: ``**`` is only a part of a part.
    """

    def __init__(self, text: str) -> None:
        self._parts = text.split("/")
        # What follows the last wildcard of the last part.
        self.any_suffix = "." in re.split(r"[*?\]]", self._parts[-1])[-1]
        # What every match begins with.
        self.head = re.split(r"[*?[]", text, maxsplit=1)[0]
        self._whole = _compiled(text)
        self._each = [None if part == ANY_DEPTH else _compiled(part) for part in self._parts]

    def matches(self, path: str) -> bool:
        return self._whole.match(path) is not None or self._is_below_match(path)

    def enters(self, path: str) -> bool:
        for wanted, part in zip(self._each, path.split("/"), strict=False):
            if wanted is None:
                return True
            if wanted.match(part) is None:
                return False
        return True

    def _is_below_match(self, path: str) -> bool:
        at = path.rfind("/")
        while at > 0:
            if self._whole.match(path, 0, at):
                return not self.any_suffix
            at = path.rfind("/", 0, at)
        return False


def has_wildcard(text: str) -> bool:
    """Whether a name may be a pattern."""
    return glob.has_magic(text)


def split_local(text: str) -> tuple[str, str]:
    """The folder that a pattern of paths begins in, and the rest of it."""
    parts = PurePath(text).parts
    fixed = _count_fixed(parts)
    return str(PurePath(*parts[:fixed])), "/".join(parts[fixed:])


def split_key(key: str) -> tuple[str, str]:
    """The folder of a store that a pattern of keys begins in, without the last ``/``, and the rest of it."""
    parts = key.split("/")
    fixed = _count_fixed(parts)
    return "/".join(parts[:fixed]), "/".join(parts[fixed:])


def _count_fixed(parts: tuple[str, ...] | list[str]) -> int:
    return next(index for index, part in enumerate(parts) if has_wildcard(part))


def _compiled(text: str) -> re.Pattern[str]:
    from fsspec.utils import glob_translate

    try:
        return re.compile(glob_translate(text))
    except ValueError as error:
        raise MalformedInputError(f"cannot use the pattern {text!r}: ** stands alone between slashes") from error
