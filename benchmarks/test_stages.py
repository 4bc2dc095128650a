"""Every step of one picture by itself, for numbers that two versions of the code can be compared by: ``make bench``.

Nothing is asserted about time. What is asserted is that each step did its work.
"""

from __future__ import annotations

import json

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from dulian.analyzer import Analyzer
from dulian.crops import Crops
from dulian.factory import AnalyzerFactory
from dulian.image import ImageLimits, decode_image, encode_jpeg, open_picture
from dulian.pipeline import Pipeline
from dulian.quality import QUALITY_CROP, assess
from dulian.render import annotate

PICTURES = ("portrait 0.26 MP", "group 0.52 MP", "portrait 12 MP")


@pytest.fixture(params=PICTURES)
def data(request: pytest.FixtureRequest, pictures: dict[str, bytes]) -> bytes:
    return pictures[request.param]


@pytest.fixture
def analyzer(profile: AnalyzerFactory) -> Analyzer:
    made = profile.new_analyzer()
    made.warm_up()
    return made


def test_whole_picture(benchmark: BenchmarkFixture, profile: AnalyzerFactory, data: bytes) -> None:
    pipeline = Pipeline(profile.new_analyzer, limits=ImageLimits(), warm=True)
    pipeline.prepare()
    result, _ = benchmark(pipeline.analyze, data)
    assert result.faces


@pytest.mark.parametrize("reduction", [1, 2, 4])
def test_decoding_12_megapixels(benchmark: BenchmarkFixture, pictures: dict[str, bytes], reduction: int) -> None:
    picture = open_picture(pictures["portrait 12 MP"])
    decoded = benchmark(picture.decode, reduction)
    assert decoded.image.shape[0] == -(-picture.wh[1] // reduction)


@pytest.mark.parametrize("name", PICTURES[:2])
def test_detection(benchmark: BenchmarkFixture, analyzer: Analyzer, pictures: dict[str, bytes], name: str) -> None:
    image = decode_image(pictures[name]).image
    outcome = benchmark(analyzer._detector.detect, image, min_confidence=analyzer._confidence.minimum)
    assert outcome.detections


@pytest.mark.parametrize("faces", [1, 8])
def test_attribute_networks(
    benchmark: BenchmarkFixture, analyzer: Analyzer, pictures: dict[str, bytes], faces: int
) -> None:
    image = decode_image(pictures[PICTURES[0]]).image
    detected = analyzer._detector.detect(image, min_confidence=analyzer._confidence.minimum).detections[:1]
    crops = Crops(image, detected * faces)
    cut = [(estimator, crops.cut(estimator.crop)) for estimator in analyzer._estimators]
    scores = benchmark(lambda: [estimator.estimate(each) for estimator, each in cut])
    assert len(scores) == len(cut)


def test_crops_and_quality_of_eight_faces(
    benchmark: BenchmarkFixture, analyzer: Analyzer, pictures: dict[str, bytes]
) -> None:
    image = decode_image(pictures[PICTURES[1]]).image
    wh = image.shape[1], image.shape[0]
    detected = analyzer._detector.detect(image, min_confidence=analyzer._confidence.minimum).detections[:8]

    def cut_and_judge() -> int:
        crops = Crops(image, detected)
        for estimator in analyzer._estimators:
            crops.cut(estimator.crop)
        judged = [
            assess(face, crop, wh, size_px=100, incomplete=False)
            for face, crop in zip(detected, crops.cut(QUALITY_CROP), strict=True)
        ]
        return len(judged)

    assert benchmark(cut_and_judge) == len(detected)


def test_answer_as_json(benchmark: BenchmarkFixture, profile: AnalyzerFactory, pictures: dict[str, bytes]) -> None:
    result, _ = Pipeline(profile.new_analyzer, limits=ImageLimits()).analyze(pictures[PICTURES[1]])
    text = benchmark(lambda: json.dumps(result.to_dict(), separators=(",", ":")))
    assert len(json.loads(text)["faces"]) == len(result.faces)


@pytest.mark.parametrize("name", PICTURES[:2])
def test_annotated_copy(
    benchmark: BenchmarkFixture, profile: AnalyzerFactory, pictures: dict[str, bytes], name: str
) -> None:
    result, load = Pipeline(profile.new_analyzer, limits=ImageLimits()).analyze(pictures[name])
    image = load()
    jpeg = benchmark(lambda: encode_jpeg(annotate(image, result)))
    assert jpeg[:2] == b"\xff\xd8"
