"""What a caller asks of one analysis, read from the query and the headers of a request."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl

from dulian.analyzer import DEFAULT_OPTIONS, AnalyzeOptions
from dulian.errors import MalformedInputError
from dulian.service.body import Headers

MAX_FIELDS = 20
ANNOTATE = ("none", "base64")
# The result as it is, or in the few words of the article that this product began with.
Format = Literal["result", "faces"]
FORMATS: tuple[Format, ...] = get_args(Format)

# What every route with a picture understands, one with many pictures, and one that can shape its answer.
ARTICLE_PARAMETERS = ("max_faces", "min_confidence", "attributes", "order", "coverage", "max_ms")
BATCH_PARAMETERS = (*ARTICLE_PARAMETERS, "annotate")
PARAMETERS = (*BATCH_PARAMETERS, "format")

_WHOLE = re.compile(r"-?[0-9]{1,9}")
MAX_WHOLE = 10**9 - 1
_DECIMAL = re.compile(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request's wishes; ``picture`` is an annotated JPEG as the answer, ``annotate`` one inside the JSON."""

    options: AnalyzeOptions = DEFAULT_OPTIONS
    annotate: bool = False
    picture: bool = False
    format: Format = "result"
    budget_s: float


def read_request(
    query: bytes, headers: Headers, *, deadline_s: float, parameters: tuple[str, ...] = PARAMETERS
) -> Asked:
    """The wishes of a request; the caller may shorten the deadline, never lengthen it.

    ``parameters`` are those that the route knows.

    Raises:
        MalformedInputError: An unknown or repeated parameter, or a value that makes no sense.
    """
    picture = prefers_jpeg(headers.get(b"accept", b"").decode("latin-1"))
    budget_s = deadline_s
    if (timeout := headers.get(b"x-request-timeout-ms")) is not None:
        budget_s = min(budget_s, _milliseconds("X-Request-Timeout-Ms", timeout.decode("latin-1")))
    if not query:
        return Asked(picture=picture, budget_s=budget_s)
    given = _read_query(query, parameters)
    budget_s = min(budget_s, given.pop("max_ms", budget_s))
    form: Format = given.pop("format", "result")
    annotate = given.pop("annotate", form == "faces")
    return Asked(options=AnalyzeOptions(**given), annotate=annotate, picture=picture, format=form, budget_s=budget_s)


def prefers_jpeg(accept: str) -> bool:
    """Whether an Accept header names image/jpeg, and rather than JSON; of equals the first counts."""
    if "image/jpeg" not in accept.lower():
        return False
    best, choice = 0.0, ""
    for item in accept.lower().split(","):
        kind, *parameters = (word.strip() for word in item.split(";"))
        weight = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        share = float(weight) if _DECIMAL.fullmatch(weight) else 0.0
        if kind in ("image/jpeg", "application/json") and share > best:
            best, choice = share, kind
    return choice == "image/jpeg"


def _read_query(query: bytes, parameters: tuple[str, ...]) -> dict[str, Any]:
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise MalformedInputError(f"the query has more than {MAX_FIELDS} parameters") from None
    texts: dict[str, str] = {}
    for name, text in pairs:
        if name not in parameters:
            raise MalformedInputError(f"unknown parameter {name[:80]!r}; choose from {', '.join(parameters)}")
        if name in texts and name != "attributes":
            raise MalformedInputError(f"parameter {name!r} is given twice")
        texts[name] = f"{texts[name]},{text}" if name in texts else text
    return {name: _READERS[name](name, text) for name, text in texts.items()}


def _whole(name: str, text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise MalformedInputError(f"{name} {text[:80]!r} is not a whole number")
    return int(text)


def _decimal(name: str, text: str) -> float:
    if not _DECIMAL.fullmatch(text):
        raise MalformedInputError(f"{name} {text[:80]!r} is not a number")
    return float(text)


def _milliseconds(name: str, text: str) -> float:
    """Seconds from milliseconds."""
    count = _whole(name, text)
    if count < 1:
        raise MalformedInputError(f"{name} {count} is not at least 1")
    return count / 1000


def _words(name: str, text: str) -> frozenset[str]:
    return frozenset(word[:80] for part in text.split(",") if (word := part.strip()))


def _annotate(name: str, text: str) -> bool:
    return _one_of(ANNOTATE, name, text) == "base64"


def _one_of(choices: tuple[str, ...], name: str, text: str) -> str:
    if text not in choices:
        raise MalformedInputError(f"{name} {text[:80]!r} is unknown; choose from {', '.join(choices)}")
    return text


_READERS: dict[str, Callable[[str, str], Any]] = {
    "max_faces": _whole,
    "min_confidence": _decimal,
    "attributes": _words,
    "order": lambda name, text: text[:80],
    "coverage": _decimal,
    "max_ms": _milliseconds,
    "annotate": _annotate,
    "format": partial(_one_of, FORMATS),
}
