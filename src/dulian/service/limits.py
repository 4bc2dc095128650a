"""The bounds of the service in one place: what ``/v1/limits`` shows is what the code obeys."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLimits:
    """What one request may bring and how long it may take; what all of them together may hold.

    ``deadline_s`` starts when the body is complete, ``body_timeout_s`` when its reading starts.
    ``max_body_bytes`` counts the body as sent, Base64 and multipart wrapping included.
    """

    max_body_bytes: int = 10 * 2**20
    body_timeout_s: float = 10.0
    max_parts: int = 20
    max_part_head_bytes: int = 8 * 2**10
    deadline_s: float = 5.0
    max_queued: int = 64
    max_bytes_in_flight: int = 64 * 2**20
