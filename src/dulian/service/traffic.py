"""What the last minute was like: requests, latencies, and what the process uses. Read when asked, never waited for."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path

WINDOW_S = 60
MAX_LATENCIES = 2048
# A share of processor time over less than this is mostly noise.
MIN_SAMPLE_S = 0.5


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


class ProcessUse:
    """Processor time and memory of this process."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._cpu_s = time.process_time()
        self._percent = 0.0

    def cpu_percent(self) -> float:
        """Of one core, since the last time this was asked; right after that, what was said then."""
        now, cpu_s = time.monotonic(), time.process_time()
        if now - self._at >= MIN_SAMPLE_S:
            self._percent = round(100 * (cpu_s - self._cpu_s) / (now - self._at), 1)
            self._at, self._cpu_s = now, cpu_s
        return self._percent

    @staticmethod
    def memory_bytes() -> int | None:
        """Resident memory, where /proc tells."""
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
        except OSError:
            return None
        return pages * os.sysconf("SC_PAGE_SIZE")
