"""``dulian batch merge``: all records of a batch as one file, or those that are asked for."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Annotated

import typer

from dulian.cli import interruptible
from dulian.cli.batch.progress import Watch
from dulian.cli.batch.status import Place
from dulian.cli.options import Tongue


def merge(
    place: Place,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="By its suffix jsonl, csv, parquet, html, txt; or -.")
    ],
    kind: Annotated[
        str | None, typer.Option("--format", help="If the suffix does not say it, and for standard output.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="CONDITION", help="Only what meets it: error, faces=0, 'age<18'; repeat for and."),
    ] = None,
    per_face: Annotated[
        bool, typer.Option("--per-face", help="A row per face in csv and parquet, instead of one per picture.")
    ] = False,
    thumbnails: Annotated[int, typer.Option(min=0, max=1000, help="Small pictures in the report, at most.")] = 0,
    language: Tongue = None,
) -> None:
    """Write one record per input, in the order of the inputs, into one file; a txt file has their names alone.

    It can be run as often as you like, and DEST stays as it is. Exit code 3: records are missing or damaged.
    """
    from dulian.batch.destinations import open_destination
    from dulian.batch.inputs import open_reader
    from dulian.batch.job import read_job
    from dulian.batch.merge import STDOUT
    from dulian.batch.merge import merge as write
    from dulian.batch.writers import Form
    from dulian.image import ImageLimits
    from dulian.settings import choose_language, read_settings

    tongue = choose_language(read_settings(language=language).language)
    interruptible()
    destination = open_destination(place)
    job = read_job(destination)
    with ExitStack() as stack:
        watch = stack.enter_context(Watch(tongue))
        reader = open_reader(base=job.base, max_bytes=ImageLimits().max_bytes) if thumbnails else None
        if reader is not None:
            stack.callback(reader.close)
        heard = partial(watch.doing, "merging", total=job.inputs)
        merged = write(
            destination,
            job,
            output,
            kind=kind,
            where=where or (),
            form=Form(
                per_face=per_face, language=tongue, filters=tuple(where or ()), thumbnails=thumbnails, reader=reader
            ),
            progress=lambda count: heard(count=count),
        )
    if output != STDOUT:
        watch.say("merged", written=merged.written, records=merged.records, place=output)
