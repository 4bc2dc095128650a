from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from tests.contract.test_runtimes import open_row
from tests.fakes import FakeDetector, face_at

from dulian.faces import BoundingBox, Detection, Landmarks
from dulian.factory import make_detector
from dulian.image import Image, decode_image
from dulian.models import DetectionOutcome, Detector
from dulian.models.catalog import PROFILES
from dulian.models.looks import MAX_TILES, SHRUNK_SIDE, ShrunkDetector, TiledDetector, tiles_of, without_tiles
from dulian.models.yunet import YuNet
from dulian.store import ModelStore
from dulian.turning import TurnRules, look_from_all_sides

WIDTH, HEIGHT = 1600, 1200
BACKGROUND = 40
# Where a square's "landmarks" are, in parts of its side.
CORNERS = ((0.0, 0.0), (1.0, 0.0), (0.5, 0.5), (0.0, 1.0), (1.0, 1.0))


class SquareDetector:
    """Finds bright squares, also parts of them, of a size that suits it, and remembers what it was shown."""

    def __init__(self, smallest: float = 0.05, largest: float = 0.7, confidence: float = 0.9) -> None:
        self.share = smallest, largest
        self.confidence = confidence
        self.shown: list[tuple[int, int]] = []

    def detect(self, image: Image, *, min_confidence: float) -> DetectionOutcome:
        self.shown.append((image.shape[1], image.shape[0]))
        _, _, boxes, _ = cv2.connectedComponentsWithStats((image[..., 0] > 150).astype(np.uint8))
        found = []
        for x, y, width, height, _ in boxes[1:].tolist():
            share = max(width, height) / max(image.shape)
            if self.share[0] <= share <= self.share[1]:
                points = Landmarks(*((x + u * width, y + v * height) for u, v in CORNERS))
                found.append(Detection(BoundingBox(x, y, x + width, y + height), self.confidence, points))
        accepted = tuple(one for one in found if one.confidence >= min_confidence)
        return DetectionOutcome(accepted, None if accepted or not found else found[0])


def squares(*xy_side: tuple[int, int, int], wh: tuple[int, int] = (WIDTH, HEIGHT)) -> Image:
    image = np.full((wh[1], wh[0], 3), BACKGROUND, np.uint8)
    for x, y, side in xy_side:
        image[y : y + side, x : x + side] = 255
    return image


def sides(outcome: DetectionOutcome) -> list[tuple[int, ...]]:
    return sorted(tuple(round(value) for value in found.box) for found in outcome.detections)


@pytest.mark.parametrize(
    "wh",
    [(1280, 100), (100, 1280), (1600, 1200), (6000, 4000), (16_384, 2441), (16_384, 1), (641, 641), (50_000, 50_000)],
)
def test_tiles_cover_the_picture_and_are_not_too_many(wh: tuple[int, int]) -> None:
    tiles = tiles_of(wh, 640, MAX_TILES)
    assert 1 < len(tiles) <= MAX_TILES
    for axis in (0, 1):
        spans = sorted({((tile.x1, tile.x2), (tile.y1, tile.y2))[axis] for tile in tiles})
        assert (spans[0][0], max(end for _, end in spans)) == (0, wh[axis])
        for (_, end), (start, next_end) in pairwise(spans):
            assert end - start >= 0.18 * (next_end - start)


def test_what_fits_one_tile_has_none() -> None:
    assert tiles_of((640, 500), 640, MAX_TILES) == []


def test_tiles_find_what_the_whole_hides() -> None:
    placed = ((100, 90, 60), (900, 1000, 60), (1500, 20, 60), (700, 500, 400))
    detector = SquareDetector()
    outcome = TiledDetector(detector, 0.3).detect(squares(*placed), min_confidence=0.6)
    assert sides(outcome) == sorted((x, y, x + side, y + side) for x, y, side in placed)
    for found in outcome.detections:
        assert found.landmarks is not None
        first, *_, last = found.landmarks
        assert (first, last) == (
            pytest.approx((found.box.x1, found.box.y1)),
            pytest.approx((found.box.x2, found.box.y2)),
        )


def test_a_face_cut_by_tiles_is_seen_once_and_whole() -> None:
    tiles = tiles_of((WIDTH, HEIGHT), 640, MAX_TILES)
    inner = next(tile.x2 for tile in tiles if tile.x2 < WIDTH)
    for x in range(inner - 150, inner + 20, 10):
        outcome = TiledDetector(SquareDetector(), 0.3).detect(squares((x, 300, 120)), min_confidence=0.6)
        assert sides(outcome) == [(x, 300, x + 120, 420)]


def test_a_face_larger_than_the_overlap_comes_from_the_whole_look() -> None:
    outcome = TiledDetector(SquareDetector(largest=1.0), 0.3).detect(squares((300, 200, 800)), min_confidence=0.6)
    assert sides(outcome) == [(300, 200, 1100, 1000)]


