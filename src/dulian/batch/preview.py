"""What a batch would be, without beginning it: nothing is written into its destination, and nothing committed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dulian.batch.analysis import Analysis
from dulian.batch.destinations import Destination
from dulian.batch.inputs import open_reader
from dulian.batch.job import Job, committed_shards, find_job
from dulian.batch.manifest import Manifest
from dulian.batch.records import Input
from dulian.batch.run import Wish, listing
from dulian.errors import InputError
from dulian.image import ImageLimits

# Pictures that are looked at to tell how long all of them take, for each thread; and when that is enough.
_SAMPLE, _SAMPLE_PER_THREAD = 16, 4
_PATIENCE_S = 10.0

Begun = Literal["nothing", "same", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """``problems`` are the codes of inputs that would be errors without being opened.

    ``bytes`` are those of inputs whose size is known; of ``unknown_sizes`` it is not. ``begun`` tells of the job in the
    destination, ``committed`` how many of its inputs have their records. ``pictures_per_s`` is what this machine does.
    """

    inputs: int
    problems: Counter[str]
    duplicates: int
    bytes: int
    unknown_sizes: int
    left_alone: int
    shards: int
    shard_size: int
    begun: Begun
    committed: int
    pictures_per_s: float | None

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON types."""
        seconds = self.seconds
        return {**asdict(self), "problems": dict(self.problems), "seconds": seconds and round(seconds, 3)}

    @property
    def seconds(self) -> float | None:
        """How long what is missing would take here."""
        return (self.inputs - self.committed) / self.pictures_per_s if self.pictures_per_s else None


def preview(
    wish: Wish, destination: Destination, *, threads: int, told: Callable[[int], None] = lambda count: None
) -> Preview:
    """List, compare with what was begun, and measure a few pictures with so many threads.

    Raises:
        MalformedInputError: There is no picture in the sources.
    """
    with listing(wish, destination, told=told) as found:
        begun = find_job(destination)
        job = wish.job(found.manifest, found.base, begun)
        state: Begun = "nothing" if begun is None else "same" if begun.id == job.id else "other"
        seen = _Seen(threads)
        for number, one in enumerate(found.manifest.read()):
            seen.add(one, number, found.manifest)
        return Preview(
            inputs=job.inputs,
            problems=seen.problems,
            duplicates=seen.duplicates,
            bytes=seen.bytes,
            unknown_sizes=seen.unknown_sizes,
            left_alone=found.lister.left_alone,
            shards=job.shards,
            shard_size=job.shard_size,
            begun=state,
            committed=_committed(destination, job) if state == "same" else 0,
            pictures_per_s=_measure(seen.sample, wish.analysis, found.base, threads),
        )


class _Seen:
    """What a list of inputs consists of, and a sample that is spread over it."""

    def __init__(self, threads: int) -> None:
        self.problems: Counter[str] = Counter()
        self.duplicates = self.bytes = self.unknown_sizes = 0
        self.sample: list[Input] = []
        self._size = max(_SAMPLE, _SAMPLE_PER_THREAD * threads)

    def add(self, one: Input, number: int, manifest: Manifest) -> None:
        if one.problem is not None:
            self.problems[one.problem[0]] += 1
            return
        if one.same_as is not None:
            self.duplicates += 1
            return
        self.bytes += one.size or 0
        self.unknown_sizes += one.size is None
        if len(self.sample) < self._size and number * self._size >= len(self.sample) * manifest.inputs:
            self.sample.append(one)


def _committed(destination: Destination, job: Job) -> int:
    return sum(len(job.whole(shard)) for shard in committed_shards(destination, job))


def _measure(sample: Sequence[Input], analysis: Analysis, base: str, threads: int) -> float | None:
    """Pictures a second, reading included; the first time round networks are warmed up, unless that takes too long."""
    if not sample:
        return None
    analyze, reader = analysis.open(threads), open_reader(base=base, max_bytes=ImageLimits().max_bytes)

    def look(one: Input) -> None:
        with suppress(InputError):
            analyze(reader.read(one))

    try:
        with ThreadPoolExecutor(threads, thread_name_prefix="dulian-sample") as pool:
            rate = _timed(look, sample, pool)
            return rate if len(sample) / rate > _PATIENCE_S / 2 else _timed(look, sample, pool)
    finally:
        reader.close()


def _timed(look: Callable[[Input], None], sample: Sequence[Input], pool: ThreadPoolExecutor) -> float:
    """Pictures a second of those that are looked at before patience ends."""
    started = time.monotonic()

    def timed(one: Input) -> bool:
        if time.monotonic() - started > _PATIENCE_S:
            return False
        look(one)
        return True

    done = sum(pool.map(timed, sample))
    return done / (time.monotonic() - started)
