"""What stores have in common for whoever puts files into them; one subclass for each kind, in a module of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from dulian.batch.failures import Outcome, outcome_of

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# A file goes up in one request, because a condition holds for one.
MAX_CREATE_BYTES = 256 << 20
# What a file bears of whoever put it there.
MARK = "dulian-commit"
CONNECT_S, SILENCE_S = 5.0, 20.0
_PART_BYTES = 16 << 20
# What one request may take: this long, and longer for many bytes.
_REQUEST_S, _SLOWEST_BYTES_PER_S = 60.0, 256 * 1024


class Driver(ABC):
    """Asks a store once; whoever uses it tries again. ``path`` is as the filesystem spells it, bucket first."""

    failures: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError)
    """All that is raised where a store, or the way to it, fails."""

    passing: tuple[type[Exception], ...] = ()
    """Those of them that tell of the network."""

    @abstractmethod
    def open_filesystem(self, url: str) -> AbstractFileSystem:
        """A filesystem of this process alone, which remembers no listings."""

    @abstractmethod
    def page(self, filesystem: AbstractFileSystem, path: str, token: Any) -> tuple[list[str], Any]:
        """Names of files right in a folder, some at a time, and the token of the next ones; None if there are none."""

    @abstractmethod
    def create(self, filesystem: AbstractFileSystem, path: str, data: bytes, *, token: str) -> None:
        """Put a file there in one request, which the store refuses if there is one; and note the token with it."""

    def has_token(self, filesystem: AbstractFileSystem, path: str, token: str) -> bool:
        """Whether a file was put there with this token; never of a store whose answers cannot be lost."""
        return False

    def replace(self, filesystem: AbstractFileSystem, path: str, data: bytes) -> None:
        """Put a file there, over what there is."""
        filesystem.pipe_file(path, data, timeout=seconds_for(len(data)))

    def upload(self, filesystem: AbstractFileSystem, local: str, path: str, size: int) -> None:
        """Put a local file there, over what there is; in parts, if it is large."""
        filesystem.put_file(local, path, chunksize=_PART_BYTES, timeout=seconds_for(size))

    def read(self, filesystem: AbstractFileSystem, path: str) -> bytes:
        """All bytes of a file."""
        return bytes(filesystem.cat_file(path, timeout=seconds_for(MAX_CREATE_BYTES)))

    def remove(self, filesystem: AbstractFileSystem, path: str) -> None:
        """Remove a file."""
        filesystem.rm_file(path, timeout=_REQUEST_S)

    def outcome_of(self, error: Exception) -> Outcome:
        """What a failure means."""
        return outcome_of(error, self.passing)


def seconds_for(size: int) -> float:
    """How long a request with so many bytes may take, however slowly these trickle."""
    return _REQUEST_S + size / _SLOWEST_BYTES_PER_S
