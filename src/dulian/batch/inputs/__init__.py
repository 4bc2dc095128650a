"""Pictures to be listed, lazily, and to be read, bounded: from folders, archives, lists and object stores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from dulian.batch.records import Input


class Lister(Protocol):
    """All inputs that sources stand for, one after the other; iterated once."""

    @property
    def left_alone(self) -> int:
        """Files that were passed over because their names are no pictures'; counted while it is iterated."""
        ...

    def __iter__(self) -> Iterator[Input]: ...


class Reader(Protocol):
    """Opens inputs; one for each process, used by any number of its threads."""

    def read(self, wanted: Input) -> bytes:
        """The bytes of an input.

        Raises:
            InputNotFoundError: It is not there (any more), no regular file, a link, or may not be read.
            InputTooLargeError: It is larger than is accepted.
            InputUnavailableError: A store failed to give it, after several tries.
        """
        ...

    def close(self) -> None: ...


def list_inputs(sources: Sequence[str], *, column: str | None = None, base: str | None = None) -> Lister:
    """All inputs of folders, globs, files, archives, lists (``-`` is one from standard input) and store addresses.

    Relative sources are looked for in the current folder, relative names in lists below ``base`` (the current folder
    if it is not given); a reader with the same ``base`` opens both. ``column`` names the column of tables that holds
    the names.

    Raises:
        MalformedInputError: A source is empty, or an address of a kind that is not accepted; while iterating also: a
            pattern or a table makes no sense.
        MissingDependencyError: While iterating: an extra for a store or a kind of list is not installed.
        InputNotFoundError: While iterating: a store refuses to be listed.
        InputUnavailableError: While iterating: a store fails to be listed. What has been listed is not all there is.
    """
    from dulian.batch.inputs.listing import SourceLister

    return SourceLister(sources, column=column, base=base)


def open_reader(*, base: str, max_bytes: int) -> Reader:
    """See :class:`Reader`; relative names are below ``base``."""
    from dulian.batch.inputs.reading import SourceReader

    return SourceReader(base=base, max_bytes=max_bytes)