def test_a_face_at_the_pictures_own_edge_is_not_cut_by_a_tile() -> None:
    outcome = TiledDetector(SquareDetector(), 0.3).detect(squares((0, 0, 60), (1540, 1140, 60)), min_confidence=0.6)
    assert len(outcome.detections) == 2


def test_smaller_pictures_are_looked_at_once() -> None:
    detector = SquareDetector()
    TiledDetector(detector, 0.3).detect(squares(wh=(1279, 900)), min_confidence=0.6)
    assert detector.shown == [(1279, 900)]


def test_the_number_of_looks_is_bounded() -> None:
    detector = SquareDetector()
    TiledDetector(detector, 0.3).detect(np.zeros((4000, 6000, 3), np.uint8), min_confidence=0.6)
    assert len(detector.shown) <= MAX_TILES + 1


def test_the_best_rejected_candidate_of_all_looks_is_kept() -> None:
    detector = SquareDetector(confidence=0.5)
    outcome = TiledDetector(detector, 0.3).detect(squares((900, 1000, 60)), min_confidence=0.6)
    assert outcome.detections == ()
    assert outcome.best_rejected is not None
    assert tuple(outcome.best_rejected.box) == (900, 1000, 960, 1060)


def test_the_most_confident_comes_first_and_is_kept() -> None:
    weak, sure = face_at(100, 100, 80, confidence=0.7), face_at(102, 100, 80, confidence=0.9)
    outcome = TiledDetector(FakeDetector(weak, sure), 0.3, tile_side=WIDTH).detect(
        squares(wh=(WIDTH, WIDTH)), min_confidence=0.6
    )
    assert outcome.detections == (sure,)


def test_tiles_can_be_taken_off() -> None:
    inner = FakeDetector()
    assert without_tiles(TiledDetector(inner, 0.3)) is inner
    assert without_tiles(inner) is inner


@pytest.mark.parametrize("wh", [(1000, 800), (800, 1000), (120, 120)])
def test_a_shrunk_look_finds_what_fills_the_frame(wh: tuple[int, int]) -> None:
    side = round(min(wh) * 0.9)
    x, y = (wh[0] - side) // 2, (wh[1] - side) // 2
    image = squares((x, y, side), wh=wh)
    detector = SquareDetector()
    assert detector.detect(image, min_confidence=0.6).detections == ()
    (found,) = ShrunkDetector(detector).detect(image, min_confidence=0.6).detections
    assert tuple(found.box) == pytest.approx((x, y, x + side, y + side), abs=0.01 * max(wh) + 1)
    assert found.landmarks is not None
    assert list(found.landmarks)[4] == pytest.approx((found.box.x2, found.box.y2))
    assert max(detector.shown[-1]) <= SHRUNK_SIDE + 1


def test_a_shrunk_look_reports_no_small_face_and_no_mirror_image() -> None:
    small = FakeDetector(face_at(100, 100, 40))
    assert ShrunkDetector(small).detect(squares(wh=(1000, 1000)), min_confidence=0.6).detections == ()
    ghost = FakeDetector(face_at(-100, -100, 120))
    assert ShrunkDetector(ghost).detect(squares(wh=(1000, 1000)), min_confidence=0.6).detections == ()


class Filled:
    """Finds a face that fills the frame in shrunk pictures only, by how they lie; a red corner tells."""

    def __init__(self, confidences: dict[int, float]) -> None:
        self.confidences = confidences
        self.shrunk_looks: list[int] = []
        self.looks = 0

    def detect(self, image: Image, *, min_confidence: float) -> DetectionOutcome:
        self.looks += 1
        if max(image.shape) > SHRUNK_SIDE + 1:
            return DetectionOutcome(())
        height, width = image.shape[:2]
        border = round(0.3 / 1.6 * max(height, width))
        corners = {0: (border + 5, border + 5), 90: (border + 5, -border - 5)}
        corners |= {180: (-border - 5, -border - 5), 270: (-border - 5, border + 5)}
        turn = next(turn for turn, at in corners.items() if image[at][2] > 150)
        self.shrunk_looks.append(turn)
        found = face_at(border, border, 140, confidence=self.confidences.get(turn, 0.0))
        return DetectionOutcome((found,) if found.confidence >= min_confidence else ())


def marked(width: int = 900, height: int = 900) -> Image:
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 4, : width // 4] = (0, 0, 255)
    return image


RULES = TurnRules(sure=0.9, retry=0.85, filling=0.8)


def test_a_sure_face_in_a_shrunk_picture_ends_the_search() -> None:
    detector = Filled({0: 0.95})
    view, outcome, turn = look_from_all_sides(detector, marked(), 0.6, RULES)
    assert (turn, view.shape, detector.looks, detector.shrunk_looks) == (0, (900, 900, 3), 2, [0])
    assert outcome.detections[0].box.width == pytest.approx(140 * 900 / 160, rel=0.02)


