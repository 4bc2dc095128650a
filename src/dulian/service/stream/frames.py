"""The frames of one stream, whatever carries them: of those that wait always the newest, and one at a time at work.

A transport gives every frame that comes to :meth:`Frames.take`, has :meth:`Frames.answer_all` run beside that, and
knows how an answer is spelled and sent.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from dulian.errors import (
    AccessError,
    DeadlineError,
    DrainingError,
    DulianError,
    MalformedInputError,
    OverloadedError,
    RateLimitError,
)
from dulian.service import tracing
from dulian.service.admission import Caller, Hold, retry_after_s
from dulian.service.compute import EXPIRED
from dulian.service.endpoint import note_failure
from dulian.service.query import Asked
from dulian.service.state import Service
from dulian.service.status import told
from dulian.service.stream.wishes import Id, Wishes

# Dropped ids that are gathered before they are told.
MAX_DROPPED = 256

Answer = TypeVar("Answer")
Spelled = TypeVar("Spelled", covariant=True)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, or why it is not going to be looked at."""

    id: Id
    data: bytes
    asked: Asked
    hold: Hold
    arrived: float
    error: DulianError | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a frame has no result, as far as a client is told; ``retry_after_s`` where another try may go better."""

    code: str
    message: str
    request_id: str
    retry_after_s: int | None


class Words(Protocol[Spelled]):
    """How a transport spells what is said of frames."""

    def result(self, frame: Frame, request_id: str) -> Spelled:
        """What a frame shows; runs in a compute thread.

        Raises:
            DulianError: The picture is refused.
        """
        ...

    def failure(self, number: Id, refusal: Refusal) -> Spelled:
        """Why it has no result."""
        ...

    def dropped(self, ids: list[Id]) -> Spelled:
        """Which ones newer ones have replaced."""
        ...


class Frames(Generic[Answer]):
    """Takes frames as they come and answers them in order. Belongs to one event loop."""

    def __init__(
        self,
        service: Service,
        words: Words[Answer],
        say: Callable[[Answer], Awaitable[None]],
        *,
        request_id: str,
        caller: Caller | None,
    ) -> None:
        """``say`` returns when the transport has room for the next answer."""
        self._service = service
        self._words = words
        self._say = say
        self._request_id = request_id
        self._caller = caller
        self._waiting: Frame | None = None
        self._dropped: list[Id] = []
        self._prepaid = True  # what opened the stream has counted as a request
        self._ending = False
        self._changed = asyncio.Event()
        self.taken = 0
        self.at_work = False

    # ── inward ───────────────────────────────────────────────────────────────────────────────────

    def take(self, data: bytes, wishes: Wishes) -> None:
        """Let a frame wait in place of the one that waited until now; towards the end that one stays."""
        self.taken += 1
        number = self.taken if wishes.id is None else wishes.id
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

    def end(self) -> None:
        """Answer what was taken, and then no more."""
        self._ending = True
        self._changed.set()

    def release(self) -> None:
        """Nobody is left to be answered."""
        if self._waiting is not None:
            self._waiting.hold.release()
            self._waiting = None

    # ── outward ──────────────────────────────────────────────────────────────────────────────────

    async def answer_all(self) -> AccessError | None:
        """Answer whatever waits, one frame at a time, until the end, or until the key is no longer valid."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while (frame := self._waiting) is not None:
                self._waiting, self.at_work = None, True
                with tracing.start(self._service, "frame", began=frame.arrived):
                    answer, end = await self._outcome(frame)
                del frame  # its bytes count no more, so they must not stay until the answer has left
                await self._say(answer)
                await self.tell_dropped()
                self.at_work = False
                if end:
                    return end
            if self._ending:
                await self.tell_dropped()
                return None

    async def tell_dropped(self, *, from_count: int = 1) -> None:
        """Tell which frames were replaced, if there are so many."""
        if len(self._dropped) >= from_count:
            dropped, self._dropped = self._dropped, []
            await self._say(self._words.dropped(dropped))

    async def _outcome(self, frame: Frame) -> tuple[Answer, AccessError | None]:
        """What is to be said of a frame, and whether that ends the stream; its bytes are released in here."""
        if frame.error is not None:
            frame.hold.release()
            return self._failure(frame.id, frame.error), None
        try:
            return await self._analyze(frame), None
        except DulianError as error:
            return self._failure(frame.id, error), error if isinstance(error, AccessError) else None

    async def _analyze(self, frame: Frame) -> Answer:
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
            lambda: self._words.result(frame, self._request_id), budget_s=budget_s, hold=frame.hold, receive=None
        )
        service.traffic.note_answer(time.monotonic() - frame.arrived)
        return answer

    def _failure(self, number: Id, error: DulianError) -> Answer:
        note_failure(error, self._request_id)
        later = retry_after_s(error.wait_s) if isinstance(error, OverloadedError) else None
        return self._words.failure(number, Refusal(error.code, told(error), self._request_id, later))


# ── the door ─────────────────────────────────────────────────────────────────────────────────────


def check_streams(service: Service, caller: Caller | None) -> None:
    """Whether one more stream may be opened.

    Where there are several keys, each may open half of the streams, as it may fill half of the queue.

    Raises:
        OverloadedError: There are too many, of all or of this key, or the service is about to end.
    """
    if service.draining or service.retiring:
        service.metrics.count_rejected("draining")
        raise DrainingError("the service is about to end")
    if service.streams >= service.limits.max_streams:
        service.metrics.count_rejected("streams")
        raise OverloadedError(f"{service.streams} streams are open already")
    share = max(1, service.limits.max_streams // 2)
    if caller is not None and caller.sharing and service.streams_of[caller.key_id] >= share:
        service.metrics.count_rejected("share")
        raise RateLimitError(f"this key has its half of the streams open, {share}")


@contextmanager
def counted_stream(service: Service, caller: Caller | None) -> Iterator[None]:
    """A stream is open as long as this is entered."""
    service.streams += 1
    if caller is not None:
        service.streams_of[caller.key_id] += 1
    try:
        yield
    finally:
        service.streams -= 1
        if caller is not None:
            service.streams_of.subtract([caller.key_id])
            service.streams_of += Counter()  # who has none left is forgotten
