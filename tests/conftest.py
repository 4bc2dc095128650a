"""Fixtures that many tests share: real weights, fetched once, real photos, and the labelled set where it exists."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dulian.models.catalog import PROFILES, all_rows
from dulian.store import ModelStore

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def model_store() -> ModelStore:
    """The real store; whatever is missing is fetched into the checkout's cache."""
    return ModelStore(model_dir=ROOT / ".cache" / "models")


@pytest.fixture(scope="session")
def original_files(model_store: ModelStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the Caffe originals under their catalog names, the flawed old prototxt beside them."""
    folder = tmp_path_factory.mktemp("originals")
    for row in all_rows():
        if row.recipe == "caffe":
            for file, data in zip(row.originals, model_store.load_originals(row).data, strict=True):
                (folder / file.name).write_bytes(data)
    return folder


@pytest.fixture(scope="session")
def samples(model_store: ModelStore) -> Path:
    """A folder with the public-domain sample pictures."""
    return model_store.pull_samples()


@pytest.fixture(scope="session")
def dev_data() -> Path:
    """The labelled development photos, named by DULIAN_DEV_DATA."""
    folder = os.environ.get("DULIAN_DEV_DATA")
    if not folder or not Path(folder, "manifest.csv").is_file():
        pytest.skip("DULIAN_DEV_DATA names no folder with the labelled development photos")
    return Path(folder)


@pytest.fixture(params=list(PROFILES))
def profile_name(request: pytest.FixtureRequest) -> str:
    """Every profile of the catalog."""
    return str(request.param)
