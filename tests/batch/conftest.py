"""Fixtures that the tests of batches share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import botocore.loaders
import botocore.session
import pytest

from tests.batch.stores import S3Bucket, new_bucket, s3_process


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """The port of a real S3-compatible server on this machine."""
    with s3_process() as port, pytest.MonkeyPatch.context() as patch:
        # Every client reads the descriptions of the whole service; here one that has read them is enough.
        patch.setattr(botocore.session, "create_loader", cache(botocore.loaders.create_loader))
        yield port


@pytest.fixture
def s3_bucket(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> S3Bucket:
    """A bucket of its own, empty, to which this process's environment leads."""
    bucket = new_bucket(s3_port)
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return bucket
