"""Concurrent answers equal serial answers, byte for byte, on every engine."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import pytest

from dulian.api import FaceAnalyzer, load_analyzer
from dulian.faces import AnalysisResult
from dulian.factory import open_profile
from dulian.image import ImageLimits
from dulian.models.catalog import PROFILES
from dulian.models.rows import Profile
from dulian.pipeline import Pipeline
from dulian.runtimes import RUNTIMES
from dulian.store import ModelStore
from tests.golden.pictures import sample_pictures

# The networks of classic-article are those of classic.
OWN_NETWORKS = [profile for profile in PROFILES.values() if profile.name != "classic-article"]
CONFIGURATIONS = [
    (profile.name, engine)
    for profile in OWN_NETWORKS
    for engine, row in RUNTIMES.items()
    if row.format == "onnx" or all(network.recipe == "caffe" for network in profile.rows)
]
THREADS = 8
ROUNDS = 2

pytestmark = pytest.mark.weights


def without_timings(result: AnalysisResult) -> str:
    told = result.to_dict()
    del told["timings_ms"]
    return json.dumps(told)


def answer(analyzer: FaceAnalyzer, data: bytes) -> str:
    return without_timings(analyzer.analyze(data))


@pytest.mark.parametrize(("profile", "engine"), CONFIGURATIONS)
def test_eight_threads_answer_as_one(profile: str, engine: str, model_store: ModelStore, samples: Path) -> None:
    if RUNTIMES[engine].format == "caffe" and not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip(f"OpenCV {cv2.__version__} has no Caffe importer")
    analyzer = load_analyzer(profile, engine=engine, model_dir=model_store.write_dir)
    pictures = list(sample_pictures(samples).values())
    serial = [answer(analyzer, data) for data in pictures]
    work = [index for turn in range(ROUNDS) for index in range(len(pictures))]
    with ThreadPoolExecutor(THREADS) as pool:
        concurrent = list(pool.map(lambda index: answer(analyzer, pictures[index]), work))
    assert concurrent == [serial[index] for index in work]


@pytest.mark.parametrize("profile", OWN_NETWORKS, ids=lambda profile: profile.name)
def test_it_does_not_show_who_was_alone(profile: Profile, model_store: ModelStore, samples: Path) -> None:
    """Pictures get the solo analyzer or the shared one as it happens; both have the same answers."""
    opened = open_profile(profile, model_store, workers=4, solo_threads=2)
    shared = Pipeline(opened.new_analyzer, limits=ImageLimits())
    pictures = list(sample_pictures(samples).values())
    serial = [without_timings(shared.analyze(data)[0]) for data in pictures]
    both = Pipeline(opened.new_analyzer, limits=ImageLimits(), new_solo_analyzer=opened.new_solo_analyzer)
    assert [without_timings(both.analyze(data)[0]) for data in pictures] == serial
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda data: without_timings(both.analyze(data)[0]), pictures)) == serial


def test_the_comparison_notices_a_swapped_answer(model_store: ModelStore, samples: Path) -> None:
    """Negative control: two pictures that differ must not have equal answers."""
    analyzer = load_analyzer(model_dir=model_store.write_dir)
    pictures = sample_pictures(samples)
    assert answer(analyzer, pictures["astronaut"]) != answer(analyzer, pictures["astronaut mirrored"])
