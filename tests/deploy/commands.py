"""What the files of deploy/ call dulian with: commands as the parser reads them, settings as Settings does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from dulian.cli.app import app
from dulian.settings import PREFIX, Settings


def parse(words: Sequence[str]) -> str:
    """The full name of the command that these words, after ``dulian``, call; options that do not exist raise."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("dulian", list(words))
    names = ["dulian"]
    while hasattr(group, "commands"):
        name, group, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        names.append(str(name))
        context = group.make_context(str(name), list(rest), parent=context)
    return " ".join(names)


def settings_of(environment: Mapping[str, str], **more: str) -> Settings:
    """What these variables set; one that does not exist, or a value that makes no sense, raises. Empty is not set."""
    given = {name.removeprefix(PREFIX).lower(): value for name, value in environment.items() if name.startswith(PREFIX)}
    return Settings(**{name: value for name, value in (given | more).items() if value})
