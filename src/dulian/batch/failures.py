"""What the failure of a request to a store means, whichever driver raised it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from dulian.sources import printable

Outcome = Literal["exists", "absent", "passing", "unsupported", "final", "unknown"]
"""What a failure means.

The name is taken; there is none; it may go better the next time; the store has no such operation; it will not go; the
error does not tell.
"""

_EXISTS = frozenset({"PreconditionFailed", "BlobAlreadyExists"})
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound"})
# Of requests that did not arrive as they were sent, which stores call the sender's fault.
_PASSING = frozenset({"RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"})
_FOR_A_WHILE = frozenset({408, 409, 425, 429})
_FINAL = (PermissionError, IsADirectoryError, NotADirectoryError, ValueError)
_MAX_REASON = 200


def outcome_of(
    error: BaseException, passing: tuple[type[BaseException], ...], final: tuple[type[BaseException], ...] = ()
) -> Outcome:
    """The meaning of a failure.

    Args:
        error: What was raised.
        passing: The driver's exceptions for networks that fail.
        final: Those that no second try mends.
    """
    for one in _causes(error):
        if found := _answered(_status_of(one), _code_of(one)):
            return found
        if isinstance(one, (TimeoutError, ConnectionError, *passing)):
            return "passing"
    if isinstance(error, FileExistsError):
        return "exists"
    if isinstance(error, FileNotFoundError):
        return "absent"
    # gcsfs says so without a status.
    is_refused = str(error).startswith("Forbidden")
    return "final" if is_refused or isinstance(error, (*_FINAL, *final)) else "unknown"


def reason_of(error: BaseException) -> str:
    """Its first line, for people."""
    lines = str(error).strip().splitlines()
    return printable(lines[0][:_MAX_REASON] if lines else type(error).__name__)


def _answered(status: int | None, code: str | None) -> Outcome | None:
    """The meaning of what a store has answered, if it has."""
    if status == 412 or code in _EXISTS:
        return "exists"
    if status == 404:
        return "final" if code in _NO_BUCKET else "absent"
    if status == 501:
        return "unsupported"
    if status in _FOR_A_WHILE or (status or 0) >= 500 or code in _PASSING:
        return "passing"
    return "final" if (status or 0) >= 400 else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__


def _status_of(error: BaseException) -> int | None:
    """The HTTP status, where each driver keeps it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status if isinstance(status, int) else None
    found = (getattr(error, name, None) for name in ("status_code", "status", "code"))
    return next((int(one) for one in found if isinstance(one, int) or (isinstance(one, str) and one.isdecimal())), None)


def _code_of(error: BaseException) -> str | None:
    """The store's word for what is wrong."""
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else getattr(error, "error_code", None)
    return None if code is None else str(getattr(code, "value", code))
