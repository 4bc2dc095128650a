from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.golden.pictures import sample_pictures

from dulian import factory
from dulian.api import load_analyzer
from dulian.errors import UnknownNameError, WeightsError
from dulian.factory import AnalyzerFactory, open_profile
from dulian.image import decode_image, encode_jpeg
from dulian.models.catalog import PROFILES, find_profile
from dulian.models.side import SideEstimator
from dulian.runtimes.onnxruntime import OnnxRuntimeFactory
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
        digest(model_store, replace(STANDARD, glance=None)),
        digest(model_store, replace(STANDARD, estimators=STANDARD.estimators[:1])),
    }
    monkeypatch.setattr(factory, "PREPROCESSING_VERSION", 10_000)
    others.add(digest(model_store))
    table = factory.load_calibration(STANDARD)
    table["gender"]["decision"] = 0.99
    monkeypatch.setattr(factory, "load_calibration", lambda _: table)
    others.add(digest(model_store))
    assert usual not in others
    assert len(others) == 6


def test_each_profile_has_its_own_threshold(model_store: ModelStore) -> None:
    opened = {name: open_profile(profile, model_store) for name, profile in PROFILES.items()}
    least = {name: one.new_analyzer()._confidence.minimum for name, one in opened.items()}
    assert least == {"standard": 0.6, "accurate": 0.6, "classic": 0.5, "classic-article": 0.5}


def test_caffe_originals_are_for_profiles_that_have_them(model_store: ModelStore) -> None:
    with pytest.raises(UnknownNameError, match="use profile classic"):
        open_profile(STANDARD, model_store, engine="opencv-caffe")


# ── a picture that has the machine to itself ─────────────────────────────────────────────────────


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_solo_analyzers_answer_as_the_shared_ones(profile, model_store: ModelStore, samples: Path) -> None:  # type: ignore[no-untyped-def]
    opened = open_profile(profile, model_store, solo_threads=2)
    assert opened.new_solo_analyzer is not None
    shared, solo = opened.new_analyzer(), opened.new_solo_analyzer()
    for name, data in sample_pictures(samples).items():
        image = decode_image(data).image
        expected, answer = shared.analyze(image).to_dict(), solo.analyze(image).to_dict()
        assert answer["faces"] == expected["faces"], name
        assert answer["model"] == expected["model"]


def threads_of(opened: AnalyzerFactory, *, solo: bool) -> list[int]:
    """Threads of each network, as ONNX Runtime was told, the detector first."""
    sessions = opened.solo_sessions if solo else opened.sessions
    assert sessions is not None
    made = [sessions[row.name] for row in opened.profile.rows]
    return [
        one._model.get_session_options().intra_op_num_threads for one in made if isinstance(one, OnnxRuntimeFactory)
    ]


@pytest.mark.parametrize(
    ("threads", "solo_threads", "alone", "reopened"),
    [(1, 2, [2, 1, 1], {"yunet"}), (2, 2, [2, 1, 1], {"dlib_age", "dlib_gender"}), (1, 1, [1, 1, 1], set())],
)
def test_networks_are_opened_again_only_for_another_number_of_threads(
    model_store: ModelStore, threads: int, solo_threads: int, alone: list[int], reopened: set[str]
) -> None:
    opened = open_profile(STANDARD, model_store, threads=threads, solo_threads=solo_threads)
    assert threads_of(opened, solo=False) == [threads] * 3
    assert threads_of(opened, solo=True) == alone
    assert opened.solo_sessions is not None
    assert {name for name, own in opened.solo_sessions.items() if own is not opened.sessions[name]} == reopened


def test_a_solo_analyzer_reads_faces_with_its_networks_side_by_side(model_store: ModelStore) -> None:
    opened = open_profile(STANDARD, model_store, solo_threads=2)
    assert opened.new_solo_analyzer is not None
    aside = [isinstance(estimator, SideEstimator) for estimator in opened.new_solo_analyzer()._estimators]
    assert sorted(aside) == [False, True]
    assert not any(isinstance(estimator, SideEstimator) for estimator in opened.new_analyzer()._estimators)


def test_without_threads_for_solo_pictures_there_are_no_solo_analyzers(model_store: ModelStore) -> None:
    opened = open_profile(STANDARD, model_store, threads=2)
    assert opened.solo_sessions is None
    assert opened.new_solo_analyzer is None


def test_bf16_is_left_to_the_engine_that_does_it(model_store: ModelStore) -> None:
    assert open_profile(STANDARD, model_store, precision="bf16").model.engine == "openvino"
    assert open_profile(STANDARD, model_store).model.engine == "onnxruntime"


# ── tiles ────────────────────────────────────────────────────────────────────────────────────────


def test_tiles_find_what_is_too_small_in_the_whole(model_store: ModelStore, samples: Path) -> None:
    face = decode_image((samples / "astronaut.png").read_bytes()).image[20:260, 110:350]
    small = cv2.resize(face, (48, 48), interpolation=cv2.INTER_AREA)
    crowd = np.full((2000, 3000, 3), 128, np.uint8)
    places = [(x, y) for y in range(100, 1900, 450) for x in range(100, 2900, 450)]
    for x, y in places:
        crowd[y : y + 48, x : x + 48] = small
    data = encode_jpeg(crowd)
    plain, tiled = (load_analyzer(model_dir=model_store.write_dir, tiles=tiles) for tiles in (False, True))
    assert len(plain.analyze(data).faces) < len(places) / 2
    found = tiled.analyze(data).faces
    assert len(found) == len(places)
    centres = np.array([((face.box.x1 + face.box.x2) / 2, (face.box.y1 + face.box.y2) / 2) for face in found])
    distances = np.linalg.norm(centres[None] - (np.array(places)[:, None] + 24), axis=2)
    assert distances.min(axis=1).max() < 12
    assert plain.analyze(data).model.digest != tiled.analyze(data).model.digest
