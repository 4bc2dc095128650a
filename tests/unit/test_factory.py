from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dulian import factory
from dulian.api import load_analyzer
from dulian.errors import UnknownNameError, WeightsError
from dulian.factory import open_profile
from dulian.models.catalog import PROFILES, find_profile
from dulian.store import ModelStore

pytestmark = pytest.mark.weights
STANDARD = PROFILES["standard"]


def digest(store: ModelStore, profile=STANDARD, **options: object) -> str:  # type: ignore[no-untyped-def]
    return open_profile(profile, store, **options).model.digest  # type: ignore[arg-type]


def test_weights_are_read_once_and_shared(model_store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    real = ModelStore.load
    monkeypatch.setattr(ModelStore, "load", lambda store, row: loads.append(row.name) or real(store, row))
    opened = open_profile(STANDARD, model_store)
    for _ in range(3):
        opened.new_analyzer()
    assert sorted(loads) == sorted(row.name for row in STANDARD.rows)


def test_missing_weights_are_noticed_before_anything_is_analysed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="dulian models pull"):
        load_analyzer(model_dir=tmp_path, offline=True)


def test_the_digest_names_everything_that_shapes_an_answer(
    model_store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = digest(model_store)
    assert digest(model_store) == usual
    assert digest(model_store, threads=2, workers=2, engine="opencv") == usual
    others = {
        digest(model_store, find_profile("classic")),
        digest(model_store, replace(STANDARD, min_confidence=0.61)),
        digest(model_store, replace(STANDARD, estimators=STANDARD.estimators[:1])),
    }
    monkeypatch.setattr(factory, "PREPROCESSING_VERSION", 10_000)
    others.add(digest(model_store))
    table = factory.load_calibration(STANDARD)
    table["gender"]["decision"] = 0.99
    monkeypatch.setattr(factory, "load_calibration", lambda _: table)
    others.add(digest(model_store))
    assert usual not in others
    assert len(others) == 5


def test_each_profile_has_its_own_threshold(model_store: ModelStore) -> None:
    assert [open_profile(p, model_store).new_analyzer()._confidence.minimum for p in PROFILES.values()] == [0.6, 0.5]


def test_caffe_originals_are_for_profiles_that_have_them(model_store: ModelStore) -> None:
    with pytest.raises(UnknownNameError, match="use profile classic"):
        open_profile(STANDARD, model_store, engine="opencv-caffe")
