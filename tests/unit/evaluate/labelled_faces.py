"""Labelled pictures and published faces in a line each."""

from __future__ import annotations

from dulian.calibration import BUCKET_LABELS, nearest_bucket
from dulian.evaluate.answers import Answer, Subject
from dulian.evaluate.dataset import GENDERS, Person, Picture
from dulian.faces import AgeEstimate, BoundingBox, Face, GenderEstimate, Quality, Status
from dulian.models import AttributeScores


def box(x: float, y: float, width: float, height: float | None = None) -> BoundingBox:
    return BoundingBox(x, y, x + width, y + (width if height is None else height))


def person(at: BoundingBox | None = None, *, age: int | None = None, gender: str = "", oldest: int = 0) -> Person:
    return Person(at, age, oldest or age, GENDERS.get(gender))


def picture(file: str, *people: Person, kind: str = "photo", source: str = "album", **more: object) -> Picture:
    known: dict[str, object] = {"complete": False} | more
    return Picture(file=file, kind=kind, source=source, people=people, **known)  # type: ignore[arg-type]


def face(
    at: BoundingBox,
    *,
    confidence: float = 0.9,
    age: float | None = None,
    half: float = 5.0,
    female: float | None = None,
    decision: float = 0.6,
    size: int = 100,
    sharpness: float = 0.8,
    status: Status = "ok",
) -> Face:
    years = gender = None
    if age is not None:
        years = AgeEstimate(age, age - half, age + half, 0.9, BUCKET_LABELS[nearest_bucket(age)], 0.5)
    if female is not None:
        sure = max(female, 1 - female)
        value = None if sure < decision else GENDERS["female" if female >= 0.5 else "male"]
        gender = GenderEstimate(value, sure, female)
    quality = Quality(score=0.7, sharpness=sharpness, brightness=0.5, size_px=size)
    return Face(0, at, confidence, None, years, gender, quality, status, "")


def answer(of: Picture, *faces: Face, error: str | None = None) -> Answer:
    return Answer(of, faces, (), error)


def subject(of: Picture, found: Face | None, scores: dict[str, AttributeScores] | None = None) -> Subject:
    """Of a picture of one person."""
    (somebody,) = of.people
    return Subject(of, somebody, found, scores or {})


def asked(*subjects: Subject) -> list[Answer]:
    """An answer for each, from pictures that are like theirs."""
    return [Answer(one.picture, () if one.face is None else (one.face,), (one,)) for one in subjects]
