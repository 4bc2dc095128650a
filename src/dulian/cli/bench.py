"""``dulian bench``: how long each step takes here, as a table or JSON lines; two such files side by side."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dulian.errors import InputNotFoundError, MalformedInputError

if TYPE_CHECKING:
    from dulian.bench import Timing


def bench(
    profiles: Annotated[str, typer.Option("--profile", help="Profiles, separated by commas.")] = "standard,classic",
    engines: Annotated[str, typer.Option("--engine", help="Engines, separated by commas.")] = "auto",
    threads: Annotated[str, typer.Option(help="Threads per picture, separated by commas.")] = "1",
    precision: Annotated[str, typer.Option(help="f32, or bf16 (extra openvino).")] = "f32",
    images: Annotated[Path | None, typer.Option(help="Folder of pictures instead of the samples.")] = None,
    runs: Annotated[int, typer.Option(min=1, max=1000, help="Measured runs per picture.")] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line, for --compare.")] = False,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="A B", help="Two files of --json: medians of B over A.")
    ] = None,
    model_dir: Annotated[Path | None, typer.Option(envvar="DULIAN_MODEL_DIR", help="Folder of the models.")] = None,
) -> None:
    """Measure decoding, detection, attributes, drawing and encoding on this machine."""
    if compare:
        _print_comparison(*(_load(path) for path in compare))
        return
    from dulian.bench import folder_pictures, measure, sample_pictures
    from dulian.cli.models import make_store

    store = make_store(model_dir)
    pictures = folder_pictures(images) if images else sample_pictures(store)
    timings: list[Timing] = []
    for profile in _words(profiles):
        for engine in _words(engines):
            for count in _numbers(threads):
                options = {"profile": profile, "engine": engine, "threads": count, "runs": runs, "precision": precision}
                for timing in measure(store, pictures, **options):  # type: ignore[arg-type]
                    timings.append(timing)
                    if as_json:
                        typer.echo(json.dumps(asdict(timing)))
    if not as_json:
        _print_timings(timings)


def _print_timings(timings: list[Timing]) -> None:
    from rich.table import Table

    from dulian.bench import STAGES
    from dulian.cli.console import print_table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for heading in ("profile", "engine", "threads", "picture", "faces"):
        table.add_column(heading)
    for heading in (*STAGES, "p10–p90 of whole"):
        table.add_column(heading, justify="right")
    rows: dict[tuple[Any, ...], dict[str, Timing]] = {}
    for timing in timings:
        rows.setdefault((*timing.key[:4], timing.faces), {})[timing.stage] = timing
    for key, stages in rows.items():
        whole = stages["whole"]
        medians = [f"{stages[stage].median:.1f}" for stage in STAGES]
        table.add_row(*map(str, key), *medians, f"{whole.p10:.1f}–{whole.p90:.1f}")
    print_table(table)
    typer.echo(f"\nmilliseconds, medians of {timings[0].runs} runs; whole = decode + detect + attributes")


def _print_comparison(a: dict[tuple[Any, ...], float], b: dict[tuple[Any, ...], float]) -> None:
    from rich.table import Table

    from dulian.cli.console import print_table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for heading in ("profile", "engine", "threads", "picture", "stage", "A ms", "B ms", "B / A"):
        table.add_column(heading)
    for key in (key for key in a if key in b):
        table.add_row(*map(str, key), f"{a[key]:.2f}", f"{b[key]:.2f}", f"{b[key] / a[key]:.2f}" if a[key] else "–")
    print_table(table)


def _load(path: Path) -> dict[tuple[Any, ...], float]:
    from dulian.bench import Timing

    try:
        timings = [Timing(**json.loads(line)) for line in path.read_text().splitlines()]
    except OSError as error:
        raise InputNotFoundError(f"cannot read {path}: {error.strerror}") from error
    except (TypeError, ValueError) as error:
        raise MalformedInputError(f"{path} is not what 'dulian bench --json' writes: {error}") from error
    return {timing.key: timing.median for timing in timings}


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in _words(text)]
    except ValueError as error:
        raise MalformedInputError(f"--threads {text!r} is not a list of whole numbers") from error
