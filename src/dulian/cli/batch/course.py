"""The course of ``dulian batch run``: begin or go on, compute, write what is wanted at the end, and tell."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dulian.cli import interruptible
from dulian.cli.analyze import ANY_FAILED
from dulian.cli.batch.asked import Crew
from dulian.cli.batch.outcome import Outcome, command_line, count_records, print_facts, print_outcome
from dulian.cli.batch.progress import Watch
from dulian.cli.batch.texts import TEXTS
from dulian.errors import DulianError

if TYPE_CHECKING:
    from dulian.batch.analysis import ModelAnalysis
    from dulian.batch.destinations import Destination
    from dulian.batch.drivers import Driver
    from dulian.batch.job import Job
    from dulian.batch.run import Wish
    from dulian.messages import Language

# What the files of the end are called, inside the destination, by their kind.
RECORDS_FILE, REPORT_FILE = "records", "report"
HTML = "html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a run is to be done, whichever job it is of."""

    output: str
    profile: str
    share: tuple[int, int] | None
    formats: tuple[str, ...]
    where: tuple[str, ...]
    thumbnails: int
    driver: Driver
    crew: Crew
    model_dir: Path | None
    offline: bool
    language: Language
    as_json: bool

    def text(self, name: str, **values: object) -> str:
        """A text in the language of this run."""
        return TEXTS[self.language][name].format(**values)


def look(plan: Plan, wish: Wish) -> None:
    """Say what would be done."""
    from dulian.batch.destinations import open_destination
    from dulian.batch.preview import preview
    from dulian.cli.batch.dry_run import print_preview

    interruptible(terminated=True)
    _fetch_models(plan, plan.profile)
    threads = plan.crew.processes * plan.crew.threads
    with Watch(plan.language) as watch:
        found = preview(wish, open_destination(plan.output), threads=threads, told=_listing(watch, wish))
    print_preview(found, plan.output, plan.language, threads=threads, as_json=plan.as_json)


def begin(plan: Plan, wish: Wish, *, list_only: bool) -> None:
    """Begin a job, or go on with it if it is the same that was begun; then as :func:`go_on`."""
    from dulian.batch.analysis import ModelAnalysis
    from dulian.batch.destinations import open_destination
    from dulian.batch.run import prepare

    interruptible(terminated=True)
    started = time.monotonic()
    destination = open_destination(plan.output)
    _fetch_models(plan, plan.profile)
    with Watch(plan.language) as watch:
        job, left_alone = prepare(wish, destination, told=_listing(watch, wish))
    if list_only:
        _tell_listed(plan, job)
        return
    # With the engine that was chosen here, also where another machine would choose another one.
    analysis = ModelAnalysis.of_job(job.model, job.options, model_dir=plan.model_dir, offline=plan.offline)
    _Course(plan, destination, job, analysis, started, left_alone).run()


def go_on(plan: Plan) -> None:
    """Compute what is missing of the job that lies in the destination, write the files of the end, and tell."""
    from dulian.batch.destinations import open_destination
    from dulian.batch.job import read_job
    from dulian.batch.run import resume

    interruptible(terminated=True)
    started = time.monotonic()
    destination = open_destination(plan.output)
    _fetch_models(plan, read_job(destination).model["profile"])
    job, analysis = resume(destination, model_dir=plan.model_dir, offline=plan.offline)
    _Course(plan, destination, job, analysis, started, 0).run()


