"""What every answer tells a browser, whose pages may ask, and how the process keeps its memory to itself.

No web framework is imported with this module: what happens before the socket listens needs parts of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from dulian.origins import DEFAULT_PORTS, is_loopback, without_port

if TYPE_CHECKING:
    from fastapi import FastAPI

Header = tuple[bytes, bytes]

# ── headers ──────────────────────────────────────────────────────────────────────────────────────

# Pages bring all they need along: no script of a stranger, no frame round them, nothing sent elsewhere.
_PAGE_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src blob:",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'self'",
    )
)
_NOT_KEPT: Header = (b"cache-control", b"no-store")
_ALWAYS: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    # Browsers heed it for what a page embeds without asking, an <img> say, and not for what it fetches by CORS: listed
    # origins are not kept out by it.
    (b"cross-origin-resource-policy", b"same-origin"),
)
API_HEADERS = (_NOT_KEPT, *_ALWAYS, (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"))
PAGE_HEADERS = (
    _NOT_KEPT,
    *_ALWAYS,
    (b"content-security-policy", _PAGE_POLICY.encode("ascii")),
    (b"permissions-policy", b"camera=(self)"),
)


def security_headers(headers: Iterable[Header]) -> tuple[Header, ...]:
    """What is to be added to an answer that has these headers: a page may do more than data.

    Nothing is kept by browsers and proxies but what says for itself how it may be: the files of the page. A page that
    says for itself what it may do is left to that.
    """
    given = dict(headers)
    added = PAGE_HEADERS if given.get(b"content-type", b"").startswith(b"text/html") else API_HEADERS
    return tuple(header for header in added if header[0] not in given)


# ── whose pages may ask ──────────────────────────────────────────────────────────────────────────

# Browsers ask again after so long whether they may.
_PREFLIGHT_S = 600


def allow_origins(app: FastAPI, origins: frozenset[str]) -> None:
    """Let pages of these origins ask by CORS; without any, browsers keep all others from reading answers."""
    if not origins:
        return
    from starlette.middleware.cors import CORSMiddleware

    app.add_middleware(
        CORSMiddleware,
        allow_origins=sorted(origins),
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-Id", "X-Request-Timeout-Ms"],
        expose_headers=["Retry-After", "X-Request-Id"],
        # Keys come in headers; there are no cookies that a browser could add on its own.
        allow_credentials=False,
        allow_private_network=True,
        max_age=_PREFLIGHT_S,
    )


def origin_allowed(headers: Mapping[bytes, bytes], origins: frozenset[str]) -> bool:
    """Whether a WebSocket's handshake comes from a page of this host, a listed origin, or no page at all.

    Browsers open WebSockets to anywhere and let the page read what comes: CORS does not apply to them.
    """
    origin = headers.get(b"origin")
    if origin is None:
        return True
    text = origin.decode("latin-1")
    if text in origins:
        return True
    # Whether TLS was ended by a proxy is not known here, so the scheme is not compared; the proxy has to pass Host on.
    scheme, _, host = text.partition("://")
    port = DEFAULT_PORTS.get(scheme)
    own = headers.get(b"host", b"").decode("latin-1").lower()
    return port is not None and host != "" and own in (host, f"{host}:{port}")


def host_allowed(headers: Mapping[bytes, bytes], listed: frozenset[str]) -> bool:
    """Whether a request's Host is a name of this machine, or listed; programs may leave it out, browsers cannot.

    A page whose own name was made to lead to this machine (DNS rebinding) counts as ours for its browser, and may read
    answers. Its requests still bear that name.
    """
    given = headers.get(b"host")
    if not given:
        return True
    host = without_port(given.decode("latin-1").lower())
    return host in listed or is_loopback(host)


# ── memory ───────────────────────────────────────────────────────────────────────────────────────

_PR_SET_DUMPABLE = 4


def forbid_dumps() -> None:
    """Keep the pictures in this process's memory from the disk, and from other processes of the same user.

    Every process has to say it for itself: starting a program takes it back.
    """
    with suppress(ImportError):  # Windows
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        import ctypes

        # Cores that the kernel pipes into a program do not heed the limit; this they do, and so does ptrace. Under
        # /proc/self only environ, io and mem become root's: memory, times and descriptors can still be counted.
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
