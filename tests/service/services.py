"""Services without networks: real threads, queue and application over an analysis that does what a test needs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI

from dulian.analyzer import AnalyzeOptions
from dulian.faces import AnalysisResult, ImageInfo, ModelInfo, Timings
from dulian.image import Image, ImageLimits
from dulian.service.admission import Admission
from dulian.service.compute import ComputePool
from dulian.service.guard import GuardedProtocol
from dulian.service.http import create_app
from dulian.service.limits import ServiceLimits
from dulian.service.state import Service

MODEL = ModelInfo("fake", "none", "0")
PATIENCE_S = 30.0


class FakeAnalysis:
    """Finds nobody; takes its time, waits for a test's leave, fails if told to, and remembers what it saw."""

    def __init__(self, seconds: float = 0.0, *, error: BaseException | None = None) -> None:
        self.seconds = seconds
        self.error = error
        self.seen: list[tuple[bytes, AnalyzeOptions]] = []
        self.threads: set[int] = set()
        self.begun = threading.Semaphore(0)
        self.leave = threading.Event()
        self.leave.set()

    def __call__(self, data: bytes, options: AnalyzeOptions) -> tuple[AnalysisResult, Callable[[], Image]]:
        self.seen.append((data, options))
        self.threads.add(threading.get_ident())
        self.begun.release()
        assert self.leave.wait(PATIENCE_S)
        time.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        image = np.full((60, 80, 3), 200, np.uint8)
        return AnalysisResult(ImageInfo(80, 60), MODEL, timings_ms=Timings(total=self.seconds * 1000)), lambda: image


@contextmanager
def fake_service(analysis: FakeAnalysis, *, workers: int = 1, **limits: Any) -> Iterator[Service]:
    chosen = ServiceLimits(**limits)
    pool = ComputePool(workers, lambda: None)
    pool.start()
    try:
        yield Service(
            analyze=analysis,
            pool=pool,
            admission=Admission(pool, chosen),
            limits=chosen,
            image_limits=ImageLimits(max_bytes=chosen.max_body_bytes),
            model=MODEL,
        )
    finally:
        analysis.leave.set()
        pool.close(PATIENCE_S)


def client_of(service: Service) -> httpx.AsyncClient:
    """Straight into the application, without sockets."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(create_app(service)), base_url="http://test")


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """A real server on a free port, in a thread; its address."""
    config = uvicorn.Config(
        app, port=0, http=GuardedProtocol, ws="none", loop="asyncio", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="server")
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


def wait_until(condition: Callable[[], bool]) -> None:
    """A hang guard, not a measurement."""
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


async def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        await asyncio.sleep(0.002)
