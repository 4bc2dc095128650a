"""``dulian analyze``: pictures in, a table or JSON lines out, annotated copies if asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dulian.cli.copies import Copies
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
from dulian.cli.report import Answer, Report
from dulian.errors import DulianError, MalformedInputError
from dulian.sources import STDIN, Source, find_sources, printable, read_source

if TYPE_CHECKING:
    from dulian.analyzer import AnalyzeOptions
    from dulian.image import ImageLimits
    from dulian.pipeline import Pipeline

ANY_FAILED = 2


def analyze(
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="Pictures, folders, globs, or - for stdin.")],
    json_lines: Annotated[bool, typer.Option("--json", help="One JSON object per picture and line.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for annotated copies (NAME_faces.jpg).")
    ] = None,
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
) -> None:
    """Find faces in pictures; tell perceived gender and age, and how far to trust them.

    Exit code 0: every picture was answered; 2: some were refused; 3: the installation lacks something.
    """
    from dulian.image import ImageLimits
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
    options = analyze_options(
        max_faces=max_faces,
        min_confidence=min_confidence,
        attributes=attributes,
        order=order,
        coverage=coverage,
    )
    sources = find_sources(paths)
    if not sources:
        raise MalformedInputError(f"no picture found in {printable(', '.join(paths))}")
    limits = ImageLimits()
    tongue = choose_language(settings.language)
    report = Report(len(sources), language=tongue, json_lines=json_lines)
    pipeline, workers = _open(settings, limits, len(sources))
    copies = Copies(output, sources, tongue) if output else None
    with report:
        for answer in _answers(sources, pipeline, limits, options, copies, workers):
            report.add(answer)
    if report.failed:
        raise typer.Exit(ANY_FAILED)


def _open(settings: Any, limits: ImageLimits, pictures: int) -> tuple[Pipeline, int]:
    """The pipeline, and how many threads shall use it: one picture gets all cores, many get one core each."""
    from dulian.cli.models import make_store
    from dulian.factory import open_profile
    from dulian.machine import effective_cores, share_cores
    from dulian.models.catalog import find_profile
    from dulian.pipeline import Pipeline

    workers, threads = share_cores(pictures, effective_cores())
    store = make_store(settings.model_dir, offline=settings.offline)
    factory = open_profile(
        find_profile(settings.profile),
        store,
        engine=settings.engine,
        threads=threads,
        workers=workers,
        precision=settings.precision,
        tiles=settings.tiles,
    )
    return Pipeline(factory.new_analyzer, limits=limits), workers


def _answers(
    sources: list[Source],
    pipeline: Pipeline,
    limits: ImageLimits,
    options: AnalyzeOptions,
    copies: Copies | None,
    workers: int,
) -> Iterator[Answer]:
    """Answers in the order of the sources, with a few pictures in flight at a time."""
    # Read here, because a thread that waits for input cannot be interrupted.
    piped = {source: _read(source, limits) for source in sources if str(source.path) == STDIN}

    def answer(source: Source) -> Answer:
        try:
            data = piped[source] if source in piped else _read(source, limits)
            if isinstance(data, DulianError):
                raise data
            result, image = pipeline.analyze(data, options)
        except DulianError as error:
            return Answer(source, error)
        try:
            if copies is not None:
                copies.write(source, image(), result)
        except DulianError as error:
            return Answer(source, result, copy_error=error)
        return Answer(source, result)

    with ThreadPoolExecutor(workers, thread_name_prefix="dulian") as pool:
        waiting = iter(sources)
        running = deque(pool.submit(answer, source) for source in islice(waiting, 2 * workers))
        try:
            while running:
                done = running.popleft().result()
                running.extend(pool.submit(answer, source) for source in islice(waiting, 1))
                yield done
        finally:
            pool.shutdown(cancel_futures=True)


def _read(source: Source, limits: ImageLimits) -> bytes | DulianError:
    try:
        return read_source(source, max_bytes=limits.max_bytes)
    except DulianError as error:
        return error
