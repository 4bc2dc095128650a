"""What the store's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fake_registry import FakeRegistry

from dulian.models import catalog


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    """Tiny packages, and a catalog that knows only them."""
    fake = FakeRegistry(tmp_path)
    monkeypatch.setattr(catalog, "PROFILES", fake.profiles)
    monkeypatch.setattr(catalog, "SAMPLES", fake.samples)
    return fake