class _Course:
    """One run of a job that is begun."""

    def __init__(
        self,
        plan: Plan,
        destination: Destination,
        job: Job,
        analysis: ModelAnalysis,
        started: float,
        left_alone: int,
    ) -> None:
        from dulian.batch.tally import Tally

        self._plan, self._destination, self._job, self._analysis = plan, destination, job, analysis
        self._started, self._left_alone = started, left_alone
        self._tally = Tally()

    def run(self) -> None:
        first, step = self._plan.share or (0, 1)
        mine = range(first, self._job.shards, step)
        with Watch(self._plan.language) as watch:
            self._warn_of_others(watch, mine)
            computing_s = self._compute(watch)
            kinds, faces = self._count(watch, mine)
            files = tuple(self._write(kind, watch) for kind in self._plan.formats)
        tally = self._tally
        outcome = Outcome(
            destination=self._plan.output,
            job=self._job,
            share=self._plan.share,
            inputs=tally.inputs,
            kinds=kinds,
            faces=faces,
            before=tally.before,
            computed=tally.computed,
            quarantined=tally.quarantined,
            deaths=tally.deaths,
            seconds=time.monotonic() - self._started,
            computing_s=computing_s,
            left_alone=self._left_alone,
            files=files,
        )
        print_outcome(outcome, self._plan.language, as_json=self._plan.as_json)
        # A share ends well when it is done, so that no scheduler tries again what cannot be mended.
        if outcome.errors and not self._plan.share:
            raise typer.Exit(ANY_FAILED)

    def _warn_of_others(self, watch: Watch, mine: range) -> None:
        from dulian.batch.attempts import others_at_work

        if others := others_at_work(self._destination, mine):
            watch.say("at_work", pids=", ".join(map(str, sorted(others))))

    def _compute(self, watch: Watch) -> float:
        """Have everything committed; the seconds that it took."""
        from dulian.batch.run import run

        started = time.monotonic()
        self._tally.changed = watch.tally
        share = ("--shard", "/".join(map(str, self._plan.share))) if self._plan.share else ()
        command = command_line("run", "--output", self._plan.output, *share)
        try:
            run(
                self._job,
                self._destination,
                self._analysis,
                driver=self._plan.driver,
                threads=self._plan.crew.threads,
                share=self._plan.share or (0, 1),
                tally=self._tally,
            )
        except KeyboardInterrupt:
            watch.say("stopped", command=command)
            raise
        except DulianError:
            watch.say("broken_off", command=command)
            raise
        return time.monotonic() - started

    def _count(self, watch: Watch, mine: range) -> tuple[Counter[str], int]:
        """Kinds of records, and faces: as they were told, or out of the records if some are of earlier runs."""
        tally = self._tally
        if tally.computed == tally.inputs:
            return tally.kinds, tally.faces
        heard = partial(watch.doing, "reading", total=tally.inputs)
        return count_records(self._destination, self._job, mine, lambda count: heard(count=count))

    def _write(self, kind: str, watch: Watch) -> str:
        """One of the files of the end; where it is."""
        from dulian.batch.inputs import open_reader
        from dulian.batch.merge import merge
        from dulian.batch.writers import Form
        from dulian.image import ImageLimits

        plan, job = self._plan, self._job
        name = f"{REPORT_FILE if kind == HTML else RECORDS_FILE}.{kind}"
        heard = partial(watch.doing, "writing", total=job.inputs, name=name)
        form = Form(language=plan.language, filters=plan.where, thumbnails=plan.thumbnails if kind == HTML else 0)
        with ExitStack() as stack:
            if form.thumbnails:
                reader = open_reader(base=job.base, max_bytes=ImageLimits().max_bytes)
                stack.callback(reader.close)
                form = replace(form, reader=reader)
            merge(
                self._destination,
                job,
                f"{self._destination.url.rstrip('/')}/{name}",
                where=plan.where,
                form=form,
                progress=lambda count: heard(count=count),
            )
        return f"{plan.output.rstrip('/')}/{name}"


def _fetch_models(plan: Plan, profile: str) -> None:
    """With a word about it, which workers could not say."""
    from dulian.cli.models import make_store
    from dulian.models.catalog import find_profile

    store = make_store(plan.model_dir, offline=plan.offline)
    for row in find_profile(profile).rows:
        if store.inspect(row).state != "ready":
            store.load(row)


def _listing(watch: Watch, wish: Wish) -> Callable[[int], None]:
    what = "comparing" if wish.dedupe else "listing"
    return lambda count: watch.doing(what, count=count)


def _tell_listed(plan: Plan, job: Job) -> None:
    if plan.as_json:
        typer.echo(json.dumps({"destination": plan.output, "job": job.id, "inputs": job.inputs, "shards": job.shards}))
        return
    texts = TEXTS[plan.language]
    print_facts([(texts["inputs"], plan.text("inputs_of", count=job.inputs, shards=job.shards, size=job.shard_size))])
    typer.echo(f"\n{plan.text('listed', command=command_line('run', '--output', plan.output))}")
