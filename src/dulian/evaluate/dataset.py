"""Labelled pictures in a folder: ``manifest.csv`` has a row per face, and ``images.csv``, if there, one per picture.

``manifest.csv`` has the columns file, x, y, w, h (pixels of the stored picture, blank where no box is known), age (a
number, a range such as 20-29, or blank), gender (female, male or blank) and source. ``images.csv`` adds kind,
boxes_complete, tags and notes; ``wider_attrs.csv`` boxes that are nobody's fault to miss or to find (invalid = 1).
"""

from __future__ import annotations

import csv
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dulian.errors import InputNotFoundError, MalformedInputError
from dulian.faces import BoundingBox, GenderValue

# Crops in which a face fills the frame get this border, in pixels, as cameras would have left it.
CROP_BORDER = 60
# Kinds of pictures whose central, or only labelled, face is judged.
SUBJECT_KINDS = frozenset({"face_crop", "face_context", "photo", "detect_photo"})
# Not looked at: no pictures, or not meant to be read.
SKIPPED_KINDS = frozenset({"video", "bad_input"})
GENDERS: dict[str, GenderValue] = {"female": "female", "male": "male"}


@dataclass(frozen=True, slots=True)
class Person:
    """One labelled face; perceived age from ``youngest`` to ``oldest`` years, equal where it is known exactly."""

    box: BoundingBox | None
    youngest: int | None
    oldest: int | None
    gender: GenderValue | None

    @property
    def age(self) -> int | None:
        """The age, where it is known exactly."""
        return self.youngest if self.youngest == self.oldest else None


@dataclass(frozen=True, slots=True)
class Picture:
    """One file with what is known of it; ``centre`` is a box round the subject where one is noted."""

    file: str
    kind: str
    source: str
    people: tuple[Person, ...]
    complete: bool
    ignored: tuple[BoundingBox, ...] = ()
    tags: tuple[str, ...] = ()
    centre: BoundingBox | None = None
    group: str | None = None

    @property
    def border(self) -> int:
        """Pixels to be added on each side."""
        return CROP_BORDER if self.kind == "face_crop" else 0


def read_dataset(folder: Path) -> list[Picture]:
    """The pictures of a folder, in the order of its manifest.

    Raises:
        InputNotFoundError: There is no ``manifest.csv``.
        MalformedInputError: A table lacks a column, or holds what is no number, age or gender.
    """
    faces = _rows(folder / "manifest.csv", ("file", "x", "y", "w", "h", "age", "gender", "source"))
    known = {row["file"]: row for row in _optional(folder / "images.csv", ("file", "kind"))}
    invalid = _optional(folder / "wider_attrs.csv", ("file", "x", "y", "w", "h", "invalid"))
    ignored: dict[str, list[BoundingBox]] = defaultdict(list)
    for row in invalid:
        if row["invalid"] == "1" and (box := _box(row)):
            ignored[row["file"]].append(box)
    grouped: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in faces:
        grouped[row["file"]].append(row)
    pictures = [_picture(file, rows, known.get(file), ignored[file]) for file, rows in grouped.items()]
    return [picture for picture in pictures if picture.kind not in SKIPPED_KINDS]


def _picture(
    file: str, rows: Sequence[dict[str, str]], known: dict[str, str] | None, ignored: Iterable[BoundingBox]
) -> Picture:
    described = known or {}
    mark = re.search(r"landmark box (\d+) (\d+) (\d+) (\d+)", described.get("notes", ""))
    tags = tuple(tag for tag in described.get("tags", "").split(";") if tag)
    people = [_person(row) for row in rows]
    return Picture(
        file=file,
        kind=described.get("kind", "photo"),
        source=re.split(r"[_/]", rows[0]["source"])[0] or "unnamed",
        people=tuple(person for person in people if person.box or person.youngest is not None or person.gender),
        complete=described.get("boxes_complete") == "1",
        ignored=tuple(ignored),
        tags=tags,
        centre=BoundingBox(*map(float, mark.groups())) if mark else None,
        group=next((tag.removeprefix("race=") for tag in tags if tag.startswith("race=")), None),
    )


def _person(row: dict[str, str]) -> Person:
    youngest = oldest = None
    if row["age"]:
        try:
            youngest, *rest = (int(part) for part in row["age"].split("-"))
            (oldest,) = rest or [youngest]
            if oldest < youngest:
                raise ValueError(row["age"])
        except ValueError as error:
            raise MalformedInputError(
                f"{row['file']}: the age {row['age']!r} is neither a number nor a range"
            ) from error
    if row["gender"] and row["gender"] not in GENDERS:
        raise MalformedInputError(f"{row['file']}: the gender {row['gender']!r} is neither female nor male")
    return Person(_box(row), youngest, oldest, GENDERS.get(row["gender"]))


def _box(row: dict[str, str]) -> BoundingBox | None:
    if not row["x"]:
        return None
    try:
        x, y, width, height = (float(row[name]) for name in ("x", "y", "w", "h"))
        if not all(map(math.isfinite, (x, y, width, height))):
            raise ValueError(row)
    except ValueError as error:
        raise MalformedInputError(f"{row['file']}: a box that is no four numbers") from error
    return BoundingBox(x, y, x + width, y + height)


def _optional(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    return _rows(path, columns) if path.exists() else []


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, restval="")
            if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
                raise MalformedInputError(f"{path} has no column {missing[0]!r}")
            return list(reader)
    except OSError as error:
        raise InputNotFoundError(f"cannot read {path}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise MalformedInputError(f"{path} is no table: {error}") from error
