"""Everything before the socket listens: who may ask, where, with how many threads, and the networks.

This module imports no web framework: that takes as long as opening the networks, so both happen at once.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from dulian.errors import BackendError, MalformedInputError
from dulian.factory import AnalyzerFactory, open_profile
from dulian.machine import effective_cores, limit_malloc_arenas
from dulian.models.catalog import find_profile
from dulian.service.log import configure_logging, log_event
from dulian.settings import Settings, choose_language
from dulian.store import ModelStore


def serve(settings: Settings, store: ModelStore) -> None:
    """Serve until a signal ends it.

    Raises:
        InputError: The host would be open to others, or the numbers make no sense.
        BackendError: Networks are missing or damaged, or the port is not to be had.
    """
    check_host(settings.host, insecure=settings.insecure)
    forbid_core_dumps()
    limit_malloc_arenas()
    configure_logging()
    started = time.monotonic()
    listener = bind(settings.host, settings.port)
    try:
        with ThreadPoolExecutor(1) as aside:
            opening = aside.submit(open_networks, settings, store)
            from dulian.service.server import make_service, run

            factory, workers = opening.result()
        service = make_service(factory, workers, language=choose_language(settings.language))
        log_event(
            "models_ready",
            profile=service.model.profile,
            engine=service.model.engine,
            digest=service.model.digest,
            workers=workers,
            mode=settings.mode,
            seconds=round(time.monotonic() - started, 2),
        )
        run(service, listener, grace_s=settings.grace_s)
    finally:
        listener.close()


def open_networks(settings: Settings, store: ModelStore) -> tuple[AnalyzerFactory, int]:
    """The profile's networks, verified and open, and how many pictures shall be analysed at once.

    Raises:
        BackendError: Networks are missing or damaged.
    """
    cores = effective_cores()
    if settings.mode == "latency":
        workers, threads = 1, cores
    else:
        workers, threads = share_out(settings.workers, settings.threads, cores)
    factory = open_profile(
        find_profile(settings.profile),
        store,
        engine=settings.engine,
        threads=threads,
        workers=workers,
        solo_threads=cores if settings.mode == "auto" and threads < cores else None,
        precision=settings.precision,
    )
    return factory, workers


def check_host(host: str, *, insecure: bool) -> None:
    """Refuse to be reachable from outside by mistake.

    Raises:
        MalformedInputError: The host is not this machine's own, and nobody said that this is meant.
    """
    if insecure or host == "localhost":
        return
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    raise MalformedInputError(
        f"host {host!r} can be reached from outside, and there are no keys yet: everybody could use the service;"
        " use 127.0.0.1 behind a proxy, or say --insecure if that is meant"
    )


def bind(host: str, port: int) -> socket.socket:
    """A socket with its address, not listening yet.

    Raises:
        BackendError: The address is taken, forbidden or unknown.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise BackendError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
    return listener


def share_out(workers: int | Literal["auto"], threads: int, cores: int) -> tuple[int, int]:
    """Compute threads, and engine threads of each, so that there is a core for all; fewer than asked for if need be."""
    fitting_threads = min(threads, cores)
    room = cores // fitting_threads
    fitting_workers = room if workers == "auto" else min(workers, room)
    if (fitting_workers, fitting_threads) != (room if workers == "auto" else workers, threads):
        log_event(
            "threads_reduced",
            level=logging.WARNING,
            asked={"workers": workers, "threads": threads},
            given={"workers": fitting_workers, "threads": fitting_threads},
            cores=cores,
        )
    return fitting_workers, fitting_threads


def forbid_core_dumps() -> None:
    """A core dump would put pictures on the disk."""
    try:
        import resource
    except ImportError:  # Windows has neither
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
