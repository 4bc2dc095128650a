"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from dulian import __version__
from dulian.cli import HEALTHCHECK, analyze, batch, bench, config, doctor, evaluate, healthcheck, keys, models, serve
from dulian.errors import BackendError, DeadlineError, DulianError, InputError, OverloadedError

EXIT_CODES: tuple[tuple[type[DulianError], int], ...] = (
    (InputError, 2),
    (BackendError, 3),
    (OverloadedError, 4),
    (DeadlineError, 4),
    (DulianError, 1),
)

app = typer.Typer(
    name="dulian",
    help="Faces, perceived age and gender, and honest doubt, from a photo, on any CPU. 读脸:人脸、年龄与性别。",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("analyze")(analyze.analyze)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)
app.command("evaluate")(evaluate.evaluate)
app.command(HEALTHCHECK)(healthcheck.healthcheck)
app.command("serve")(serve.serve)
app.add_typer(batch.app, name="batch")
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
app.add_typer(config.app, name="config")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dulian {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del version


def exit_code(error: DulianError) -> int:
    """The exit code of an error, by who can fix it."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))
