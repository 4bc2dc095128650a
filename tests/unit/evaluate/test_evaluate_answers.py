"""What is said of labelled pictures: whose face is whose, in which pixels, and whose scores."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest
from labelled_faces import box, face, person, picture
from PIL import Image as PillowImage
from tests.fakes import CALIBRATION, CONFIDENCE, DETAIL, TURNS, FakeEstimator, face_at

from dulian.analyzer import Analyzer
from dulian.evaluate import answers as answers_module
from dulian.evaluate.answers import Answer, Subject, ask, find_subjects, match
from dulian.evaluate.dataset import CROP_BORDER, Person, Picture
from dulian.faces import BoundingBox, Face, ModelInfo
from dulian.factory import AnalyzerFactory, open_profile
from dulian.geometry import iou
from dulian.image import Image, decode_image
from dulian.models import AgeScores, AttributeEstimator, AttributeScores, DetectionOutcome
from dulian.models.catalog import find_profile
from dulian.store import ModelStore

BACKGROUND = 40
Colour = tuple[int, int, int]


# ── whose face is whose ──────────────────────────────────────────────────────────────────────────


def test_boxes_are_matched_to_faces() -> None:
    truth = [box(0, 0, 10), box(100, 0, 10)]
    assert match(truth, [face(box(101, 1, 10)), face(box(300, 0, 10)), face(box(1, 0, 10))]) == {0: 1, 2: 0}
    assert match([], [face(box(0, 0, 10))]) == {}
    assert match(truth, []) == {}


def test_the_most_confident_face_has_the_box_and_the_other_is_a_stranger() -> None:
    truth = [box(0, 0, 10)]
    better_placed, surer = face(box(0, 0, 10), confidence=0.7), face(box(0, 2, 10), confidence=0.8)
    assert match(truth, [better_placed, surer]) == {1: 0}
    assert match(truth, [surer, better_placed]) == {0: 0}


def test_a_box_that_is_taken_leaves_the_next_best_one() -> None:
    truth = [box(0, 0, 10), box(3, 0, 10)]
    surer, other = face(box(1, 0, 10), confidence=0.9), face(box(0, 0, 10), confidence=0.8)
    # the other one overlaps the first box entirely, and the second by 7 : 13
    assert match(truth, [surer, other]) == {0: 0, 1: 1}


@pytest.mark.parametrize(("height", "same"), [(5.0, True), (4.9, False), (20.0, True), (20.5, False)])
def test_half_of_an_overlap_is_enough(height: float, same: bool) -> None:
    assert match([box(0, 0, 10, 10)], [face(box(0, 0, 10, height))]) == ({0: 0} if same else {})


def found(of: Picture, *faces: Face, wh: tuple[float, float] = (200, 100)) -> list[tuple[Person, int | None]]:
    return list(find_subjects(of, faces, wh))


def test_people_with_a_box_are_found_by_it() -> None:
    anna, ben, cleo = person(box(0, 0, 20), age=3), person(box(50, 0, 20), gender="male"), person(box(90, 0, 20), age=9)
    of = picture("a", anna, ben, cleo)
    assert found(of, face(box(51, 0, 20)), face(box(0, 1, 20))) == [(anna, 1), (ben, 0), (cleo, None)]


def test_a_box_without_a_label_is_no_subject_and_yet_takes_its_face() -> None:
    stranger, anna = person(box(0, 0, 20)), person(box(2, 0, 20), age=30)
    assert found(picture("a", stranger, anna), face(box(0, 0, 20))) == [(anna, None)]


def test_the_face_in_the_middle_is_the_one_who_has_no_box() -> None:
    anna = person(age=30)
    faces = [face(box(0, 0, 40)), face(box(70, 20, 40)), face(box(160, 60, 40))]
    assert found(picture("a", anna), *faces) == [(anna, 1)]
    assert found(picture("a", anna), *faces, wh=(360, 160)) == [(anna, 2)]
    assert found(picture("a", anna)) == [(anna, None)]


def test_the_middle_of_a_bordered_picture_is_that_of_the_stored_one() -> None:
    anna = person(age=30)
    faces = [face(box(0, 0, 40)), face(box(60, 0, 40)), face(box(0, 60, 40))]
    wide = 40 + 2 * CROP_BORDER
    assert found(picture("a", anna, kind="face_crop"), *faces, wh=(wide, wide)) == [(anna, 0)]


def test_a_noted_box_must_have_its_middle_in_the_face() -> None:
    anna = person(age=30)
    of = picture("a", anna, kind="face_context", centre=box(150, 50, 20))
    middle, noted = face(box(80, 30, 40)), face(box(140, 40, 40))
    assert found(of, middle, noted) == [(anna, 1)]
    assert found(of, middle) == [(anna, None)]
    large = face(box(0, 0, 200))
    assert found(of, large, noted) == [(anna, 1)]


def test_nobody_knows_which_of_several_unboxed_people_is_which() -> None:
    anna, ben = person(age=30), person(age=60)
    assert found(picture("a", anna, ben), face(box(80, 30, 40))) == []
    boxed = person(box(80, 30, 40), age=8)
    assert found(picture("a", boxed, anna), face(box(80, 30, 40))) == [(boxed, 0)]


@pytest.mark.parametrize(("kind", "judged"), [("photo", 1), ("detect_photo", 1), ("negative", 0), ("hard_photo", 0)])
def test_only_pictures_of_people_are_judged(kind: str, judged: int) -> None:
    assert len(found(picture("a", person(age=30), kind=kind), face(box(80, 30, 40)))) == judged


def test_who_has_no_attribute_is_no_subject() -> None:
    assert found(picture("a", person(box(0, 0, 20))), face(box(0, 0, 20))) == []


# ── pictures of bright squares, and an analyzer for which they are faces ─────────────────────────


class SquareDetector:
    """Takes what is brighter than the background for a face."""

    def detect(self, image: Image, *, min_confidence: float) -> DetectionOutcome:
        bright = (image.max(axis=2) > BACKGROUND + 20).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(bright)
        return DetectionOutcome(tuple(face_at(x, y, min(w, h)) for x, y, w, h, _ in stats[1:].tolist()))


class YearsEstimator(FakeEstimator):
    """Answers in years, each face's own, and not in probabilities of years."""

    def estimate(self, crops: Sequence[Image]) -> AttributeScores:
        scores = super().estimate(crops)
        assert scores.age is not None
        years = scores.age.years[scores.age.probabilities.argmax(axis=1)]
        return AttributeScores(AgeScores(np.ones((len(crops), 1), np.float32), years[:, None]), scores.female)


