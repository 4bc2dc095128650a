"""Which status of gRPC an error has, and what of it goes to a client; no other module knows such codes."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2, duration_pb2  # type: ignore[import-untyped]
from google.rpc import error_details_pb2, status_pb2

from dulian.errors import DulianError, OverloadedError
from dulian.service.admission import retry_after_s
from dulian.service.status import TOO_MANY, UNAVAILABLE, http_status, told

# By the status that the same error has over HTTP: what is decided there is not decided again.
CODES: dict[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}

DOMAIN = "dulian"
REQUEST_ID = "x-request-id"
ERROR_CODE = "dulian-error-code"
# The standard key of a google.rpc.Status in the last metadata of a call.
DETAILS = "grpc-status-details-bin"

Trailers = tuple[tuple[str, str | bytes], ...]


def grpc_status(error: DulianError) -> grpc.StatusCode:
    """The status of an error by its class."""
    return CODES[http_status(error)]


def trailers(error: DulianError, request_id: str) -> Trailers:
    """What ends a call beside its status: our code, and the same in the standard form that libraries read.

    That has an ErrorInfo, whose reason is the code as it is spelled there, and where another try may go better a
    RetryInfo.
    """
    code = grpc_status(error).value[0]
    status = status_pb2.Status(code=code, message=told(error))
    _add(
        status, error_details_pb2.ErrorInfo(reason=error.code.upper(), domain=DOMAIN, metadata={REQUEST_ID: request_id})
    )
    if http_status(error) in (TOO_MANY, UNAVAILABLE):
        seconds = retry_after_s(error.wait_s if isinstance(error, OverloadedError) else 0.0)
        _add(status, error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=seconds)))
    return ((REQUEST_ID, request_id), (ERROR_CODE, error.code), (DETAILS, status.SerializeToString()))


def _add(status: status_pb2.Status, detail: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)
