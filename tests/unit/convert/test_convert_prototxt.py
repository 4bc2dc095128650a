from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dulian.convert.prototxt import MAX_BYTES, parse_prototxt
from dulian.errors import ConversionError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1", [1]),
        ("a: -2 a: +3", [-2, 3]),
        ("a: 0x1F", [31]),
        ("a: .5 a: 1e-3 a: 2.f a: 7.", [0.5, 1e-3, 2.0, 7.0]),
        ("a: [1, 2,3]", [1, 2, 3]),
        ("a: []", []),
        ("a: 1, a: 2; a: 3", [1, 2, 3]),
        ("# only a comment\r\na: 4 # and another\r\n", [4]),
        ("\ufeffa: 5", [5]),
    ],
)
def test_numbers(text, expected):
    assert list(parse_prototxt(text.encode()).numbers("a")) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('a: "plain"', "plain"),
        ("a: 'single'", "single"),
        ('a: "with # hash" # comment', "with # hash"),
        (r'a: "quo\"te\\"', 'quo"te\\'),
        ('a: "two" "parts"', "twoparts"),
        ("a: MAX", "MAX"),
        ('a: "脸"', "脸"),
    ],
)
def test_texts(text, expected):
    assert parse_prototxt(text.encode()).text("a", "") == expected


@pytest.mark.parametrize("text", ["p { q: 7 }", "p: { q: 7 }", "p < q: 7 >", "p{q:7}", "p {\r\n  q: 7\r\n}\r\n"])
def test_messages(text):
    assert parse_prototxt(text.encode()).child("p").integer("q", 0) == 7


@pytest.mark.parametrize(
    ("word", "expected"), [("true", True), ("1", True), ("false", False), ("0", False), ("True", True)]
)
def test_flags(word, expected):
    assert parse_prototxt(f"a: {word}".encode()).flag("a", not expected) is expected


def test_absent_fields_give_the_default():
    message = parse_prototxt(b"")
    assert (message.integer("a", 3), message.number("a", 0.5), message.text("a", "x")) == (3, 0.5, "x")
    assert message.flag("a", True)
    assert message.choice("a", "MAX", numbered=("MAX", "AVE")) == "MAX"
    assert message.child("a").names() == frozenset()


def test_choices_by_word_and_number():
    message = parse_prototxt(b"a: AVE b: 1 c: SUM")
    assert message.choice("a", "MAX", numbered=("MAX", "AVE")) == "AVE"
    assert message.choice("b", "MAX", numbered=("MAX", "AVE")) == "AVE"
    with pytest.raises(ConversionError, match="'SUM'; known are MAX, AVE"):
        message.choice("c", "MAX", numbered=("MAX", "AVE"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: @", "line 2: unexpected '@'"),
        ('a: "open\nb: 1', "line 1: unexpected"),
        ("a {\n b: 1\n", "line 3: the '}' for line 2 is missing"),
        ("a: 1\n}", "line 2: expected the name"),
        ("a: 1\na b", "line 2: expected ':'"),
        ("a:\n}", "line 2: expected a value"),
        ("a:", "expected a value"),
        ("a: [1 2]", "expected ',' or ']'"),
        ("a: [1", "expected ',' or ']'"),
        ("a: 12abc", "line 1: unexpected"),
        ("a: 1e999", "line 1: 1e999 is too large"),
        ("a: " + "9" * 100, "a number of 100 digits"),
        ("a { " * 40 + "}" * 40, "nest deeper"),
    ],
)
def test_errors_name_the_line(text, message):
    with pytest.raises(ConversionError, match=message):
        parse_prototxt(text.encode())


def test_a_byte_that_is_no_text_is_named_with_its_line():
    with pytest.raises(ConversionError, match="line 3: a byte that is no UTF-8"):
        parse_prototxt(b"a: 1\nb: 2\n\xff")


def test_a_huge_file_is_refused_unread():
    with pytest.raises(ConversionError, match="at most"):
        parse_prototxt(b" " * (MAX_BYTES + 1))


def test_a_long_run_of_digits_takes_linear_time():
    with pytest.raises(ConversionError):
        parse_prototxt(b"a: " + b"1" * 500_000 + b"x")


@pytest.mark.parametrize("getter", ["integer", "number", "text", "flag"])
def test_the_wrong_kind_names_line_and_field(getter):
    with pytest.raises(ConversionError, match="line 2: a must be"):
        getattr(parse_prototxt(b"\na { b: 1 }"), getter)("a", None)


def test_a_second_value_is_refused_where_one_is_meant():
    with pytest.raises(ConversionError, match="line 2: a is given a second time"):
        parse_prototxt(b"a: 1\na: 2").integer("a", 0)


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=80), st.text("ab:{}<>[],;\"'#\\1.-e \n", max_size=80).map(str.encode)))
def test_random_text_only_raises_conversion_errors(data):
    with suppress(ConversionError):
        parse_prototxt(data)
