"""Which of several processes takes the next connection.

The kernel wakes all of them, and whoever is quickest takes it: of sixteen connections that came one by one, one process
of two took all in the worst case. So they tell each other how many they have, and whoever has more lets the others go
first.
"""

from __future__ import annotations

import mmap
import os
import socket
import time
from typing import Any

from dulian.service.start import Share

BACKLOG = 2048
# Less than what would hold up the event loop, and long enough for another process to wake.
COURTESY_S = 0.0005
_BYTES = 4


class SharedListener(socket.socket):
    """The listening socket of all processes, as one of them sees it."""

    def __init__(self, fileno: int, share: Share) -> None:
        """Without a tally in its share, this process knows of no other."""
        super().__init__(fileno=fileno)
        if share.tally is None:
            self._counts, self._index = memoryview(bytearray(_BYTES)).cast("I"), 0
        else:
            size = share.processes * _BYTES
            os.ftruncate(share.tally, size)
            self._counts, self._index = memoryview(mmap.mmap(share.tally, size)).cast("I"), share.index
        self._counts[self._index] = 0

    def note(self, connections: int) -> None:
        """Tell the others how many connections this process has."""
        self._counts[self._index] = connections

    def accept(self) -> tuple[socket.socket, Any]:
        if self._counts[self._index] > min(self._counts):
            time.sleep(COURTESY_S)
        accepted = super().accept()
        self._counts[self._index] += 1
        return accepted

    def listen(self, backlog: int = BACKLOG, /) -> None:
        # asyncio takes as many at once as it has told the kernel to let wait; so it is told one.
        super().listen(BACKLOG)
