"""Origins of pages and names of hosts, in the spelling in which browsers send them."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}

_OWN_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
_HOST_AND_PORT = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]+)?|[0-9a-f]*:[0-9a-f]*:[0-9a-f:.]*")


def parse_origin(text: str) -> str:
    """``scheme://host`` or ``scheme://host:port``, as browsers spell it.

    Raises:
        ValueError: It is no such thing.
    """
    with suppress(ValueError):
        parts = urlsplit(text.strip())
        host = parts.hostname or ""
        bare = text.isprintable() and not (
            parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
        )
        if bare and parts.scheme in DEFAULT_PORTS and _HOST.fullmatch(host) and parts.port != 0:
            shown_host = f"[{host}]" if ":" in host else host
            shown_port = "" if parts.port in (None, DEFAULT_PORTS[parts.scheme]) else f":{parts.port}"
            return f"{parts.scheme}://{shown_host}{shown_port}"
    raise ValueError(
        f"{text!a} is no origin; write http or https, the host, and a port that is not the usual one, as in"
        " https://photos.example or http://localhost:3000; there is no * for all"
    )


def parse_host(text: str) -> str:
    """The name or address of a host; a port is passed over.

    Raises:
        ValueError: It is no such thing.
    """
    stripped = text.strip().lower()
    if not _HOST_AND_PORT.fullmatch(stripped):
        raise ValueError(f"{text!a} is no host name; write it as in photos.example")
    return without_port(stripped)


def without_port(text: str) -> str:
    """The host of what a Host header says, or of an address that is alone."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text if text.count(":") > 1 else text.partition(":")[0].removesuffix(".")


def is_loopback(host: str) -> bool:
    """Whether a host, as a browser understands it, is the very machine that the browser runs on."""
    if host in _OWN_NAMES or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
