from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

import dulian
from dulian.api import FaceAnalyzer
from dulian.errors import (
    InputNotFoundError,
    InputTooLargeError,
    MalformedInputError,
    MissingDependencyError,
    UnknownNameError,
)
from dulian.image import ImageLimits, decode_image
from dulian.store import ModelStore

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def analyzer(model_store: ModelStore) -> FaceAnalyzer:
    return dulian.load_analyzer(model_dir=model_store.write_dir)


@pytest.fixture(scope="module")
def portrait(samples: Path) -> Path:
    return samples / "astronaut.png"


def test_path_text_bytes_and_array_are_the_same_picture(analyzer: FaceAnalyzer, portrait: Path) -> None:
    data = portrait.read_bytes()
    answers = [analyzer.analyze(picture).faces for picture in (portrait, str(portrait), data, decode_image(data).image)]
    assert len(answers[0]) == 1
    assert answers.count(answers[0]) == 4


def test_timings_tell_what_was_done(analyzer: FaceAnalyzer, portrait: Path) -> None:
    timings = analyzer.analyze(portrait).timings_ms
    assert timings.decode > 0
    assert timings.total >= timings.decode + timings.detect + timings.attributes - 1e-6
    assert analyzer.analyze(decode_image(portrait.read_bytes()).image).timings_ms.decode == 0


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((0, 10, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(analyzer: FaceAnalyzer, array: np.ndarray) -> None:
    with pytest.raises(MalformedInputError, match="BGR"):
        analyzer.analyze(array)
    with pytest.raises(MalformedInputError, match="BGR"):
        dulian.annotate(array, analyzer.analyze(np.zeros((9, 9, 3), np.uint8)))


def test_views_and_read_only_arrays_are_fine(analyzer: FaceAnalyzer, portrait: Path) -> None:
    image = decode_image(portrait.read_bytes()).image
    view = np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)[::2, ::2]
    view.flags.writeable = False
    assert analyzer.analyze(view).faces == analyzer.analyze(image).faces


@pytest.mark.parametrize("picture", [None, 3, object(), [1, 2]])
def test_other_things_are_refused(analyzer: FaceAnalyzer, picture: object) -> None:
    with pytest.raises(MalformedInputError, match="a picture is"):
        analyzer.analyze(picture)  # type: ignore[arg-type]


def test_every_kind_of_bytes_is_bytes(analyzer: FaceAnalyzer, portrait: Path) -> None:
    data = portrait.read_bytes()
    faces = analyzer.analyze(data).faces
    assert analyzer.analyze(bytearray(data)).faces == analyzer.analyze(memoryview(data)).faces == faces


def test_missing_and_oversized_files_are_refused(
    analyzer: FaceAnalyzer, portrait: Path, model_store: ModelStore
) -> None:
    with pytest.raises(InputNotFoundError):
        analyzer.analyze(portrait.with_name("gone.png"))
    small = dulian.load_analyzer(model_dir=model_store.write_dir, limits=ImageLimits(max_bytes=1000))
    with pytest.raises(InputTooLargeError):
        small.analyze(portrait)
    with pytest.raises(InputTooLargeError):
        small.analyze(portrait.read_bytes())


def test_options_are_checked(analyzer: FaceAnalyzer, portrait: Path) -> None:
    with pytest.raises(MalformedInputError):
        analyzer.analyze(portrait, max_faces=0)
    with pytest.raises(MalformedInputError):
        analyzer.analyze(portrait, attributes=["emotion"])  # type: ignore[list-item]
    for wrong in ({"max_faces": "3"}, {"coverage": None}, {"attributes": None}, {"attributes": [[]]}):
        with pytest.raises(MalformedInputError):
            analyzer.analyze(portrait, **wrong)  # type: ignore[arg-type]
    (face,) = analyzer.analyze(portrait, attributes="age").faces
    assert face.age is not None
    assert face.gender is None
    with pytest.raises(UnknownNameError):
        dulian.load_analyzer("best")


def test_results_are_frozen_survive_pickling_and_dicts(analyzer: FaceAnalyzer, portrait: Path) -> None:
    result = analyzer.analyze(portrait)
    with pytest.raises(FrozenInstanceError):
        result.faces[0].confidence = 1.0  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(result)) == result
    again = dulian.AnalysisResult.from_dict(result.to_dict())
    assert again.to_dict() == result.to_dict()


def test_one_analyzer_serves_many_threads(analyzer: FaceAnalyzer, portrait: Path) -> None:
    alone = analyzer.analyze(portrait).faces
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda _: analyzer.analyze(portrait).faces, range(12)))
    assert together == [alone] * 12


def test_annotate_draws_on_a_copy(analyzer: FaceAnalyzer, portrait: Path) -> None:
    image = decode_image(portrait.read_bytes()).image
    kept = image.copy()
    drawn = dulian.annotate(image, analyzer.analyze(image))
    assert (image == kept).all()
    assert drawn.shape == image.shape
    assert (drawn != image).any()
    assert (dulian.annotate(portrait, analyzer.analyze(portrait)) == drawn).all()


def test_a_data_frame_has_a_row_per_face(analyzer: FaceAnalyzer, portrait: Path) -> None:
    results = [
        analyzer.analyze(np.zeros((64, 64, 3), np.uint8)),
        analyzer.analyze(portrait),
        analyzer.analyze(portrait, attributes=()),
    ]
    frame = dulian.to_dataframe(results)
    assert frame["image"].tolist() == [1, 2]
    assert frame.loc[0, "gender"] == "female"
    assert frame.loc[1, ["age", "gender"]].isna().all()
    assert list(dulian.to_dataframe([]).columns) == list(frame.columns)
    assert len(dulian.to_dataframe(results[1])) == 1


def test_without_pandas_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match="pip install pandas"):
        dulian.to_dataframe([])
