"""How tables reach a terminal, a pipe or a file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

# A pipe or a file has no width; lines there are as long as they need to be.
PIPE_WIDTH = 1000


def print_table(renderable: Any) -> None:
    """Print a rich table; into a pipe unfolded, and without blanks at the ends of lines."""
    console = output_console()
    with console.capture() as captured:
        console.print(renderable)
    typer.echo("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")), color=True)


def output_console() -> Console:
    """Standard output, without markup, emoji codes or automatic highlighting: names may hold anything."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    return console


def error_console() -> Console:
    """Standard error, likewise."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
