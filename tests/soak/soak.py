"""P22: a service under mixed load for long, whose memory, descriptors and threads must stay where they are.

A few clients send photos, bad files, batches, frames and the articles' forms, and leave in the middle, while the
server's process is looked at from outside. The first fifth of the time is warm-up: networks, allocator and the room for
drawn pictures come to their size in it, and a leak does not end with it. After it:

- Resident memory over the number of requests must not rise by more than a bound (2 MiB for 10,000 requests). The slope
  is Theil and Sen's, the median of the slopes between all pairs of samples. Resident memory has spikes (a large picture
  being decoded) and steps (the allocator takes a piece, or gives one back): a line of least squares follows each of
  them, and more so near the ends; the median is moved by neither as long as they are fewer than 29 % of the samples. A
  leak moves all pairs. It is a slope over requests and not over time because a leak is one per request, however fast
  the machine is. Samples a few seconds apart are not independent, so that no interval of confidence is reckoned from
  their number; how long a run must be to tell is found out by the control below.
- Open descriptors and threads are whole numbers that vary with what is under way: the median of the last fifth may be
  above that of the second fifth by a small constant only.

Besides, every answer must be the one that its request deserves. ``--leak-bytes 1024`` is the negative control: the same
run with a leak put in from outside must not be found flat. What stands after ``--`` goes to ``dulian serve``.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import socket
import statistics
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import psutil
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from dulian.image import decode_image
from dulian.store import ModelStore
from tests.golden.pictures import sample_pictures
from tests.pictures import gif_bomb, png_bomb, with_size
from tests.promises.envelopes import FORM, JSON, in_form, in_json
from tests.promises.harness import Server, comparable, dulian_server, leaking_server, post

MIB = 2**20
BOUND_MIB = 2.0
REQUESTS = 10_000
MORE_DESCRIPTORS = 8
MORE_THREADS = 2
PATIENCE_S = 60.0
# A refusal for want of room or time is a good answer to anything.
BUSY = (503, 504)

# ── what is sent ─────────────────────────────────────────────────────────────────────────────────


def good_pictures(samples: Path) -> list[bytes]:
    """The samples as they are, and a photo in many sizes, so that no two allocations need be alike."""
    astronaut = decode_image((samples / "astronaut.png").read_bytes()).image
    sizes = (160, 240, 333, 480, 640, 900, 1400)
    resized = (cv2.resize(astronaut, (size, size), interpolation=cv2.INTER_AREA) for size in sizes)
    photos = [cv2.imencode(".jpg", np.ascontiguousarray(image))[1].tobytes() for image in resized]
    pictures = sample_pictures(samples)
    return photos * 4 + [pictures[name] for name in ("twelve astronauts", "astronaut webp", "cat", "plain")]


def bad_pictures(good: Sequence[bytes], chance: random.Random) -> list[bytes]:
    photo = good[3]
    cut = [photo[: chance.randrange(len(photo))] for _ in range(10)]
    noise = [photo[:2] + chance.randbytes(2_000), chance.randbytes(2_000), b"no picture", b"\0"]
    return [*cut, *noise, with_size(photo, 30_000, 30_000), png_bomb(30_000), gif_bomb(30_000, 30_000)]


@dataclass
class Tally:
    """What clients have sent and what came of it; ``wrong`` are answers that are not what was to be expected."""

    requests: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    answers: dict[int, bytes] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, kind: str, outcome: object, expected: Sequence[object]) -> None:
        with self.lock:
            self.requests += 1
            self.outcomes[f"{kind} {outcome}"] += 1
            if outcome not in expected:
                self.wrong.append(f"{kind}: {outcome}")

    def compare(self, picture: int, answer: bytes) -> None:
        """A picture is answered as it was the first time."""
        with self.lock:
            if self.answers.setdefault(picture, answer) != answer:
                self.wrong.append(f"picture {picture}: another answer")


class Client:
    """Sends one thing after another, chosen by chance but the same in every run."""

    def __init__(self, port: int, number: int, good: Sequence[bytes], tally: Tally) -> None:
        self._chance = random.Random(number)
        self._good = good
        self._bad = bad_pictures(good, self._chance)
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        self._tally = tally
        kinds: list[tuple[int, Callable[[], None]]] = [
            (40, self._photo),
            (15, self._bad_file),
            (8, self._form),
            (8, self._base64),
            (6, self._drawn),
            (5, self._predict),
            (4, self._api_analyze),
            (4, self._analyze),
            (4, self._leave),
            (3, self._batch),
            (2, self._stream),
            (1, self._too_large),
        ]
        self._weights, self._kinds = zip(*kinds, strict=True)

    def run(self, stop: threading.Event, pause_s: float) -> None:
        while not stop.wait(pause_s):
            [kind] = self._chance.choices(self._kinds, self._weights)
            try:
                kind()
            except (OSError, ValueError, KeyError, http.client.HTTPException, WebSocketException) as error:
                self._tally.count(kind.__name__, type(error).__name__, ())
                self._connection.close()
        self._connection.close()

    def _ask(self, path: str, body: bytes, content_type: str, *expected: int, **headers: str) -> tuple[int, bytes]:
        self._connection.request("POST", path, body, {"Content-Type": content_type, **headers})
        answer = self._connection.getresponse()
        told = answer.read()
        self._tally.count(path.partition("?")[0], answer.status, (*expected, *BUSY))
        return answer.status, told

    def _photo(self) -> None:
        number = self._chance.randrange(len(self._good))
        status, answer = self._ask("/v1/analyze", self._good[number], "image/jpeg", 200)
        if status == 200:
            self._tally.compare(number, comparable(answer))

    def _bad_file(self) -> None:
        self._ask("/v1/analyze", self._chance.choice(self._bad), "image/jpeg", 413, 415, 422)

    def _form(self) -> None:
        self._ask("/v1/analyze?max_faces=3", in_form(self._picture()), FORM, 200)

    def _base64(self) -> None:
        self._ask("/v1/analyze?annotate=base64", in_json(self._picture()), JSON, 200)

    def _drawn(self) -> None:
        self._ask("/v1/analyze", self._picture(), "image/jpeg", 200, Accept="image/jpeg")

    def _predict(self) -> None:
        status, answer = self._ask("/predict", in_form(self._picture()), FORM, 200)
        if status == 200:
            self._connection.request("GET", json.loads(answer)["output_image"])
            drawn = self._connection.getresponse()
            drawn.read()
            self._tally.count("/images", drawn.status, (200,))

    def _api_analyze(self) -> None:
        self._ask("/api/analyze", in_form(self._picture()), FORM, 200)

    def _analyze(self) -> None:
        self._ask("/analyze", in_form(self._picture()), FORM, 200)

    def _batch(self) -> None:
        pictures = [*(self._picture() for _ in range(3)), self._chance.choice(self._bad)]
        self._ask("/v1/batch", in_form(*pictures), FORM, 200)

    def _too_large(self) -> None:
        """A length beyond the limit is answered before there is a body."""
        with self._socket() as raw:
            raw.sendall(post("/v1/analyze", b"").replace(b"Length: 0", b"Length: 99999999"))
            self._tally.count("too large", int(raw.recv(12)[9:]), (413, *BUSY))

    def _leave(self) -> None:
        """In the middle of a body, or before the answer; with a farewell, or without."""
        request = post("/v1/analyze", self._picture())
        with self._socket() as raw:
            raw.sendall(request[: self._chance.choice((200, len(request) // 2, len(request)))])
            if self._chance.random() < 0.5:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._tally.count("leave", "left", ("left",))

    def _stream(self) -> None:
        stream = connect(f"ws://127.0.0.1:{self._port}/v1/stream", compression=None, proxy=None, max_size=None)
        with stream:
            for number in range(5):
                stream.send(json.dumps({"id": number, "options": {"max_faces": 5}}))
                stream.send(self._bad[0] if number == 2 else self._good[number])
                answer = json.loads(stream.recv(PATIENCE_S))
                outcome = answer["error"]["code"] if "error" in answer else "answered"
                self._tally.count("frame", outcome, ("answered", "image_truncated", *_NO_ROOM))
            if self._chance.random() < 0.5:  # away with a frame under way
                stream.send(self._good[0])
                stream.socket.shutdown(socket.SHUT_RDWR)

    def _picture(self) -> bytes:
        return self._chance.choice(self._good)

    def _socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), PATIENCE_S)


_NO_ROOM = ("overloaded", "deadline_exceeded")

# ── what is seen ─────────────────────────────────────────────────────────────────────────────────


class Sample(NamedTuple):
    """The server's process at a moment, after so many requests."""

    requests: int
    rss_mib: float
    descriptors: int
    threads: int


