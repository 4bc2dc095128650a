"""P14: one of two processes is killed under load, again and again; a client that tries once more sees nothing of it.

Clients ask without a pause, half of them on a new connection each time. A respawn is from the signal until the
supervisor, or under gunicorn the next process itself, says that it is ready.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import psutil

from dulian.store import ModelStore
from tests.promises.harness import PATIENCE_S, Server, closed_loop, comparable, dulian_server, post, through
from tests.service.crews import gunicorn_server
from tests.soak import Figure, arguments, filled_store, portraits, quantile, report


class Killer:
    """Kills one process after the other, and waits for what replaces it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.respawns_s: list[float] = []

    def kill_one(self) -> None:
        known = len(self._ready())
        victims = psutil.Process(self._server.process.pid).children()
        began = time.monotonic()
        os.kill(victims[len(self.respawns_s) % len(victims)].pid, signal.SIGKILL)
        while len(self._ready()) == known:
            if time.monotonic() > began + PATIENCE_S:
                raise RuntimeError("nothing replaces a process that was killed")
            time.sleep(0.001)
        self.respawns_s.append(time.monotonic() - began)

    def _ready(self) -> list[object]:
        return [event for event in self._server.events if event["event"] == "worker_ready"]


def start(options: argparse.Namespace, store: ModelStore, running: ExitStack) -> AbstractContextManager[Server]:
    """Two processes, watched by dulian itself or by gunicorn."""
    if not options.gunicorn:
        return dulian_server(store, "--profile", options.profile, "--workers", "2")
    home = Path(running.enter_context(tempfile.TemporaryDirectory()))
    return gunicorn_server(store, home, DULIAN_PROFILE=options.profile)


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--between-s", type=float, default=1.0, help="from one respawn to the next kill")
    parser.add_argument("--profile", default="standard")
    parser.add_argument("--gunicorn", action="store_true", help="two workers of gunicorn instead of --workers 2")
    options = parser.parse_args(given)
    store = filled_store()
    requests = [post("/v1/analyze", picture) for picture in portraits(store)]
    with ExitStack() as running:
        server = running.enter_context(start(options, store, running))
        alone = asyncio.run(closed_loop(server.port, requests, clients=1, count=len(requests)))
        expected = {one.request: comparable(one.body) for one in alone}
        killer = Killer(server)
        load = through(
            killer.kill_one,
            server.port,
            requests,
            expected,
            times=options.kills,
            clients=options.clients,
            between_s=options.between_s,
        )
        met = asyncio.run(load)
    at = f"{options.kills} kills of one of two {'workers of gunicorn' if options.gunicorn else 'processes'}"
    other = sum(count for status, count in met.statuses.items() if status != 200)
    figures = [
        Figure("P14", f"{at}: respawn, median", quantile(killer.respawns_s, 0.5), "s", at_most=1.0),
        Figure("P14", f"{at}: respawn, slowest", max(killer.respawns_s), "s"),
        Figure("P14", f"{at}: answered", met.answered),
        Figure("P14", f"{at}: broken connections, asked again", met.broken),
        Figure("P14", f"{at}: refused connections", met.refused, at_most=0),
        Figure("P14", f"{at}: errors that a client saw", other + met.wrong, at_most=0),
    ]
    return report(figures, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
