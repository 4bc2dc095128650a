"""How a listening socket is given up without losing anybody who has connected to it.

Whoever connects is let in by the kernel long before the process hears of it, and closing the socket breaks the
connections that it has not yet accepted. So first nobody new is let in, then those are accepted, then it is closed.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from contextlib import suppress
from typing import Protocol

_SO_ATTACH_FILTER = 26

# Classic BPF over the TCP header: flags (byte 13), of these SYN and ACK; SYN alone is how a connection begins.
_DROP_BEGINNINGS = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte
        (0x54, 0, 0, 0x12),  # and
        (0x15, 0, 1, 0x02),  # if equal
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFFFFFF),  # else keep
    )
)


class _Socket(Protocol):
    def fileno(self) -> int: ...

    def setsockopt(self, level: int, option: int, value: bytes) -> None: ...


def turn_away(listener: _Socket) -> None:
    """Have the kernel let nobody begin to connect; who has begun can still be accepted, by any process that listens.

    Whoever tries hears nothing, tries again after a second, and by then is refused: the socket has to be closed soon.
    Where the system has no such filter nothing happens.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(_DROP_BEGINNINGS)
    count = len(_DROP_BEGINNINGS) // 8
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", count, ctypes.addressof(program)))
