"""A batch from its sources to its records: list, check or begin, compute what is missing."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from dulian.batch.analysis import Analysis, ModelAnalysis
from dulian.batch.destinations import Destination
from dulian.batch.drivers import Driver
from dulian.batch.inputs import Lister, list_inputs, open_reader
from dulian.batch.job import JOB, Job, check_same, find_job, read_job
from dulian.batch.ledger import Ledger
from dulian.batch.manifest import Manifest, listed
from dulian.batch.records import Input
from dulian.batch.tally import Tally
from dulian.batch.work import Orders
from dulian.errors import InputNotFoundError, MalformedInputError
from dulian.image import ImageLimits
from dulian.messages import Language
from dulian.sources import printable

# What is lost when a process dies, and what is put into one file. Of few pictures shards are small, so that all cores
# have some; of very many large, so that their files can still be listed. Shares of one job must agree on it, whatever
# machine they run on.
SHARD_SIZE, MIN_SHARD_SIZE, LARGE_SHARD_SIZE, MAX_SHARD_SIZE = 256, 8, 1000, 10_000
_FEW_SHARDS, _MANY_SHARDS = 64, 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a batch is to be: what of it is not said in the sources is part of its identity.

    ``dedupe`` answers pictures with the same bytes once. ``pictures`` are drawn, in this language, of all with faces.
    Without a ``shard_size`` it goes by the number of inputs.
    """

    sources: Sequence[str]
    analysis: Analysis
    column: str | None = None
    base: str | None = None
    limit: int | None = None
    dedupe: bool = False
    pictures: Language | None = None
    shard_size: int | None = None

    def job(self, manifest: Manifest, base: str, begun: Job | None) -> Job:
        """The job of what was listed; cut as the one that was begun, if there is one and nothing else is asked for."""
        cut = fitting_shard_size(manifest.inputs) if begun is None else begun.shard_size
        return Job(
            inputs=manifest.inputs,
            manifest=manifest.sha256,
            model=dict(self.analysis.model()),
            options=self.options(),
            shard_size=self.shard_size or cut,
            base=base,
        )

    def options(self) -> dict[str, object]:
        """What shapes records and pictures, apart from the list and the model."""
        return {**self.analysis.options(), "dedupe": self.dedupe, "pictures": self.pictures}


def fitting_shard_size(inputs: int) -> int:
    """How many inputs a shard of so many shall have."""
    small = min(SHARD_SIZE, max(MIN_SHARD_SIZE, inputs // _FEW_SHARDS))
    return max(small, min(LARGE_SHARD_SIZE, inputs // _MANY_SHARDS))


def prepare(
    wish: Wish, destination: Destination, *, told: Callable[[int], None] = lambda count: None
) -> tuple[Job, int]:
    """The job of a wish: begun now, or the same as was begun before; and how many files are no pictures by their names.

    ``told`` hears how many inputs are listed.

    Raises:
        JobChangedError: Another one was begun there.
        MalformedInputError: There is no picture in the sources.
        DestinationError: The destination cannot be written, or cannot commit.
    """
    destination.prepare()
    with listing(wish, destination, told=told) as found:
        begun = find_job(destination)
        job = wish.job(found.manifest, found.base, begun)
        if begun is None:
            found.manifest.write(destination, job)
            destination.create(JOB, job.to_json())
            begun = read_job(destination)
    check_same(begun, job)
    return begun, found.lister.left_alone


@dataclass(frozen=True, slots=True)
class Listing:
    """What a wish's sources hold; relative names are below ``base``."""

    manifest: Manifest
    lister: Lister
    base: str


@contextmanager
def listing(
    wish: Wish, destination: Destination, *, told: Callable[[int], None] = lambda count: None
) -> Iterator[Listing]:
    """List what a wish is of; the list is gone when the block is left.

    Raises:
        MalformedInputError: There is no picture in the sources.
        InputNotFoundError: There is none that could be opened.
    """
    base = os.path.abspath(wish.base or ".")
    sources = printable(", ".join(wish.sources))
    lister = list_inputs(wish.sources, column=wish.column, base=wish.base)
    with ExitStack() as stack:
        reader = None
        if wish.dedupe:
            reader = open_reader(base=base, max_bytes=ImageLimits().max_bytes)
            stack.callback(reader.close)
        inputs = _outside(lister, destination, wish, base)
        manifest = stack.enter_context(listed(inputs, limit=wish.limit, same_bytes=reader, told=told))
        if not manifest.inputs:
            raise MalformedInputError(f"no picture found in {sources}")
        if all(one.problem for one in manifest.read()):
            # Mostly a slip of the pen, after which the right name would be refused as another job.
            why = next(one.problem[1] for one in manifest.read() if one.problem)
            raise InputNotFoundError(f"nothing of {sources} can be read: {why}")
        yield Listing(manifest, lister, base)


def _outside(inputs: Iterable[Input], destination: Destination, wish: Wish, base: str) -> Iterable[Input]:
    """Inputs without what the batch itself writes, where its destination lies in one of its sources."""
    own = f"{destination.url.rstrip('/')}/"

    def place(location: str) -> str:
        return location if "://" in location else printable(os.path.normpath(os.path.join(base, location)))

    if not any(own.startswith(f"{place(_fixed(source)).rstrip('/')}/") for source in wish.sources):
        return inputs
    return (one for one in inputs if not place(one.location).startswith(own))


def _fixed(source: str) -> str:
    """The folder that a glob pattern searches; anything else as it is."""
    fixed = re.split(r"[*?\[]", source, maxsplit=1)[0]
    return source if fixed == source else os.path.dirname(fixed) or "."


def resume(
    destination: Destination, *, model_dir: Path | None = None, offline: bool = False
) -> tuple[Job, ModelAnalysis]:
    """The job that lies there, and the analysis that it was begun with.

    Raises:
        InputNotFoundError: There is none.
        JobChangedError: The models that are installed are not those that it was begun with.
        DestinationError: The destination cannot be written, or cannot commit.
    """
    job = read_job(destination)
    destination.prepare()
    analysis = ModelAnalysis.of_job(job.model, job.options, model_dir=model_dir, offline=offline)
    check_same(job, replace(job, model=dict(analysis.model())))
    return job, analysis


def run(
    job: Job,
    destination: Destination,
    analysis: Analysis,
    *,
    driver: Driver,
    threads: int = 1,
    share: tuple[int, int] = (0, 1),
    tally: Tally | None = None,
) -> Tally:
    """Compute all records of a share that are missing; what was done, in the tally.

    Raises:
        DulianError: As :meth:`dulian.batch.drivers.Driver.run`; what is committed stays, and the next run goes on.
    """
    ledger = Ledger(job, destination, share=share, tally=tally)
    orders = Orders(job=job, destination=destination, analysis=analysis, threads=threads)
    if not ledger.finished:
        driver.run(ledger, orders)
    return ledger.tally
