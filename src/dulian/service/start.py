"""Everything before the socket listens: who may ask, where, and with how many processes and threads.

This module imports neither networks nor a web framework: the process that only watches others needs none of them, and
the one that serves opens the ones while it imports the other.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from dulian.errors import BackendError, MalformedInputError
from dulian.files import is_loose
from dulian.keys import KeysFile, find_keys_file
from dulian.machine import effective_cores, memory_limit_bytes, physical_memory_bytes
from dulian.models.catalog import find_profile
from dulian.service.log import configure_logging, log_event
from dulian.service.security import forbid_dumps
from dulian.service.tracing import check_extra
from dulian.settings import OF_FILE, Settings, names_of_secrets

if TYPE_CHECKING:
    from dulian.store import ModelStore

# What the process needs that watches the others.
WATCHER_BYTES = 50 * 2**20
# What a profile's ``process_bytes`` reckons with.
USUAL_BYTES_IN_FLIGHT_MB = 64

MAX_PORT = 65535

# Files and sockets that a process has open beside its clients' connections, those of its metrics port included.
OTHER_FILES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one process of a service gets: its number from 0, how many there are, and cores of its own.

    ``restarts`` is how many with its number died before it.
    ``tally``, ``pictures`` and ``rates`` are descriptors of memory that all of them have: for the numbers of their
    connections, for drawn pictures, and for what keys have used up.
    """

    index: int = 0
    processes: int = 1
    threads: int = 1
    restarts: int = 0
    tally: int | None = None
    pictures: int | None = None
    rates: int | None = None


def serve(settings: Settings, make_store: Callable[[], ModelStore]) -> None:
    """Serve until a signal ends it.

    Raises:
        InputError: The host would be open to others, or the numbers make no sense.
        BackendError: Networks or keys are missing or damaged, or the port is not to be had.
    """
    settings = with_keys_file(settings)
    check_extra(settings)
    forbid_dumps()
    forbid_metrics_files()
    allow_connections(settings.max_connections)
    configure_logging()
    log_keys(settings)
    log_secrets(settings)
    from dulian.service.rpc_port import reserved

    processes, threads = lay_out(settings, effective_cores(), available_memory())
    share = Share(processes=processes, threads=threads)
    with ExitStack() as sockets:
        listener = sockets.enter_context(bind(settings.host, settings.port))
        settings = sockets.enter_context(reserved(settings, processes))
        indices = range(processes)
        metrics = [sockets.enter_context(one) for index in indices if (one := bind_metrics(settings, index))]
        if processes > 1:
            watch(settings, share, listener, metrics)
        from dulian.service.worker import work

        announce = partial(log_listening, listener)
        metrics_listener = metrics[0] if metrics else None
        work(settings, make_store(), listener, share, announce=announce, metrics_listener=metrics_listener)


def watch(settings: Settings, share: Share, listener: socket.socket, metrics: Sequence[socket.socket]) -> NoReturn:
    """Have several processes serve, and end with this one's exit code.

    Raises:
        BackendError: They cannot, or this system cannot have them share a socket.
    """
    if os.name != "posix":
        raise BackendError("this system cannot share a socket between processes; use --workers 1")
    from dulian.service.supervisor import Supervisor

    sys.exit(Supervisor(settings, share, listener, metrics).run())


def log_listening(listener: socket.socket, **fields: int) -> None:
    """Tell where requests are answered from now on."""
    host, port = listener.getsockname()[:2]
    log_event("listening", **{"host": host, "port": port, **fields})


def with_keys_file(settings: Settings) -> Settings:
    """The settings, with the keys file named if there is one: then no process that starts later goes without it.

    Raises:
        KeysFileError: It cannot be read, is no file of keys, or is named and missing.
        MalformedInputError: Others could reach the service without a key.
    """
    file = find_keys_file(settings.keys_file)
    keys = file.read()
    if keys is None and settings.keys_file is not None:
        raise file.missing()
    check_host(settings.host, has_keys=bool(keys), insecure=settings.insecure)
    return settings if keys is None else settings.model_copy(update={"keys_file": file.path})


def log_keys(settings: Settings) -> None:
    """Tell that keys are asked for, and what is odd about their file."""
    if settings.keys_file is None:
        return
    file = KeysFile(settings.keys_file)
    log_event("keys_needed", keys=len(file.read() or ()))
    if file.is_loose():
        log_event("keys_file_loose", level=logging.WARNING, note="others can read or change it; chmod 600 mends that")


