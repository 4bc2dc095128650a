"""``dulian healthcheck``: whether the service on this machine is alive."""

from __future__ import annotations

from typing import Annotated

import typer


def healthcheck(
    host: Annotated[str | None, typer.Option(help="Where the service listens; as 'dulian serve' reads it.")] = None,
    port: Annotated[int | None, typer.Option(help="Its port or metrics port; as 'dulian serve' reads it.")] = None,
) -> None:
    """Ask the service on this machine whether it is alive: exit code 0 if it is, else 1.

    For HEALTHCHECK of a container: it takes little time, needs no key, and does not mind a full queue.
    """
    from dulian.cli.probe import check

    raise typer.Exit(check(host, port))
