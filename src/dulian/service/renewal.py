"""A process that is alone renews its networks while it serves. Of several, each is replaced by a new process."""

from __future__ import annotations

import logging
import threading
import time

from dulian.service.compute import ComputePool
from dulian.service.log import log_event
from dulian.service.networks import Networks


class Renewal:
    """Has networks opened anew, verified and tried; until that has succeeded, the old ones answer."""

    def __init__(self, networks: Networks, pool: ComputePool) -> None:
        self._networks = networks
        self._pool = pool
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Begin, and return at once; while one is under way, nothing more is begun."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="renewal", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        log_event("renewing")
        started = time.monotonic()
        try:
            self._networks.renew()
        except Exception as error:  # noqa: BLE001 - whatever it is, what serves now goes on
            log_event("renewal_abandoned", level=logging.ERROR, reason=str(error) or type(error).__name__)
            return
        self._pool.renew()
        log_event("renewed", seconds=round(time.monotonic() - started, 2))
