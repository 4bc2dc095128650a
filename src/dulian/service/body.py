"""A request body becomes one buffer in memory, within its limits of bytes and time. What is in it is not looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from dulian.errors import InputTooLargeError, MalformedInputError, SlowClientError, UnsupportedMediaError
from dulian.service.limits import ServiceLimits

Headers = dict[bytes, bytes]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Buffer = bytes | bytearray
EMPTY = "the body is empty; send a picture"


class ClientGone(Exception):
    """The client closed its connection: nobody's error, and nobody is left to answer."""


class RequestBody:
    """One request's body, before and after it is read."""

    def __init__(self, headers: Headers, limits: ServiceLimits, *, empty: str = EMPTY) -> None:
        """``empty`` is what a client is told that sent nothing."""
        self._limits = limits
        self._empty = empty
        self._encoding = headers.get(b"content-encoding", b"")
        self._waits_for_continue = b"expect" in headers
        length = headers.get(b"content-length", b"")
        self.declared_bytes = int(length) if length.isdigit() else None
        self.complete = False
        self._unwanted = False  # whatever of it is still to come

    @property
    def must_close(self) -> bool:
        """Whether an answer given now has to end the connection.

        What is unread of a small body of known length is skipped by the server, and the connection lives on.
        """
        if self.complete:
            return False
        return self._unwanted or self._waits_for_continue or not self._may_fit(self.declared_bytes)

    def check(self) -> None:
        """Refuse what the headers alone tell.

        Raises:
            UnsupportedMediaError: A compressed body; it could grow without bound.
            InputTooLargeError: A declared length above the limit.
        """
        if self._encoding.strip().lower() not in (b"", b"identity"):
            raise UnsupportedMediaError("a compressed body (Content-Encoding) is not accepted; send it as it is")
        if self.declared_bytes is not None and self.declared_bytes > self._limits.max_body_bytes:
            raise self._too_large()

    async def read(self, receive: Receive, *, hold: Callable[[int], None]) -> Buffer:
        """The whole body; ``hold`` hears of every piece before it is kept, and may refuse it.

        Raises:
            InputTooLargeError: More bytes than the limit; the rest is not read.
            SlowClientError: It did not arrive in time.
            MalformedInputError: It is empty.
            ClientGone: The client hung up.
        """
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                body = await self._collect(receive, hold)
        except TimeoutError:
            self._unwanted = True
            raise SlowClientError(f"the body did not arrive within {self._limits.body_timeout_s:g} seconds") from None
        self.complete = True
        if not body:
            raise MalformedInputError(self._empty)
        return body

    async def _collect(self, receive: Receive, hold: Callable[[int], None]) -> Buffer:
        body: Buffer = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            if not self._may_fit(len(body) + len(piece)):
                self._unwanted = True
                raise self._too_large()
            hold(len(piece))
            # A body that arrives in one piece is not copied.
            if not body:
                body = piece
            elif isinstance(body, bytes):
                body = bytearray(body) + piece
            else:
                body += piece
        return body

    def _may_fit(self, count: int | None) -> bool:
        return count is not None and count <= self._limits.max_body_bytes

    def _too_large(self) -> InputTooLargeError:
        return InputTooLargeError(f"the body is larger than {self._limits.max_body_bytes:,} bytes")
