"""P22: a service under mixed load for long, whose memory, descriptors and threads must stay where they are.

A few clients send photos, bad files, batches, frames and the articles' forms, and leave in the middle, while the
server's process is looked at from outside. The first fifth of the time is warm-up. After it:

- Private memory over the number of requests must not rise by more than a bound (2 MiB for 10,000 requests). It is
  resident memory without what is shared: files that are mapped, and the room for drawn pictures, which has a size. The
  slope is over requests because a leak is one per request, however fast the machine is. It is Theil and Sen's, the
  median of the slopes between all pairs of samples: resident memory has spikes (a picture that is not done yet) and
  steps (the allocator takes a piece, or gives one back), and a line of least squares follows each of them, the more so
  near the ends; a median does not, as long as they are fewer than 29 % of the samples. A leak moves all pairs. Samples
  a few seconds apart are not independent, so that no interval of confidence is reckoned from their number.
- Open descriptors and threads are whole numbers: the median of the last fifth may be above that of the second fifth by
  a small constant only.
- Every answer must be the one that its request deserves.

``--leak-bytes 1024`` is the negative control: the same run with a leak put in from outside must miss the target. Two
things would hide so small a leak for most of an hour, and are avoided. Memory in use swings by tens of MiB with the
pictures under way, so that clients rest for a moment while a sample is taken. And freed blocks of large pictures leave
holes that small blocks fill for long before the process grows, so that glibc is told to map large blocks by themselves;
``--usual-allocator`` leaves it as it is in operation, where 20 minutes only tell leaks of several KiB. So measured, a
process without a leak still settles during its first 10,000 requests; a leak of 1 KiB is seen after 2,000.

What stands after ``--`` goes to ``dulian serve``.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import socket
import statistics
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import cv2
import numpy as np
import psutil
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from dulian.image import decode_image
from tests.golden.pictures import sample_pictures
from tests.pictures import gif_bomb, png_bomb, with_size
from tests.promises.envelopes import FORM, JSON, in_form, in_json
from tests.promises.harness import PATIENCE_S, Server, comparable, dulian_server, leaking_server, post
from tests.soak import Figure, arguments, filled_store, note, report

MIB = 2**20
BOUND_MIB = 2.0
REQUESTS = 10_000
MORE_DESCRIPTORS = 8
MORE_THREADS = 2
# glibc maps every block of a picture by itself, and gives it back at once.
EXACT_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"}
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
        self.turn = threading.Lock()
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
                with self.turn:
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
    """The server's process at a moment of rest, after so many requests."""

    requests: int
    private_mib: float
    rss_mib: float
    descriptors: int
    threads: int


def watch(
    server: Server, tally: Tally, turns: Sequence[threading.Lock], seconds: float, interval_s: float
) -> list[Sample]:
    process = psutil.Process(server.process.pid)
    until = time.monotonic() + seconds
    samples = []
    while time.monotonic() < until:
        time.sleep(interval_s)
        with ExitStack() as rest:
            for turn in turns:
                rest.enter_context(turn)
            descriptors = at_rest(server)
            memory = process.memory_info()
            private_mib, rss_mib = (memory.rss - memory.shared) / MIB, memory.rss / MIB
            samples.append(Sample(tally.requests, private_mib, rss_mib, descriptors, process.num_threads()))
    return samples


def at_rest(server: Server) -> int:
    """Wait until nobody's picture is worked on any more; how many descriptors the process has then.

    It counts them itself: only root can look into a process that forbids dumps.
    """
    until = time.monotonic() + PATIENCE_S
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)) as connection:

        def told(path: str) -> bytes:
            connection.request("GET", path)
            return connection.getresponse().read()

        while (status := json.loads(told("/v1/status")))["busy"] or status["queue"]["length"]:
            if time.monotonic() > until:
                raise RuntimeError("the service is at work although nobody asks")
            time.sleep(0.01)
        found = re.search(rb"^process_open_fds (\S+)", told("/metrics"), re.MULTILINE)
    assert found
    return round(float(found[1]))


