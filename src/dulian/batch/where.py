"""Conditions on records, for lists of what to look at again: ``age<18``, ``error=image_truncated``, ``source=*.png``.

A condition on faces holds for a picture if it has such a face; several hold for one and the same face. Inputs without
an answer (errors, duplicates) have no number of faces, no size and no times, and meet no condition on these.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, get_args

from dulian.batch.records import DUPLICATE, ERROR, OK, Record
from dulian.errors import DulianError, MalformedInputError
from dulian.faces import GenderValue, Status
from dulian.messages import HINTS, REASONS

UNDECIDED = "undecided"
"""The gender of a face of which it was asked and not decided."""

_CONDITION = re.compile(r"\s*(\w+)\s*(?:(!=|<=|>=|=|<|>)\s*(.*?)\s*)?", re.DOTALL)
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    **{"=": operator.eq, "!=": operator.ne},
    **{"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge},
}
_GLOB = re.compile(r"[*?\[]")

Getter = Callable[[Mapping[str, Any]], Any]
Test = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True, slots=True)
class Field:
    """What can be asked of a record or a face: a number, or texts, of which there may be several.

    ``known`` are the values that a text may have, where these can be told beforehand.
    """

    get: Getter
    number: bool = True
    known: Sequence[str] = ()


def _at(*path: str) -> Getter:
    def get(data: Mapping[str, Any]) -> Any:
        found: Any = data
        for name in path:
            found = None if found is None else found.get(name)
        return found

    return get


def _count(record: Mapping[str, Any]) -> int | None:
    """All faces that were found, also those that the record does not list."""
    return len(record["faces"]) + record.get("skipped", 0) if "faces" in record else None


def _gender(face: Mapping[str, Any]) -> str | None:
    return face["gender"] and (face["gender"]["value"] or UNDECIDED)


def _codes(kind: type[DulianError] = DulianError) -> Iterator[str]:
    yield kind.code
    for below in kind.__subclasses__():
        yield from _codes(below)


OF_RECORDS: Mapping[str, Field] = {
    "source": Field(_at("source"), number=False),
    "same_as": Field(_at("same_as"), number=False),
    "sha256": Field(_at("sha256"), number=False),
    "error": Field(_at("error", "code"), number=False, known=sorted({*_codes()})),
    "hint": Field(_at("hint", "message", "code"), number=False, known=[*HINTS]),
    "faces": Field(_count),
    "skipped": Field(lambda record: record.get("skipped", 0) if "faces" in record else None),
    "bytes": Field(_at("bytes")),
    **{name: Field(_at("image", name)) for name in ("width", "height", "rotated")},
    **{f"{name}_ms": Field(_at("timings_ms", name)) for name in ("decode", "detect", "attributes", "total")},
}
OF_FACES: Mapping[str, Field] = {
    "age": Field(_at("age", "value")),
    "age_low": Field(_at("age", "low")),
    "age_high": Field(_at("age", "high")),
    "age_bucket": Field(_at("age", "bucket"), number=False),
    "gender": Field(_gender, number=False, known=[*get_args(GenderValue), UNDECIDED]),
    "gender_probability": Field(_at("gender", "probability")),
    "female_probability": Field(_at("gender", "female_probability")),
    "confidence": Field(_at("confidence")),
    "quality": Field(_at("quality", "score")),
    **{name: Field(_at("quality", name)) for name in ("sharpness", "brightness", "size_px")},
    **{name: Field(_at("quality", "pose", name)) for name in ("yaw", "pitch", "roll")},
    "status": Field(_at("status"), number=False, known=get_args(Status)),
    "reasons": Field(_at("quality", "reasons"), number=False, known=[*REASONS]),
}
WORDS: Mapping[str, Test] = {
    OK: lambda record: record["status"] == OK,
    ERROR: lambda record: record["status"] == ERROR,
    DUPLICATE: lambda record: record["status"] == DUPLICATE,
    "hint": lambda record: "hint" in record,
    "truncated": lambda record: bool(record.get("truncated")),
}
"""What is said without a value."""


def parse_where(texts: Iterable[str]) -> Callable[[Record], bool]:
    """Whether a record meets all of these conditions.

    Raises:
        MalformedInputError: A condition makes no sense; the message says what would.
    """
    of_records: list[Test] = []
    of_faces: list[Test] = []
    for text in texts:
        name, sign, value = _parts(text)
        if sign is None:
            of_records.append(_word(name, text))
        else:
            tests, fields = (of_faces, OF_FACES) if name in OF_FACES else (of_records, OF_RECORDS)
            tests.append(_comparison(_find(name, fields), sign, value, text))

    def meets(record: Record) -> bool:
        if not all(test(record) for test in of_records):
            return False
        return not of_faces or any(all(test(face) for test in of_faces) for face in record.get("faces", ()))

    return meets


def _parts(text: str) -> tuple[str, str | None, str]:
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise MalformedInputError(f"{text!r} is no condition; such are age<18, error=image_truncated, duplicate")
    return found[1], found[2], found[3] or ""


def _word(name: str, text: str) -> Test:
    if name in OF_RECORDS or name in OF_FACES:
        if name not in WORDS:
            raise MalformedInputError(f"{text!r} lacks a value, as in {name}{_example(name)}")
    elif name not in WORDS:
        raise MalformedInputError(_unknown("condition", name, [*WORDS, *OF_RECORDS, *OF_FACES]))
    return WORDS[name]


def _example(name: str) -> str:
    field = OF_FACES.get(name) or OF_RECORDS[name]
    return ">0" if field.number else f"={field.known[0] if field.known else '*'}"


def _find(name: str, fields: Mapping[str, Field]) -> Field:
    if name not in fields:
        if name in WORDS:
            raise MalformedInputError(f"{name!r} is said without a value")
        raise MalformedInputError(_unknown("field", name, [*OF_RECORDS, *OF_FACES]))
    return fields[name]


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    meant = f"did you mean {near[0]!r}? Choose" if near else "choose"
    return f"unknown {what} {name!r}; {meant} from {', '.join(known)}"


# ── comparisons ──────────────────────────────────────────────────────────────────────────────────


def _comparison(field: Field, sign: str, value: str, text: str) -> Test:
    """A test for a condition; what is not there meets none, not even ``!=``."""
    return _of_number(field, sign, _number(value, text)) if field.number else _of_text(field, sign, value, text)


def _of_number(field: Field, sign: str, wanted: float) -> Test:
    compare, get = _COMPARE[sign], field.get

    def test(data: Mapping[str, Any]) -> bool:
        found = get(data)
        return found is not None and compare(found, wanted)

    return test


def _of_text(field: Field, sign: str, value: str, text: str) -> Test:
    if sign not in ("=", "!="):
        raise MalformedInputError(f"{text!r} compares texts; these are only equal (=) or not (!=)")
    if field.known and not _GLOB.search(value) and value not in field.known:
        raise MalformedInputError(f"{text!r}: {_unknown('value', value, field.known)}")
    get, is_wanted = field.get, sign == "="

    def test(data: Mapping[str, Any]) -> bool:
        found = get(data)
        if found is None:
            return False
        texts = [found] if isinstance(found, str) else found
        # A name may have brackets that are no pattern's.
        return any(one == value or fnmatchcase(one, value) for one in texts) == is_wanted

    return test


def _number(value: str, text: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise MalformedInputError(f"{text!r} needs a number, not {value!r}")
    return number
