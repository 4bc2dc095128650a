"""``WS /v1/stream``: one frame after another over one connection, and of those that wait always the newest.

Two tasks share a stream: one reads, and keeps at most one frame waiting; the other has a frame analysed, sends what
came of it, and only then takes the next.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from dulian.errors import (
    AccessError,
    DeadlineError,
    DrainingError,
    DulianError,
    MalformedInputError,
    OriginError,
    OverloadedError,
    RateLimitError,
)
from dulian.service.admission import Caller, Hold, retry_after_s
from dulian.service.analysis import as_result
from dulian.service.answers import error_answer, to_json
from dulian.service.body import ClientGone
from dulian.service.compute import EXPIRED
from dulian.service.endpoint import look_at, note_failure
from dulian.service.query import Asked
from dulian.service.security import origin_allowed
from dulian.service.state import Service
from dulian.service.status import told
from dulian.service.wishes import Id, Wishes, read_wishes

PATH = "/v1/stream"
SUBPROTOCOL = "dulian.v1"
# Dropped ids that are gathered before they are told.
MAX_DROPPED = 256
# Only the one next to a frame counts, so who sends more of them in a row is up to something else.
MAX_TEXTS = 16

# ── the protocol's own words ─────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Closing:
    """Why a stream ends, by a code of RFC 6455 and in words."""

    code: int
    reason: str


NO_JSON = Closing(1003, 'a text message is {"id": ..., "options": {...}} in JSON')
IDLE = Closing(1008, "no frame for too long")
KEY_GONE = Closing(1008, "the key is no longer valid")
TOO_MANY_TEXTS = Closing(1008, f"more than {MAX_TEXTS} text messages without a frame")
TEXT_TOO_BIG = Closing(1009, "the text message is too big")
ENDING = Closing(1012, "the service is about to end; connect again")


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, or why it is not going to be looked at."""

    id: Id
    data: bytes
    asked: Asked
    hold: Hold
    arrived: float
    error: DulianError | None


# ── the door ─────────────────────────────────────────────────────────────────────────────────────


