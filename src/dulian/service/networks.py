"""The networks of a service, open while a thread uses them: their memory can be given back in long pauses."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable

from dulian.analyzer import Analyzer
from dulian.errors import WeightsError
from dulian.factory import AnalyzerFactory
from dulian.machine import give_back_memory
from dulian.service.log import log_event


class Networks:
    """Networks that are closed when the last thread has given up its analyzers, and opened again for the next."""

    def __init__(self, factory: AnalyzerFactory, reopen: Callable[[], AnalyzerFactory] | None = None) -> None:
        """Without ``reopen`` they stay open, and are never renewed."""
        self.model = factory.model
        self._factory: AnalyzerFactory | None = factory
        self._reopen = reopen
        self._users: set[int] = set()
        self._changing = threading.Lock()

    def new_analyzer(self) -> Analyzer:
        """An analyzer that belongs to the calling thread.

        Raises:
            BackendError: The networks have to be opened again, and are missing, damaged or others by now.
        """
        return self._use().new_analyzer()

    def new_solo_analyzer(self) -> Analyzer:
        """Likewise, one that uses all cores where there is such a kind."""
        factory = self._use()
        return (factory.new_solo_analyzer or factory.new_analyzer)()

    def close(self) -> None:
        """The calling thread has dropped its analyzers; if it was the last one, the networks are closed."""
        with self._changing:
            self._users.discard(threading.get_ident())
            if self._users or self._factory is None or self._reopen is None:
                return
            self._factory = None
        gc.collect()
        give_back_memory()
        log_event("networks_closed")

    def renew(self) -> None:
        """Open the networks once more, and only if that succeeds have new analyzers made of those.

        Raises:
            BackendError: They are missing, damaged or others by now, or answer otherwise than they must.
        """
        assert self._reopen is not None
        factory = self._opened_again()
        with self._changing:
            if self._factory is not None:  # in a long pause it is enough to know that they could be opened
                self._factory = factory

    def _use(self) -> AnalyzerFactory:
        """The open networks; who comes while they are being opened waits for that."""
        with self._changing:
            if self._factory is None:
                self._factory = self._opened_again()
            self._users.add(threading.get_ident())
            return self._factory

    def _opened_again(self) -> AnalyzerFactory:
        assert self._reopen is not None
        started = time.monotonic()
        factory = self._reopen()
        if factory.model != self.model:
            raise WeightsError("the networks, or how they are used, have changed since the start; start again")
        log_event("networks_opened", seconds=round(time.monotonic() - started, 2))
        return factory
