"""Requests for pictures in stores, which are tried again where that may help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from dulian.batch.failures import outcome_of, reason_of
from dulian.batch.patience import Patience
from dulian.errors import InputNotFoundError, InputUnavailableError
from dulian.sources import printable

T = TypeVar("T")

# No new try begins after so long, whatever the driver has been doing in the meantime.
PATIENCE_S = 30.0
# One request; drivers give up sooner if nothing comes at all.
REQUEST_S = 60.0


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
    patience, number = Patience(PATIENCE_S), 1
    while True:
        try:
            return attempt()
        except FileNotFoundError:
            raise
        except failures.all as error:
            reason = reason_of(error)
            if outcome_of(error, failures.passing, failures.final) not in ("passing", "unknown"):
                raise InputNotFoundError(f"cannot read {printable(name)}: {reason}") from error
            if not patience.wait():
                tries = "1 try" if number == 1 else f"{number} tries"
                raise InputUnavailableError(f"cannot read {printable(name)} after {tries}: {reason}") from error
            number += 1
