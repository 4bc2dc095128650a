"""The guard at the socket: what a client may send, and for how long, before the application hears of it.

Bodies, their sizes and their time are the application's; everything up to the end of the head is kept here.
A refusal is a bare status without a body, and it ends the connection.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from typing import ClassVar

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dulian.service.limits import GuardLimits


class _Phase(Enum):
    """Where the parser stands in the stream of requests."""

    BETWEEN = 1
    HEAD = 2
    BODY = 3


def _bare(status: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 " + status, *headers, b"connection: close", b"content-length: 0", b"", b""))


Headers = Sequence[tuple[bytes, bytes]]

_TURNED_AWAY = b"HTTP/1.1 503 Service Unavailable"
_BAD_REQUEST = _bare(b"400 Bad Request")
_HEAD_TOO_SLOW = _bare(b"408 Request Timeout")
_HEAD_TOO_LARGE = _bare(b"431 Request Header Fields Too Large")
_TOO_MANY_CONNECTIONS = _bare(b"503 Service Unavailable", b"retry-after: 1")

# When the server ends, a request may be on its way on a connection that looks idle: so long may the way take.
LAST_CALL_S = 0.5
# Up to here one system call costs more than copying a body behind its head.
JOINED_BYTES = 64 * 1024


class _JoiningTransport(asyncio.Transport):
    """Holds one write back until the next, or until the event loop turns: head and body leave in one packet.

    uvicorn writes them one after the other; one system call fewer gave a trivial application a tenth more requests per
    second. Offers only what the protocol and its responses call.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._held and len(data) > JOINED_BYTES:
            self.flush()  # a large body is not worth copying
            self._transport.write(data)
        elif self._held:
            held, self._held = self._held, b""
            self._transport.write(held + data)
        else:
            self._held = bytes(data)
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


