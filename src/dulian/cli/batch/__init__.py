"""``dulian batch``: albums and archives, each picture answered exactly once; one file per command."""

from __future__ import annotations

import typer

from dulian.cli.batch import merge, run, status, verify

app = typer.Typer(help="Albums and archives: each picture answered exactly once.", no_args_is_help=True)
app.command("run")(run.run)
app.command("status")(status.status)
app.command("verify")(verify.verify)
app.command("merge")(merge.merge)
