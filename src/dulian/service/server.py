"""One process that serves: its warm threads, its socket, and an orderly end."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from types import FrameType

import numpy as np
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Message

from dulian.factory import AnalyzerFactory
from dulian.image import ImageLimits, encode_jpeg
from dulian.machine import (
    give_back_memory,
    memory_limit_bytes,
    physical_memory_bytes,
)
from dulian.messages import Language
from dulian.pipeline import Pipeline
from dulian.service.admission import Admission
from dulian.service.compute import ComputePool
from dulian.service.guard import GuardedProtocol
from dulian.service.http import create_app
from dulian.service.limits import ServiceLimits
from dulian.service.log import log_event
from dulian.service.state import Service
from dulian.service.traffic import Traffic

KEEP_ALIVE_S = 5
# From the signal to the end of the process, the grace included.
END_WITHIN_S = 28
# As large as photos usually come, so that the memory for them is there.
REHEARSAL_HW = (900, 1200)


def make_service(
    factory: AnalyzerFactory, workers: int, *, language: Language = "en", limits: ServiceLimits | None = None
) -> Service:
    """A service over open networks, its threads warm."""
    chosen = limits or ServiceLimits()
    image_limits = ImageLimits(max_bytes=chosen.max_body_bytes)
    pipeline = Pipeline(
        factory.new_analyzer, limits=image_limits, warm=True, new_solo_analyzer=factory.new_solo_analyzer
    )
    pool = ComputePool(workers, pipeline.prepare, rest=give_back_memory)
    pool.start()
    return Service(
        analyze=pipeline.analyze,
        pool=pool,
        admission=Admission(pool, chosen),
        limits=chosen,
        image_limits=image_limits,
        model=factory.model,
        networks=factory.profile.rows,
        language=language,
        memory_limit_bytes=memory_limit_bytes() or physical_memory_bytes(),
    )


def run(service: Service, listener: socket.socket, *, grace_s: float) -> None:
    """Answer on a bound socket until a signal comes, then finish what was accepted."""
    server = DrainingServer(create_app(service), service, grace_s=grace_s)
    try:
        server.run(sockets=[listener])
    finally:
        service.pool.close()
    log_event("stopped", requests=service.traffic.total)


async def rehearse(app: ASGIApp, service: Service) -> None:
    """Answer requests that nobody sent, so that the first real one is not the slowest."""
    picture = encode_jpeg(np.full((*REHEARSAL_HW, 3), 128, np.uint8))
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/analyze",
        "query_string": b"",
        "headers": [(b"content-type", b"image/jpeg"), (b"content-length", b"%d" % len(picture))],
    }

    async def answer_one() -> None:
        messages = [{"type": "http.request", "body": picture}]

        async def receive() -> Message:
            return messages.pop() if messages else await asyncio.Future()

        async def send(message: Message) -> None:
            del message

        await app(dict(scope), receive, send)

    for at_once in (service.pool.workers, 1):  # pictures that share the cores, and one that has them all
        await asyncio.gather(*(answer_one() for _ in range(at_once)))
    service.traffic = Traffic()


class DrainingServer(uvicorn.Server):
    """uvicorn, which on a signal first stops being ready, and only after a grace stops listening.

    A balancer needs the grace to notice. Ctrl-C and a second signal end it at once. The signal is not raised
    again at the end: an orderly end is exit code 0.
    """

    def __init__(self, app: FastAPI, service: Service, *, grace_s: float) -> None:
        config = uvicorn.Config(
            app,
            http=GuardedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, int(END_WITHIN_S - grace_s)),
        )
        super().__init__(config)
        self._app = app
        self._service = service
        self._grace_s = grace_s
        self._stop_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await rehearse(self._app, self._service)
        await super().startup(sockets)
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            log_event("listening", host=host, port=port)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # A signal handler: it sets marks, the loop's next tick acts on them.
        if self.should_exit:
            self.force_exit = True
        grace_s = self._grace_s if sig == signal.SIGTERM and self._stop_at is None else 0.0
        self._stop_at = time.monotonic() + grace_s
        self._service.draining = True

    async def on_tick(self, counter: int) -> bool:
        if self._stop_at is not None and not self.should_exit and time.monotonic() >= self._stop_at:
            log_event("draining", waiting=self._service.admission.waiting)
            self.should_exit = True
        return await super().on_tick(counter)
