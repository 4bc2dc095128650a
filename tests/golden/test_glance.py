"""A glance at a small picture loses no face that a closer look finds, with real weights.

Stated tolerance: every face of the closer look is there with IoU at least 0.5.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dulian.faces import BoundingBox, Detection
from dulian.factory import make_detector, open_profile
from dulian.geometry import iou
from dulian.image import Image, decode_image
from dulian.models import Detector
from dulian.models.catalog import PROFILES
from dulian.runtimes import Session, Tensor
from dulian.store import ModelStore
from tests.golden.pictures import sample_pictures

pytestmark = pytest.mark.weights
STANDARD = PROFILES["standard"]
SPREAD = 20
"""Photos taken evenly from each folder."""


class Watched(Session):
    """Passes tensors on to a session and remembers their sizes."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.taken: list[tuple[int, ...]] = []

    def _run(self, tensor: Tensor) -> dict[str, Tensor]:
        self.taken.append(tensor.shape[2:])
        return self._session.run(tensor)


class Pair:
    """The profile's detector, and the same one without its glance, over one network."""

    def __init__(self, store: ModelStore) -> None:
        sessions = open_profile(STANDARD, store).sessions[STANDARD.detector.name]
        self._session = Watched(sessions.new_session())
        self._glancing: Detector = make_detector(STANDARD, self._session)
        self._closer: Detector = make_detector(replace(STANDARD, glance=None), sessions.new_session())

    def look(self, image: Image, min_confidence: float) -> tuple[tuple[Detection, ...], tuple[Detection, ...], bool]:
        """What either finds, and whether a glance was enough."""
        self._session.taken.clear()
        found = self._glancing.detect(image, min_confidence=min_confidence).detections
        closer = self._closer.detect(image, min_confidence=min_confidence).detections
        assert STANDARD.glance is not None
        (*_, last) = self._session.taken
        return found, closer, max(image.shape) >= STANDARD.glance.from_side and max(last) <= STANDARD.glance.side


@pytest.fixture(scope="module")
def pair(model_store: ModelStore) -> Pair:
    return Pair(model_store)


def boxes(detections: tuple[Detection, ...]) -> np.ndarray:
    return np.array([list(found.box) for found in detections], np.float32).reshape(-1, 4)


def missing(found: tuple[Detection, ...], closer: tuple[Detection, ...]) -> list[BoundingBox]:
    """Faces of the closer look that were not found."""
    if not closer or not found:
        return [face.box for face in closer]
    best = iou(boxes(closer), boxes(found)).max(axis=1)
    return [face.box for face, overlap in zip(closer, best, strict=True) if overlap < 0.5]


def test_a_glance_finds_whom_a_closer_look_finds_on_the_samples(pair: Pair, samples: Path) -> None:
    glances = 0
    for name, data in sample_pictures(samples).items():
        found, closer, glanced = pair.look(decode_image(data).image, STANDARD.min_confidence)
        assert missing(found, closer) == [], name
        assert len(found) == len(closer), name
        glances += glanced
    assert glances >= 5  # else there is nothing compared


@pytest.mark.dev_data
@pytest.mark.parametrize("min_confidence", [STANDARD.min_confidence, 0.4])
def test_a_glance_finds_whom_a_closer_look_finds_on_photos(pair: Pair, dev_data: Path, min_confidence: float) -> None:
    glances = faces = 0
    for folder in ("photos", "detect/wider_train"):
        paths = sorted((dev_data / folder).iterdir())
        for path in paths[:: len(paths) // SPREAD]:
            image = decode_image(path.read_bytes()).image
            found, closer, glanced = pair.look(image, min_confidence)
            assert missing(found, closer) == [], path.name
            glances += glanced
            faces += len(closer)
    assert glances >= 10
    assert faces >= 100


def test_the_comparison_notices_a_missing_face() -> None:
    """Negative control."""
    here, there = (Detection(BoundingBox(x, 0, x + 10, 10), 0.9) for x in (0, 30))
    assert missing((here, there), (there, here)) == []
    assert missing((here,), (here, there)) == [there.box]
    assert missing((), (here,)) == [here.box]
