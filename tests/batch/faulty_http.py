"""A proxy before an HTTP server that does to single requests what networks and overloaded stores do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

PATIENCE_S = 30.0
SHORT_S = 0.3


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = field(repr=False)

    def raw(self, *, without: tuple[str, ...] = ()) -> bytes:
        """To be sent on; the server says 100 Continue to nobody, because the proxy has."""
        left_out = {"expect", "connection", *without}
        lines = [f"{name}: {value}" for name, value in self.headers.items() if name not in left_out]
        head = "\r\n".join([f"{self.method} {self.target} HTTP/1.1", *lines, "connection: close", "", ""])
        return head.encode("latin-1") + self.body


Choose = Callable[[Request, int], str | None]
"""What befalls a request, by its number from 1: None, or the name of a fault."""


class FaultyHttp:
    """Between clients and a port of this machine. ``choose`` may be set at any time; ``seen`` are all requests.

    ``500``, ``503``, ``409`` and ``501`` are answered without asking the server; ``refused`` ends the connection.
    ``slow`` takes its time, ``cut`` ends the connection in the middle of the answer's body, ``lost`` before the answer:
    the server has done the work. ``unconditional`` leaves the condition out. ``stuck`` does not answer at all.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty-http")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None
        self.choose: Choose = lambda request, number: None
        self.seen: list[tuple[Request, str | None]] = []
        self.port = 0

    def __enter__(self) -> FaultyHttp:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def faults(self) -> int:
        """How many requests something has befallen."""
        return sum(fault is not None for _, fault in self.seen)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        if self._server:
            self._server.close()
        await asyncio.sleep(0.01)  # who has just been let in has a task by then
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while request := await _read_request(reader, writer):
                    fault = self.choose(request, len(self.seen) + 1)
                    self.seen.append((request, fault))
                    if not await self._answer(request, fault, writer):
                        break
        finally:
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()
            self._tasks.discard(task)

    async def _answer(self, request: Request, fault: str | None, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        if fault == "refused":
            return False
        if fault == "stuck":
            await asyncio.sleep(3600)
        if fault and fault.isdecimal():
            writer.write(_refusal(int(fault)))
            await writer.drain()
            return True
        answer = await self._ask(request.raw(without=("if-none-match",) if fault == "unconditional" else ()))
        if fault == "lost":
            return False
        if fault == "slow":
            await asyncio.sleep(SHORT_S)
        head, _, body = answer.partition(b"\r\n\r\n")
        if fault == "cut":
            writer.write(head + b"\r\n\r\n" + body[: len(body) // 2])
            await writer.drain()
            return False
        writer.write(answer)
        await writer.drain()
        return b"\r\nconnection: close" not in head.lower()

    async def _ask(self, raw: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            writer.write(raw)
            await writer.drain()
            answer = await reader.read()
        finally:
            writer.close()
        # The server closes after each answer; clients of the proxy keep their connections.
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("expect"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    read: Awaitable[bytes] = reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, target, headers, await read)


def _refusal(status: int) -> bytes:
    code = {409: "ConditionalRequestConflict", 500: "InternalError", 501: "NotImplemented", 503: "SlowDown"}[status]
    body = (
        f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>a fault</Message></Error>".encode()
    )
    head = f"HTTP/1.1 {status} Fault\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
