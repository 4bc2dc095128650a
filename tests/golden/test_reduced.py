"""Large JPEG pictures are analysed at a reduced size where faces allow it; the answers stay the same, within bounds.

Stated tolerance: the same faces (IoU at least 0.9), gender probabilities within 0.06, ages within six years. How far
answers move on development photos is in docs/decisions.md (15).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dulian.api import FaceAnalyzer, load_analyzer
from dulian.faces import AnalysisResult, BoundingBox, Face
from dulian.geometry import iou
from dulian.image import decode_image, encode_jpeg
from dulian.models.catalog import PROFILES
from dulian.store import ModelStore

pytestmark = pytest.mark.weights
LARGE = ("photos/deepface_img34.jpg", "photos/faceapi_bbt1.jpg", "photos/facerec_biden.jpg", "hard/exif6_man.jpg")


# The likeliest class alone jumps by decades where another one comes close: nothing to compare.
@pytest.fixture(scope="module", params=[name for name in PROFILES if name != "classic-article"])
def analyzer(request: pytest.FixtureRequest, model_store: ModelStore) -> FaceAnalyzer:
    return load_analyzer(str(request.param), model_dir=model_store.write_dir)


def enlarged(image: np.ndarray, pixels: int) -> bytes:
    factor = (pixels / (image.shape[0] * image.shape[1])) ** 0.5
    return encode_jpeg(np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)))


def overlap(a: BoundingBox, b: BoundingBox) -> float:
    return float(iou(np.float32([list(a)]), np.float32([list(b)]))[0, 0])


def picture_faults(face: Face) -> set[str]:
    """The reasons but for the networks' own doubt, which a probability near its threshold may tip either way."""
    return set(face.quality.reasons) - {"low_confidence"}


def check_same(fast: AnalysisResult, slow: AnalysisResult) -> None:
    assert fast.image == slow.image
    assert len(fast.faces) == len(slow.faces)
    for face in slow.faces:
        twin = max(fast.faces, key=lambda other: overlap(face.box, other.box))
        assert overlap(face.box, twin.box) >= 0.9
        assert face.age is not None
        assert twin.age is not None
        assert twin.age.value == pytest.approx(face.age.value, abs=6)
        assert face.gender is not None
        assert twin.gender is not None
        assert twin.gender.female_probability == pytest.approx(face.gender.female_probability, abs=0.06)
        assert twin.quality.size_px == pytest.approx(face.quality.size_px, rel=0.05)
        assert picture_faults(twin) == picture_faults(face)


@pytest.mark.parametrize("pixels", [3_500_000, 12_000_000, 30_000_000])
def test_a_large_portrait(analyzer: FaceAnalyzer, samples: Path, pixels: int) -> None:
    data = enlarged(decode_image((samples / "astronaut.png").read_bytes()).image, pixels)
    check_same(analyzer.analyze(data), analyzer.analyze(decode_image(data).image))


def test_small_faces_in_a_large_picture(analyzer: FaceAnalyzer, samples: Path) -> None:
    """Faces too small for the reduced picture make it be decoded in full, which the timings tell."""
    portrait = decode_image((samples / "astronaut.png").read_bytes()).image
    wall = np.full((2400, 3200, 3), 128, np.uint8)
    wall[900:1412, 1300:1812] = portrait
    data = encode_jpeg(wall)
    fast = analyzer.analyze(data)
    check_same(fast, analyzer.analyze(decode_image(data).image))


@pytest.mark.dev_data
@pytest.mark.parametrize("photo", LARGE)
def test_large_photos(analyzer: FaceAnalyzer, dev_data: Path, photo: str) -> None:
    data = enlarged(decode_image((dev_data / photo).read_bytes()).image, 12_000_000)
    check_same(analyzer.analyze(data), analyzer.analyze(decode_image(data).image))
