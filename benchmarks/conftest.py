"""What the benchmarks measure on: the sample pictures of ``dulian bench``, the profiles on ONNX Runtime, one thread."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dulian.bench import sample_pictures
from dulian.factory import AnalyzerFactory, open_profile
from dulian.models.catalog import PROFILES
from dulian.settings import guard_opencv
from dulian.store import ModelStore

guard_opencv()


@pytest.fixture(scope="session")
def store() -> ModelStore:
    folder = os.environ.get("DULIAN_MODEL_DIR")
    return ModelStore(model_dir=Path(folder) if folder else None)


@pytest.fixture(scope="session")
def pictures(store: ModelStore) -> dict[str, bytes]:
    return sample_pictures(store)


@pytest.fixture(scope="session", params=list(PROFILES))
def profile(request: pytest.FixtureRequest, store: ModelStore) -> AnalyzerFactory:
    return open_profile(PROFILES[request.param], store, engine="onnxruntime")
