"""Where a job's files lie: a folder, or a place in an object store. Names are relative, with ``/``.

All that exactly-once needs is :meth:`Destination.create`: a name gets its bytes whole and once, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

from dulian.batch.destinations.addresses import check_address, open_driver, path_of, scheme_of
from dulian.errors import MalformedInputError


class Destination(Protocol):
    """A place for files; may be used by any number of processes and machines at once, and is picklable.

    Every method raises :class:`dulian.errors.DestinationError` where the place fails (disk full, no rights, a store
    that does not answer after several tries), and leaves nothing half-written under any final name.
    """

    @property
    def url(self) -> str:
        """The place as people write it."""
        ...

    def prepare(self) -> None:
        """Make the place ready for writing, and prove that it can create a name only if it is absent.

        Raises:
            DestinationError: It cannot be written, or has no such operation; the message says what to do.
        """
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Commit a file, durable when it returns; False if the name was there already, which is then left alone."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Put a file in place in one step, over what was there."""
        ...

    def writing(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A stream whose bytes appear under the name, over what was there, when the block ends without an error."""
        ...

    def read(self, name: str) -> bytes | None:
        """All bytes of a file; None if there is none."""
        ...

    def names(self, folder: str) -> Iterator[str]:
        """Names of the files right in a folder, in no order; none if there is no such folder."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; none is fine."""
        ...


def open_destination(place: str | Path) -> Destination:
    """The destination of a path, a ``file://`` address, or an address that fsspec knows (``s3://bucket/prefix``).

    Raises:
        MalformedInputError: No address of a kind that is accepted.
        MissingDependencyError: The extra for this store is not installed.
    """
    text = str(place)
    if not text:
        raise MalformedInputError("an empty name is no output; '.' is the current folder")
    scheme = None if isinstance(place, Path) else scheme_of(text)
    if scheme is not None and scheme != "file":
        from dulian.batch.destinations.store import StoreDestination

        address = check_address(text)
        open_driver(address)
        return StoreDestination(address)
    from dulian.batch.destinations.folder import FolderDestination

    return FolderDestination(path_of(text).absolute())
