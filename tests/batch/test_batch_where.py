"""Conditions on records: what each means, and what is said of those that mean nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dulian.batch.records import Record
from dulian.batch.where import OF_FACES, OF_RECORDS, UNDECIDED, WORDS, parse_where
from dulian.errors import MalformedInputError
from tests.batch.fakes import face, failed, ok, same, with_reasons

CHILD = face(0, age=8.0, gender="undecided", quality=0.35, status="uncertain", confidence=0.55)
WOMAN = face(1, age=41.0, gender="female", quality=0.9)
BLURRED = with_reasons(face(2, age=30.0, gender="male", quality=0.2), "blurred", "too_dark")
RECORDS: dict[str, Record] = {
    "family": ok("trip/a.jpg", CHILD, WOMAN, total_ms=250.0),
    "blur": ok("trip/b.png", BLURRED, image={"width": 4000, "height": 3000, "rotated": 90}),
    "nobody": ok("sea.jpg"),
    "crowd": ok("crowd.jpg", *(face(number) for number in range(4)), truncated=True, skipped=9),
    "ageless": ok("plain.jpg", face(0, age=None, gender=None)),
    "broken": failed("broken.jpg"),
    "gone": failed("gone.jpg", "input_not_found", "there is no such file"),
    "copy": same("copy.jpg", "trip/a.jpg"),
}
ANSWERED = {"family", "blur", "nobody", "crowd", "ageless"}


def found(*conditions: str) -> set[str]:
    meets = parse_where(conditions)
    return {name for name, record in RECORDS.items() if meets(record)}


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ("ok", ANSWERED),
        ("error", {"broken", "gone"}),
        ("duplicate", {"copy"}),
        ("hint", {"nobody"}),
        ("truncated", {"crowd"}),
        ("error=image_truncated", {"broken"}),
        ("error!=image_truncated", {"gone"}),
        ("error=image_*", {"broken"}),
        ("hint=no_face", {"nobody"}),
        ("same_as=trip/*", {"copy"}),
        ("faces=0", {"nobody"}),
        ("faces>3", {"crowd"}),
        ("faces=13", {"crowd"}),
        ("faces!=0", ANSWERED - {"nobody"}),
        ("skipped>0", {"crowd"}),
        ("age<18", {"family"}),
        (" age  >=  41 ", {"family"}),
        ("age_low<18", {"family"}),
        ("age_high<=16", {"family"}),
        ("age_bucket=(25-32)", {"family", "blur", "crowd"}),
        ("gender=female", {"family", "crowd"}),
        (f"gender={UNDECIDED}", {"family"}),
        ("gender!=female", {"family", "blur"}),
        ("female_probability>0.9", {"family", "crowd"}),
        ("gender_probability<.6", {"family"}),
        ("status=uncertain", {"family"}),
        ("status=low_quality", {"blur"}),
        ("reasons=blurred", {"blur"}),
        ("reasons=too_*", {"blur"}),
        ("reasons!=blurred", ANSWERED - {"nobody", "blur"}),
        ("quality<0.4", {"family", "blur"}),
        ("size_px<48", set()),
        ("size_px>=88", ANSWERED - {"nobody"}),
        ("confidence<0.6", {"family"}),
        ("pitch<-1.5", ANSWERED - {"nobody"}),
        ("width>1e3", {"blur"}),
        ("rotated!=0", {"blur"}),
        ("total_ms>200", {"family"}),
        ("bytes=99", {"broken", "gone"}),
        ("source=*.png", {"blur"}),
        ("source!=*.jpg", {"blur"}),
        ("source=trip/a.jpg", {"family"}),
    ],
)
def test_a_condition_finds(condition: str, names: set[str]) -> None:
    assert found(condition) == names


def test_no_condition_finds_all() -> None:
    assert found() == {*RECORDS}


def test_several_conditions_must_hold_at_once() -> None:
    assert found("ok", "source=*.jpg", "faces>0") == {"family", "crowd", "ageless"}


def test_conditions_on_faces_must_hold_for_one_face() -> None:
    assert found("age<18", "gender=undecided") == {"family"}
    # there is a child and there is a woman, and they are two
    assert found("age<18", "gender=female") == set()


def test_a_name_with_brackets_is_found_as_it_is() -> None:
    assert parse_where(["source=IMG[1].jpg"])(failed("IMG[1].jpg"))
    assert parse_where(["source=IMG[12].jpg"])(failed("IMG1.jpg"))


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("", "is no condition"),
        ("age 18", "is no condition"),
        ("<18", "is no condition"),
        ("agee<18", "unknown field 'agee'; did you mean 'age'? Choose from source, "),
        ("duplicates", "unknown condition 'duplicates'; did you mean 'duplicate'? Choose from ok, error, "),
        ("qwxz", "unknown condition 'qwxz'; choose from ok, "),
        ("age", "'age' lacks a value, as in age>0"),
        ("source", "'source' lacks a value, as in source=*"),
        ("gender", "'gender' lacks a value, as in gender=female"),
        ("duplicate=1", "'duplicate' is said without a value"),
        ("age<young", "'age<young' needs a number, not 'young'"),
        ("age<", "'age<' needs a number, not ''"),
        ("age<nan", "needs a number"),
        ("faces<inf", "needs a number"),
        ("age==18", "needs a number, not '=18'"),
        ("gender<female", "compares texts; these are only equal (=) or not (!=)"),
        ("gender=femal", "unknown value 'femal'; did you mean 'female'?"),
        ("reasons=blurry", "unknown value 'blurry'; did you mean 'blurred'?"),
        ("status=error", "unknown value 'error'"),
        ("error=image_trunkated", "did you mean 'image_truncated'?"),
    ],
)
def test_a_condition_without_sense_is_refused(condition: str, told: str) -> None:
    with pytest.raises(MalformedInputError) as refused:
        parse_where([condition])
    assert told in str(refused.value)


@pytest.mark.parametrize("name", [*OF_RECORDS, *OF_FACES])
@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_every_field_can_be_asked_of_every_record(name: str, record: Record) -> None:
    field = (OF_FACES | dict(OF_RECORDS))[name]
    value = "0" if field.number else "*"
    there = parse_where([f"{name}={value}"])(record), parse_where([f"{name}!={value}"])(record)
    assert there != (True, True) or name in OF_FACES


def test_no_name_is_both_a_field_of_records_and_of_faces() -> None:
    assert not {*OF_RECORDS} & {*OF_FACES}
    assert {*WORDS} & {*OF_RECORDS, *OF_FACES} == {"error", "hint"}


@given(st.text(max_size=30))
def test_any_text_is_a_condition_or_an_input_error(text: str) -> None:
    try:
        meets = parse_where([text])
    except MalformedInputError:
        return
    assert {meets(record) for record in RECORDS.values()} <= {True, False}


@given(st.floats(-5, 120), st.sampled_from(["<", "<=", ">", ">=", "=", "!="]))
def test_numbers_compare_as_numbers_do(wanted: float, sign: str) -> None:
    age = 41.0
    record: dict[str, Any] = ok("a.jpg", face(age=age))
    expected = {"<": age < wanted, "<=": age <= wanted, ">": age > wanted, ">=": age >= wanted, "=": age == wanted}
    assert parse_where([f"age{sign}{wanted!r}"])(record) == (expected | {"!=": age != wanted})[sign]