class StreamEndpoint:
    """Lets streams in, so many at a time; who is not let in gets an HTTP answer instead of a handshake.

    Where there are several keys, each may open half of the streams, as it may fill half of the queue.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._open_of: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, state = self._service, scope["state"]
        try:
            self._check(scope, state["caller"])
        except DulianError as error:
            await error_answer(error, state["request_id"])(scope, receive, send)
            return
        caller: Caller | None = state["caller"]
        stream = Stream(service, receive, send, request_id=state["request_id"], caller=caller)
        service.streams += 1
        if caller is not None:
            self._open_of[caller.key_id] += 1
        try:
            await stream.accept(SUBPROTOCOL if SUBPROTOCOL in scope["subprotocols"] else None)
            await stream.run()
        except ClientGone:
            return
        finally:
            service.streams -= 1
            if caller is not None:
                self._open_of.subtract([caller.key_id])
                self._open_of += Counter()  # who has none left is forgotten

    def _check(self, scope: Scope, caller: Caller | None) -> None:
        service = self._service
        if not origin_allowed(dict(scope["headers"]), service.origins):
            raise OriginError("pages of this origin may not open a stream")
        if scope["query_string"]:
            raise MalformedInputError("options come in a message before a frame, not in the query")
        if service.draining or service.retiring:
            service.metrics.count_rejected("draining")
            raise DrainingError("the service is about to end")
        if service.streams >= service.limits.max_streams:
            service.metrics.count_rejected("streams")
            raise OverloadedError(f"{service.streams} streams are open already")
        share = max(1, service.limits.max_streams // 2)
        if caller is not None and caller.sharing and self._open_of[caller.key_id] >= share:
            service.metrics.count_rejected("share")
            raise RateLimitError(f"this key has its half of the streams open, {share}")


async def refuse_plain_request(request: Request) -> Response:
    """Tell a client that asks by HTTP alone what to do."""
    raise HTTPException(426, headers={"Upgrade": "websocket"})


# ── a stream ─────────────────────────────────────────────────────────────────────────────────────


class Stream:
    """One open connection."""

    def __init__(
        self, service: Service, receive: Receive, send: Send, *, request_id: str, caller: Caller | None = None
    ) -> None:
        self._service = service
        self._receive = receive
        self._send_message = send
        self._request_id = request_id
        self._caller = caller
        self._no_wishes = Wishes(None, Asked(budget_s=service.limits.deadline_s))
        self._wishes = self._no_wishes
        self._texts = 0
        self._frames = 0
        self._waiting: Frame | None = None
        self._at_work = False
        self._dropped: list[Id] = []
        self._prepaid = True  # the handshake has counted as a request
        self._ending = False
        self._changed = asyncio.Event()

    async def accept(self, subprotocol: str | None) -> None:
        """Open it.

        Raises:
            ClientGone: Nobody is left to open it for.
        """
        await self._receive()  # the handshake, of which the scope has told all
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol})

    async def run(self) -> None:
        """Answer frames until one side ends it. Nothing of the stream is left then.

        Raises:
            ClientGone: By going.
        """
        tasks = [asyncio.create_task(self._read_all()), asyncio.create_task(self._answer_all())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            closing = next(task for task in tasks if task.done()).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._waiting is not None:
                self._waiting.hold.release()
        await self._send({"type": "websocket.close", "code": closing.code, "reason": closing.reason})

    # ── inward ───────────────────────────────────────────────────────────────────────────────────

    async def _read_all(self) -> Closing:
        """Take what comes until there is a reason to close.

        Raises:
            ClientGone: The client has closed.
        """
        frames, idle_at = 0, self._idle_at()
        while True:
            try:
                async with asyncio.timeout_at(idle_at):
                    # Not by a name, which would keep the last frame until the next one comes.
                    closing = self._take_in(await self._receive())
            except TimeoutError:
                if not self._at_work:
                    return IDLE
                idle_at = self._idle_at()
                continue
            if closing:
                return closing
            if self._frames > frames:
                frames, idle_at = self._frames, self._idle_at()
            if len(self._dropped) >= MAX_DROPPED:
                await self._tell_dropped()

    def _idle_at(self) -> float:
        return asyncio.get_running_loop().time() + self._service.limits.stream_idle_s

    def _take_in(self, message: Message) -> Closing | None:
        if message["type"] == "websocket.disconnect":
            if message["code"] != ENDING.code:
                raise ClientGone
            self._ending = True  # our server's word; a client that says so goes, and is noticed to be gone
            self._changed.set()
            return None
        if "text" in message:
            return self._take_text(message["text"])
        self._take_frame(message["bytes"])
        return None

    def _take_text(self, text: str) -> Closing | None:
        limits = self._service.limits
        self._texts += 1
        if self._texts > MAX_TEXTS:
            return TOO_MANY_TEXTS
        if len(text) > limits.max_stream_text_bytes or len(text.encode()) > limits.max_stream_text_bytes:
            return TEXT_TOO_BIG
        try:
            self._wishes = read_wishes(text, deadline_s=limits.deadline_s)
        except ValueError:
            return NO_JSON
        return None

    def _take_frame(self, data: bytes) -> None:
        """Let a frame wait in place of the one that waited until now; towards the end that one stays."""
        self._frames += 1
        self._texts = 0
        wishes, self._wishes = self._wishes, self._no_wishes
        number = self._frames if wishes.id is None else wishes.id
        if self._ending:
            self._dropped.append(number)
            return
        if self._waiting is not None:
            self._waiting.hold.release()
            self._dropped.append(self._waiting.id)
        hold = Hold(self._service.admission, self._caller)
        error = wishes.error
        if error is None:
            try:
                hold.add(len(data))
            except OverloadedError as refusal:
                error = refusal.with_traceback(None)
        self._waiting = Frame(number, b"" if error else data, wishes.asked, hold, time.monotonic(), error)
        self._changed.set()

    # ── outward ──────────────────────────────────────────────────────────────────────────────────

    async def _answer_all(self) -> Closing:
        """Answer whatever waits, one frame at a time, until there is a reason to close."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while (frame := self._waiting) is not None:
                self._waiting, self._at_work = None, True
                answer, closing = await self._outcome(frame)
                del frame  # its bytes count no more, so they must not stay until the answer has left
                await self._say(answer)
                await self._tell_dropped()
                self._at_work = False
                if closing:
                    return closing
            if self._ending:
                await self._tell_dropped()
                return ENDING

    async def _outcome(self, frame: Frame) -> tuple[bytes, Closing | None]:
        """What is to be said of a frame, and whether that ends the stream; its bytes are released in here."""
        if frame.error is not None:
            frame.hold.release()
            return self._failure(frame.id, frame.error), None
        try:
            return await self._analyze(frame), None
        except DulianError as error:
            return self._failure(frame.id, error), KEY_GONE if isinstance(error, AccessError) else None

    async def _analyze(self, frame: Frame) -> bytes:
        service = self._service
        service.traffic.count_request()
        try:
            if not frame.data:
                raise MalformedInputError("the frame is empty; send a picture")
            if not self._prepaid:
                await service.access.charge(self._caller)
            self._prepaid = False
            budget_s = frame.arrived + frame.asked.budget_s - time.monotonic()
            if budget_s <= 0:
                service.metrics.count_expired("queue")
                raise DeadlineError(EXPIRED)
        except BaseException:
            frame.hold.release()
            raise
        answer = await service.admission.perform(
            lambda: answer_frame(service, frame, self._request_id), budget_s=budget_s, hold=frame.hold, receive=None
        )
        service.traffic.note_answer(time.monotonic() - frame.arrived)
        return answer

    def _failure(self, number: Id, error: DulianError) -> bytes:
        note_failure(error, self._request_id)
        told_of_it: dict[str, Any] = {"code": error.code, "message": told(error), "request_id": self._request_id}
        if isinstance(error, OverloadedError):
            told_of_it["retry_after_s"] = retry_after_s(error.wait_s)
        return to_json({"id": number, "error": told_of_it})

    async def _tell_dropped(self) -> None:
        if self._dropped:
            dropped, self._dropped = self._dropped, []
            await self._say(to_json({"dropped": dropped}))

    async def _say(self, answer: bytes) -> None:
        await self._send({"type": "websocket.send", "text": answer.decode()})

    async def _send(self, message: Message) -> None:
        try:
            await self._send_message(message)
        except OSError:  # that is how servers tell
            raise ClientGone from None


def answer_frame(service: Service, frame: Frame, request_id: str) -> bytes:
    """A frame's answer; runs in a compute thread.

    Raises:
        DulianError: The picture is refused.
    """
    result, drawn = look_at(service, frame.data, frame.asked, draw=frame.asked.annotate)
    return b'{"id":%b,%b' % (to_json(frame.id), as_result(result, drawn, request_id).body[1:])
