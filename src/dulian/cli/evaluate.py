"""``dulian evaluate``: how often profiles are right on labelled pictures, as a table, JSON and a model card."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dulian.errors import MalformedInputError
from dulian.models.catalog import DEFAULT_PROFILE
from dulian.sources import printable

if TYPE_CHECKING:
    from dulian.evaluate.dataset import Picture
    from dulian.evaluate.run import Progress


def evaluate(
    data: Annotated[Path, typer.Option(help="Folder with manifest.csv, a row per labelled face.")],
    profiles: Annotated[
        str, typer.Option("--profile", help="Profiles, separated by commas, or all.")
    ] = DEFAULT_PROFILE,
    engine: Annotated[str, typer.Option(help="auto, onnxruntime, openvino or opencv.")] = "auto",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many pictures of each kind and source.")] = None,
    cross_validate: Annotated[
        bool, typer.Option("--cross-validate", help="Also judge each face by tables fitted without it.")
    ] = False,
    fit: Annotated[
        bool, typer.Option("--fit", help="Also fit calibration tables to the pictures; into --output.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="Folder for evaluation.json, model-card.html and, fitted, calibration/.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    model_dir: Annotated[Path | None, typer.Option(envvar="DULIAN_MODEL_DIR", help="Folder of the models.")] = None,
) -> None:
    """Measure how often answers are right, and for whom, on your own labelled pictures."""
    if fit and output is None:
        raise MalformedInputError("--fit needs --output, the folder for the tables")
    from dulian.cli.models import make_store
    from dulian.evaluate.dataset import read_dataset
    from dulian.evaluate.run import Plan, evaluate
    from dulian.machine import effective_cores

    store = make_store(model_dir)
    plan = Plan(
        folder=data,
        pictures=_limited(read_dataset(data), limit),
        engine=engine,
        workers=effective_cores(),
        cross_validate=cross_validate,
        fit=fit,
    )
    with ExitStack() as stack:
        progress = _progress(stack)
        reports = [evaluate(name, store, plan, progress) for name in _names(profiles)]
    if unread := reports[0]["errors"]:
        typer.echo(f"dulian: {len(unread)} pictures could not be read; the first is {printable(unread[0])}", err=True)
    if output is not None:
        _write(output, reports)
    if as_json:
        typer.echo(json.dumps(reports, ensure_ascii=False))
    else:
        _print_reports(reports)


def _names(profiles: str) -> list[str]:
    from dulian.models.catalog import PROFILES, find_profile

    names = list(PROFILES) if profiles == "all" else [name.strip() for name in profiles.split(",") if name.strip()]
    return [find_profile(name).name for name in names or [profiles]]


def _limited(pictures: Sequence[Picture], limit: int | None) -> list[Picture]:
    """The first of each kind and source."""
    counts: dict[tuple[str, str], int] = {}
    kept = []
    for picture in pictures:
        counts[picture.kind, picture.source] = number = counts.get((picture.kind, picture.source), 0) + 1
        if limit is None or number <= limit:
            kept.append(picture)
    return kept


def _progress(stack: ExitStack) -> Progress:
    """A bar for each step on a terminal, one line elsewhere."""
    if not sys.stderr.isatty():

        def tell(what: str, total: int) -> Callable[[], None]:
            typer.echo(f"{what} ({total})…", err=True)
            return lambda: None

        return tell
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bars = stack.enter_context(Progress(*columns, console=Console(stderr=True)))

    def show(what: str, total: int) -> Callable[[], None]:
        task = bars.add_task(what, total=total)
        return lambda: bars.advance(task)

    return show


def _write(folder: Path, reports: Sequence[dict[str, Any]]) -> None:
    from dulian.evaluate.card import model_card
    from dulian.files import write_atomically

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(reports, ensure_ascii=False, indent=1) + "\n"
    write_atomically(folder / "evaluation.json", text.encode())
    write_atomically(folder / "model-card.html", model_card(reports).encode())
    for report in reports:
        if "calibration" in report:
            tables = folder / "calibration"
            tables.mkdir(exist_ok=True)
            table = json.dumps(report["calibration"], indent=1) + "\n"
            write_atomically(tables / f"{report['profile']}.json", table.encode())


# ── the table ────────────────────────────────────────────────────────────────────────────────────


def _print_reports(reports: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Table

    from dulian.cli.console import print_table
    from dulian.evaluate.headline import NOTHING, headline

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("")
    for report in reports:
        table.add_column(report["profile"], justify="right")
    columns = [headline(report) for report in reports]
    for label in columns[0]:
        table.add_row(label, *(column.get(label, NOTHING) for column in columns))
    print_table(table)
    first = reports[0]["data"]
    typer.echo(
        f"\n{first['pictures']} pictures, {first['boxes']} boxed faces, {first['genders']} genders, "
        f"{first['ages']} exact ages; [95 % intervals by bootstrap]; "
        + ", ".join(f"{report['profile']} on {report['engine']} in {report['seconds']:.0f} s" for report in reports)
    )