@pytest.mark.parametrize(
    ("confidences", "turn", "found"),
    [
        ({0: 0.82}, 0, True),
        ({0: 0.82, 90: 0.85}, 0, True),
        ({0: 0.6, 270: 0.95}, 270, True),
        ({0: 0.79}, 0, False),
        ({0: 0.79, 180: 0.84}, 0, False),
        ({0: 0.2, 90: 0.99}, 0, False),
    ],
)
def test_the_side_that_shows_it_most_clearly_is_up(confidences: dict[int, float], turn: int, found: bool) -> None:
    detector = Filled(confidences)
    _, outcome, taken = look_from_all_sides(detector, marked(), 0.6, RULES)
    assert (taken, bool(outcome.detections)) == (turn, found)
    assert len(detector.shrunk_looks) == (4 if confidences[0] >= 0.3 else 1)


def test_callers_who_ask_for_more_confidence_get_it() -> None:
    assert look_from_all_sides(Filled({0: 0.85}), marked(), 0.88, RULES)[1].detections == ()


def test_there_is_no_shrunk_look_where_something_was_found() -> None:
    detector = FakeDetector(face_at(10, 10, 60, confidence=0.7))
    looks = look_from_all_sides(detector, marked(), 0.6, RULES)
    assert looks[1].detections[0].confidence == 0.7
    assert len(detector.thresholds) == 4


def test_a_large_picture_is_looked_at_in_tiles_only_once() -> None:
    detector = SquareDetector()
    look_from_all_sides(TiledDetector(detector, 0.3), squares(wh=(1600, 1200)), 0.6, RULES)
    tiles = [wh for wh in detector.shown if wh == (640, 640)]
    assert len(tiles) == len(tiles_of((1600, 1200), 640, MAX_TILES))


@pytest.mark.parametrize(("confidences", "count"), [((0.65,), 0), ((0.65, 0.62), 0), ((0.66,), 1), ((0.7, 0.62), 2)])
def test_a_lone_doubtful_face_is_none(confidences: tuple[float, ...], count: int) -> None:
    faces = [face_at(10 + 100 * index, 10, 60, confidence) for index, confidence in enumerate(confidences)]
    _, outcome, _ = look_from_all_sides(FakeDetector(*faces), marked(), 0.6, TurnRules(sure=0.9, retry=0.85, lone=0.66))
    assert len(outcome.detections) == count
    if not count:
        assert outcome.best_rejected == faces[0]


@pytest.fixture(scope="module")
def portrait(samples) -> Image:  # type: ignore[no-untyped-def]
    return decode_image((samples / "astronaut.png").read_bytes()).image


@pytest.fixture(params=["standard", "classic"])
def real(request: pytest.FixtureRequest, model_store: ModelStore) -> Detector:
    profile = PROFILES[request.param]
    return make_detector(profile, open_row(model_store, profile.detector, "onnxruntime").new_session())


@pytest.mark.weights
def test_tiles_find_small_real_faces_where_they_are(real: Detector, portrait: Image) -> None:
    side = 72 if isinstance(real, YuNet) else 200  # of a head; res10 sees 300 pixels of a tile
    head = cv2.resize(portrait[:260, 90:350], (side, side), interpolation=cv2.INTER_AREA)
    corners = [(x, y) for y in range(100, 2200, 450) for x in range(90, 3000, 410)]
    crowd = np.full((2400, 3200, 3), 110, np.uint8)
    for x, y in corners:
        crowd[y : y + side, x : x + side] = head
    assert len(real.detect(crowd, min_confidence=0.6).detections) < len(corners) / 2
    outcome = TiledDetector(real, 0.3).detect(crowd, min_confidence=0.6)
    assert len(outcome.detections) == len(corners)
    boxes = [found.box for found in outcome.detections]
    centres = np.array([((box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2) for box in boxes])
    inside = centres[:, None] - np.array(corners)
    nearest = np.abs(inside).max(axis=2).argmin(axis=1)
    assert sorted(nearest) == list(range(len(corners)))  # each head has a face of its own, at the same place
    assert np.ptp(inside[np.arange(len(corners)), nearest], axis=0).max() < 0.15 * side


@pytest.mark.weights
def test_a_shrunk_look_finds_a_real_face_that_fills_the_frame(real: Detector, portrait: Image) -> None:
    close_up = cv2.resize(portrait[80:170, 185:265], (1067, 1200), interpolation=cv2.INTER_CUBIC)
    (found,) = ShrunkDetector(real).detect(np.asarray(close_up, np.uint8), min_confidence=0.8).detections
    assert max(found.box.width, found.box.height) > 800


@pytest.mark.weights
@pytest.mark.parametrize("shape", [(1, 1), (1, 16_000), (16_000, 1), (33, 65), (2000, 100)])
def test_both_take_any_shape(real: Detector, shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 90, np.uint8)
    for detector in (ShrunkDetector(real), TiledDetector(real, 0.3)):
        assert detector.detect(image, min_confidence=0.6).detections == ()
