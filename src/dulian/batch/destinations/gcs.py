"""Google Cloud Storage, by gcsfs; conditional puts are ``ifGenerationMatch=0``."""

from __future__ import annotations

from typing import Any

import aiohttp
import requests
from fsspec import AbstractFileSystem
from fsspec.asyn import sync
from gcsfs.core import GCSFileSystem
from gcsfs.retry import ChecksumError, HttpError
from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError

from dulian.batch.destinations.driver import MARK, MAX_CREATE_BYTES, Driver, seconds_for


class GcsDriver(Driver):
    """See :class:`Driver`. gcsfs tries again by itself, for half a minute, and cannot be told not to."""

    failures = (*Driver.failures, HttpError, ChecksumError, GoogleAuthError, aiohttp.ClientError)
    passing = (
        requests.ConnectionError,
        requests.Timeout,
        ChecksumError,
        RefreshError,
        TransportError,
        aiohttp.ClientError,
    )

    def open_filesystem(self, url: str) -> AbstractFileSystem:
        return GCSFileSystem(skip_instance_cache=True, use_listings_cache=False)

    def create(self, filesystem: AbstractFileSystem, path: str, data: bytes, *, token: str) -> None:
        filesystem.pipe_file(
            path,
            data,
            mode="create",
            chunksize=MAX_CREATE_BYTES + 1,
            metadata={MARK: token},
            timeout=seconds_for(len(data)),
        )

    def has_token(self, filesystem: AbstractFileSystem, path: str, token: str) -> bool:
        return bool((filesystem.info(path).get("metadata") or {}).get(MARK) == token)

    def page(self, filesystem: AbstractFileSystem, path: str, token: Any) -> tuple[list[str], Any]:
        bucket, key, _ = filesystem.split_path(path)
        prefix = f"{key}/" if key else ""
        asked = {"delimiter": "/", "prefix": prefix, "maxResults": 1000, "pageToken": token}
        asked = {name: value for name, value in asked.items() if value}
        page = sync(filesystem.loop, filesystem._call, "GET", "b/{}/o", bucket, json_out=True, **asked)
        names = [entry["name"].removeprefix(prefix) for entry in page.get("items", [])]
        return [name for name in names if name], page.get("nextPageToken")