def watch(server: Server, tally: Tally, seconds: float, interval_s: float) -> list[Sample]:
    process = psutil.Process(server.process.pid)
    until = time.monotonic() + seconds
    samples = []
    while time.monotonic() < until:
        rss_mib = process.memory_info().rss / MIB
        samples.append(Sample(tally.requests, rss_mib, descriptors(server), process.num_threads()))
        time.sleep(interval_s)
    return samples


def descriptors(server: Server) -> int:
    """As the process counts them itself: only root can look into a process that forbids dumps."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)) as connection:
        connection.request("GET", "/metrics")
        told = connection.getresponse().read().decode()
    for line in told.splitlines():
        name, _, value = line.partition(" ")
        if name == "process_open_fds":
            return round(float(value))
    raise ValueError("no process_open_fds in /metrics")


def theil_sen(x: Sequence[float], y: Sequence[float]) -> float:
    """The median of the slopes of all pairs of points that differ in x."""
    xs, ys = np.asarray(x, np.float64), np.asarray(y, np.float64)
    left, right = np.triu_indices(len(xs), 1)
    run = xs[right] - xs[left]
    apart = run != 0
    return float(np.median((ys[right] - ys[left])[apart] / run[apart]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run came to; pairs are of the second fifth and the last."""

    minutes: float
    leak_bytes: int
    requests: int
    requests_per_s: float
    rss_mib: tuple[float, float]
    peak_mib: float
    slope_mib: float
    bound_mib: float
    descriptors: tuple[float, float]
    threads: tuple[float, float]
    outcomes: dict[str, int]
    wrong: list[str]

    @property
    def faults(self) -> list[str]:
        faults = []
        if not self.slope_mib <= self.bound_mib:  # nor NaN
            faults.append("memory grows")
        if self.descriptors[1] > self.descriptors[0] + MORE_DESCRIPTORS:
            faults.append("descriptors grow")
        if self.threads[1] > self.threads[0] + MORE_THREADS:
            faults.append("threads grow")
        if self.wrong:
            faults.append("answers are wrong")
        return faults


