"""The bounds of the service in one place: what ``/v1/limits`` shows is what the code obeys."""

from __future__ import annotations

from dataclasses import dataclass

from dulian.image import DEFAULT_LIMITS, ImageLimits
from dulian.settings import MEGAPIXEL, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLimits:
    """What one request may bring and how long it may take; what all of them together may hold.

    ``deadline_s`` starts when the body is complete, ``body_timeout_s`` when its reading starts.
    ``max_body_bytes`` counts the body as sent, Base64 and multipart wrapping included. A batch has its own number of
    parts, and its answer an end; drawn pictures are kept for ``kept_s`` at most.
    A stream without a frame for ``stream_idle_s`` is closed, and so is one whose answers stay unread for as long.
    """

    max_body_bytes: int = 10 * 2**20
    body_timeout_s: float = 10.0
    max_parts: int = 20
    max_part_head_bytes: int = 8 * 2**10
    deadline_s: float = 5.0
    max_queued: int = 64
    max_bytes_in_flight: int = 64 * 2**20
    max_batch_parts: int = 32
    max_batch_answer_bytes: int = 16 * 2**20
    max_kept_pictures: int = 100
    max_kept_bytes: int = 32 * 2**20
    kept_s: float = 60.0
    max_streams: int = 32
    max_frame_bytes: int = 2**20
    max_stream_text_bytes: int = 4 * 2**10
    stream_idle_s: float = 30.0


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """How many connections one process keeps, and how big, how slow and how far ahead of its answers a head may be.

    The rest of a body that nobody wants is passed over for ``skipped_seconds``, so that a client that sends first and
    reads later hears its answer. A client that has taken less than ``answer_bytes`` of a waiting answer in
    ``answer_seconds`` is cut off.
    """

    connections: int = 512
    head_bytes: int = 32 * 1024
    headers: int = 100
    head_seconds: float = 3.0
    skipped_seconds: float = 10.0
    pipelined: int = 16  # waiting behind the one being answered: unbounded, one packet held 15 MB
    answer_seconds: float = 30.0
    answer_bytes: int = 64 * 1024


def service_limits(settings: Settings) -> ServiceLimits:
    """The limits of requests as they are set."""
    return ServiceLimits(
        max_body_bytes=settings.max_body_mb << 20,
        body_timeout_s=settings.body_timeout_s,
        deadline_s=settings.deadline_s,
        max_queued=settings.max_queued,
        max_bytes_in_flight=settings.max_bytes_in_flight_mb << 20,
        max_streams=settings.max_streams,
        max_frame_bytes=settings.max_frame_kb << 10,
        stream_idle_s=settings.stream_idle_s,
    )


def guard_limits(settings: Settings) -> GuardLimits:
    """The limits of connections and heads as they are set."""
    return GuardLimits(
        connections=settings.max_connections,
        head_bytes=settings.max_head_kb << 10,
        headers=settings.max_headers,
        head_seconds=settings.head_timeout_s,
        skipped_seconds=settings.body_timeout_s,
    )


def image_limits(settings: Settings) -> ImageLimits:
    """The limits of pictures as they are set; the dearer codings never get more than they get by default."""
    max_pixels = settings.max_pixels_mp * MEGAPIXEL
    return ImageLimits(
        max_bytes=settings.max_body_mb << 20,
        max_pixels=max_pixels,
        max_fancy_pixels=min(max_pixels, DEFAULT_LIMITS.max_fancy_pixels),
    )
