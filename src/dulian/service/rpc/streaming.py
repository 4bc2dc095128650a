"""``AnalyzeStream``: frames as over ``WS /v1/stream``, by the same rules, in other words."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import grpc
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from dulian.errors import DrainingError, InputTooLargeError, MalformedInputError, OverloadedError, SlowClientError
from dulian.service.admission import Caller
from dulian.service.endpoint import look_at
from dulian.service.rpc import dulian_pb2
from dulian.service.rpc.analysis import NOT_READABLE
from dulian.service.rpc.calls import Call
from dulian.service.rpc.messages import as_message
from dulian.service.state import Service
from dulian.service.stream.frames import MAX_DROPPED, Frame, Frames, Refusal, check_streams, counted_stream
from dulian.service.stream.wishes import Id, make_wishes

METHOD = "/dulian.v1.Dulian/AnalyzeStream"


class Streams:
    """Lets streams in, over gRPC no more than may have a message of the greatest size on its way at once."""

    def __init__(self, service: Service, *, places: int) -> None:
        self._service = service
        self._places = places
        self._open = 0
        self.ending = asyncio.Event()

    async def answer(self, call: Call) -> None:
        """Answer frames until one side ends it.

        Raises:
            DulianError: It is not let in, or not by its client's wish over.
        """
        caller = await call.admit(METHOD)
        check_streams(self._service, caller)
        if self._open >= self._places:
            self._service.metrics.count_rejected("streams")
            raise OverloadedError(f"{self._open} streams are open over gRPC already")
        self._open += 1
        try:
            with counted_stream(self._service, caller):
                await _Stream(call, caller, self.ending).run()
        finally:
            self._open -= 1


class _Stream:
    """One open stream."""

    def __init__(self, call: Call, caller: Caller | None, ending: asyncio.Event) -> None:
        self._limits = call.service.limits
        self._context = call.context
        self._ending = ending
        self._turn = asyncio.Lock()
        words = ProtoWords(call.service)
        self._frames = Frames(call.service, words, self._say, request_id=call.request_id, caller=caller)

    async def run(self) -> None:
        reading = asyncio.create_task(self._read_all())
        answering = asyncio.create_task(self._frames.answer_all())
        ending = asyncio.create_task(self._ending.wait())
        tasks = (reading, answering, ending)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
            self._frames.end()
            if error := await answering:
                raise error
            if ending.done():
                raise DrainingError("the service is about to end; open the stream again")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._frames.release()

    async def _read_all(self) -> None:
        """Take what comes until the client says that this was all."""
        reading = asyncio.ensure_future(self._context.read())
        try:
            while True:
                # A read that was given up would take the next frame with it, so it is waited for again.
                await asyncio.wait({reading}, timeout=self._limits.stream_idle_s)
                if not reading.done():
                    if self._frames.at_work:
                        continue
                    raise SlowClientError(f"no frame for {self._limits.stream_idle_s:g} seconds")
                if reading.result() is grpc.aio.EOF:
                    return
                self._take(reading.result())
                reading = asyncio.ensure_future(self._context.read())
                await self._frames.tell_dropped(from_count=MAX_DROPPED)
        finally:
            reading.cancel()

    def _take(self, message: bytes) -> None:
        most = self._limits.max_frame_bytes
        if len(message) > most + self._limits.max_stream_text_bytes:
            raise InputTooLargeError(f"the frame is larger than {most:,} bytes")
        try:
            frame = dulian_pb2.Frame.FromString(message)
        except DecodeError:
            raise MalformedInputError(NOT_READABLE) from None
        if len(frame.image) > most:
            raise InputTooLargeError(f"the frame is larger than {most:,} bytes")
        options = {field.name: value for field, value in frame.options.ListFields()}
        given = frame.id if frame.HasField("id") else None
        self._frames.take(frame.image, make_wishes(given, options, deadline_s=self._limits.deadline_s))

    async def _say(self, answer: bytes) -> None:
        async with self._turn:
            try:
                async with asyncio.timeout(self._limits.stream_idle_s):
                    await self._context.write(answer)
            except TimeoutError:
                raise SlowClientError(f"answers were not read for {self._limits.stream_idle_s:g} seconds") from None


class ProtoWords:
    """Answers to frames as messages."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def result(self, frame: Frame, request_id: str) -> bytes:
        result, drawn = look_at(self._service, frame.data, frame.asked, draw=frame.asked.annotate)
        return _spelled(dulian_pb2.FrameAnswer(id=str(frame.id), result=as_message(result, drawn, request_id)))

    def failure(self, number: Id, refusal: Refusal) -> bytes:
        return _spelled(dulian_pb2.FrameAnswer(id=str(number), error=dulian_pb2.FrameError(**asdict(refusal))))

    def dropped(self, ids: list[Id]) -> bytes:
        return _spelled(dulian_pb2.FrameAnswer(dropped=map(str, ids)))


def _spelled(answer: dulian_pb2.FrameAnswer) -> bytes:
    message: bytes = answer.SerializeToString()
    return message
