"""Amazon S3 and what speaks its protocol, by s3fs; conditional puts are ``If-None-Match: *``."""

from __future__ import annotations

from typing import Any

import aiohttp
import botocore.exceptions
from fsspec import AbstractFileSystem
from s3fs import S3FileSystem

from dulian.batch.destinations.driver import CONNECT_S, MARK, MAX_CREATE_BYTES, SILENCE_S, Driver, seconds_for

_ONCE = {"retries": {"total_max_attempts": 1, "mode": "standard"}}


class S3Driver(Driver):
    """See :class:`Driver`."""

    failures = (
        *Driver.failures,
        botocore.exceptions.BotoCoreError,
        botocore.exceptions.ClientError,
        aiohttp.ClientError,
    )
    passing = (
        botocore.exceptions.ConnectionError,
        botocore.exceptions.HTTPClientError,
        botocore.exceptions.IncompleteReadError,
        botocore.exceptions.FlexibleChecksumError,
        aiohttp.ClientError,
    )

    def open_filesystem(self, url: str) -> AbstractFileSystem:
        filesystem = S3FileSystem(
            skip_instance_cache=True,
            use_listings_cache=False,
            config_kwargs={**_ONCE, "connect_timeout": CONNECT_S, "read_timeout": SILENCE_S},
        )
        filesystem.retries = 1
        return filesystem

    def create(self, filesystem: AbstractFileSystem, path: str, data: bytes, *, token: str) -> None:
        filesystem.pipe_file(
            path,
            data,
            mode="create",
            chunksize=MAX_CREATE_BYTES,
            Metadata={MARK: token},
            timeout=seconds_for(len(data)),
        )

    def has_token(self, filesystem: AbstractFileSystem, path: str, token: str) -> bool:
        bucket, key, _ = filesystem.split_path(path)
        head = filesystem.call_s3("head_object", Bucket=bucket, Key=key)
        return bool(head.get("Metadata", {}).get(MARK) == token)

    def read(self, filesystem: AbstractFileSystem, path: str) -> bytes:
        # More than one at a time costs a request for the size.
        return bytes(filesystem.cat_file(path, max_concurrency=1, timeout=seconds_for(MAX_CREATE_BYTES)))

    def page(self, filesystem: AbstractFileSystem, path: str, token: Any) -> tuple[list[str], Any]:
        bucket, key, _ = filesystem.split_path(path)
        prefix = f"{key}/" if key else ""
        more = {"ContinuationToken": token} if token else {}
        page = filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter="/", **more)
        names = [entry["Key"].removeprefix(prefix) for entry in page.get("Contents", [])]
        return [name for name in names if name], page.get("NextContinuationToken") if page["IsTruncated"] else None
