"""Under gunicorn: ``gunicorn -w 2 -k dulian.service.gunicorn.Worker dulian.service.gunicorn:app``.

gunicorn listens, forks its workers, replaces those that die or hang, and ends them. What a worker does is what a
process of ``dulian serve --workers`` does, with the same settings (``DULIAN_*``; host, port and workers are gunicorn's
to say). Networks are opened after the fork, since their threads and memory do not survive one.

This module is imported by gunicorn's own process, which needs neither networks nor a web framework.
"""

from __future__ import annotations

import logging
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from gunicorn.errors import HaltServer
from gunicorn.workers.base import Worker as BaseWorker

from dulian.errors import BackendError, DulianError
from dulian.machine import effective_cores
from dulian.service.child import new_memory
from dulian.service.log import configure_logging, log_event
from dulian.service.rpc_port import reserved
from dulian.service.security import forbid_dumps
from dulian.service.start import (
    Share,
    allow_connections,
    bind_metrics,
    forbid_metrics_files,
    log_keys,
    log_secrets,
    share_out,
    with_keys_file,
)
from dulian.service.tracing import check_extra
from dulian.service.traffic import resident_bytes
from dulian.settings import MAX_WORKERS, MEGAPIXEL, Settings, guard_opencv, raise_opencv_wall, read_settings

CANNOT_START = 3
# A successor that cannot start is tried again after so long, while others serve.
PAUSE_S = 5.0
# What the workers of one gunicorn know of each other, by their slots.
_CLAIMED, _READY, _LEFT = range(3)
_TURN, _ENDS = -2, -1


