from __future__ import annotations

import pytest

from dulian.analyzer import DEFAULT_OPTIONS, AnalyzeOptions
from dulian.errors import MalformedInputError
from dulian.service.query import Asked, prefers_jpeg, read_request


def read(query: str, **headers: str) -> Asked:
    raw = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return read_request(query.encode(), raw, deadline_s=5.0)


def test_nothing_asked_is_the_default() -> None:
    assert read("") == Asked(options=DEFAULT_OPTIONS, budget_s=5.0)


def test_every_parameter_arrives() -> None:
    asked = read("max_faces=3&min_confidence=.7&attributes=age&annotate=base64&order=quality&coverage=0.5&max_ms=250")
    options = AnalyzeOptions(
        max_faces=3, min_confidence=0.7, attributes=frozenset({"age"}), order="quality", coverage=0.5
    )
    assert asked == Asked(options=options, annotate=True, budget_s=0.25)


@pytest.mark.parametrize(
    ("query", "attributes"),
    [
        ("attributes=", set()),
        ("attributes=age,gender", {"age", "gender"}),
        ("attributes=age&attributes=gender", {"age", "gender"}),
        ("attributes=gender%2C", {"gender"}),
    ],
)
def test_attributes_in_every_spelling(query: str, attributes: set[str]) -> None:
    assert read(query).options.attributes == attributes


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("max_faces=0", "max_faces 0"),
        ("max_faces=51", "max_faces 51"),
        ("max_faces=three", "'three' is not a whole number"),
        ("max_faces=%D9%A3", "not a whole number"),
        ("max_faces=1_0", "not a whole number"),
        ("max_faces=", "'' is not a whole number"),
        ("max_faces=1&max_faces=2", "'max_faces' is given twice"),
        ("min_confidence=nan", "'nan' is not a number"),
        ("min_confidence=1e999", "min_confidence inf"),
        ("min_confidence=0", "min_confidence 0.0"),
        ("attributes=mood", "unknown attribute 'mood'"),
        ("annotate=yes", "choose from none, base64"),
        ("format=xml", "choose from result, faces"),
        ("order=age", "unknown order 'age'"),
        ("coverage=1", "coverage"),
        ("max_ms=0", "max_ms 0 is not at least 1"),
        ("max_ms=-5", "max_ms -5 is not at least 1"),
        ("max_face=3", "unknown parameter 'max_face'; choose from max_faces"),
        ("a=1&" * 21, "more than 20 parameters"),
    ],
)
def test_nonsense_is_named(query: str, said: str) -> None:
    with pytest.raises(MalformedInputError) as caught:
        read(query)
    assert said in str(caught.value)


def test_the_articles_format_has_its_picture_unless_told_otherwise() -> None:
    assert (read("").format, read("format=result").annotate) == ("result", False)
    assert (read("format=faces").format, read("format=faces").annotate) == ("faces", True)
    assert read("annotate=none&format=faces").annotate is False


def test_a_route_may_know_fewer_parameters() -> None:
    asked = read_request(b"max_ms=50", {}, deadline_s=5.0, parameters=("max_ms",))
    assert asked.budget_s == 0.05
    with pytest.raises(MalformedInputError, match="unknown parameter 'annotate'; choose from max_ms$"):
        read_request(b"annotate=none", {}, deadline_s=5.0, parameters=("max_ms",))


def test_the_deadline_can_only_shrink() -> None:
    assert read("max_ms=90000").budget_s == 5.0
    assert read("", x_request_timeout_ms="100").budget_s == 0.1
    assert read("max_ms=50", x_request_timeout_ms="100").budget_s == 0.05
    assert read("max_ms=200", x_request_timeout_ms="100").budget_s == 0.1
    for nonsense in ("soon", ""):
        with pytest.raises(MalformedInputError, match=f"X-Request-Timeout-Ms '{nonsense}'"):
            read("", x_request_timeout_ms=nonsense)


@pytest.mark.parametrize(
    ("accept", "jpeg"),
    [
        ("", False),
        ("*/*", False),
        ("image/*", False),
        ("application/json", False),
        ("image/jpeg", True),
        ("IMAGE/JPEG", True),
        ("image/jpeg;q=0", False),
        ("image/jpeg;q=high", False),
        ("image/jpeg, application/json", True),
        ("application/json, image/jpeg", False),
        ("application/json;q=0.5, image/jpeg;q=0.9", True),
        ("text/html, image/jpeg; q=0.1, */*", True),
    ],
)
def test_who_wants_a_picture(accept: str, jpeg: bool) -> None:
    assert prefers_jpeg(accept) is jpeg
