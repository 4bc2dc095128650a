"""Requests to stores that are tried again: what fails for a while and what fails for good, and how long to wait."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from dulian.errors import InputNotFoundError, InputUnavailableError
from dulian.sources import printable

T = TypeVar("T")

TRIES = 5
FIRST_WAIT_S = 1.0
# No new try begins after so long, whatever the driver has been doing in the meantime.
PATIENCE_S = 30.0
# One request; drivers give up sooner if nothing comes at all.
REQUEST_S = 60.0

_MAX_REASON = 200
_FINAL = (PermissionError, IsADirectoryError, NotADirectoryError, ValueError)
_FOR_A_WHILE = frozenset({408, 409, 425, 429})


@dataclass(frozen=True, slots=True)
class Failures:
    """How a driver fails: ``all`` that it raises; of that, what tells of the network, and what no second try mends."""

    all: tuple[type[BaseException], ...]
    passing: tuple[type[BaseException], ...]
    final: tuple[type[BaseException], ...]


def tried(attempt: Callable[[], T], *, failures: Failures, name: str) -> T:
    """The answer of a request.

    Raises:
        FileNotFoundError: There is no such object.
        InputNotFoundError: The store refuses to give it.
        InputUnavailableError: Every try failed.
    """
    until = time.monotonic() + PATIENCE_S
    for number in range(1, TRIES + 1):
        try:
            return attempt()
        except failures.all as error:
            if isinstance(error, FileNotFoundError):
                raise
            if _is_final(error, failures):
                raise InputNotFoundError(f"cannot read {printable(name)}: {_reason(error)}") from error
            wait_s = FIRST_WAIT_S * 2 ** (number - 1) * random.uniform(0.5, 1)
            if number == TRIES or time.monotonic() + wait_s > until:
                tries = "1 try" if number == 1 else f"{number} tries"
                reason = f"cannot read {printable(name)} after {tries}: {_reason(error)}"
                raise InputUnavailableError(reason) from error
            time.sleep(wait_s)
    raise AssertionError("unreachable")


def _is_final(error: BaseException, failures: Failures) -> bool:
    # Before any status: aiohttp says 400 of an answer that was cut.
    if isinstance(error, (TimeoutError, ConnectionError, *failures.passing)):
        return False
    if isinstance(error, (*_FINAL, *failures.final)) or str(error).startswith("Forbidden"):
        return True
    status = next(_statuses(error), None)
    return status is not None and 400 <= status < 500 and status not in _FOR_A_WHILE


def _statuses(error: BaseException | None) -> Iterator[int]:
    """The HTTP status of an error, wherever its driver keeps it."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            yield int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        for name in ("status_code", "code", "status"):
            value = getattr(error, name, None)
            if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()):
                yield int(value)
        error = error.__cause__


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return printable(lines[0][:_MAX_REASON] if lines else type(error).__name__)
