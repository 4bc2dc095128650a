"""Several processes behind one socket: started, replaced when they die, renewed one by one, and ended in order.

uvicorn has a supervisor too. It asks its processes twice a second, one after the other, whether they live; it starts
again at once and for ever what dies at once, hears no signal while it renews them, waits without bound for their end
and then ends with code 0 whatever theirs was; and when it is killed, they live on. Hence this one.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

from dulian.errors import BackendError
from dulian.service.child import WORKER, Child, new_memory
from dulian.service.log import log_event
from dulian.service.start import Share, log_listening
from dulian.service.traffic import resident_bytes
from dulian.settings import Settings

# Whoever lived for so long did not die of its start, nor of what may be asked of it at once again.
STEADY_S = 5.0
FREE_FALLS = 3
MAX_PAUSE_S = 30.0
# A little more than a process takes by itself at most.
END_WITHIN_S = 29.0


class Supervisor:
    """Keeps as many processes at work as its share says; it has neither networks nor threads itself."""

    def __init__(
        self,
        settings: Settings,
        share: Share,
        listener: socket.socket,
        metrics: Sequence[socket.socket] = (),
        *,
        command: Sequence[str] = WORKER,
    ) -> None:
        """All processes share ``listener``, each has one of ``metrics``; bound, and kept open here for successors."""
        self._settings = settings
        self._share = replace(
            share, tally=new_memory("connections"), pictures=new_memory("pictures"), rates=new_memory("rates")
        )
        self._listener = listener
        self._metrics = metrics
        self._command = command
        self._selector = selectors.DefaultSelector()
        self._signals: deque[int] = deque()
        self._children: list[Child] = []
        self._lost = dict.fromkeys(range(share.processes), 0)
        self._falls = dict(self._lost)
        self._due: dict[int, float] = {}
        self._renewing: Child | None = None
        self._to_renew: deque[Child] = deque()
        self._listening = False
        self._end_at: float | None = None
        self._code = 0

    def run(self) -> int:
        """Serve until a signal ends it; the exit code, 0 if every process ended in order.

        Raises:
            BackendError: A process cannot start, and no other one serves.
        """
        try:
            with self._hearing_signals():
                for index in self._falls:
                    self._start(index)
                while self._children or self._due:
                    self._turn()
        finally:
            for child in self._children:
                child.kill()
        log_event("stopped", processes=self._share.processes)
        return self._code

    def _turn(self) -> None:
        moments = [*self._due.values(), *([] if self._end_at is None else [self._end_at])]
        patience_s = max(0.0, min(moments) - time.monotonic()) if moments else None
        for key, _ in self._selector.select(patience_s):
            key.data()
        while self._signals:
            self._obey(self._signals.popleft())
        now = time.monotonic()
        for index in [index for index, at in self._due.items() if at <= now]:
            del self._due[index]
            self._start(index)
        if self._end_at is not None and now >= self._end_at:
            log_event("killed", level=logging.ERROR, workers=[child.index for child in self._children])
            self._end_at = now + END_WITHIN_S
            for child in self._children:
                child.kill()

    # ── one process ──────────────────────────────────────────────────────────────────────────────

    def _start(self, index: int) -> None:
        listeners = [one.fileno() for one in (self._listener, *self._metrics[index : index + 1])]
        share = asdict(replace(self._share, index=index, restarts=self._lost[index]))
        orders = {"settings": self._settings.in_full(), "share": share, "listeners": listeners}
        shared = (self._share.tally, self._share.pictures, self._share.rates)
        memory = [one for one in shared if one is not None]
        try:
            child = Child(index, orders, [*listeners, *memory], self._command)
        except OSError as error:
            self._note_fall(index, f"cannot start a process: {error.strerror or error}")
            self._abandon_renewal()
            self._replace(index)
            return
        self._children.append(child)
        self._selector.register(child.channel, selectors.EVENT_READ, lambda: self._hear(child))

    def _hear(self, child: Child) -> None:
        if not child.hear():
            self._bury(child)
        elif child.ready:
            self._welcome(child)

    def _welcome(self, child: Child) -> None:
        log_event("worker_ready", worker=child.index, pid=child.pid, memory_bytes=resident_bytes(child.pid))
        if not self._listening and all(self._has_ready(index) for index in self._falls):
            self._listening = True
            log_listening(self._listener, processes=self._share.processes, threads=self._share.threads)
        old = self._renewing
        if old and old.index == child.index:
            if old in self._children:
                old.tell(signal.SIGHUP)
            else:
                self._renew_next()

    def _bury(self, child: Child) -> None:
        """A process has ended: find out how, and see to it that somebody does its work."""
        self._selector.unregister(child.channel)
        self._children.remove(child)
        code, reason = child.bury()
        if self._end_at is not None:
            self._code = self._code or int(child.ready and code != 0)
            return
        if code or not (child is self._renewing and self._has_ready(child.index)):
            if child.ready and child.lived_s > STEADY_S:
                self._falls[child.index] = 0
            self._note_fall(child.index, reason, was_ready=child.ready)
        if self._renewing and self._renewing.index == child.index:
            self._go_on_renewing(child)
        self._replace(child.index)

    def _note_fall(self, index: int, reason: str, *, was_ready: bool = False) -> None:
        if not was_ready and not (self._listening and self._children):
            raise BackendError(reason)
        log_event("worker_lost", level=logging.ERROR, worker=index, reason=reason)
        self._lost[index] += 1
        self._falls[index] += 1

    def _replace(self, index: int) -> None:
        if all(child.index != index for child in self._children):
            self._due[index] = time.monotonic() + pause_s(self._falls[index])

    def _has_ready(self, index: int) -> bool:
        return any(child.ready and child.index == index for child in self._children)

    # ── all of them ──────────────────────────────────────────────────────────────────────────────

    def _obey(self, sig: int) -> None:
        if sig != signal.SIGHUP:
            self._end(sig)
        elif self._end_at is None and self._renewing is None:
            log_event("renewing")
            self._to_renew = deque(child for child in self._children if child.ready)
            self._renew_next()

    def _renew_next(self) -> None:
        """Start a successor beside the next process; only when that is ready, the old one is told to go."""
        self._renewing = None
        while self._to_renew:
            old = self._to_renew.popleft()
            if old in self._children:
                self._renewing = old
                self._start(old.index)
                return
        log_event("renewed")

    def _go_on_renewing(self, ended: Child) -> None:
        """One of a pair has ended: the old one, or its successor."""
        if ended is not self._renewing and not ended.ready:
            self._abandon_renewal()
        elif all(child.ready or child.index != ended.index for child in self._children):
            self._renew_next()

    def _abandon_renewal(self) -> None:
        if self._renewing:
            log_event("renewal_abandoned", level=logging.ERROR)
        self._renewing = None
        self._to_renew.clear()

    def _end(self, sig: int) -> None:
        """Have all of them end; whoever says it twice is in a hurry."""
        if self._end_at is not None:
            sig = signal.SIGINT
        else:
            log_event("draining")
            self._end_at = time.monotonic() + END_WITHIN_S
            self._due.clear()
            for listener in (self._listener, *self._metrics):
                listener.close()  # else whoever comes when the last process has closed its own would wait in vain
        for child in self._children:
            child.tell(sig)

    @contextlib.contextmanager
    def _hearing_signals(self) -> Iterator[None]:
        ours, theirs = socket.socketpair()
        with ours, theirs, self._selector:
            theirs.setblocking(False)
            self._selector.register(ours, selectors.EVENT_READ, lambda: ours.recv(4096))
            signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
            for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(sig, lambda number, frame: self._signals.append(number))
            try:
                yield
            finally:
                signal.set_wakeup_fd(-1)


def pause_s(falls: int) -> float:
    """How long to wait with another try after so many falls in a row: not at all after the first few."""
    return min(2.0 ** min(falls - FREE_FALLS - 1, 30), MAX_PAUSE_S) if falls > FREE_FALLS else 0.0
