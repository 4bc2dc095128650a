"""What the last minute was like: requests, latencies, and what the process uses. Known when asked, never waited for."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dulian.service.log import log_event

WINDOW_S = 60
MAX_LATENCIES = 2048
# A share of processor time over less than this is mostly noise.
MIN_SAMPLE_S = 0.5
# Shares of the memory limit: passing the first is told, and told again only after the second.
MEMORY_HIGH = 0.80
MEMORY_CALM = 0.75


class Traffic:
    """Counts of the last minute's requests by second, and the newest latencies of answers."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.total = 0
        self._seconds: deque[tuple[int, int]] = deque(maxlen=WINDOW_S + 1)
        self._latencies: deque[tuple[float, float]] = deque(maxlen=MAX_LATENCIES)

    @property
    def uptime_s(self) -> float:
        return time.monotonic() - self.started

    def count_request(self) -> None:
        """One request to analyse something, whatever becomes of it."""
        self.total += 1
        second = int(time.monotonic())
        if self._seconds and self._seconds[-1][0] == second:
            self._seconds[-1] = second, self._seconds[-1][1] + 1
        else:
            self._seconds.append((second, 1))

    def note_answer(self, latency_s: float) -> None:
        """A picture was answered, so long after its last byte had come."""
        self._latencies.append((time.monotonic(), latency_s))

    def requests_per_s(self) -> float:
        since = int(time.monotonic()) - WINDOW_S
        recent = sum(count for second, count in self._seconds if second > since)
        return recent / max(1.0, min(WINDOW_S, self.uptime_s))

    def latency_ms(self, *shares: float) -> list[float | None]:
        """Quantiles of the recent latencies, None without any."""
        since = time.monotonic() - WINDOW_S
        recent = sorted(latency for moment, latency in self._latencies if moment > since)
        if not recent:
            return [None for _ in shares]
        return [round(recent[min(len(recent) - 1, int(share * len(recent)))] * 1000, 2) for share in shares]


def resident_bytes(pid: int | None = None) -> int | None:
    """Bytes of memory that a process has resident, this one if none is named; None where /proc does not tell."""
    try:
        pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def processor_s(pid: int) -> float | None:
    """Seconds of processor time that a process has used, None where /proc does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def look_at_process() -> tuple[float, int | None]:
    """Seconds of processor time so far, and bytes of resident memory where the system tells."""
    return time.process_time(), resident_bytes()


class ProcessUse:
    """Processor time and memory of this process at the newest look; whoever asks gets that at once.

    The server looks once a second; ``cpu_percent`` is of one core, over that second. ``resource_usage`` is the ready
    answer for routes that tell all of it.
    """

    def __init__(self, look: Callable[[], tuple[float, int | None]] = look_at_process) -> None:
        """``look`` gives the seconds of processor time so far, and the bytes of resident memory or None."""
        self._look = look
        self._measured_at = time.monotonic()
        self._cpu_s, self.memory_bytes = look()
        self.cpu_percent = 0.0
        self.looked_at = datetime.now(UTC)
        self.memory_high = False

    def sample(self, memory_limit_bytes: int | None) -> None:
        """Look now. A warning is logged when memory has passed its mark, once until it has been well below."""
        now = time.monotonic()
        cpu_s, self.memory_bytes = self._look()
        self.looked_at = datetime.now(UTC)
        if now - self._measured_at >= MIN_SAMPLE_S:
            self.cpu_percent = round(100 * (cpu_s - self._cpu_s) / (now - self._measured_at), 1)
            self._measured_at, self._cpu_s = now, cpu_s
        if self.memory_bytes is not None and memory_limit_bytes:
            self._compare(self.memory_bytes, memory_limit_bytes)

    def resource_usage(self) -> dict[str, Any]:
        """``cpu_percent`` (of one core), ``memory_mb`` (resident, in MiB, or None) and ``timestamp`` (Unix time)."""
        memory_mb = None if self.memory_bytes is None else round(self.memory_bytes / 2**20, 2)
        timestamp = round(self.looked_at.timestamp(), 3)
        return {"cpu_percent": self.cpu_percent, "memory_mb": memory_mb, "timestamp": timestamp}

    def _compare(self, used: int, limit: int) -> None:
        ratio = used / limit
        if not self.memory_high and ratio > MEMORY_HIGH:
            self.memory_high = True
            log_event(
                "memory_high", level=logging.WARNING, used_bytes=used, limit_bytes=limit, used_ratio=round(ratio, 3)
            )
        elif ratio < MEMORY_CALM:
            self.memory_high = False
