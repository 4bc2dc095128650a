"""Which HTTP status an error has, and how much of it a client is told. No other module knows such numbers."""

from __future__ import annotations

from dulian.errors import (
    AccessError,
    BackendError,
    DeadlineError,
    DulianError,
    ImageDecodeError,
    InferenceError,
    InputError,
    InputNotFoundError,
    InputTooLargeError,
    MalformedInputError,
    OriginError,
    OverloadedError,
    RateLimitError,
    SlowClientError,
    UnsupportedImageError,
    UnsupportedMediaError,
)

# A class has the status of its nearest ancestor here.
STATUSES: dict[type[DulianError], int] = {
    InputError: 400,
    MalformedInputError: 400,
    AccessError: 401,
    OriginError: 403,
    InputNotFoundError: 404,
    SlowClientError: 408,
    InputTooLargeError: 413,
    UnsupportedImageError: 415,
    UnsupportedMediaError: 415,
    ImageDecodeError: 422,
    InferenceError: 500,
    BackendError: 503,
    OverloadedError: 503,
    RateLimitError: 429,
    DeadlineError: 504,
    DulianError: 500,
}

# Refusals that come from routing, before any code of ours is asked.
ROUTING: dict[int, tuple[str, str]] = {
    404: ("not_found", "there is nothing at this path; /openapi.json lists what there is"),
    405: ("method_not_allowed", "this path does not answer this method"),
    426: ("upgrade_required", "this path speaks WebSocket"),
}
UNAUTHENTICATED = 401
TOO_MANY = 429
INTERNAL = 500
UNAVAILABLE = 503

# Their texts name files and arrays of ours: worth a line in the log, nothing to a client.
_UNTOLD: tuple[tuple[type[DulianError], str], ...] = (
    (InferenceError, "a network answered with something it must not answer"),
    (BackendError, "the service lacks something that it needs; its log says what"),
)


def http_status(error: DulianError) -> int:
    """The status of an error by its class."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def told(error: DulianError) -> str:
    """What a client may read of an error."""
    return next((text for kind, text in _UNTOLD if isinstance(error, kind)), str(error) or error.code)
