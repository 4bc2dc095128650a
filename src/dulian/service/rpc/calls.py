"""What every call has in common: its request id, its key, its message, its end. Belongs to one event loop.

The message of a call with one answer is read by the handler, and not by the library before the handler is asked: so a
call is refused before its message is received. On the wire both are the same.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from dulian.errors import (
    DulianError,
    InputTooLargeError,
    OverloadedError,
    RateLimitError,
    SlowClientError,
)
from dulian.service import tracing
from dulian.service.admission import Caller, Hold
from dulian.service.answers import request_id_of
from dulian.service.endpoint import note_failure
from dulian.service.limits import ServiceLimits
from dulian.service.log import log_event
from dulian.service.rpc.status import REQUEST_ID, grpc_status, trailers
from dulian.service.state import Service
from dulian.service.status import told

# Metadata that the service looks at. Browsers, whose Host is looked at over HTTP, do not speak gRPC.
KNOWN = frozenset({"authorization", "x-api-key", "x-request-id", "traceparent", "tracestate"})
# Who sends more slowly loses the place to one who waits for it.
PATIENCE_S = 3.0
LOOK_EVERY_S = 0.25

Context = Any
"""The library's ``grpc.aio.ServicerContext``, which has no types that could be checked."""
Answer = Callable[["Call"], Awaitable[bytes | None]]


class Reading:
    """Has so many messages read at once that all of them together keep the limit of bytes, whatever their size."""

    def __init__(self, limits: ServiceLimits) -> None:
        self._limits = limits
        self.places = max(1, limits.max_bytes_in_flight // limits.max_body_bytes)
        self._free = asyncio.Semaphore(self.places)
        self._wanting = 0

    async def read(self, context: Context, hold: Hold) -> bytes:
        """A call's message, whose bytes are held.

        Raises:
            OverloadedError: There was no place in time, or there is no room for the bytes.
            SlowClientError: It did not arrive in time.
            InputTooLargeError: It has more bytes than the limit, or there is none.
        """
        await self._wait_for_place()
        try:
            message = await self._arrival(context)
            hold.add(len(message))
        finally:
            self._free.release()
        return message

    async def _wait_for_place(self) -> None:
        self._wanting += 1
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                await self._free.acquire()
        except TimeoutError:
            raise OverloadedError("too many bytes are in flight") from None
        finally:
            self._wanting -= 1

    async def _arrival(self, context: Context) -> bytes:
        reading = asyncio.ensure_future(context.read())
        began = time.monotonic()
        try:
            while not (await asyncio.wait({reading}, timeout=LOOK_EVERY_S))[0]:
                took_s = time.monotonic() - began
                most_s = self._limits.body_timeout_s
                if took_s > (min(PATIENCE_S, most_s) if self._wanting else most_s):
                    raise SlowClientError(f"the message did not arrive within {took_s:.0f} seconds")
        finally:
            reading.cancel()
        message = reading.result()
        if message is grpc.aio.EOF:  # the library has told the client why
            raise InputTooLargeError(f"there is no message, or it is larger than {self._limits.max_body_bytes:,} bytes")
        return bytes(message)


class Call:
    """One call: who asks, how long it may take."""

    def __init__(self, service: Service, context: Context, reading: Reading) -> None:
        self.service = service
        self.context = context
        self._reading = reading
        # Binary metadata is bytes here, and none of ours is.
        given = [(key, str(value)) for key, value in context.invocation_metadata() or () if key in KNOWN]
        self.headers = {key.encode("ascii"): value.encode("latin-1", "replace") for key, value in given}
        self.request_id = request_id_of(self.headers.get(b"x-request-id", b""))

    @property
    def remaining_s(self) -> float:
        """Until the client's own deadline."""
        left_s = self.context.time_remaining()
        return math.inf if left_s is None else left_s

    async def admit(self, method: str) -> Caller | None:
        """Who asks, by the key; None where nobody needs one.

        Raises:
            AccessError: There is no valid key.
            RateLimitError: The key has used up its rate.
        """
        try:
            return await self.service.access.admit(method, self.headers)
        except RateLimitError:
            self.service.metrics.count_rejected("rate")
            raise

    async def short_message(self) -> bytes:
        """The message of a call that asks for no work; it has a place to be read in, and counts for no limit after.

        Raises:
            DulianError: It is refused.
        """
        hold = Hold(self.service.admission)
        try:
            return await self._reading.read(self.context, hold)
        finally:
            hold.release()

    async def receive(self, caller: Caller | None, hold: Hold) -> bytes:
        """The message, unless it is clear before that there is no room or no time for what it asks.

        Raises:
            DulianError: It is refused.
        """
        service = self.service
        service.admission.check(0, min(service.limits.deadline_s, self.remaining_s), caller)
        began = time.monotonic()
        message = await self._reading.read(self.context, hold)
        ended = time.monotonic()
        service.metrics.body_bytes.observe(len(message))
        service.metrics.stages["read"].observe(ended - began)
        tracing.note_stage("read", began, ended)
        return message


class Calls:
    """Makes handlers of what answers calls, and knows how many of them are under way."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.reading = Reading(service.limits)
        self.open = 0

    def handler(self, method: str, answer: Answer, *, stream: bool = False) -> Any:
        """The library's handler of a method, ``/package.Service/Method``; messages are bytes on both sides."""

        async def handle(_: object, context: Context) -> bytes | None:
            self.open += 1
            try:
                return await self._handle(context, method, answer, stream=stream)
            finally:
                self.open -= 1

        make = grpc.stream_stream_rpc_method_handler if stream else grpc.stream_unary_rpc_method_handler
        return make(handle)

    async def _handle(self, context: Context, method: str, answer: Answer, *, stream: bool) -> bytes | None:
        service, metrics = self._service, self._service.metrics
        service.traffic.count_request()
        call = Call(service, context, self.reading)
        began, code = time.monotonic(), grpc.StatusCode.CANCELLED
        metrics.inflight.inc()
        _, name, last_name = method.split("/")
        attributes = {"rpc.system": "grpc", "rpc.service": name, "rpc.method": last_name}
        try:
            with tracing.start(service, f"{name}/{last_name}", call.headers.items(), attributes=attributes) as record:
                said = await self._answer(call, answer)
                code = grpc_status(said) if isinstance(said, DulianError) else grpc.StatusCode.OK
                if record is not None:
                    record.attributes["rpc.grpc.status_code"] = code.value[0]
            return await _finish(call, said)
        except asyncio.CancelledError:
            metrics.disconnects.inc()
            raise
        finally:
            metrics.inflight.dec()
            metrics.count_rpc(f"{name}/{last_name}", code.name, None if stream else time.monotonic() - began)

    async def _answer(self, call: Call, answer: Answer) -> bytes | DulianError | None:
        try:
            return await answer(call)
        except DulianError as error:
            note_failure(error, call.request_id)
            return error.with_traceback(None)
        except Exception as error:  # noqa: BLE001 - the outermost handler: logged, and told to nobody else
            log_event("internal_error", level=logging.ERROR, error=error, request_id=call.request_id)
            defect = DulianError("an internal error; the log has it")
            tracing.note_error(defect)
            return defect


async def _finish(call: Call, said: bytes | DulianError | None) -> bytes | None:
    """End a call by an answer, or by an error, which the library wants raised."""
    if not isinstance(said, DulianError):
        call.context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
        return said
    await call.context.abort(grpc_status(said), told(said), trailers(said, call.request_id))
    return None
