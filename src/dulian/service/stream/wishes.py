"""What a client of a stream says of a frame before it sends it: one small JSON object."""

from __future__ import annotations

import json
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from dulian.errors import DulianError, MalformedInputError
from dulian.service.query import BATCH_PARAMETERS, Asked, read_request

MAX_ID_CHARS = 128
# Whole numbers up to here are the same in every language.
MAX_ID = 2**53 - 1

Id = int | str


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a text message says of the frame after it; without an id that frame goes by its number."""

    id: Id | None
    asked: Asked
    error: DulianError | None = None


def read_wishes(text: str, *, deadline_s: float) -> Wishes:
    """A text message in front of a frame; wishes that make no sense are the frame's error.

    Raises:
        ValueError: It is not one JSON object.
    """
    try:
        said = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_object_once)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(said, dict):
        raise ValueError("not an object")
    return make_wishes(
        said.get("id"), said.get("options", {}), unknown=said.keys() - {"id", "options"}, deadline_s=deadline_s
    )


def make_wishes(given: object, options: object, *, unknown: Set[str] = frozenset(), deadline_s: float) -> Wishes:
    """Wishes from an id and options as they came, and names that were given beside them."""
    chosen: Id | None = None
    try:
        chosen = _read_id(given)
        if unknown:
            raise MalformedInputError(f"unknown field {min(unknown)[:80]!a}; a frame has an id and options")
        return Wishes(chosen, read_options(options, deadline_s=deadline_s))
    except MalformedInputError as error:
        return Wishes(chosen, Asked(budget_s=deadline_s), error.with_traceback(None))  # it would lead to the text


def read_options(options: object, *, deadline_s: float) -> Asked:
    """The same names and values as in the query of ``/v1/analyze``; a list stands for words with commas.

    Raises:
        MalformedInputError: An unknown name, or a value that makes no sense.
    """
    if not isinstance(options, dict):
        raise MalformedInputError("options is not an object")
    query = urlencode({name: _as_text(name, value) for name, value in options.items()}, errors="replace")
    return read_request(query.encode("ascii"), {}, deadline_s=deadline_s, parameters=BATCH_PARAMETERS)


def _read_id(given: object) -> Id | None:
    if given is None:
        return None
    if isinstance(given, str) and len(given) <= MAX_ID_CHARS:
        with suppress(UnicodeEncodeError):  # half of a character, which JSON can spell and UTF-8 cannot
            given.encode()
            return given
    if isinstance(given, int) and not isinstance(given, bool) and abs(given) <= MAX_ID:
        return given
    raise MalformedInputError(f"id is neither a text of {MAX_ID_CHARS} characters at most nor a whole number")


def _as_text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return ",".join(value)
    raise MalformedInputError(f"option {name[:80]!a} is neither a text, a number nor a list of texts")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _object_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        raise ValueError("a name is given twice")
    return read
