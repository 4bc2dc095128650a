"""``POST /v1/batch``: many pictures in one form, each answered or refused on its own.

Every picture is a job of its own in the one queue. All batches together have no more of them there than there are
threads, so that a single picture waits behind one round of them, however many batches there are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from dulian.errors import DeadlineError, DulianError, InputTooLargeError, OverloadedError, UnsupportedMediaError
from dulian.service import tracing
from dulian.service.analysis import AnalyzeEndpoint, answer_picture
from dulian.service.answers import JSON_TYPE, error_json
from dulian.service.body import ClientGone
from dulian.service.compute import EXPIRED
from dulian.service.endpoint import Endpoint, Upload, note_failure
from dulian.service.envelope import FIELD, FORM_TYPE, FormFile, at_least_one, is_form, read_form
from dulian.service.log import log_event
from dulian.service.query import BATCH_PARAMETERS
from dulian.service.state import Service
from dulian.service.status import told


class BatchEndpoint(Endpoint):
    """A form of pictures, and all answers at once in their order."""

    path = "/v1/batch"
    parameters = BATCH_PARAMETERS

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        service.batch_places = asyncio.Semaphore(service.pool.workers)  # a semaphore belongs to one event loop

    def _check_envelope(self, content_type: str) -> None:
        if not is_form(content_type):
            raise UnsupportedMediaError(f"send pictures as file fields '{FIELD}' of {FORM_TYPE}")

    async def _respond(self, upload: Upload) -> ASGIApp:
        try:
            return await _Batch(self._service, upload).answer()
        finally:
            upload.hold.release()


class _Batch:
    """One request's pictures on their way."""

    def __init__(self, service: Service, upload: Upload) -> None:
        self._service = service
        self._places = service.batch_places
        self._upload = upload
        self._deadline = asyncio.get_running_loop().time() + upload.asked.budget_s
        self._answer_bytes = 0

    async def answer(self) -> ASGIApp:
        """All answers, when the last is there.

        Raises:
            InputError: The form is broken or holds no picture.
            OverloadedError: There was no room for any of them, or more of them than the key's rate allows.
            ClientGone: Nobody waits for them.
        """
        pictures = await self._split()
        await self._service.access.charge(self._upload.hold.caller, len(pictures) - 1)  # the request counted as one
        tasks = [asyncio.create_task(self._answer_one(picture)) for picture in pictures]
        try:
            outcomes = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        refusals = [outcome for outcome in outcomes if isinstance(outcome, OverloadedError)]
        if len(refusals) == len(outcomes):
            raise refusals[-1]
        return _Results([self._spell(outcome) for outcome in outcomes])

    async def _split(self) -> list[FormFile]:
        """Where the pictures lie in the body; a thread looks, but that is no measure for a picture's time."""
        upload, limits = self._upload, self._service.limits
        upload.hold.keep()
        return await self._service.admission.perform(
            lambda: at_least_one(read_form(upload.body, upload.content_type, limits, max_parts=limits.max_batch_parts)),
            budget_s=upload.asked.budget_s,
            hold=upload.hold,
            receive=upload.receive,
            measure=False,
        )

    async def _answer_one(self, picture: FormFile) -> bytes | DulianError:
        """The JSON of one result, or why there is none: that is nobody else's business."""
        with tracing.part("picture"):
            return await self._outcome(picture)

    async def _outcome(self, picture: FormFile) -> bytes | DulianError:
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._places.acquire()
        except TimeoutError:
            return DeadlineError(EXPIRED)
        try:
            return await self._perform(picture)
        except ClientGone:
            raise
        except DulianError as error:
            note_failure(error, self._upload.request_id)
            return error.with_traceback(None)
        except Exception as error:  # noqa: BLE001 - as the outermost handler: logged, and the others are answered
            log_event("internal_error", level=logging.ERROR, error=error, request_id=self._upload.request_id)
            return DulianError("an internal error; the log has it")
        finally:
            self._places.release()

    async def _perform(self, picture: FormFile) -> bytes:
        body = await self._have_done(picture, budget_s=self._deadline - asyncio.get_running_loop().time())
        self._keep(len(body))
        return body

    async def _have_done(self, picture: FormFile, *, budget_s: float) -> bytes:
        """The JSON of one result, made now or for somebody who asked the same here or of ``/v1/analyze``."""
        upload, service, results = self._upload, self._service, self._service.results

        def work() -> bytes:
            return answer_picture(service, picture.content(upload.body), upload.asked, upload.request_id).body

        # It was let in with the batch, so nothing is foreseen; what it may still miss is the deadline.
        upload.hold.keep()
        if results is None or upload.asked.annotate:
            return await service.admission.perform(
                work, budget_s=budget_s, hold=upload.hold, receive=upload.receive, foresee=False
            )
        body, _ = await results.perform(
            work,
            request_id=upload.request_id,
            picture=lambda: picture.content(upload.body),
            aside=True,
            route=AnalyzeEndpoint.path,
            asked=upload.asked,
            budget_s=budget_s,
            hold=upload.hold,
            receive=upload.receive,
            foresee=False,
        )
        return body

    def _keep(self, count: int) -> None:
        """Answers wait for each other, and drawn copies are large: they count as the body does."""
        most = self._service.limits.max_batch_answer_bytes
        if self._answer_bytes + count > most:
            raise InputTooLargeError(f"with this one the answers exceed {most:,} bytes; send fewer pictures at once")
        self._upload.hold.add(count)
        self._answer_bytes += count

    def _spell(self, outcome: bytes | DulianError) -> bytes:
        if isinstance(outcome, bytes):
            return outcome
        return error_json(outcome.code, told(outcome), self._upload.request_id)


class _Results:
    """``{"results": […]}``, sent piece by piece: joined first, it would be copied on the loop."""

    def __init__(self, results: Sequence[bytes]) -> None:
        self._pieces = [piece for result in results for piece in (b",", result)]
        self._pieces[0] = b'{"results":['
        self._pieces.append(b"]}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = sum(map(len, self._pieces))
        headers = [(b"content-type", JSON_TYPE.encode()), (b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
