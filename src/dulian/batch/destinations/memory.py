"""The memory of this process, by fsspec: for tests and for those who want no files."""

from __future__ import annotations

import threading
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from dulian.batch.destinations.driver import Driver

# fsspec looks first and writes then.
_CREATING = threading.Lock()


class MemoryDriver(Driver):
    """See :class:`Driver`."""

    def open_filesystem(self, url: str) -> AbstractFileSystem:
        return MemoryFileSystem(skip_instance_cache=True)

    def create(self, filesystem: AbstractFileSystem, path: str, data: bytes, *, token: str) -> None:
        with _CREATING:
            filesystem.pipe_file(path, data, mode="create")

    def remove(self, filesystem: AbstractFileSystem, path: str) -> None:
        filesystem.rm_file(path)

    def page(self, filesystem: AbstractFileSystem, path: str, token: Any) -> tuple[list[str], Any]:
        found = filesystem.ls(path, detail=True)
        return [entry["name"].rpartition("/")[2] for entry in found if entry["type"] == "file"], None
