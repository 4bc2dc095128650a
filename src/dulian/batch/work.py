"""A range of a shard becomes records: pictures are read ahead while earlier ones are computed, in bounded memory."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from dulian.batch.analysis import Analysis
from dulian.batch.destinations import Destination
from dulian.batch.inputs import Reader, open_reader
from dulian.batch.job import Job, read_inputs
from dulian.batch.records import Input, Record, duplicate_record, error_record, failed_record, ok_record
from dulian.batch.shards import Range, encode, name_of_piece, name_of_shard
from dulian.batch.writers.pictures import draw, picture_name
from dulian.errors import InputError, InputUnavailableError
from dulian.image import DEFAULT_LIMITS, ImageLimits
from dulian.messages import Language

# Read ahead of what is computed: a file comes at once, an object of a store after many pictures' time.
READERS = 16
READ_AHEAD_BYTES = 48 * 2**20
UNKNOWN_BYTES = 4 * 2**20
# So many inputs one after the other that a store does not give: it is out of reach, and they are not to blame.
OUT_OF_REACH = 16

Told = Callable[[Record], None]


@dataclass(frozen=True, kw_only=True)
class Orders:
    """All that a process needs to work on a job; picklable."""

    job: Job
    destination: Destination
    analysis: Analysis
    threads: int = 1
    limits: ImageLimits = DEFAULT_LIMITS

    @property
    def language(self) -> Language | None:
        """That of the pictures to be drawn; None without any."""
        language: Language | None = self.job.options.get("pictures")
        return language


class StoppedError(Exception):
    """A range was given up half-way because the worker was told to stop."""


class Worker:
    """Computes ranges of one job in this process; :meth:`run` may be called from several threads at once."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._analyze = orders.analysis.open(orders.threads)
        self._reader: Reader = open_reader(base=orders.job.base, max_bytes=orders.limits.max_bytes)
        self._reading = ThreadPoolExecutor(READERS, thread_name_prefix="dulian-read")
        self._computing = ThreadPoolExecutor(orders.threads, thread_name_prefix="dulian-compute")
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Have :meth:`run` give up before its next picture; from any thread."""
        self._stopping.set()

    def close(self) -> None:
        """Let go of threads and files."""
        self._reading.shutdown(cancel_futures=True)
        self._computing.shutdown(cancel_futures=True)
        self._reader.close()

    def run(
        self,
        part: Range,
        attempt: str,
        told: Told = lambda record: None,
        *,
        read: Callable[[], None] = lambda: None,
    ) -> None:
        """Compute a range and commit its records; ``attempt`` lies in the destination while it is under way.

        ``read`` is called when nothing of it waits to be read any more: time to begin with another range.

        Raises:
            StoppedError: It was told to stop; nothing is committed.
            DestinationError: The destination fails; nothing is committed.
            InputUnavailableError: The store of the inputs is out of reach; nothing is committed.
        """
        job, destination = self._orders.job, self._orders.destination
        destination.replace(attempt, b"")
        try:
            inputs = read_inputs(destination, job, part.shard)[part.start : part.stop]
            records = []
            for record in self._answers(part, inputs, read):
                records.append(record)
                told(record)
            whole = part == job.whole(part.shard)
            name = name_of_shard(part.shard) if whole else name_of_piece(part)
            destination.create(name, encode(records, job=job.id, shard=part.shard))
        finally:
            destination.remove(attempt)

    def _answers(self, part: Range, inputs: Sequence[Input], read: Callable[[], None]) -> Iterator[Record]:
        """A record for each input, in order."""
        running: deque[Future[Record]] = deque()
        waiting = deque(enumerate(inputs, part.start))
        sizes: deque[int] = deque()
        missed = 0
        try:
            while waiting or running:
                while waiting and self._has_room(sizes, waiting[0][1]):
                    index, one = waiting.popleft()
                    sizes.append(_expected(one))
                    running.append(self._submit(Range(part.shard, index, index + 1), one))
                    if not waiting:
                        read()
                record = running.popleft().result()
                sizes.popleft()
                if self._stopping.is_set():
                    raise StoppedError
                missed = missed + 1 if _is_missed(record) else 0
                if missed == OUT_OF_REACH:
                    raise InputUnavailableError(
                        f"{missed} inputs one after the other could not be had, the last of them"
                        f" {record['source']} ({record['error']['message']}); run the batch again when they can"
                    )
                yield record
        finally:
            for future in running:
                future.cancel()

    def _has_room(self, sizes: Sequence[int], one: Input) -> bool:
        ahead = READERS + self._orders.threads
        return not sizes or (len(sizes) < ahead and sum(sizes) + _expected(one) <= READ_AHEAD_BYTES)

    def _submit(self, at: Range, one: Input) -> Future[Record]:
        if one.problem is not None:
            return _settled(error_record(one.source, *one.problem))
        if one.same_as is not None:
            return _settled(duplicate_record(one.source, one.same_as))
        data = self._reading.submit(self._reader.read, one)
        return self._computing.submit(self._answer, at, one, data)

    def _answer(self, at: Range, one: Input, reading: Future[bytes]) -> Record:
        try:
            data = reading.result()
        except InputError as error:
            return failed_record(one.source, error)
        sha256, size = hashlib.sha256(data).hexdigest(), len(data)
        try:
            result, image = self._analyze(data)
            record = ok_record(one.source, sha256, size, result.to_dict())
            if self._orders.language is not None and result.faces:
                record["annotated_image"] = self._draw(at, one, draw(image(), result, self._orders.language))
        except InputError as error:
            return failed_record(one.source, error, sha256=sha256, size=size)
        return record

    def _draw(self, at: Range, one: Input, picture: bytes) -> str:
        name = picture_name(at.shard, at.start, one.source)
        self._orders.destination.replace(name, picture)
        return name


def _settled(record: Record) -> Future[Record]:
    future: Future[Record] = Future()
    future.set_result(record)
    return future


def _expected(one: Input) -> int:
    """Bytes to be read."""
    if one.problem is not None or one.same_as is not None:
        return 0
    return UNKNOWN_BYTES if one.size is None else one.size


def _is_missed(record: Record) -> bool:
    return bool(record.get("error", {}).get("code") == InputUnavailableError.code)