class FakeFactory:
    """Makes analyzers out of fakes, and remembers in which threads."""

    def __init__(self, estimator: type[FakeEstimator] = FakeEstimator) -> None:
        self.estimator = estimator
        self.threads: set[int] = set()

    def new_analyzer(self, wrap: Callable[[AttributeEstimator], AttributeEstimator]) -> Analyzer:
        self.threads.add(threading.get_ident())
        return Analyzer(
            SquareDetector(),
            [wrap(self.estimator())],
            CALIBRATION,
            model=ModelInfo("fake", "fake", "0"),
            confidence=CONFIDENCE,
            turns=TURNS,
            detail=DETAIL,
        )


def draw(path: Path, wh: tuple[int, int], *squares: tuple[int, int, int, Colour]) -> None:
    """Squares by x, y, side and RGB, on a dark ground."""
    image = np.full((wh[1], wh[0], 3), BACKGROUND, np.uint8)
    for x, y, side, colour in squares:
        image[y : y + side, x : x + side] = colour
    PillowImage.fromarray(image).save(path)


def ask_fake(
    folder: Path,
    *pictures: Picture,
    factory: FakeFactory | None = None,
    workers: int = 1,
    shrinks: Mapping[str, float] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[Answer]:
    chosen = cast(AnalyzerFactory, factory or FakeFactory())
    return ask(chosen, folder, pictures, workers=workers, advance=advance, shrinks=shrinks)


def corners(at: BoundingBox) -> tuple[float, ...]:
    return tuple(at)


def told(subject: Subject) -> tuple[float, float]:
    """Age and redness in the scores of one subject, of one face."""
    scores = subject.scores["fake"]
    assert scores.age is not None
    assert scores.female is not None
    assert scores.age.probabilities.shape in ((1, 101), (1, 1))
    assert scores.female.shape == (1,)
    years = np.broadcast_to(scores.age.years, scores.age.probabilities.shape)
    return float(years[0, scores.age.probabilities[0].argmax()]), float(scores.female[0])


def expected(colour: Colour) -> tuple[float, float]:
    return float(round(sum(colour) / 3 / 255 * 100)), colour[0] / 255


RED, GREY, BLUE = (230, 60, 40), (150, 150, 150), (80, 90, 200)
ROW = ((20, 30, 60, RED), (120, 30, 50, GREY), (220, 30, 70, BLUE))


@pytest.mark.parametrize("estimator", [FakeEstimator, YearsEstimator])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_everybody_has_their_own_scores(tmp_path: Path, order: Sequence[int], estimator: type[FakeEstimator]) -> None:
    draw(tmp_path / "a.png", (320, 140), *ROW)
    people = [person(box(*ROW[index][:3]), age=30) for index in order]
    (answer,) = ask_fake(tmp_path, picture("a.png", *people), factory=FakeFactory(estimator))
    assert len(answer.faces) == 3
    for index, subject in zip(order, answer.subjects, strict=True):
        assert told(subject) == pytest.approx(expected(ROW[index][3]), abs=0.01)
        assert subject.face is not None
        assert subject.face.age is not None
        assert subject.face.age.value == told(subject)[0]
        assert corners(subject.face.box) == pytest.approx(corners(box(*ROW[index][:3])))


def test_who_is_not_found_has_no_scores(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", (320, 140), ROW[0])
    draw(tmp_path / "empty.png", (320, 140))
    somebody = picture("a.png", person(box(200, 30, 50), age=30))
    answer, nothing = ask_fake(tmp_path, somebody, picture("empty.png", person(age=30)))
    for one in (answer, nothing):
        (subject,) = one.subjects
        assert subject.face is None
        assert subject.scores == {}
        assert one.error is None
    assert (len(answer.faces), len(nothing.faces)) == (1, 0)


def test_answers_come_in_order_and_each_is_told_once(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(6)]
    for name in names:
        draw(tmp_path / name, (100, 100), (20, 20, 50, RED))
    done: list[int] = []
    pictures = [picture(name) for name in reversed(names)]
    answers = ask_fake(tmp_path, *pictures, workers=2, advance=lambda: done.append(1))
    assert [answer.picture for answer in answers] == pictures
    assert len(done) == 6
    assert ask_fake(tmp_path) == []


def test_two_workers_say_what_one_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one of them looks who is who, the other one has its networks speak."""

    def slowly(*arguments: object) -> Iterator[tuple[Person, int | None]]:
        time.sleep(0.005)
        yield from find_subjects(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(answers_module, "find_subjects", slowly)
    rng = np.random.default_rng(0)
    pictures = []
    for number in range(24):
        colours = rng.integers(80, 255, (number % 3 + 1, 3)).tolist()
        squares = [(20 + 100 * place, 30, 50, tuple(colour)) for place, colour in enumerate(colours)]
        draw(tmp_path / f"{number}.png", (320, 140), *squares)  # type: ignore[arg-type]
        people = [person(box(*square[:3]), age=30) for square in reversed(squares)]
        pictures.append(picture(f"{number}.png", *people))
    alone, both = FakeFactory(), FakeFactory()
    one = ask_fake(tmp_path, *pictures, factory=alone)
    two = ask_fake(tmp_path, *pictures, factory=both, workers=2)
    assert (len(alone.threads), len(both.threads)) == (1, 2)
    assert [answer.faces for answer in one] == [answer.faces for answer in two]
    assert [[told(s) for s in answer.subjects] for answer in one] == [
        [told(s) for s in answer.subjects] for answer in two
    ]


# ── borders and smaller pictures ─────────────────────────────────────────────────────────────────


def test_a_crop_gets_a_border_and_its_faces_lie_in_the_stored_pixels(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", (100, 90), (20, 10, 60, RED))
    crop = picture("a.png", person(age=30), kind="face_crop")
    (answer,) = ask_fake(tmp_path, crop)
    assert corners(answer.faces[0].box) == (20, 10, 80, 70)
    assert answer.subjects[0].face == answer.faces[0]
    assert told(answer.subjects[0]) == pytest.approx(expected(RED), abs=0.01)
    # and a face that fills the frame goes on into the border
    draw(tmp_path / "a.png", (100, 90), (0, 0, 100, RED))
    (full,) = ask_fake(tmp_path, crop)
    left, top, right, bottom = full.faces[0].box
    assert (left, top) == (-CROP_BORDER, -CROP_BORDER)
    assert min(right, bottom) > 100
    (bare,) = ask_fake(tmp_path, replace(crop, kind="photo"))
    assert corners(bare.faces[0].box) == (0, 0, 90, 90)


@pytest.mark.parametrize("kind", ["photo", "face_crop"])
@pytest.mark.parametrize("shrink", [0.5, 0.25, 0.3])
def test_a_picture_made_smaller_tells_of_stored_pixels(tmp_path: Path, kind: str, shrink: float) -> None:
    squares = (40, 40, 120, RED), (240, 80, 80, BLUE)
    draw(tmp_path / "a.png", (400, 200), *squares)
    of = picture("a.png", *(person(box(*square[:3]), age=30) for square in reversed(squares)), kind=kind)
    (answer,) = ask_fake(tmp_path, of, shrinks={"a.png": shrink})
    for square, subject in zip(reversed(squares), answer.subjects, strict=True):
        assert subject.face is not None
        assert corners(subject.face.box) == pytest.approx(corners(box(*square[:3])), abs=1.1 / shrink)
        assert subject.face.quality.size_px == pytest.approx(square[2] * shrink, abs=1.1)


def test_the_middle_of_a_smaller_picture_is_where_it_was(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", (400, 200), (20, 70, 60, RED), (170, 70, 60, GREY), (320, 70, 60, BLUE))
    (answer,) = ask_fake(tmp_path, picture("a.png", person(age=30), kind="face_crop"), shrinks={"a.png": 0.4})
    assert told(answer.subjects[0]) == pytest.approx(expected(GREY), abs=0.02)


def test_only_the_pictures_that_are_named_are_made_smaller(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / name, (200, 200), (40, 40, 120, RED))
    small, whole = ask_fake(tmp_path, picture("a.png"), picture("b.png"), shrinks={"a.png": 0.25})
    assert [answer.faces[0].quality.size_px for answer in (small, whole)] == [30, 120]


def test_a_picture_that_is_turned_by_its_orientation_is_prepared_upright(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", (200, 100), (20, 30, 40, RED))
    stored = PillowImage.open(tmp_path / "a.png").transpose(PillowImage.Transpose.ROTATE_90)
    exif = PillowImage.Exif()
    exif[274] = 6
    stored.save(tmp_path / "turned.png", exif=exif)
    for kind in ("photo", "face_crop"):
        (answer,) = ask_fake(tmp_path, picture("turned.png", kind=kind))
        assert corners(answer.faces[0].box) == (20, 30, 60, 70)


# ── what cannot be read ──────────────────────────────────────────────────────────────────────────


def huge_gif() -> bytes:
    out = io.BytesIO()
    PillowImage.new("P", (8, 8)).save(out, "GIF")
    data = bytearray(out.getvalue())
    data[6:10] = b"\xff\xff\xff\xff"
    return bytes(data)


def half_a_jpeg() -> bytes:
    out = io.BytesIO()
    PillowImage.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(out, "JPEG")
    return out.getvalue()[: len(out.getvalue()) // 2]


@pytest.mark.parametrize("kind", ["photo", "face_crop"])
@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "malformed_input"),
        (b"no picture at all", "unsupported_image"),
        (half_a_jpeg(), "image_truncated"),
        (huge_gif(), "input_too_large"),
        (None, "No such file or directory"),
    ],
    ids=["empty", "text", "half", "huge", "gone"],
)
def test_a_file_that_cannot_be_read_is_told_and_the_rest_goes_on(
    tmp_path: Path, kind: str, content: bytes | None, error: str
) -> None:
    draw(tmp_path / "good.png", (100, 100), (20, 20, 50, RED))
    if content is not None:
        (tmp_path / "bad.jpg").write_bytes(content)
    bad = picture("bad.jpg", person(age=30), kind=kind)
    first, second = ask_fake(tmp_path, bad, picture("good.png", person(age=30)))
    assert first == Answer(bad, (), (), error)
    assert second.error is None
    assert len(second.subjects) == 1


# ── real networks ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def standard(model_store: ModelStore) -> AnalyzerFactory:
    return open_profile(find_profile("standard"), model_store)


@pytest.fixture(scope="module")
def astronaut(samples: Path) -> Image:
    return decode_image((samples / "astronaut.png").read_bytes()).image


def save(path: Path, image: Image) -> str:
    assert cv2.imwrite(str(path), np.ascontiguousarray(image))
    return path.name


def overlap(a: BoundingBox, b: BoundingBox) -> float:
    return float(iou(np.array([tuple(a)], np.float32), np.array([tuple(b)], np.float32))[0, 0])


@pytest.mark.weights
@pytest.mark.parametrize("workers", [1, 2])
def test_scores_are_those_that_the_published_face_was_made_from(
    standard: AnalyzerFactory, astronaut: Image, tmp_path: Path, workers: int
) -> None:
    face_of_hers = astronaut[20:260, 110:350]
    dim = (face_of_hers * 0.45).astype(np.uint8)
    soft = np.asarray(cv2.GaussianBlur(face_of_hers, (0, 0), 3), np.uint8)
    places = ["a.png", "b.png", "c.png"]
    rows = ((face_of_hers, dim, soft), (soft, face_of_hers), (dim,))
    for name, parts in zip(places, rows, strict=True):
        save(tmp_path / name, np.hstack(parts))
    shown = ask(standard, tmp_path, [picture(name) for name in places], workers=1, advance=lambda: None)
    pictures = [
        picture(answer.picture.file, *(person(one.box, age=30) for one in reversed(answer.faces))) for answer in shown
    ]
    answers = ask(standard, tmp_path, pictures, workers=workers, advance=lambda: None)
    assert [len(answer.subjects) for answer in answers] == [3, 2, 1]
    calibration = standard.calibration
    for subject in (subject for answer in answers for subject in answer.subjects):
        assert subject.face is not None
        ages = {name: scores.age for name, scores in subject.scores.items() if scores.age}
        female = {name: scores.female for name, scores in subject.scores.items() if scores.female is not None}
        (age,) = calibration.age.estimate(ages, [subject.face.quality.score], 0.9)
        assert subject.face.age == age
        assert calibration.gender.estimate(female, np.array([age.value])) == [subject.face.gender]
    values = {subject.face.age.value for subject in answers[0].subjects if subject.face and subject.face.age}
    assert len(values) == 3


@pytest.mark.weights
def test_borders_and_smaller_pictures_leave_a_real_face_where_it_is(
    standard: AnalyzerFactory, astronaut: Image, tmp_path: Path
) -> None:
    save(tmp_path / "whole.png", astronaut)
    (whole,) = ask(standard, tmp_path, [picture("whole.png")], workers=1, advance=lambda: None)
    (hers,) = (one.box for one in whole.faces)
    x, y = int(hers.x1), int(hers.y1)
    save(tmp_path / "crop.png", astronaut[y : int(hers.y2), x : int(hers.x2)])
    crop = picture("crop.png", person(age=40, gender="female"), kind="face_crop")
    there = BoundingBox(hers.x1 - x, hers.y1 - y, hers.x2 - x, hers.y2 - y)
    for shrink in (1.0, 0.6):
        (answer,) = ask(standard, tmp_path, [crop], workers=1, advance=lambda: None, shrinks={"crop.png": shrink})
        (subject,) = answer.subjects
        assert subject.face is not None
        assert overlap(subject.face.box, there) > 0.75
