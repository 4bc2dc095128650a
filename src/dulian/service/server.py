"""One process that serves: its warm threads, its socket, and an orderly end."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Message

from dulian.factory import AnalyzerFactory
from dulian.image import ImageLimits, encode_jpeg
from dulian.machine import (
    give_back_memory,
)
from dulian.messages import Language
from dulian.pipeline import Pipeline
from dulian.service.access import Access
from dulian.service.admission import Admission
from dulian.service.cache import Keys, ResultCache, SharedResults
from dulian.service.closing import turn_away
from dulian.service.compute import ComputePool
from dulian.service.guard import guarded_protocol
from dulian.service.http import create_app
from dulian.service.limits import GuardLimits, ServiceLimits
from dulian.service.log import log_event
from dulian.service.metrics_port import MetricsServer
from dulian.service.networks import Networks
from dulian.service.renewal import Renewal
from dulian.service.start import Share, available_memory
from dulian.service.state import Service
from dulian.service.traffic import Traffic
from dulian.service.turned_away import FullHouse
from dulian.service.turns import BACKLOG, SharedListener
from dulian.service.watchdog import Watchdog
from dulian.service.websocket import GuardedWebSocket, guarded_websocket

if TYPE_CHECKING:
    from dulian.service.rpc.server import RpcServer
    from dulian.service.tracing.spans import Spans

KEEP_ALIVE_S = 5
TICKS_PER_SECOND = 10  # uvicorn's
# From the signal to the end of the process, the grace included.
END_WITHIN_S = 28
# Those who ask again within this time hear that the connection ends, before it does.
RETIREMENT_S = 1.0
# As large as photos usually come, so that the memory for them is there.
REHEARSAL_HW = (900, 1200)


def make_service(
    factory: AnalyzerFactory,
    workers: int,
    *,
    language: Language = "en",
    limits: ServiceLimits | None = None,
    image_limits: ImageLimits | None = None,
    guard_limits: GuardLimits | None = None,
    share: Share | None = None,
    access: Access | None = None,
    origins: frozenset[str] = frozenset(),
    tracing: Spans | None = None,
    reopen: Callable[[], AnalyzerFactory] | None = None,
    unload_after_s: float = math.inf,
    cache: ResultCache | None = None,
    cache_secret: bytes | None = None,
    samples: Mapping[str, Path] = MappingProxyType({}),
) -> Service:
    """A service over open networks, its threads warm; ``workers`` is the number of those.

    Networks that nobody has needed for ``unload_after_s`` are closed, and opened again by ``reopen``. A ``cache`` that
    other instances share needs the secret that they share.
    """
    chosen = limits or ServiceLimits()
    share = share or Share(threads=workers)
    memory = available_memory()
    image_limits = image_limits or ImageLimits(max_bytes=chosen.max_body_bytes)
    networks = Networks(factory, reopen)
    pipeline = Pipeline(
        networks.new_analyzer,
        limits=image_limits,
        warm=True,
        new_solo_analyzer=networks.new_solo_analyzer if factory.new_solo_analyzer else None,
    )

    def unload() -> None:
        pipeline.release()
        networks.close()

    def renew() -> None:
        pipeline.release()
        pipeline.prepare()

    pool = ComputePool(
        workers,
        pipeline.prepare,
        rest=give_back_memory,
        unload=unload,
        unload_after_s=unload_after_s,
        renew=renew,
    )
    pool.start()
    admission = Admission(pool, chosen)
    keys = Keys(factory.model, image_limits, secret=cache_secret)
    return Service(
        analyze=pipeline.analyze,
        pool=pool,
        admission=admission,
        results=None if cache is None else SharedResults(cache, keys, admission),
        limits=chosen,
        image_limits=image_limits,
        samples=samples,
        guard_limits=guard_limits or GuardLimits(),
        model=factory.model,
        networks=factory.profile.rows,
        language=language,
        memory_limit_bytes=memory and memory // share.processes,
        share=share,
        access=access or Access(),
        origins=origins,
        tracing=tracing,
        renew=Renewal(networks, pool).begin if reopen else None,
    )


def run(
    service: Service,
    listener: socket.socket,
    *,
    grace_s: float,
    metrics_listener: socket.socket | None = None,
    announce: Callable[[], object] = lambda: None,
    keeper: Keeper | None = None,
    rpc: RpcServer | None = None,
) -> None:
    """Answer on a bound socket until a signal comes, then finish what was accepted.

    ``announce`` is called when it listens.
    """
    app = create_app(service, metrics=metrics_listener is None)
    server = DrainingServer(
        app, service, grace_s=grace_s, metrics_listener=metrics_listener, announce=announce, keeper=keeper, rpc=rpc
    )
    renew = service.renew
    if service.share.processes > 1 or keeper:
        signal.signal(signal.SIGHUP, server.handle_exit)
    elif renew and hasattr(signal, "SIGHUP"):  # Windows has none
        signal.signal(signal.SIGHUP, lambda *_: renew())
    try:
        server.run(sockets=[listener])
    finally:
        server.watchdog.stop()
        service.pool.close()
        if service.tracing is not None:
            service.tracing.close()
    log_event("stopped", requests=service.traffic.total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """What a process manager of another make needs of a process.

    ``beat`` is called on the loop once a second, as a sign of life, with the number of requests so far; a signal that
    it returns is obeyed. ``heed`` says what a signal means: another one, or None for nothing yet.
    """

    beat: Callable[[int], int | None]
    heed: Callable[[int], int | None]


async def rehearse(app: ASGIApp, service: Service) -> None:
    """Answer requests that nobody sent, so that the first real one is not the slowest."""
    results, service.results = service.results, None  # each of them shall be worked on, and none kept
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

        # Nobody asked, so nobody is asked for a key.
        await app({**scope, "state": {"caller": None}}, receive, send)

    for at_once in (service.pool.workers, 1):  # pictures that share the cores, and one that has them all
        await asyncio.gather(*(answer_one() for _ in range(at_once)))
    service.results = results
    service.traffic = Traffic()
    service.metrics.reset()


class DrainingServer(uvicorn.Server):
    """uvicorn, which on a signal first stops being ready, and only after a grace stops listening.

    A balancer needs the grace to notice. Ctrl-C and a second signal end it at once. The signal is not raised
    again at the end: an orderly end is exit code 0. What hangs brings about the same end, with another exit code.

    One of several processes may be told by SIGHUP that another one takes its place: it stops listening at once, stays
    ready for those who are connected, and sends them away with its next answers.
    """

    def __init__(
        self,
        app: FastAPI,
        service: Service,
        *,
        grace_s: float,
        metrics_listener: socket.socket | None = None,
        announce: Callable[[], object] = lambda: None,
        keeper: Keeper | None = None,
        rpc: RpcServer | None = None,
    ) -> None:
        config = uvicorn.Config(
            app,
            loop="asyncio",  # what is tested is what runs, also where something else brings uvloop along
            http=guarded_protocol(
                service.guard_limits, refused=service.metrics.count_refusal, turned_away=FullHouse(service)
            ),
            ws=guarded_websocket(unread_s=service.limits.stream_idle_s),
            ws_max_size=service.limits.max_frame_bytes,
            ws_per_message_deflate=False,
            ws_ping_interval=None,  # who is silent is sent away before a ping would tell
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, int(END_WITHIN_S - grace_s)),
            backlog=1 if service.share.processes > 1 else BACKLOG,
        )
        super().__init__(config)
        self._app = app
        self._service = service
        self._grace_s = grace_s
        self._metrics = MetricsServer(service, metrics_listener) if metrics_listener else None
        self._announce = announce
        self._keeper = keeper
        self._rpc = rpc
        self._stop_at: float | None = None
        self._shut = False
        self._shared: list[SharedListener] = []
        self.watchdog = Watchdog(service.pool, on_hang=self._end_after_hang, end_within_s=END_WITHIN_S)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.watchdog.start()
        self._shared = [listener for listener in sockets or () if isinstance(listener, SharedListener)]
        await rehearse(self._app, self._service)
        await super().startup(sockets)
        if self._metrics:
            await self._metrics.startup()
        if self._rpc:
            await self._rpc.startup()
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        ends = [super().shutdown(sockets)]
        if self._rpc:
            within_s = float(self.config.timeout_graceful_shutdown or 0)
            ends.append(self._rpc.shutdown(within_s, lambda: self.force_exit))
        await asyncio.gather(*ends)
        if self._service.results:
            await self._service.results.close()
        if self._metrics:
            await self._metrics.shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # A signal handler: it sets marks, the loop's next tick acts on them.
        meant = self._keeper.heed(sig) if self._keeper else sig
        if meant is not None:
            self._obey(meant)

    def _obey(self, sig: int) -> None:
        service = self._service
        if sig != signal.SIGINT and self._stop_at is not None and service.share.processes > 1:
            return  # a service manager tells all processes, and the supervisor tells them again
        if sig not in uvicorn.server.HANDLED_SIGNALS:
            service.retiring = True
            self._stop_at = time.monotonic() + RETIREMENT_S
            return
        if self.should_exit:
            self.force_exit = True
        grace_s = self._grace_s if sig == signal.SIGTERM and self._stop_at is None else 0.0
        self._stop_at = time.monotonic() + grace_s
        service.draining = True

    def _end_after_hang(self) -> None:
        self._service.hung = self._service.draining = True
        if self._stop_at is None:
            self._stop_at = time.monotonic() + self._grace_s

    def _stop(self) -> None:
        """First let nobody begin to connect, then, a tick later, end: who had begun was accepted in between."""
        if self._shut or self._service.retiring:
            log_event("draining", waiting=self._service.admission.waiting)
            self.should_exit = True
            return
        self._shut = True
        for server in self.servers:
            for listener in server.sockets:
                turn_away(listener)

    async def on_tick(self, counter: int) -> bool:
        if self._service.retiring:
            for server in (*self.servers, *(self._metrics.servers if self._metrics else ())):
                server.close()
        else:
            for listener in self._shared:
                listener.note(len(self.server_state.connections))
        if self._service.draining or self._service.retiring:
            for connection in list(self.server_state.connections):
                if isinstance(connection, GuardedWebSocket):
                    connection.shutdown()
        if self._stop_at is not None and not self.should_exit and time.monotonic() >= self._stop_at:
            self._stop()
        if counter % TICKS_PER_SECOND == 0:
            self._service.process.sample(self._service.memory_limit_bytes)
            meant = self._keeper.beat(self._service.traffic.total) if self._keeper else None
            if meant is not None:
                self._obey(meant)
        if self._rpc:
            await self._rpc.on_tick()
        if self._metrics:
            await self._metrics.on_tick(counter)
        return await super().on_tick(counter)