def _send_at_once(transport: asyncio.Transport) -> None:
    # asyncio does so only where the listening socket names its protocol; the one uvicorn binds for workers does not.
    with suppress(OSError):  # a Unix socket, or a client already gone
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with bounds on connections and heads.

    uvicorn's own ``limit_concurrency`` stays unset beside it: its 503 names no ``Retry-After`` and hits the
    liveness probe as well. Garbage, TLS to the plain port and two notions of one body's length (two
    ``Content-Length``, or one beside ``Transfer-Encoding``) are the parser's to find; the answer is given here.
    """

    limits: ClassVar[GuardLimits] = GuardLimits()

    _phase = _Phase.BETWEEN
    _skipping = False  # the body of a request that was turned away
    _turned_away = 0  # of what has just been received
    _deaf = False  # refused or handed over: whatever else arrives is not for us
    _handed_over = False
    _last_call = False
    _unresolved_bytes = 0  # fed since the last finished head, message or piece of body
    _head_timer: asyncio.TimerHandle | None = None
    _answer_timer: asyncio.TimerHandle | None = None

    @staticmethod
    def refused(status: int) -> object:
        """Hears the status of every refusal that is written."""

    @staticmethod
    def turned_away(method: bytes, target: bytes, headers: Headers) -> bytes | None:
        """Headers and body of a 503 for a request that the application need not hear of; None if it has to."""
        del method, target, headers
        return None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._plain_transport = transport
        self.transport = _JoiningTransport(transport, self.loop)
        _send_at_once(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(_TOO_MANY_CONNECTIONS)
        else:
            self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_head_timer()
        self._stop_answer_timer()
        self._unset_keepalive_if_required()  # uvicorn leaves it running after a reset

    def shutdown(self) -> None:
        """The server ends: what was asked is answered, also what is asked just now; nothing after that."""
        if self._is_answering():
            super().shutdown()
        else:
            self._last_call = True
            self.loop.call_later(LAST_CALL_S, super().shutdown)

    def data_received(self, data: bytes) -> None:
        # The parser finds the end of a head, never a search for the blank line: split over two chunks it would be
        # missed, and a chunk that holds it may be of any size. So the parser gets no more than the budget at a time.
        # Bodies take the same path, because chunk extensions and trailers are buffered just as heads are.
        self._unset_keepalive_if_required()
        self._turned_away = 0
        start = 0
        while start < len(data) and not self._deaf:
            piece = data[start : start + self.limits.head_bytes - self._unresolved_bytes]
            self._unresolved_bytes += len(piece)
            start += self._feed(piece)
            if self._unresolved_bytes >= self.limits.head_bytes or self._has_too_many_headers():
                self._refuse(_HEAD_TOO_LARGE)
        if self._handed_over:
            self._hand_on(data[start:])
        elif self._phase is not _Phase.BODY and self._unresolved_bytes and not self._is_answering():
            self._start_head_timer()

    def _feed(self, piece: bytes) -> int:
        """Let the parser read; how many bytes of it belong to what it has read."""
        try:
            self.parser.feed_data(piece)
        except HttpParserUpgrade as upgrade:
            self._upgrade()
            return int(upgrade.args[0])
        except HttpParserError:
            self._refuse(_BAD_REQUEST)
        return len(piece)

    # ── answers that nobody reads ────────────────────────────────────────────────────────────────

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_answer_timer()

    def _watch_reader(self) -> None:
        """Look again after a while how much of the answer has been taken."""
        unread = self._plain_transport.get_write_buffer_size()
        self._answer_timer = self.loop.call_later(self.limits.answer_seconds, self._judge_reader, unread)

    def _judge_reader(self, unread_before: int) -> None:
        # A close would wait for the reader too.
        if unread_before - self._plain_transport.get_write_buffer_size() < self.limits.answer_bytes:
            self._plain_transport.abort()
        else:
            self._watch_reader()

    def _stop_answer_timer(self) -> None:
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None

    # ── upgrades ─────────────────────────────────────────────────────────────────────────────────

    def _upgrade(self) -> None:
        """Decide about a request after whose head the parser has stopped; its body, if any, was passed over."""
        if self._is_upgrade_to_ignore():
            self._read_again()
        elif self._should_upgrade() and not self._is_answering():
            self.handle_websocket_upgrade()
        else:  # nothing is promised beyond the answer under way; after a CONNECT follows what is not HTTP
            self._refuse(_BAD_REQUEST)

    def _is_upgrade_to_ignore(self) -> bool:
        return self.parser.should_upgrade() and not self._should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _read_again(self) -> None:
        """Read a head once more, without its wish for a protocol that is not spoken here.

        Nobody has to grant such a wish, and the request counts without it. Java's client sends one (h2c) by default,
        with bodies too.
        """
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        self._feed(b"\r\n".join((*lines, b"", b"")))

    def handle_websocket_upgrade(self) -> None:
        self._deaf = self._handed_over = True
        self.transport = self._plain_transport
        super().handle_websocket_upgrade()

    def _hand_on(self, data: bytes) -> None:
        successor = self._plain_transport.get_protocol()
        if data and isinstance(successor, asyncio.Protocol):
            successor.data_received(data)

    # ── what the parser has found ────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        self._unset_keepalive_if_required()  # one that was turned away, and came in the same packet, has set it
        super().on_message_begin()
        self._phase = _Phase.HEAD

    def on_headers_complete(self) -> None:
        if self._has_too_many_headers():
            self._refuse(_HEAD_TOO_LARGE)
            raise HttpParserError("too many headers")  # the only way to stop the parser within a piece
        if self._is_upgrade_to_ignore():
            return
        if len(self.pipeline) >= self.limits.pipelined:
            self._close_after_the_answer()
            raise HttpParserError("too many pipelined requests")
        if self._is_turned_away():
            return
        super().on_headers_complete()
        if self._last_call:
            self.cycle.keep_alive = False
        self.scope["headers"] = self.headers.copy()  # else uvicorn adds the trailers of the body to them
        self._phase = _Phase.BODY
        self._unresolved_bytes = 0
        self._stop_head_timer()

    def on_body(self, body: bytes) -> None:
        if not self._skipping:
            super().on_body(body)
        self._unresolved_bytes = 0

    def on_message_complete(self) -> None:
        if self._is_upgrade_to_ignore():
            return
        if self._skipping:
            self._skipping = False
            self._stop_head_timer()
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            super().on_message_complete()
        self._phase = _Phase.BETWEEN
        self._unresolved_bytes = 0

    def on_response_complete(self) -> None:
        if self._deaf and not self.pipeline:
            self.transport.close()
        super().on_response_complete()
        # What began to arrive while the answer was under way has had no timer until now: part of the next head,
        # or the rest of a body which the application did not want. A stray line break is neither.
        if self._phase is not _Phase.BETWEEN and not self._is_answering():
            self._start_head_timer(self.limits.skipped_seconds if self._phase is _Phase.BODY else None)

    def _is_turned_away(self) -> bool:
        """Answer at once if that is all there is to a request; its body is passed over, in the time that a head has."""
        if self._last_call or self._is_answering() or self.flow.write_paused or not self.parser.should_keep_alive():
            return False  # whoever does not read answers gets no more of them so cheaply
        refusal = self.turned_away(self.parser.get_method(), self.url, self.headers)
        if refusal is None:
            return False
        if self._turned_away >= self.limits.pipelined:
            self._deaf = True
            self.transport.close()
            raise HttpParserError("too many pipelined requests")
        self._turned_away += 1
        lines = (_TURNED_AWAY, *(name + b": " + value for name, value in self.server_state.default_headers), refusal)
        self.transport.write(b"\r\n".join(lines))
        self._skipping = True
        self._phase = _Phase.BODY
        self._unresolved_bytes = 0
        self._stop_head_timer()
        self._start_head_timer(self.limits.skipped_seconds)
        return True

    def _has_too_many_headers(self) -> bool:
        # Asked once a piece and once a head, not in on_header: the client cannot tell, and every request is quicker.
        return self._phase is _Phase.HEAD and len(self.headers) > self.limits.headers

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_head_timer(self, seconds: float | None = None) -> None:
        """Give the head its time, or what is passed over another, once: bytes that arrive do not extend it."""
        if self._head_timer is None and not self._deaf and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(seconds or self.limits.head_seconds, self._end_of_patience)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_of_patience(self) -> None:
        self._head_timer = None
        if self._phase is _Phase.HEAD or (not self._skipping and self.cycle is None):
            self._refuse(_HEAD_TOO_SLOW)
        else:  # nothing was asked since the last answer, so a client would take a 408 for the next one
            self.transport.close()

    def _refuse(self, answer: bytes) -> None:
        """Answer and close, or where that would cut into a response, close after it."""
        if self._deaf:
            return
        self._stop_head_timer()
        if self._phase is _Phase.BODY and self.pipeline:
            self.pipeline.popleft()  # the newest request: its body will never be whole
        elif not self._is_answering() or (self._phase is _Phase.BODY and not self.cycle.response_started):
            self._deaf = True
            self.transport.write(answer)
            self.transport.close()
            self.refused(int(answer[9:12]))
            return
        self._close_after_the_answer()

    def _close_after_the_answer(self) -> None:
        """Hear no more, and close once all that was accepted is answered."""
        self._deaf = True
        self.cycle.keep_alive = False


def guarded_protocol(
    limits: GuardLimits,
    *,
    refused: Callable[[int], object] = GuardedProtocol.refused,
    turned_away: Callable[[bytes, bytes, Headers], bytes | None] = GuardedProtocol.turned_away,
) -> type[HttpToolsProtocol]:
    """The protocol class for ``uvicorn.Config(http=...)``: uvicorn takes a class, hence limits live on one.

    ``refused`` hears the status of every refusal that is written here; ``turned_away`` decides about every head.
    """
    members = {
        "limits": limits,
        "refused": staticmethod(refused),
        "turned_away": staticmethod(turned_away),
        "__doc__": GuardedProtocol.__doc__,
    }
    return type(GuardedProtocol.__name__, (GuardedProtocol,), members)