def log_secrets(settings: Settings) -> None:
    """Tell which secrets are in files that others can read or change."""
    for name in names_of_secrets():
        path: Path | None = getattr(settings, name + OF_FILE)
        with suppress(OSError):  # it has been read; by now it may be gone
            if path is not None and is_loose(path.expanduser()):
                note = "others can read or change it; chmod 600 mends that"
                log_event("secret_file_loose", level=logging.WARNING, setting=name + OF_FILE, note=note)


def check_host(host: str, *, has_keys: bool, insecure: bool) -> None:
    """Refuse to be reachable from outside by mistake.

    Raises:
        MalformedInputError: The host is not this machine's own, there is no key, and nobody said that this is meant.
    """
    if not (insecure or has_keys or is_own_address(host)):
        raise MalformedInputError(
            f"host {host!r} can be reached from outside, and there is no key: everybody could use the service; make"
            " one with 'dulian keys create', use 127.0.0.1 behind a proxy, or say --insecure if that is meant"
        )


def is_own_address(host: str) -> bool:
    """Whether a socket that listens there is reached by this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket with its address, not listening yet; ``shared`` with other sockets of the same user that are so too.

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
            if shared and hasattr(socket, "SO_REUSEPORT"):  # Windows has none, nor several processes of ours
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise BackendError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
    return listener


def bind_metrics(settings: Settings, index: int = 0) -> socket.socket | None:
    """A socket for the metrics port, if there shall be one; each process has its own, by its index the next one.

    Raises:
        BackendError: The address is taken, forbidden or unknown.
    """
    if settings.metrics_port is None:
        return None
    port = settings.metrics_port and settings.metrics_port + index  # 0 is any that is free, for all of them
    if port > MAX_PORT:
        raise BackendError(f"metrics port {settings.metrics_port} leaves none for process {index}: {port} is too high")
    return bind(settings.host, port)


def allow_connections(count: int) -> None:
    """Have the system let a process open as many files as it may have connections, and some more.

    Raises:
        BackendError: It does not.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + OTHER_FILES
    if resource.RLIM_INFINITY in (soft, hard) or needed <= soft:
        return
    if needed > hard:
        raise BackendError(f"max_connections {count} needs {needed} open files, the system allows {hard} (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def lay_out(settings: Settings, cores: int, memory: int | None) -> tuple[int, int]:
    """Processes, and threads of each, on so many cores with so many bytes of memory, None if nobody knows how many.

    Raises:
        UnknownNameError: No such profile.
    """
    room = processes_in_memory(settings, memory) if settings.workers == "auto" else None
    return share_out(settings.workers, settings.threads, cores, room=room)


def share_out(
    workers: int | Literal["auto"], threads: int | Literal["auto"], cores: int, *, room: int | None = None
) -> tuple[int, int]:
    """Processes, and threads of each, so that there is a core for all; fewer than asked for if need be.

    ``auto`` is a process for every two cores, at most ``room``, and all cores for the threads.
    """
    wanted = min(cores // 2, cores // (1 if threads == "auto" else threads), room or cores)
    fitting_workers = max(1, wanted if workers == "auto" else min(workers, cores))
    share = cores // fitting_workers
    fitting_threads = share if threads == "auto" else min(threads, share)
    if workers not in ("auto", fitting_workers) or threads not in ("auto", fitting_threads):
        log_event(
            "threads_reduced",
            level=logging.WARNING,
            asked={"workers": workers, "threads": threads},
            given={"workers": fitting_workers, "threads": fitting_threads},
            cores=cores,
        )
    return fitting_workers, fitting_threads


def processes_in_memory(settings: Settings, memory: int | None) -> int:
    """How many processes there is memory for, beside the one that watches them; at least one.

    Raises:
        UnknownNameError: No such profile.
    """
    return 1 if memory is None else max(1, (memory - WATCHER_BYTES) // process_bytes(settings))


def process_bytes(settings: Settings) -> int:
    """What one process may take at most: pictures as large as may be, and all that its limits let it keep.

    Raises:
        UnknownNameError: No such profile.
    """
    more_mb = settings.cache_mb + max(0, settings.max_bytes_in_flight_mb - USUAL_BYTES_IN_FLIGHT_MB)
    return find_profile(settings.profile).process_bytes + (more_mb << 20)


def available_memory() -> int | None:
    """Bytes that there are for a service: the cgroup's limit, else the machine's memory, else None."""
    return memory_limit_bytes() or physical_memory_bytes()


def forbid_metrics_files() -> None:
    """Where this variable is set, the library for metrics keeps all of them in files."""
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    os.environ.pop("prometheus_multiproc_dir", None)