def theil_sen(x: Sequence[float], y: Sequence[float]) -> float:
    """The median of the slopes of all pairs of points that differ in x."""
    xs, ys = np.asarray(x, np.float64), np.asarray(y, np.float64)
    left, right = np.triu_indices(len(xs), 1)
    run = xs[right] - xs[left]
    apart = run != 0
    return float(np.median((ys[right] - ys[left])[apart] / run[apart]))


def judge(samples: Sequence[Sample], tally: Tally, at: str, *, bound_mib: float = BOUND_MIB) -> list[Figure]:
    fifth = len(samples) // 5
    second, last, warm = samples[fifth : 2 * fifth], samples[-fifth:], samples[fifth:]

    def median(name: str, part: Sequence[Sample]) -> float:
        return statistics.median(getattr(one, name) for one in part)

    def gained(name: str) -> float:
        return median(name, last) - median(name, second)

    slope = theil_sen([one.requests for one in warm], [one.private_mib for one in warm])
    return [
        Figure("P22", f"{at}: requests", tally.requests),
        Figure("P22", f"{at}: wrong answers", len(tally.wrong), at_most=0),
        Figure("P22", f"{at}: memory, resident, second fifth", median("rss_mib", second), "MiB"),
        Figure("P22", f"{at}: memory, resident, last fifth", median("rss_mib", last), "MiB"),
        Figure("P22", f"{at}: memory, growth in 10,000 requests", slope * REQUESTS, "MiB", at_most=bound_mib),
        Figure("P22", f"{at}: descriptors gained", gained("descriptors"), at_most=MORE_DESCRIPTORS),
        Figure("P22", f"{at}: threads gained", gained("threads"), at_most=MORE_THREADS),
    ]


# ── the run ──────────────────────────────────────────────────────────────────────────────────────


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=20.0, help="20 if not given, a fifth of which is warm-up")
    parser.add_argument("--leak-bytes", type=int, default=0, metavar="N", help="leak so many bytes for every picture")
    parser.add_argument("--bound-mib", type=float, default=BOUND_MIB, metavar="N", help="growth in 10,000 requests; 2")
    parser.add_argument("--profile", default="standard")
    parser.add_argument("--usual-allocator", action="store_true", help="leave glibc as it is in operation")
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--pause-ms", type=float, default=40.0, help="of each client between two requests")
    parser.add_argument("--samples", action="store_true", help="tell in the end what was asked and seen")
    parser.add_argument("serve", nargs="*", help="arguments of dulian serve")
    options = parser.parse_args(given)
    store, leak, seconds = filled_store(), options.leak_bytes, options.minutes * 60
    tally, stop, good = Tally(), threading.Event(), good_pictures(store.pull_samples())
    chosen = ("--profile", options.profile, *options.serve)
    with ExitStack() as running:
        running.enter_context(mock.patch.dict(os.environ, {} if options.usual_allocator else EXACT_ALLOCATOR))
        started = leaking_server(store, leak, *chosen) if leak else dulian_server(store, *chosen)
        server = running.enter_context(started)
        clients = [Client(server.port, number, good, tally) for number in range(options.clients)]
        threads = [threading.Thread(target=one.run, args=(stop, options.pause_ms / 1000)) for one in clients]
        for thread in threads:
            thread.start()
        try:
            samples = watch(server, tally, [one.turn for one in clients], seconds, min(2.0, seconds / 100))
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE_S)
    if options.samples:
        note(json.dumps(tally.outcomes, sort_keys=True))
        for sample in samples:
            note(json.dumps(sample._asdict()))
    for answer in tally.wrong[:20]:
        note(answer)
    leaking = f", leak of {leak} bytes" if leak else ""
    at = f"soak of {options.minutes:g} minutes{leaking}"
    return report(judge(samples, tally, at, bound_mib=options.bound_mib), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
