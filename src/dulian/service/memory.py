"""Memory that several processes have in common: one at a time with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def alone_with(descriptor: int | None, among_threads: threading.Lock) -> Iterator[None]:
    """Alone with memory, among threads and, where it has a descriptor, processes; one that dies lets go of it."""
    with among_threads:
        if descriptor is None:
            yield
            return
        import fcntl

        fcntl.lockf(descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(descriptor, fcntl.LOCK_UN)