def app(environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    """What gunicorn asks to be named; only a worker of another class would call it."""
    del environ
    start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
    return [b"start gunicorn with -k dulian.service.gunicorn.Worker\n"]


class Crew:
    """What gunicorn's process keeps for its workers, made once, before the first fork.

    A worker has a slot, from 0: its index, and a metrics port of its own. Who takes the place of another has its slot.
    For each slot all of them know the ages, in gunicorn's sense, of the newest worker that was forked for it, that
    could answer, and that ended in order.
    """

    def __init__(self, count: int, address: str | None) -> None:
        """A crew of ``count`` workers behind an address, None for one that has no host.

        Raises:
            DulianError: The settings make no sense, others could reach the service without a key, or a port is taken.
        """
        settings = read_settings()
        settings = with_keys_file(settings.model_copy(update={"host": address} if address else {}))
        check_extra(settings)
        self._kept = ExitStack()  # never closed: for as long as this process lives
        settings = self._kept.enter_context(reserved(settings, count))
        cores = effective_cores()
        _, threads = share_out(min(count, cores), settings.threads, cores)
        self.settings = settings
        self._share = Share(
            processes=count,
            threads=threads,
            tally=new_memory("connections"),
            pictures=new_memory("pictures"),
            rates=new_memory("rates"),
        )
        self._ages = memoryview(mmap.mmap(-1, (3 * MAX_WORKERS + 2) * 4)).cast("I")
        self._live: list[list[Worker]] = [[] for _ in range(count)]
        self._metrics = [bind_metrics(settings, slot) for slot in range(count)]
        self._restarts = [0] * count

    def enlist(self, worker: Worker) -> int:
        """The slot of a worker that is about to be forked: the first of those with the fewest workers."""
        self._live = [[one for one in workers if not one.has_ended] for workers in self._live]
        slot = min(range(len(self._live)), key=lambda slot: len(self._live[slot]))
        newest = self.age(_CLAIMED, slot)
        if newest and not self._live[slot] and self.age(_LEFT, slot) != newest:
            self._restarts[slot] += 1
        self._live[slot].append(worker)
        self.note(_CLAIMED, slot, worker.age)
        return slot

    def share_of(self, slot: int) -> Share:
        return replace(self._share, index=slot, restarts=self._restarts[slot])

    def metrics_listener(self, slot: int) -> socket.socket | None:
        return self._metrics[slot]

    def age(self, kind: int, slot: int) -> int:
        return self._ages[kind * MAX_WORKERS + slot]

    def note(self, kind: int, slot: int, age: int) -> None:
        self._ages[kind * MAX_WORKERS + slot] = age

    def takes_turn(self, age: int) -> bool:
        """Whether a worker that could go may do so: one after the other, each when the successor of the last is ready.

        Asked more than once, and true at the second time at the earliest: of two who ask at once one has to wait.
        """
        claimed = [self.age(_CLAIMED, slot) for slot in range(len(self._live))]
        ready = [self.age(_READY, slot) for slot in range(len(self._live))]
        if self._ages[_TURN] not in claimed and claimed == ready:
            self._ages[_TURN] = age
            return False
        return bool(self._ages[_TURN] == age)

    @property
    def has_been_ready(self) -> bool:
        return any(self.age(_READY, slot) for slot in range(MAX_WORKERS))

    @property
    def ends(self) -> bool:
        """Whether gunicorn itself has been told to end, and not one worker alone."""
        return bool(self._ages[_ENDS])

    def watch_signals(self) -> None:
        """Note when gunicorn is told to end; it sends its workers the same signal as for a replacement."""
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            theirs = signal.getsignal(sig)

            def end(number: int, frame: object, theirs: Any = theirs) -> None:
                self._ages[_ENDS] = 1
                theirs(number, frame)

            signal.signal(sig, end)


class Worker(BaseWorker):  # type: ignore[misc] # gunicorn has no types
    """One process of several; made before the fork, and run after it."""

    crew: Crew | None = None

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        try:
            self._crew = self._first_crew()
            self._slot = self._crew.enlist(self)
        except DulianError as error:
            raise HaltServer(f"dulian: {error}", CANNOT_START) from error
        self._told = False
        self._goes = False

    def _first_crew(self) -> Crew:
        if Worker.crew is None:
            if self.cfg.is_ssl:
                raise BackendError("TLS is a proxy's task; start gunicorn without --certfile and --keyfile")
            if len(self.sockets) != 1:
                raise BackendError("gunicorn has to listen at one address (--bind), and without --reuse-port")
            name = self.sockets[0].getsockname()
            guard_opencv()
            forbid_metrics_files()
            configure_logging()
            Worker.crew = Crew(self.cfg.workers, name[0] if isinstance(name, tuple) else None)
            Worker.crew.watch_signals()
            log_keys(Worker.crew.settings)
            log_secrets(Worker.crew.settings)
        return Worker.crew

    @property
    def has_ended(self) -> bool:
        """Whether gunicorn has buried it; asked in gunicorn's own process."""
        return bool(self.tmp._tmp.closed)

    def init_signals(self) -> None:
        for sig in self.SIGNALS:
            signal.signal(sig, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGQUIT, lambda *_: os.kill(os.getpid(), signal.SIGINT))
        signal.signal(signal.SIGUSR1, self.handle_usr1)
        signal.siginterrupt(signal.SIGUSR1, False)

    def run(self) -> None:
        """Serve until a signal comes; the exit code tells gunicorn whether another try makes sense."""
        os.setpgid(0, 0)  # Ctrl-C is meant for gunicorn; it tells the others
        configure_logging(worker=self._slot)
        forbid_dumps()
        try:
            self._work(self._crew.settings)
        except DulianError as error:
            if not self._crew.has_been_ready:
                sys.stderr.write(f"dulian: {error}\n")
                sys.exit(CANNOT_START)
            log_event("worker_lost", level=logging.ERROR, reason=str(error))
            time.sleep(PAUSE_S)
            sys.exit(1)
        self._crew.note(_LEFT, self._slot, self.age)

    def _work(self, settings: Settings) -> None:
        allow_connections(settings.max_connections)
        raise_opencv_wall(settings.max_pixels_mp * MEGAPIXEL)
        from dulian.quiet import forbid_reports
        from dulian.service.server import Keeper
        from dulian.service.turns import SharedListener
        from dulian.service.worker import work
        from dulian.store import ModelStore

        forbid_reports()
        store = ModelStore(
            model_dir=settings.model_dir and settings.model_dir.expanduser(),
            offline=settings.offline,
            notify=lambda line: log_event("store", note=line),
        )
        share = self._crew.share_of(self._slot)
        keeper = Keeper(beat=self._beat, heed=self._heed)
        listener = SharedListener(self.sockets[0].sock.detach(), share)
        metrics = self._crew.metrics_listener(self._slot)
        work(settings, store, listener, share, announce=self._announce, metrics_listener=metrics, keeper=keeper)

    def _announce(self) -> None:
        self._crew.note(_READY, self._slot, self.age)
        log_event("worker_ready", pid=os.getpid(), memory_bytes=resident_bytes())

    def _heed(self, sig: int) -> int | None:
        """Gunicorn ends a worker that shall be replaced while its successor is not ready yet: that is waited for."""
        if sig == signal.SIGTERM and not self._crew.ends:
            self._told = True
            return None
        return sig

    def _beat(self, requests: int) -> int | None:
        self.notify()
        if self._goes:
            return None
        is_orphan = self.ppid != os.getppid()
        is_old = requests >= self.max_requests and self._crew.takes_turn(self.age)
        self._goes = is_orphan or is_old or (self._told and not self._is_awaited())
        if not self._goes:
            return None
        return signal.SIGINT if is_orphan else signal.SIGHUP

    def _is_awaited(self) -> bool:
        """Whether there is a successor, and it cannot answer yet."""
        crew, slot = self._crew, self._slot
        return bool(crew.age(_CLAIMED, slot) > self.age >= crew.age(_READY, slot))
