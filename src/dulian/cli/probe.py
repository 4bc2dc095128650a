"""Asking the service on this machine whether it is alive.

A container does so every few seconds, within the service's own limits: nothing is imported but what a socket needs.
"""

from __future__ import annotations

import os
import socket
import sys

DEAD = 1
TIMEOUT_S = 3.0
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8080
# What a service that listens everywhere is reached by.
_OWN_ADDRESSES = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # nosec B104 - asked, not listened at


def check(host: str | None = None, port: int | None = None) -> int:
    """0 if the service is alive, else 1 and one line on standard error; the address is that of ``dulian serve``.

    Raises:
        MalformedInputError: There is a file of settings that cannot be read, or holds a mistake.
    """
    host, port = _address(host, port)
    said = ask(host, port)
    if said is None:
        return 0
    print(f"dulian: {host} port {port}: {said}", file=sys.stderr)  # noqa: T201
    return DEAD


def ask(host: str, port: int, *, timeout_s: float = TIMEOUT_S) -> str | None:
    """None if a service is alive, else what it, or the system, said instead.

    /livez needs no key, and a service with a full queue is not taken for a dead one.
    """
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            with connection.makefile("rb") as answer:
                status = answer.readline(256).decode("ascii", "replace").strip()
    except (OSError, OverflowError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None if status.split()[1:2] == ["200"] else ascii(status) if status else "no answer"


def _address(host: str | None, port: int | None) -> tuple[str, int]:
    """As the settings say; all of them are read only where there is a file of them."""
    if os.environ.get("DULIAN_CONFIG"):
        from dulian.settings import read_settings

        settings = read_settings(host=host, port=port)
        host, port = settings.host, settings.port
    named = os.environ.get("DULIAN_PORT", "")  # or an address, from Kubernetes
    port = port or (int(named) if named.isdecimal() else DEFAULT_PORT)
    host = host or os.environ.get("DULIAN_HOST") or DEFAULT_HOST
    return _OWN_ADDRESSES.get(host, host), port
