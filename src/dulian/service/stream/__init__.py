"""``WS /v1/stream``: one frame after another over one connection, and of those that wait always the newest.

Two tasks share a stream: one reads, and keeps at most one frame waiting; the other has a frame analysed, sends what
came of it, and only then takes the next.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import asdict, dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from dulian.errors import DulianError, MalformedInputError, OriginError
from dulian.service.admission import Caller
from dulian.service.analysis import as_result
from dulian.service.answers import error_answer, to_json
from dulian.service.body import ClientGone
from dulian.service.endpoint import look_at
from dulian.service.query import Asked
from dulian.service.security import origin_allowed
from dulian.service.state import Service
from dulian.service.stream.frames import MAX_DROPPED, Frame, Frames, Refusal, check_streams, counted_stream
from dulian.service.stream.wishes import Id, Wishes, read_wishes

PATH = "/v1/stream"
SUBPROTOCOL = "dulian.v1"
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


# ── the door ─────────────────────────────────────────────────────────────────────────────────────


class StreamEndpoint:
    """Lets streams in, so many at a time; who is not let in gets an HTTP answer instead of a handshake."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, state = self._service, scope["state"]
        caller: Caller | None = state["caller"]
        try:
            self._check(scope, caller)
        except DulianError as error:
            await error_answer(error, state["request_id"])(scope, receive, send)
            return
        stream = Stream(service, receive, send, request_id=state["request_id"], caller=caller)
        with counted_stream(service, caller), suppress(ClientGone):
            await stream.accept(SUBPROTOCOL if SUBPROTOCOL in scope["subprotocols"] else None)
            await stream.run()

    def _check(self, scope: Scope, caller: Caller | None) -> None:
        if not origin_allowed(dict(scope["headers"]), self._service.origins):
            raise OriginError("pages of this origin may not open a stream")
        if scope["query_string"]:
            raise MalformedInputError("options come in a message before a frame, not in the query")
        check_streams(self._service, caller)


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
        self._no_wishes = Wishes(None, Asked(budget_s=service.limits.deadline_s))
        self._wishes = self._no_wishes
        self._texts = 0
        self._frames = Frames(service, JsonWords(service), self._say, request_id=request_id, caller=caller)

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
            self._frames.release()
        await self._send({"type": "websocket.close", "code": closing.code, "reason": closing.reason})

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
                if not self._frames.at_work:
                    return IDLE
                idle_at = self._idle_at()
                continue
            if closing:
                return closing
            if self._frames.taken > frames:
                frames, idle_at = self._frames.taken, self._idle_at()
            await self._frames.tell_dropped(from_count=MAX_DROPPED)

    def _idle_at(self) -> float:
        return asyncio.get_running_loop().time() + self._service.limits.stream_idle_s

    def _take_in(self, message: Message) -> Closing | None:
        if message["type"] == "websocket.disconnect":
            if message["code"] != ENDING.code:
                raise ClientGone
            self._frames.end()  # our server's word; a client that says so goes, and is noticed to be gone
            return None
        if "text" in message:
            return self._take_text(message["text"])
        self._texts = 0
        wishes, self._wishes = self._wishes, self._no_wishes
        self._frames.take(message["bytes"], wishes)
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

    async def _answer_all(self) -> Closing:
        return ENDING if await self._frames.answer_all() is None else KEY_GONE

    async def _say(self, answer: bytes) -> None:
        await self._send({"type": "websocket.send", "text": answer.decode()})

    async def _send(self, message: Message) -> None:
        try:
            await self._send_message(message)
        except OSError:  # that is how servers tell
            raise ClientGone from None


# ── answers ──────────────────────────────────────────────────────────────────────────────────────


class JsonWords:
    """Answers to frames as JSON."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def result(self, frame: Frame, request_id: str) -> bytes:
        return answer_frame(self._service, frame, request_id)

    def failure(self, number: Id, refusal: Refusal) -> bytes:
        told_of_it = {name: value for name, value in asdict(refusal).items() if value is not None}
        return to_json({"id": number, "error": told_of_it})

    def dropped(self, ids: list[Id]) -> bytes:
        return to_json({"dropped": ids})


def answer_frame(service: Service, frame: Frame, request_id: str) -> bytes:
    """A frame's answer; runs in a compute thread.

    Raises:
        DulianError: The picture is refused.
    """
    result, drawn = look_at(service, frame.data, frame.asked, draw=frame.asked.annotate)
    return b'{"id":%b,%b' % (to_json(frame.id), as_result(result, drawn, request_id).body[1:])
