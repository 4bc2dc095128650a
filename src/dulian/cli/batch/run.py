"""``dulian batch run``: begin a batch, or go on with it, and say what became of it."""

from __future__ import annotations

from typing import Annotated

import typer

from dulian.cli.batch.asked import (
    DEFAULT_FORMATS,
    Drivers,
    choose_driver,
    make_crew,
    make_driver,
    parse_formats,
    parse_share,
)
from dulian.cli.batch.course import Plan, begin, go_on, look
from dulian.cli.options import (
    ALL_ATTRIBUTES,
    Attributes,
    ComputePrecision,
    Coverage,
    Engine,
    MaxFaces,
    MinConfidence,
    ModelDir,
    Offline,
    Order,
    OrderOfFaces,
    Profile,
    Tiles,
    Tongue,
    analyze_options,
)
from dulian.errors import MalformedInputError

SOURCES, OUTPUTS, COMPUTING, INSTEAD = "Which pictures", "What comes out", "Who computes", "Instead of computing"
# What belongs to a job for ever, and is asked for only when it is begun.
_OF_THE_JOB = (
    *("column", "base", "limit", "dedupe", "pictures", "shard_size", "dry_run", "list_only"),
    *("profile", "engine", "precision", "tiles", "max_faces", "min_confidence", "attributes", "order", "coverage"),
)


def run(
    context: typer.Context,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="DEST", help="Folder, or address in a store, for all of the batch.")
    ],
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE…]",
            help="Folders, globs, files, archives (zip, tar), lists (txt, csv, tsv, parquet, jsonl; - for stdin),"
            " places in stores (s3://…). Without any, what was begun in DEST goes on.",
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of the names in csv, tsv, parquet and jsonl.", rich_help_panel=SOURCES)
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Where names in lists begin.", rich_help_panel=SOURCES)
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="No more than the first so many.", rich_help_panel=SOURCES)
    ] = None,
    dedupe: Annotated[
        bool, typer.Option("--dedupe", help="Compute pictures with the same bytes once.", rich_help_panel=SOURCES)
    ] = False,
    profile: Profile = None,
    engine: Engine = None,
    precision: ComputePrecision = None,
    tiles: Tiles = False,
    max_faces: MaxFaces = 50,
    min_confidence: MinConfidence = None,
    attributes: Attributes = ALL_ATTRIBUTES,
    order: OrderOfFaces = Order.size,
    coverage: Coverage = 0.9,
    model_dir: ModelDir = None,
    offline: Offline = False,
    language: Tongue = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Also draw every picture with faces.", rich_help_panel=OUTPUTS)
    ] = False,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            help="Files made at the end: any of jsonl,csv,parquet,html,txt; or none.",
            rich_help_panel=OUTPUTS,
        ),
    ] = DEFAULT_FORMATS,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="What goes into them: error, faces=0, 'age<18'; repeat for and.",
            rich_help_panel=OUTPUTS,
        ),
    ] = None,
    thumbnails: Annotated[
        int, typer.Option(min=0, max=1000, help="Small pictures in the report, at most.", rich_help_panel=OUTPUTS)
    ] = 0,
    driver: Annotated[
        Drivers | None, typer.Option(help="Who computes; local if not given.", rich_help_panel=COMPUTING)
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="A Ray cluster; a local one is started if not given.", rich_help_panel=COMPUTING
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Only this share: 0/8 is the first of eight, 7/8 the last.", rich_help_panel=COMPUTING
        ),
    ] = None,
    shard_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000,
            help="Inputs committed together; by their number if not given.",
            rich_help_panel=COMPUTING,
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            help="By cores and memory if not given; with Ray, tasks at a time.",
            rich_help_panel=COMPUTING,
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Of each process; likewise.", rich_help_panel=COMPUTING)
    ] = None,
    stall_s: Annotated[
        float,
        typer.Option(
            min=1, help="Seconds without a sign after which a process counts as dead.", rich_help_panel=COMPUTING
        ),
    ] = 120.0,
    list_only: Annotated[
        bool,
        typer.Option(
            "--list-only", help="Begin the job, so that shares need not list, and end.", rich_help_panel=INSTEAD
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what would be done and how long it would take; write nothing.",
            rich_help_panel=INSTEAD,
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as one JSON object.")] = False,
) -> None:
    """Answer many pictures, each exactly once; run it again after whatever happened, and it goes on.

    Exit code 0: every picture was answered, or the share of --shard is done; 2: some were refused, or an option makes
    no sense; 3: DEST or the installation fails; 130 and 143: interrupted, to be gone on with.
    """
    from dulian.batch.analysis import ModelAnalysis
    from dulian.batch.run import Wish
    from dulian.batch.where import parse_where
    from dulian.settings import choose_language, read_settings

    settings = read_settings(
        profile=profile,
        engine=engine,
        precision=precision,
        tiles=tiles or None,
        model_dir=model_dir,
        offline=offline or None,
        language=language,
    )
    tongue = choose_language(settings.language)
    parse_where(where or ())
    kind = choose_driver(driver, [output, *(sources or ())], ray_address)
    crew = make_crew(kind, processes, threads)
    plan = Plan(
        output=output,
        profile=settings.profile,
        share=parse_share(shard),
        formats=parse_formats(formats) if shard is None else (),
        where=tuple(where or ()),
        thumbnails=thumbnails,
        driver=make_driver(kind, crew, tasks=processes, address=ray_address, stall_s=stall_s),
        crew=crew,
        model_dir=settings.model_dir,
        offline=settings.offline,
        language=tongue,
        as_json=as_json,
    )
    if not sources:
        _refuse_what_is_settled(context)
        go_on(plan)
        return
    analysis = ModelAnalysis(
        profile=settings.profile,
        engine=settings.engine,
        precision=settings.precision,
        tiles=settings.tiles,
        model_dir=settings.model_dir,
        offline=settings.offline,
        asked=analyze_options(
            max_faces=max_faces,
            min_confidence=min_confidence,
            attributes=attributes,
            order=order,
            coverage=coverage,
        ),
    )
    wish = Wish(
        sources=sources,
        analysis=analysis,
        column=column,
        base=base,
        limit=limit,
        dedupe=dedupe,
        pictures=tongue if pictures else None,
        shard_size=shard_size,
    )
    if dry_run:
        look(plan, wish)
    else:
        begin(plan, wish, list_only=list_only)


def _refuse_what_is_settled(context: typer.Context) -> None:
    """Options that shape a job say nothing to one that was begun."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in _OF_THE_JOB and source is not None and source.name == "COMMANDLINE":
            raise MalformedInputError(
                f"{parameter.opts[0]} needs the sources to be named too; without any, what was begun goes on as it was"
            )
