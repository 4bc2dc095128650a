"""One process of several, as its supervisor sees it: a fresh interpreter at one end of a socket pair.

Through the pair it gets its orders, and says that it is ready or why it will never be; the end of the pair tells either
side that the other one is gone. Everything else it is told by signals: SIGTERM to drain, SIGHUP when another one has
taken its place, SIGINT to be quick about it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

WORKER = ("-m", "dulian.service.worker")
READY = b"\0"
BURIAL_S = 5.0


def new_memory(name: str) -> int | None:
    """A descriptor of memory for several processes, never a file; None where the system has no such thing."""
    return os.memfd_create(f"dulian-{name}") if hasattr(os, "memfd_create") else None


class Child:
    """A process at work, or on its way there; ``channel`` can be read when there is something to hear."""

    def __init__(
        self,
        index: int,
        orders: Mapping[str, Any],
        fds: Sequence[int],
        command: Sequence[str] = WORKER,
        *,
        log: int | None = None,
    ) -> None:
        """``fds`` are descriptors which the orders name; ``log`` is where its log goes, the same as ours if not given.

        Raises:
            OSError: The system has no room for another process.
        """
        self.index = index
        self.ready = False
        self._reason = b""
        self._started = time.monotonic()
        self.channel, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", *command, str(theirs.fileno())],  # nothing is imported from where it was started
                stdin=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                pass_fds=(theirs.fileno(), *fds),
                process_group=0,  # Ctrl-C is meant for the supervisor; it tells the others
            )
        self.pid = self._process.pid
        with contextlib.suppress(OSError):  # dead already: it will be heard of
            self.channel.sendall(json.dumps(orders).encode() + b"\n")

    @property
    def lived_s(self) -> float:
        return time.monotonic() - self._started

    def hear(self) -> bool:
        """Take in what it says; False if it has ended."""
        try:
            said = self.channel.recv(65536)
        except OSError:
            said = b""
        if said == READY:
            self.ready = True
        else:
            self._reason += said
        return bool(said)

    def tell(self, sig: int) -> None:
        self._process.send_signal(sig)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def bury(self) -> tuple[int, str]:
        """The exit code of one that has ended, and what it or that says about why."""
        self.channel.close()
        try:
            code = self._process.wait(BURIAL_S)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.returncode
        ending = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        return code, self._reason.decode(errors="replace") or f"process {self.index} {ending}"
