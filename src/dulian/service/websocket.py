"""The guard of a WebSocket: what a client may pile up, and how long it may leave its answers unread.

What is in the messages, and when they end, is the application's; the handshake's head has passed the guard of HTTP.
"""

from __future__ import annotations

import asyncio
from asyncio.transports import BaseTransport
from typing import Any, ClassVar

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import CloseCode, Frame

# What is parsed before anybody looks whether that is enough: a whole read full of empty messages is 20 MB of objects.
PIECE_BYTES = 16 * 1024
# A message may come in pieces; pieces may be empty, so that its size does not bound them.
MAX_FRAGMENTS = 1024
# From our last word to the end of the connection.
CLOSE_S = 3.0

_NO_HANDSHAKE = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class GuardedWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol with bounds on what waits in either direction.

    Inward, one message is handed over at a time, and nothing more is parsed until the application asks. Outward,
    sending waits until all that was sent before has left, and ``unread_s`` without that end the connection.
    """

    unread_s: ClassVar[float] = 30.0

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.close_timeout = CLOSE_S
        self._patience_s = self.unread_s
        self._unparsed = b""
        self._unread_timer: asyncio.TimerHandle | None = None
        self._failed = False
        self._ending = False

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=0)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_unread_timer()

    def shutdown(self) -> None:
        """Tell the application, once; it finishes what it has begun. Who does not read is no longer waited for."""
        if self._ending:
            return
        self._ending = True
        self._patience_s = self.close_timeout
        if self._unread_timer is not None:
            self._stop_unread_timer()
            self._start_unread_timer()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": CloseCode.SERVICE_RESTART, "reason": ""})

    # ── inward ───────────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        if self.handshake_initiated:
            self._unparsed += data
            self._parse()
        else:
            self._open(data)

    async def receive(self) -> Any:
        message = await super().receive()
        self._parse()
        return message

    def _open(self, head: bytes) -> None:
        super().data_received(head)
        if not self.handshake_initiated:  # uvicorn would leave it at that, and the connection open
            self.transport.write(b"".join(self.conn.data_to_send()) or _NO_HANDSHAKE)
            self.transport.close()

    def _parse(self) -> None:
        start = 0
        while start < len(self._unparsed) and self._is_listening():
            piece = self._unparsed[start : start + PIECE_BYTES]
            start += len(piece)
            super().data_received(piece)
        self._unparsed = b"" if self._failed else self._unparsed[start:]

    def _is_listening(self) -> bool:
        return self.handshake_complete and not self.read_paused and not self._failed

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        else:
            self._fail(CloseCode.POLICY_VIOLATION, f"a message in more than {MAX_FRAGMENTS} fragments")

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not _is_utf8(b"".join(self.frames)):
            self.frames = []
            self._fail(CloseCode.INVALID_DATA, "a text that is not UTF-8")  # uvicorn would log it with a traceback
        else:
            super().send_receive_event_to_app()

    def _fail(self, code: CloseCode, reason: str) -> None:
        if not self.close_sent:
            self.conn.fail(code, reason)
            self.handle_parser_exception()

    def handle_parser_exception(self) -> None:
        """Say why, and hear no more; yet let the client finish: bytes left unread would make the reason a reset."""
        closing = self.conn.close_sent
        assert closing is not None
        self._failed = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": closing.code, "reason": closing.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.write_eof()
        self.close_sent = self.disconnected = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)

    # ── outward ──────────────────────────────────────────────────────────────────────────────────

    async def send(self, message: Any) -> None:
        await super().send(message)
        kind = message["type"]
        if kind == "websocket.accept":
            self._parse()  # what came with the handshake has waited for this
        elif kind == "websocket.send":
            await self.writable.wait()
        elif kind == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = self._failed = True  # else uvicorn logs that there was none

    def handle_ping(self) -> None:
        pong = b"".join(self.conn.data_to_send())
        if self.writable.is_set() and not self._failed:  # pongs for one who reads none would pile up
            self.transport.write(pong)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_unread_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_unread_timer()

    def _start_unread_timer(self) -> None:
        self._unread_timer = self.loop.call_later(self._patience_s, self.transport.abort)

    def _stop_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def guarded_websocket(*, unread_s: float) -> type[GuardedWebSocket]:
    """The protocol class for ``uvicorn.Config(ws=...)``."""
    members = {"unread_s": unread_s, "__doc__": GuardedWebSocket.__doc__}
    return type(GuardedWebSocket.__name__, (GuardedWebSocket,), members)
