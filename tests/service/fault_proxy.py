"""A TCP proxy that does to a connection what networks and broken servers do; in a thread and a loop of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Literal

from tests.service.services import PATIENCE_S

Mode = Literal["pass", "refuse", "black hole", "delay", "cut", "garbage", "trickle", "flood"]
TRICKLE_S = 0.02


class FaultProxy:
    """Between clients and a port of this machine; what it does can be changed at any time, by :meth:`become`.

    ``refuse`` does not listen, ``black hole`` hears and never answers, ``delay`` holds answers back for ``delay_s``,
    ``cut`` ends a connection after ``cut_bytes`` of answers, ``garbage`` answers with nonsense, ``trickle`` with one
    byte at a time, ``flood`` with a string of a gigabyte. ``sent`` is all that clients have sent, ``connections`` how
    many there have been.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = one.getsockname()[1]
        self.mode: Mode = "pass"
        self.delay_s = 0.0
        self.cut_bytes = 0
        self.sent = bytearray()
        self.connections = 0

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    def become(self, mode: Mode, *, delay_s: float = 0.0, cut_bytes: int = 0) -> None:
        """Do that from now on; connections that there are end where it makes a difference."""
        self.mode, self.delay_s, self.cut_bytes = mode, delay_s, cut_bytes
        self._run(self._change())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _change(self) -> None:
        if self.mode in ("refuse", "cut"):
            self._abort()
        if self.mode == "refuse" and self._server:
            self._server.close()
            self._server = None
        elif self.mode != "refuse" and not self._server:
            await self._listen()

    async def _end(self) -> None:
        if self._server:
            self._server.close()
        self._abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self._writers.add(writer)
        with suppress(OSError, asyncio.CancelledError):  # of which the loop would make a line in the log
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(back)
            await self._relay([self._forth(reader, writer, back), self._back(there, writer)])
            back.transport.abort()
            self._writers.discard(back)
        writer.transport.abort()
        self._writers.discard(writer)
        self._tasks.discard(task)

    async def _relay(self, ways: list[Coroutine[Any, Any, None]]) -> None:
        """Both ways, until one of them ends."""
        tasks = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _forth(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65536):
            self.sent += data
            if self.mode == "garbage":
                writer.write(b"$" + os.urandom(40) + b"\r\n" + os.urandom(200))
            elif self.mode == "flood":
                writer.write(b"$1000000000\r\n")
                for _ in range(1000):
                    writer.write(bytes(1_000_000))
                    await writer.drain()
            elif self.mode != "black hole":
                back.write(data)

    async def _back(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        count = 0
        while data := await there.read(65536):
            if self.mode in ("black hole", "garbage", "flood"):
                continue
            if self.mode == "delay":
                await asyncio.sleep(self.delay_s)
            if self.mode == "cut":
                writer.write(data[: self.cut_bytes - count])
                count += len(data)
                if count >= self.cut_bytes:
                    await asyncio.sleep(0)  # what was written goes out, then the connection ends
                    return
            elif self.mode == "trickle":
                for byte in data:
                    writer.write(bytes([byte]))
                    await asyncio.sleep(TRICKLE_S)
            else:
                writer.write(data)
            await writer.drain()
