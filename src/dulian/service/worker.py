"""One process that serves: networks open while the web framework is imported, then requests until a signal comes.

Alone it is the process that ``dulian serve`` was started as; beside others, ``python -m dulian.service.worker FD``,
started and watched by :mod:`dulian.service.supervisor`; ``FD`` is its end of a socket pair with that one.
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from dulian.errors import DulianError
from dulian.factory import AnalyzerFactory, open_profile
from dulian.machine import tune_malloc
from dulian.models.catalog import find_profile
from dulian.service.child import READY
from dulian.service.golden import check_factory
from dulian.service.limits import guard_limits, image_limits, service_limits
from dulian.service.log import configure_logging, log_event
from dulian.service.security import forbid_dumps
from dulian.service.start import Share
from dulian.service.turns import SharedListener
from dulian.settings import Settings, choose_language
from dulian.store import ModelStore

if TYPE_CHECKING:
    from dulian.service.server import Keeper
    from dulian.service.state import Service

CANNOT_START = 3
# How long what was accepted may take when nobody is left who could end this process.
ORPHAN_PATIENCE_S = 30.0


def work(
    settings: Settings,
    store: ModelStore,
    listener: socket.socket,
    share: Share,
    *,
    announce: Callable[[], object],
    metrics_listener: socket.socket | None = None,
    keeper: Keeper | None = None,
) -> None:
    """Serve on a bound socket until a signal ends it; ``announce`` is called when the first request may come.

    Raises:
        BackendError: Networks are missing or damaged.
    """
    tune_malloc()
    started = time.monotonic()
    service = open_service(settings, store, share)
    log_event(
        "models_ready",
        profile=service.model.profile,
        engine=service.model.engine,
        digest=service.model.digest,
        threads=service.pool.workers,
        mode=settings.mode,
        seconds=round(time.monotonic() - started, 2),
    )
    from dulian.service.rpc_port import open_rpc
    from dulian.service.server import run

    run(
        service,
        listener,
        grace_s=settings.grace_s,
        announce=announce,
        metrics_listener=metrics_listener,
        keeper=keeper,
        rpc=open_rpc(settings, service, shared=share.processes > 1 or keeper is not None),
    )


def open_service(settings: Settings, store: ModelStore, share: Share) -> Service:
    """A service as the settings want it, warm. The networks are its own: it may close them, and open them again.

    Raises:
        BackendError: Networks are missing or damaged.
    """
    with ThreadPoolExecutor(1) as aside:
        opening = aside.submit(open_networks, settings, store, share.threads)
        from dulian.service.access import open_access
        from dulian.service.cache import open_cache, secret_of
        from dulian.service.server import make_service
        from dulian.service.tracing import open_tracing

        factory, threads = opening.result()
    return make_service(
        factory,
        threads,
        language=choose_language(settings.language),
        limits=service_limits(settings),
        image_limits=image_limits(settings),
        guard_limits=guard_limits(settings),
        share=share,
        access=open_access(settings, share.rates),
        origins=frozenset(settings.cors_origins),
        tracing=open_tracing(settings, factory.model),
        reopen=lambda: open_networks(settings, store, share.threads)[0],
        unload_after_s=settings.idle_unload_s or math.inf,
        cache=open_cache(settings),
        cache_secret=secret_of(settings),
        samples={one.file.name: one.path for one in store.inspect_samples() if one.path and one.state == "ready"},
    )


def open_networks(settings: Settings, store: ModelStore, cores: int) -> tuple[AnalyzerFactory, int]:
    """The profile's networks, verified, open and tried, and how many threads shall compute on so many cores.

    Raises:
        BackendError: Networks are missing or damaged, or answer otherwise than they must.
    """
    threads, engine_threads = (1, cores) if settings.mode == "latency" else (cores, 1)
    factory = open_profile(
        find_profile(settings.profile),
        store,
        engine=settings.engine,
        threads=engine_threads,
        workers=threads,
        solo_threads=cores if settings.mode == "auto" and cores > 1 else None,
        precision=settings.precision,
        tiles=settings.tiles,
    )
    check_factory(factory, settings.precision)
    return factory, threads


# ── beside others ────────────────────────────────────────────────────────────────────────────────


def main() -> None:
    """Work as told through the socket pair: a line of orders comes in, ``READY`` or a reason for failure goes out."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    supervisor = socket.socket(fileno=int(sys.argv[1]))
    orders = json.loads(supervisor.makefile().readline())
    share = Share(**orders["share"])
    configure_logging(worker=share.index)
    forbid_dumps()
    threading.Thread(target=_end_with, args=(supervisor,), name="supervisor", daemon=True).start()
    settings = Settings(**orders["settings"])
    store = ModelStore(
        model_dir=settings.model_dir and settings.model_dir.expanduser(),
        offline=settings.offline,
        notify=lambda line: log_event("store", note=line),
    )
    try:
        first, *others = orders["listeners"]
        listener = SharedListener(first, share)
        metrics = [socket.socket(fileno=fileno) for fileno in others]
        announce = partial(supervisor.sendall, READY)
        metrics_listener = metrics[0] if metrics else None
        work(settings, store, listener, share, announce=announce, metrics_listener=metrics_listener)
    except DulianError as error:
        supervisor.sendall(str(error).encode())
        sys.exit(CANNOT_START)


def _end_with(supervisor: socket.socket) -> None:
    """End when the supervisor has ended, however it did: nothing more is accepted, what was is answered."""
    with suppress(OSError):
        while supervisor.recv(1):
            pass
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(ORPHAN_PATIENCE_S)
    os._exit(1)


if __name__ == "__main__":
    main()
