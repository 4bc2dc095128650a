"""``dulian config``: what is set, where that comes from, and whether it makes sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dulian.cli.console import print_table
from dulian.errors import DulianError, MalformedInputError
from dulian.sources import printable

if TYPE_CHECKING:
    from dulian.settings import Reading, Settings

WRONG = 2

app = typer.Typer(help="The settings: show them and where they come from, check them.", no_args_is_help=True)

ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file of settings; DULIAN_CONFIG if not given.")]


@app.command()
def show(
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show every setting with its value and where that comes from: default, file or environment variable."""
    from dulian.settings import examine_settings

    reading = examine_settings(config=config)
    if reading.problems:
        raise MalformedInputError(reading.problems[0])
    if as_json:
        known = {name: {"value": value, "origin": reading.origins[name]} for name, value in reading.shown().items()}
        typer.echo(json.dumps(known, ensure_ascii=False))
        return
    _print_settings(reading)


@app.command()
def check(config: ConfigFile = None) -> None:
    """Tell every mistake in the settings, one line each; exit code 2 if there is any.

    Whether files are there and ports are free turns out when they are used: dulian models verify, dulian serve.
    """
    from dulian.settings import examine_settings

    reading = examine_settings(config=config)
    problems = [*reading.problems, *(_wrong_names(reading.settings) if reading.settings else ())]
    for problem in problems:
        typer.echo(f"dulian: {printable(problem)}", err=True)
    if problems:
        raise typer.Exit(WRONG)
    typer.echo("ok")


def _print_settings(reading: Reading) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("setting", "value", "from"):
        table.add_column(heading)
    for name, value in reading.shown().items():
        text = value if isinstance(value, str) else "none" if value is None else json.dumps(value, ensure_ascii=False)
        table.add_row(name, printable(text), printable(reading.origins[name]))
    print_table(table)


def _wrong_names(settings: Settings) -> list[str]:
    """What the catalog does not have, and a host that would be open to everybody."""
    from dulian.models.catalog import find_profile
    from dulian.runtimes import choose_engine, find_runtime
    from dulian.service.start import with_keys_file

    tests = (
        lambda: find_profile(settings.profile),
        lambda: find_runtime(choose_engine(settings.engine, settings.precision)),
        lambda: with_keys_file(settings),
    )
    problems = []
    for test in tests:
        try:
            test()
        except DulianError as error:
            problems.append(str(error))
    return problems
