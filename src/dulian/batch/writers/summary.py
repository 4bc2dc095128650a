"""What a report says of a job, gathered record by record in memory that does not grow with the job."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Generic, TypeVar

from dulian.batch.records import DUPLICATE, ERROR, Input, Record
from dulian.errors import ProcessDiedError

SLOWEST = DOUBTFUL = 12
EXAMPLES = 5
AGE_YEARS = 5
LAST_AGE = 20
"""The group of ages from here on, each five years wide, is the last one."""
SCORE_BINS = 10
# Upper ends, not included; more than the last one is a group of its own.
MEGAPIXELS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
FACE_SIZES_PX = (28, 56, 112, 224, 448)

UNDECIDED, NOT_ASKED = "undecided", "not_asked"
Member = TypeVar("Member")


@dataclass(slots=True)
class Top(Generic[Member]):
    """The members with the highest values, at most ``size`` of them; of equal ones those that came first."""

    size: int
    _heap: list[tuple[float, int, Member]] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=lambda: count(0, -1))

    def add(self, value: float, member: Member) -> None:
        """Take a member if it is among the highest."""
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, (value, next(self._order), member))
        elif self._heap and value > self._heap[0][0]:
            heapq.heapreplace(self._heap, (value, next(self._order), member))

    def members(self) -> list[tuple[float, Member]]:
        """The highest first."""
        return [(value, member) for value, _, member in sorted(self._heap, reverse=True, key=lambda one: one[:2])]


@dataclass(slots=True)
class Durations:
    """Milliseconds by a logarithmic scale: any share of them is known within 3 %."""

    total_ms: float = 0.0
    slowest_ms: float = 0.0
    _bins: Counter[int] = field(default_factory=Counter)
    _PER_DOUBLING = 12

    def add(self, value_ms: float) -> None:
        """Count one."""
        self.total_ms += value_ms
        self.slowest_ms = max(self.slowest_ms, value_ms)
        self._bins[round(self._PER_DOUBLING * math.log2(max(value_ms, 0.01)))] += 1

    @property
    def count(self) -> int:
        return self._bins.total()

    def within(self, share: float) -> float:
        """The milliseconds within which this share of them was done; 0 if there is none."""
        left = share * self.count
        for place in sorted(self._bins):
            left -= self._bins[place]
            if left <= 0:
                return min(float(2 ** (place / self._PER_DOUBLING)), self.slowest_ms)
        return 0.0


@dataclass(frozen=True, slots=True)
class Doubtful:
    """A face in doubt, and the picture it is in."""

    source: Input
    face: Mapping[str, Any]

    @property
    def box(self) -> tuple[float, float, float, float]:
        x1, y1, x2, y2 = self.face["bbox"]
        return x1, y1, x2, y2


@dataclass(frozen=True, slots=True)
class Failed:
    """An input that was not answered; ``may_decode`` says that nothing is known against looking at it again."""

    source: Input
    message: str
    may_decode: bool


@dataclass(slots=True)
class Summary:
    """Counts of all records given to :meth:`add`."""

    inputs: int = 0
    answered: int = 0
    duplicates: int = 0
    with_faces: int = 0
    faces: int = 0
    unlisted_faces: int = 0
    bytes: int = 0
    megapixels: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    examples: defaultdict[str, list[Failed]] = field(default_factory=lambda: defaultdict(list))
    hints: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    ages: Counter[tuple[int | None, str]] = field(default_factory=Counter)
    genders: Counter[str] = field(default_factory=Counter)
    scores: Counter[tuple[int, str]] = field(default_factory=Counter)
    picture_sizes: Counter[int] = field(default_factory=Counter)
    face_sizes: Counter[int] = field(default_factory=Counter)
    interval_years: float = 0.0
    coverage: float = 0.0
    durations: Durations = field(default_factory=Durations)
    steps_ms: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    slowest: Top[tuple[Input, Record]] = field(default_factory=lambda: Top(SLOWEST))
    doubtful: Top[Doubtful] = field(default_factory=lambda: Top(DOUBTFUL))

    def add(self, record: Record, source: Input) -> None:
        """Take the next record."""
        self.inputs += 1
        self.bytes += record.get("bytes") or 0
        if record["status"] == DUPLICATE:
            self.duplicates += 1
        elif record["status"] == ERROR:
            self._add_error(record["error"], source)
        else:
            self._add_answer(record, source)

    def _add_error(self, error: Mapping[str, str], source: Input) -> None:
        code = error["code"]
        self.errors[code] += 1
        if len(self.examples[code]) < EXAMPLES:
            self.examples[code].append(Failed(source, error["message"], code != ProcessDiedError.code))

    def _add_answer(self, record: Record, source: Input) -> None:
        self.answered += 1
        pixels = record["image"]["width"] * record["image"]["height"] / 1e6
        self.megapixels += pixels
        self.picture_sizes[_group(pixels, MEGAPIXELS)] += 1
        timings = record["timings_ms"]
        self.durations.add(timings["total"])
        self.slowest.add(timings["total"], (source, record))
        for step in ("decode", "detect", "attributes"):
            self.steps_ms[step] += timings[step]
        self.unlisted_faces += record.get("skipped", 0)
        if "hint" in record:
            self.hints[record["hint"]["message"]["code"]] += 1
        self.with_faces += bool(record["faces"])
        for face in record["faces"]:
            self._add_face(face, source)

    def _add_face(self, face: Mapping[str, Any], source: Input) -> None:
        quality, age, gender = face["quality"], face["age"], face["gender"]
        self.faces += 1
        self.statuses[face["status"]] += 1
        self.reasons.update(quality["reasons"])
        self.scores[min(int(quality["score"] * SCORE_BINS), SCORE_BINS - 1), face["status"]] += 1
        self.face_sizes[_group(quality["size_px"], FACE_SIZES_PX)] += 1
        decided = NOT_ASKED if gender is None else gender["value"] or UNDECIDED
        self.genders[decided] += 1
        self.ages[None if age is None else min(int(age["value"] // AGE_YEARS), LAST_AGE), decided] += 1
        if age is not None:
            self.interval_years += age["high"] - age["low"]
            self.coverage = age["coverage"]
        if face["status"] != "ok":
            self.doubtful.add(_doubt(face), Doubtful(source, face))

    @property
    def aged_faces(self) -> int:
        """Faces whose age was asked for."""
        return sum(number for (place, _), number in self.ages.items() if place is not None)


def _group(value: float, ends: Sequence[float]) -> int:
    """The group that a value is in: how many upper ends it reaches."""
    return bisect_right(ends, value)


def _doubt(face: Mapping[str, Any]) -> float:
    """From 0 to 2: how little is known of the gender, and how little the picture shows."""
    gender = face["gender"]
    undecided = 0.0 if gender is None else 2 * (1 - float(gender["probability"]))
    return undecided + 1 - float(face["quality"]["score"])
