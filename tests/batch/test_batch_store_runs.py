"""Whole batches from an object store into an object store that fails now and then, driver and workers killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.batch.faulty_http import Request
from tests.batch.mortal import records_of
from tests.batch.stores import DRIVERS, Bucket, faulty
from tests.conftest import ROOT

pytestmark = DRIVERS
PATIENCE_S = 120.0
PICTURES = 96
FAULTS = ("500", "slow", "cut", "503", "lost", "refused")


def some(request: Request, number: int) -> str | None:
    """Every eighth request fares badly, each time in another way."""
    return FAULTS[number // 8 % len(FAULTS)] if number % 8 == 0 else None


@pytest.fixture(params=["s3_bucket", "gcs_bucket", "azure_container"], ids=["s3", "gcs", "azure"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    found: Bucket = request.getfixturevalue(request.param)
    return found


def start(bucket: Bucket, log: Path) -> subprocess.Popen[str]:
    source = replace(bucket, prefix="album")
    command = [sys.executable, "-m", "tests.batch.drive", source.url, bucket.url, str(log), "--shard-size", "8"]
    environment = {**os.environ, **bucket.environment}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(bucket: Bucket, log: Path) -> tuple[int, ...]:
    out, err = (driver := start(bucket, log)).communicate(timeout=PATIENCE_S)
    assert driver.returncode == 0, err
    return tuple(map(int, out.split()))


def test_a_store_that_fails_now_and_then_loses_and_repeats_nothing(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    album = replace(bucket, prefix="album")
    for index in range(PICTURES):
        album.put(f"{index:04d}.jpg", b"%04d" % index)
    log = tmp_path / "log"
    log.touch()
    with faulty(bucket, monkeypatch) as (behind, proxy):
        proxy.choose = some
        driver = start(behind, log)
        deadline = time.monotonic() + PATIENCE_S
        while len(log.read_bytes().splitlines()) < PICTURES // 3:
            assert driver.poll() is None, driver.communicate()[1]
            assert time.monotonic() < deadline, "nothing is computed"
            time.sleep(0.02)
        driver.kill()
        driver.communicate()
        before, computed, _, quarantined = finish(behind, log)
        assert (before + computed, quarantined) == (PICTURES, 0)
        assert proxy.faults() >= len(FAULTS)
    names = [f"{album.url}/{index:04d}.jpg" for index in range(PICTURES)]
    records = records_of(bucket.url)
    assert [record["source"] for record in records] == names
    assert {record["status"] for record in records} == {"ok"}
    computed_before = log.stat().st_size
    assert finish(bucket, log) == (PICTURES, 0, 0, 0)
    assert log.stat().st_size == computed_before
    assert not [name for name in bucket.objects() if name.startswith(("staging/", "pieces/"))]
