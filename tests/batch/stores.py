"""Real stores for tests, in processes of their own, and the same behind a proxy that does harm."""

from __future__ import annotations

import os
import secrets
import select
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, TypeVar

import boto3
import pytest
from botocore.config import Config

from tests.batch.faulty_http import FaultyHttp
from tests.conftest import ROOT

# Stores' drivers send large bodies at once, and leave connections that broke to the garbage collector.
DRIVERS = [
    pytest.mark.filterwarnings(f"ignore:{said}:ResourceWarning") for said in ("Sending a large body", "unclosed")
]
START_S = 60.0
# Names that are listed at once.
PAGE = 100


@dataclass(frozen=True)
class Bucket(ABC):
    """A bucket that is empty at first, and a place in it; a container, as Azure says."""

    name: str
    port: int
    endpoint: str = ""
    prefix: str = "albums/2026"
    scheme: ClassVar[str]

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.name}/{self.prefix}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
        return self._environment(self.endpoint or f"http://127.0.0.1:{self.port}")

    @abstractmethod
    def _environment(self, endpoint: str) -> dict[str, str]: ...

    @abstractmethod
    def put(self, name: str, data: bytes) -> None:
        """Put an object below the prefix, past everything that is tested."""

    @abstractmethod
    def objects(self) -> dict[str, bytes]:
        """All objects of the bucket and their bytes, names below the prefix."""

    def lead_here(self, patch: pytest.MonkeyPatch) -> None:
        """Have this process's environment lead to it."""
        for name, value in self.environment.items():
            patch.setenv(name, value)


@dataclass(frozen=True)
class S3Bucket(Bucket):
    scheme = "s3"

    def _environment(self, endpoint: str) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def put(self, name: str, data: bytes) -> None:
        s3_client(self.port).put_object(Bucket=self.name, Key=f"{self.prefix}/{name}", Body=data)

    def objects(self) -> dict[str, bytes]:
        client = s3_client(self.port)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        read = {key: client.get_object(Bucket=self.name, Key=key)["Body"].read() for key in keys}
        return {key.removeprefix(f"{self.prefix}/"): data for key, data in read.items()}


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
def server_process(module: str, **environment: str) -> Iterator[int]:
    """The port of a server of ours that runs as long as the block."""
    command = [sys.executable, "-m", module]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout
        assert select.select([process.stdout], [], [], START_S)[0], f"{module} does not start"
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def s3_process() -> AbstractContextManager[int]:
    """The port of moto, as long as the block."""
    return server_process("tests.batch.s3_server", MOTO_S3_DEFAULT_MAX_KEYS=str(PAGE))


def new_bucket(port: int) -> S3Bucket:
    bucket = S3Bucket(f"dulian-{secrets.token_hex(8)}", port)
    s3_client(port).create_bucket(Bucket=bucket.name)
    return bucket


AnyBucket = TypeVar("AnyBucket", bound=Bucket)


@contextmanager
def faulty(bucket: AnyBucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[AnyBucket, FaultyHttp]]:
    """The same bucket, reached through a proxy; this process's environment leads there as long as the block."""
    with FaultyHttp(bucket.port) as proxy, monkeypatch.context() as patch:
        behind = replace(bucket, endpoint=proxy.url)
        behind.lead_here(patch)
        yield behind, proxy
