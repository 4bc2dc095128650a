"""A real S3-compatible store for tests, in a process of its own, and the same behind a proxy that does harm."""

from __future__ import annotations

import os
import secrets
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.batch.faulty_http import FaultyHttp
from tests.conftest import ROOT

START_S = 60.0
# Names that are listed at once.
PAGE = 100


@dataclass(frozen=True)
class S3Bucket:
    """A bucket that is empty at first; ``environment`` is what a process needs to reach it."""

    name: str
    port: int
    endpoint: str = ""
    prefix: str = "albums/2026"
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        endpoint = self.endpoint or f"http://127.0.0.1:{self.port}"
        environment = {
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        object.__setattr__(self, "environment", environment)

    @property
    def url(self) -> str:
        return f"s3://{self.name}/{self.prefix}"

    def put(self, name: str, data: bytes) -> None:
        """Put an object below the prefix, past everything that is tested."""
        self._client().put_object(Bucket=self.name, Key=f"{self.prefix}/{name}", Body=data)

    def objects(self) -> dict[str, bytes]:
        """All objects of the bucket and their bytes, names below the prefix."""
        client = self._client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        read = {key: client.get_object(Bucket=self.name, Key=key)["Body"].read() for key in keys}
        return {key.removeprefix(f"{self.prefix}/"): data for key, data in read.items()}

    def _client(self) -> Any:
        return s3_client(self.port)


@cache
def s3_client(port: int) -> Any:
    """A client straight to the server; it may be used by any thread."""
    return boto3.session.Session().client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="tests",
        aws_secret_access_key="tests",
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )


@contextmanager
def s3_process() -> Iterator[int]:
    """The port of a server that runs as long as the block."""
    command = [sys.executable, "-m", "tests.batch.s3_server"]
    environment = {**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout
        assert select.select([process.stdout], [], [], START_S)[0], "the S3 server does not start"
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def new_bucket(port: int) -> S3Bucket:
    bucket = S3Bucket(f"dulian-{secrets.token_hex(8)}", port)
    s3_client(port).create_bucket(Bucket=bucket.name)
    return bucket


@contextmanager
def faulty(bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[S3Bucket, FaultyHttp]]:
    """The same bucket, reached through a proxy; this process's environment leads there as long as the block."""
    with FaultyHttp(bucket.port) as proxy, monkeypatch.context() as patch:
        behind = S3Bucket(bucket.name, bucket.port, proxy.url, bucket.prefix)
        for name, value in behind.environment.items():
            patch.setenv(name, value)
        yield behind, proxy
