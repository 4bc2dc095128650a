"""Azure Blob Storage and Data Lake Storage, by adlfs; conditional puts are ``If-None-Match: *``."""

from __future__ import annotations

from typing import Any

import aiohttp
from adlfs import AzureBlobFileSystem
from azure.core.exceptions import AzureError, IncompleteReadError, ServiceRequestError, ServiceResponseError
from fsspec import AbstractFileSystem
from fsspec.asyn import sync

from dulian.batch.destinations.driver import CONNECT_S, SILENCE_S, Driver, seconds_for
from dulian.batch.failures import Outcome


class AzureDriver(Driver):
    """See :class:`Driver`. adlfs leaves no room for a token."""

    failures = (*Driver.failures, AzureError, aiohttp.ClientError)
    passing = (ServiceRequestError, ServiceResponseError, IncompleteReadError, aiohttp.ClientError)

    def open_filesystem(self, url: str) -> AbstractFileSystem:
        return AzureBlobFileSystem(
            skip_instance_cache=True,
            use_listings_cache=False,
            connection_timeout=int(CONNECT_S),
            read_timeout=int(SILENCE_S),
            **AzureBlobFileSystem._get_kwargs_from_urls(url),
        )

    def create(self, filesystem: AbstractFileSystem, path: str, data: bytes, *, token: str) -> None:
        filesystem.pipe_file(path, data, mode="create", retry_total=0, timeout=seconds_for(len(data)))

    def replace(self, filesystem: AbstractFileSystem, path: str, data: bytes) -> None:
        filesystem.pipe_file(path, data, retry_total=0, timeout=seconds_for(len(data)))

    def upload(self, filesystem: AbstractFileSystem, local: str, path: str, size: int) -> None:
        filesystem.put_file(local, path, overwrite=True, timeout=seconds_for(size))

    def page(self, filesystem: AbstractFileSystem, path: str, token: Any) -> tuple[list[str], Any]:
        container, key, _ = filesystem.split_path(path)
        prefix = f"{key}/" if key else ""

        async def ask() -> tuple[list[str], Any]:
            async with filesystem.service_client.get_container_client(container=container) as client:
                pages = client.walk_blobs(name_starts_with=prefix, delimiter="/").by_page(token)
                names = [entry.name async for page in _first(pages) async for entry in page]
                return names, pages.continuation_token

        names, token = sync(filesystem.loop, ask)
        names = [name.removeprefix(prefix) for name in names if not name.endswith("/")]
        return names, token or None

    def outcome_of(self, error: Exception) -> Outcome:
        # adlfs takes every conflict for a file that exists.
        conflict = error.__context__ if isinstance(error, FileExistsError) else None
        return super().outcome_of(conflict if isinstance(conflict, AzureError) else error)


async def _first(pages: Any) -> Any:
    async for page in pages:
        yield page
        return
