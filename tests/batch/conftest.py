"""Fixtures that the tests of batches share."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from functools import cache

import botocore.loaders
import botocore.session
import pytest

from tests.batch.azurite import AzureContainer, azurite_process, new_container
from tests.batch.gcs import GcsBucket, gcs_process, new_gcs_bucket
from tests.batch.stores import S3Bucket, new_bucket, s3_process

# Google's library, when it is imported, makes up its mind whether to look for a server of Google's around here.
os.environ["NO_GCE_CHECK"] = "true"


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
    bucket.lead_here(monkeypatch)
    return bucket


@pytest.fixture
def nothing_left_open() -> Iterator[None]:
    """What drivers leave to the garbage collector it gets at the end of the test, and none of the others."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def azure_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real store of Azure's on this machine."""
    with azurite_process(tmp_path_factory.mktemp("azurite")) as port:
        yield port


@pytest.fixture
def azure_container(azure_port: int, monkeypatch: pytest.MonkeyPatch, nothing_left_open: None) -> AzureContainer:
    """A container of its own, empty, to which this process's environment leads."""
    container = new_container(azure_port)
    container.lead_here(monkeypatch)
    return container


@pytest.fixture(scope="session")
def gcs_port() -> Iterator[int]:
    """The port of a server on this machine that speaks as Google's does."""
    with gcs_process() as port:
        yield port


@pytest.fixture
def gcs_bucket(gcs_port: int, monkeypatch: pytest.MonkeyPatch, nothing_left_open: None) -> GcsBucket:
    """A bucket of its own, empty, to which this process's environment leads."""
    bucket = new_gcs_bucket(gcs_port)
    bucket.lead_here(monkeypatch)
    return bucket
