"""Every error dulian raises, sorted by who can fix it. What each becomes on a wire is not said here.

DulianError
├── InputError                 the caller: change the input
│   ├── MalformedInputError        an empty body, an option out of range, a broken envelope
│   ├── InputNotFoundError         no such file or folder
│   ├── InputTooLargeError         too many bytes, pixels or pixels along one side
│   ├── UnsupportedImageError      the bytes are no image type that is accepted
│   ├── UnsupportedMediaError      a request body is wrapped or compressed in a way that is not accepted
│   ├── SlowClientError            a request body took too long to arrive
│   ├── InputUnavailableError      a store did not give an input, after several tries
│   ├── JobChangedError            a batch is to go on with other pictures, models or options
│   └── ImageDecodeError           a known image type that does not decode
│       └── ImageTruncatedError        … because the file ends too early
├── AccessError                the caller's key
│   └── OriginError                … or the page that a browser asks for
├── BackendError               the installation: mend it and start again
│   ├── MissingDependencyError     a package of an extra is not installed
│   ├── UnknownNameError           no such profile, model or engine
│   ├── WeightsError               a weights file is missing or not the one expected
│   ├── GoldenError                a network computes wrongly on this machine
│   ├── KeysFileError              the file of API keys is damaged, unreadable or missing
│   ├── DestinationError           the place for a batch's files fails, or cannot do what is needed
│   ├── DamagedJobError            files of a batch are missing, torn or changed
│   └── ConversionError            a network that cannot be converted
├── OverloadedError            time: come back later
│   ├── DrainingError              … elsewhere, because this process is about to end
│   └── RateLimitError             … because this key has had its share
├── DeadlineError              time: allow more of it
└── InferenceError             us: a defect of dulian
    ├── SharedSessionError         one session used by two threads
    └── ProcessDiedError           a picture ends the process that looks at it
"""

from __future__ import annotations

from typing import ClassVar


class DulianError(Exception):
    """Base of the tree; ``code`` is the stable slug that JSON errors and exit codes are made from."""

    code: ClassVar[str] = "internal"


class InputError(DulianError):
    """The caller's input cannot be used."""

    code = "invalid_input"


class MalformedInputError(InputError):
    """The request or its options make no sense, whatever the picture."""

    code = "malformed_input"


class InputNotFoundError(InputError):
    """A named file or folder does not exist or cannot be read."""

    code = "input_not_found"


class InputTooLargeError(InputError):
    """The input exceeds a limit of bytes, pixels, or pixels along one side."""

    code = "input_too_large"


class UnsupportedImageError(InputError):
    """The leading bytes belong to no accepted image type."""

    code = "unsupported_image"


class UnsupportedMediaError(InputError):
    """A request body has a content type or a content encoding that is not accepted."""

    code = "unsupported_media_type"


class SlowClientError(InputError):
    """A request body did not arrive in time."""

    code = "slow_client"


class InputUnavailableError(InputError):
    """A store did not give an input, after several tries; it may do so later."""

    code = "input_unavailable"


class JobChangedError(InputError):
    """A batch is to go on with other pictures, models or options than it was begun with."""

    code = "job_changed"


class ImageDecodeError(InputError):
    """The type is known, yet the picture does not decode."""

    code = "image_decode_failed"


class ImageTruncatedError(ImageDecodeError):
    """The file ends before its picture does."""

    code = "image_truncated"


class AccessError(DulianError):
    """The caller's key is missing, unknown or not allowed to do this."""

    code = "access_denied"


class OriginError(AccessError):
    """A page of another origin, which is not listed, wants to open a stream."""

    code = "origin_not_allowed"


class BackendError(DulianError):
    """The installation lacks something or holds something wrong."""

    code = "backend_unavailable"


class MissingDependencyError(BackendError):
    """An optional package is not installed; the message names the extra that brings it."""

    code = "missing_dependency"


class UnknownNameError(BackendError):
    """A profile, model or engine that the catalog does not have; the message lists those it has."""

    code = "unknown_name"


class WeightsError(BackendError):
    """A weights file is missing, damaged or another one; the message names file, hashes and cure."""

    code = "weights_invalid"


class GoldenError(BackendError):
    """An engine, or this machine, computes wrongly: a network does not answer a fixed input as it must."""

    code = "golden_failed"


class KeysFileError(BackendError):
    """The file of API keys is damaged, cannot be read or written, or is not where it was said to be."""

    code = "keys_invalid"


class DestinationError(BackendError):
    """The place for a batch's files fails (full, closed, unreachable), or cannot do what is needed."""

    code = "destination_failed"


class DamagedJobError(BackendError):
    """Files of a batch are missing, torn or not what was committed."""

    code = "job_damaged"


class ConversionError(BackendError):
    """A network holds a layer or parameter that the converter does not support."""

    code = "conversion_failed"


class OverloadedError(DulianError):
    """There is no room for this work now; ``wait_s`` is how long the work before it is expected to take."""

    code = "overloaded"

    def __init__(self, message: str = "", *, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class DrainingError(OverloadedError):
    """The process finishes what it has accepted and then ends."""

    code = "draining"


class RateLimitError(OverloadedError):
    """A key has used up its rate or its share of the queue; others may have room."""

    code = "rate_limited"


class DeadlineError(DulianError):
    """The work's deadline passed."""

    code = "deadline_exceeded"


class InferenceError(DulianError):
    """A network answered with something it must not answer: a defect of ours."""

    code = "inference_failed"


class SharedSessionError(InferenceError):
    """A session was used outside the thread that owns it."""

    code = "session_shared"


class ProcessDiedError(InferenceError):
    """A picture ended every process that looked at it, or kept it busy beyond all bounds."""

    code = "process_died"
