"""Azure Blob Storage and Data Lake Storage, by adlfs; conditional puts are ``If-None-Match: *``."""

from __future__ import annotations

from typing import Any

import aiohttp
from adlfs import AzureBlobFileSystem
from azure.core.exceptions import AzureError, IncompleteReadError, ServiceRequestError, ServiceResponseError
from fsspec import AbstractFileSystem
from fsspec.asyn import sync

from dulian.batch.destinations.driver import CONNECT_S, MARK, MAX_CREATE_BYTES, SILENCE_S, Driver, seconds_for

# Azure's names of metadata are those of C#.
_MARK = MARK.replace("-", "_")


class AzureDriver(Driver):
    """See :class:`Driver`."""

    failures = (*Driver.failures, AzureError, aiohttp.ClientError)
    passing = (ServiceRequestError, ServiceResponseError, IncompleteReadError, aiohttp.ClientError)

    def open_filesystem(self, url: str) -> AbstractFileSystem:
        opened = AzureBlobFileSystem(
            skip_instance_cache=True,
            use_listings_cache=False,
            connection_timeout=int(CONNECT_S),
            read_timeout=int(SILENCE_S),
            **AzureBlobFileSystem._get_kwargs_from_urls(url),
        )
        # What adlfs has no words for. Larger files would go up in blocks, and those of two who write at once be mixed.
        opened.service_client._config.max_single_put_size = MAX_CREATE_BYTES
        opened.service_client._config.retry_policy.total_retries = 0
        return opened

    def create(self, filesystem: AbstractFileSystem, path: str, data: bytes, *, token: str) -> None:
        # adlfs has no room for a token.
        async def put() -> None:
            async with _blob(filesystem, path) as blob:
                metadata = {"is_directory": "false", _MARK: token}
                await blob.upload_blob(data, metadata=metadata, timeout=seconds_for(len(data)))

        sync(filesystem.loop, put)

    def has_token(self, filesystem: AbstractFileSystem, path: str, token: str) -> bool:
        async def ask() -> bool:
            async with _blob(filesystem, path) as blob:
                return bool((await blob.get_blob_properties()).metadata.get(_MARK) == token)

        return bool(sync(filesystem.loop, ask))

    def replace(self, filesystem: AbstractFileSystem, path: str, data: bytes) -> None:
        filesystem.pipe_file(path, data, timeout=seconds_for(len(data)))

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


def _blob(filesystem: AbstractFileSystem, path: str) -> Any:
    container, key, _ = filesystem.split_path(path)
    return filesystem.service_client.get_blob_client(container=container, blob=key)


async def _first(pages: Any) -> Any:
    async for page in pages:
        yield page
        return
