"""Real weights on real photos: the answers of both profiles, kept as numbers, with tolerances.

The pictures are the public-domain samples, changed in known ways, and, where they are at hand, labelled development
photos. ``python -m tests.golden.renew`` writes the numbers anew; look at the difference before committing it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dulian.api import FaceAnalyzer, load_analyzer
from dulian.faces import Face
from dulian.geometry import iou
from dulian.models.catalog import PROFILES
from dulian.runtimes import RUNTIMES
from dulian.store import ModelStore
from tests.golden.pictures import DEV_FACES, DEV_PHOTOS, sample_pictures
from tests.golden.renew import essence

ANSWERS = Path(__file__).parent / "answers"
ONNX_ENGINES = [name for name, row in RUNTIMES.items() if row.format == "onnx"]

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module", params=list(PROFILES))
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def analyzer(profile: str, model_store: ModelStore) -> FaceAnalyzer:
    return load_analyzer(profile, model_dir=model_store.write_dir)


@pytest.fixture(scope="module")
def pictures(samples: Path) -> dict[str, bytes]:
    return sample_pictures(samples)


def expected(profile: str) -> dict[str, list[dict[str, Any]]]:
    answers: dict[str, list[dict[str, Any]]] = json.loads((ANSWERS / f"{profile}.json").read_text())
    return answers


def in_reading_order(faces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(faces, key=lambda face: (round(face["bbox"][1] / 10), round(face["bbox"][0] / 10)))


def reading_order(face: Face) -> tuple[int, int]:
    return round(face.box.y1 / 10), round(face.box.x1 / 10)


def check(faces: list[dict[str, Any]], golden: list[dict[str, Any]], name: str) -> None:
    assert len(faces) == len(golden), name
    for face, kept in zip(faces, golden, strict=True):
        assert face["bbox"] == pytest.approx(kept["bbox"], abs=2.0), name
        assert face["confidence"] == pytest.approx(kept["confidence"], abs=0.01), name
        assert face["age"]["value"] == pytest.approx(kept["age"]["value"], abs=1.0), name
        assert face["age"]["low"] == pytest.approx(kept["age"]["low"], abs=1.5), name
        assert face["age"]["high"] == pytest.approx(kept["age"]["high"], abs=1.5), name
        assert face["gender"]["female_probability"] == pytest.approx(kept["gender"]["female_probability"], abs=0.03)
        assert face["quality"]["reasons"] == kept["quality"]["reasons"], name


def test_samples_answer_as_kept(analyzer: FaceAnalyzer, profile: str, pictures: dict[str, bytes]) -> None:
    kept = expected(profile)
    assert set(pictures) <= set(kept)
    for name, data in pictures.items():
        check(analyzer.analyze(data).to_dict()["faces"], kept[name], name)


@pytest.mark.dev_data
@pytest.mark.parametrize("photo", DEV_PHOTOS)
def test_photos_answer_as_kept(analyzer: FaceAnalyzer, profile: str, dev_data: Path, photo: str) -> None:
    check(analyzer.analyze(dev_data / photo).to_dict()["faces"], expected(profile)[photo], photo)


@pytest.mark.dev_data
def test_labelled_faces_answer_as_kept(analyzer: FaceAnalyzer, profile: str, dev_data: Path) -> None:
    kept: dict[str, list[float]] = json.loads((ANSWERS / f"{profile}.faces.json").read_text())
    assert list(kept) == list(DEV_FACES)
    assert sum(map(bool, kept.values())) >= 35
    for name, expected_values in kept.items():
        found = essence(analyzer.analyze(dev_data / name))
        assert len(found) == len(expected_values), name
        if found:
            assert found[:3] == pytest.approx(expected_values[:3], abs=1.5), name
            assert found[3] == pytest.approx(expected_values[3], abs=0.03), name


@pytest.mark.parametrize("engine", ONNX_ENGINES)
def test_every_engine_finds_the_same_people(
    analyzer: FaceAnalyzer, profile: str, engine: str, pictures: dict[str, bytes], model_store: ModelStore
) -> None:
    if profile == "classic-article":
        pytest.skip("the same networks as classic")
    other = load_analyzer(profile, engine=engine, model_dir=model_store.write_dir)
    for name, data in pictures.items():
        reference = analyzer.analyze(data).to_dict()["faces"]
        answer = other.analyze(data).to_dict()["faces"]
        assert len(answer) == len(reference), name
        # Twins of equal size may swap places, because engines differ in the seventh digit.
        for face, same in zip(in_reading_order(answer), in_reading_order(reference), strict=True):
            assert face["bbox"] == pytest.approx(same["bbox"], abs=0.2), name
            assert face["age"]["value"] == pytest.approx(same["age"]["value"], abs=0.2), name
            assert face["gender"]["value"] == same["gender"]["value"], name


@pytest.mark.skipif(int(cv2.__version__.partition(".")[0]) >= 5, reason="OpenCV 5 does not read the Caffe originals")
def test_classic_answers_as_its_caffe_originals(model_store: ModelStore, pictures: dict[str, bytes]) -> None:
    model_store.pull(PROFILES["classic"].rows, originals=True)
    ours, reference = (
        load_analyzer("classic", engine=engine, model_dir=model_store.write_dir)
        for engine in ("onnxruntime", "opencv-caffe")
    )
    compared = 0
    for data in pictures.values():
        # Twins of equal size may swap places here too.
        found, caffes = (sorted(one.analyze(data).faces, key=reading_order) for one in (ours, reference))
        assert len(found) == len(caffes)
        for face, other in zip(found, caffes, strict=True):
            assert face.age is not None
            assert other.age is not None
            overlap = iou(*(np.array([list(one.box)], np.float32) for one in (face, other)))[0, 0]
            assert overlap >= 0.98
            assert (face.gender and face.gender.value) == (other.gender and other.gender.value)
            assert face.age.bucket == other.age.bucket
            compared += 1
    assert compared >= 5


def test_a_mirrored_photo_shows_the_same_people_mirrored(analyzer: FaceAnalyzer, pictures: dict[str, bytes]) -> None:
    straight = analyzer.analyze(pictures["astronaut"])
    mirrored = analyzer.analyze(pictures["astronaut mirrored"])
    assert len(straight.faces) == len(mirrored.faces) == 1
    box, twin = straight.faces[0].box, mirrored.faces[0].box
    side = max(box.width, box.height)
    assert (straight.image.width - twin.x2, twin.y1) == pytest.approx((box.x1, box.y1), abs=0.1 * side)
    assert straight.faces[0].gender is not None
    assert mirrored.faces[0].gender is not None
    assert straight.faces[0].gender.value == mirrored.faces[0].gender.value


def test_a_portrait_on_its_side_is_found_all_the_same(analyzer: FaceAnalyzer, pictures: dict[str, bytes]) -> None:
    upright = analyzer.analyze(pictures["astronaut"]).faces[0]
    for turn in (90, 180, 270):
        result = analyzer.analyze(pictures[f"astronaut turned {turn}"])
        assert result.image.rotated == (360 - turn) % 360, turn
        (face,) = result.faces
        assert upright.age is not None
        assert face.age is not None
        assert face.age.value == pytest.approx(upright.age.value, abs=6)


def test_nobody_is_nobody(analyzer: FaceAnalyzer, pictures: dict[str, bytes]) -> None:
    for name in ("cat", "plain"):
        result = analyzer.analyze(pictures[name])
        assert result.faces == ()
        assert result.hint is not None


def test_formats_agree(analyzer: FaceAnalyzer, pictures: dict[str, bytes]) -> None:
    """A PNG and its high-quality JPEG and WebP twins are the same picture to the eye, and so to dulian."""
    (png,) = analyzer.analyze(pictures["astronaut"]).faces
    for name in ("astronaut jpeg", "astronaut webp"):
        (twin,) = analyzer.analyze(pictures[name]).faces
        assert tuple(twin.box) == pytest.approx(tuple(png.box), abs=3)
        assert twin.age is not None
        assert png.age is not None
        assert twin.age.value == pytest.approx(png.age.value, abs=3)