def judge(samples: Sequence[Sample], tally: Tally, *, seconds: float, leak_bytes: int, bound_mib: float) -> Report:
    fifth = len(samples) // 5
    second, last, warm = samples[fifth : 2 * fifth], samples[-fifth:], samples[fifth:]

    def medians(name: str) -> tuple[float, float]:
        before, after = (statistics.median(getattr(one, name) for one in part) for part in (second, last))
        return round(before, 1), round(after, 1)

    slope = theil_sen([one.requests for one in warm], [one.rss_mib for one in warm])
    return Report(
        minutes=round(seconds / 60, 2),
        leak_bytes=leak_bytes,
        requests=tally.requests,
        requests_per_s=round(tally.requests / seconds, 1),
        rss_mib=medians("rss_mib"),
        peak_mib=round(max(one.rss_mib for one in samples), 1),
        slope_mib=round(slope * REQUESTS, 3),
        bound_mib=bound_mib,
        descriptors=medians("descriptors"),
        threads=medians("threads"),
        outcomes=dict(sorted(tally.outcomes.items())),
        wrong=tally.wrong[:20],
    )


HEAD = (
    "| leak, bytes | minutes | requests | per s | RSS, MiB | peak | MiB per 10,000 requests | descriptors | threads | |"
)


def row(report: Report) -> str:
    def pair(numbers: tuple[float, float]) -> str:
        return f"{numbers[0]:g} → {numbers[1]:g}"

    cells = (
        report.leak_bytes,
        f"{report.minutes:g}",
        report.requests,
        f"{report.requests_per_s:g}",
        pair(report.rss_mib),
        f"{report.peak_mib:g}",
        f"{report.slope_mib:+.2f} (≤ {report.bound_mib:g})",
        pair(report.descriptors),
        pair(report.threads),
        ", ".join(report.faults) or "flat",
    )
    return f"| {' | '.join(map(str, cells))} |"


# ── the run ──────────────────────────────────────────────────────────────────────────────────────


def soak(store: ModelStore, options: argparse.Namespace) -> tuple[Report, list[Sample]]:
    seconds = options.minutes * 60
    arguments = ["--profile", options.profile, *options.serve]
    leaks = options.leak_bytes
    started = leaking_server(store, leaks, *arguments) if leaks else dulian_server(store, *arguments)
    tally, stop, good = Tally(), threading.Event(), good_pictures(store.pull_samples())
    with started as server:
        clients = [Client(server.port, number, good, tally) for number in range(options.clients)]
        threads = [threading.Thread(target=one.run, args=(stop, options.pause_ms / 1000)) for one in clients]
        for thread in threads:
            thread.start()
        try:
            samples = watch(server, tally, seconds, min(2.0, seconds / 100))
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE_S)
    return judge(samples, tally, seconds=seconds, leak_bytes=leaks, bound_mib=options.bound_mib), samples


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="20 if not given, a fifth of which is warm-up")
    parser.add_argument("--leak-bytes", type=int, default=0, metavar="N", help="leak so many bytes for every picture")
    parser.add_argument(
        "--bound-mib", type=float, default=BOUND_MIB, metavar="N", help="how much memory may grow by in 10,000 requests"
    )
    parser.add_argument("--profile", default="standard")
    parser.add_argument("--clients", type=int, default=2, help="2 if not given")
    parser.add_argument("--pause-ms", type=float, default=40.0, help="of each client between two requests")
    parser.add_argument("--model-dir", type=Path, default=os.environ.get("DULIAN_MODEL_DIR"))
    parser.add_argument("--json", action="store_true", help="print the report, and every sample, as JSON too")
    parser.add_argument("serve", nargs="*", help="arguments of dulian serve")
    options = parser.parse_args(arguments)
    report, samples = soak(ModelStore(model_dir=options.model_dir), options)
    said = [HEAD, "|---" * 10 + "|", row(report)]
    if options.json:
        said.append(json.dumps({**asdict(report), "faults": report.faults, "samples": samples}))
    sys.stdout.write("\n".join(said) + "\n")
    return bool(report.faults)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
