"""``dulian keys``: make, see and take back the keys that the service asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dulian.cli.console import print_table
from dulian.sources import printable

if TYPE_CHECKING:
    from dulian.keys import Key, KeysFile

app = typer.Typer(help="Make, see and revoke the API keys of the service.", no_args_is_help=True)

File = Annotated[
    Path | None, typer.Option("--keys-file", help="Where keys are kept, as hashes; DULIAN_KEYS_FILE if not given.")
]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Whose key it is, to recognise it by.")] = "",
    rate: Annotated[
        str | None, typer.Option(metavar="N/PERIOD", help="Requests per second, minute, hour or day: 60/minute.")
    ] = None,
    keys_file: File = None,
) -> None:
    """Make a key and print it, this once: only its sha256 is kept.

    From then on the service answers nobody without one. Standard output has the key alone: KEY=$(dulian keys create).
    """
    from dulian.keys import parse_rate

    file = _open(keys_file)
    secret, key = file.create(name=name, rate=parse_rate(rate) if rate is not None else None)
    typer.echo(secret)
    _say(f"key {key.id} is made; this is the only time it is shown, {file.path} has no more than its sha256")
    _warn_if_loose(file)


@app.command("list")
def list_keys(
    keys_file: File = None,
    json_lines: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Show the keys there are: id, name, rate and day, never the key itself."""
    file = _open(keys_file)
    keys = file.read()
    if json_lines:
        for key in keys or ():
            typer.echo(json.dumps(_described(key), ensure_ascii=False))
    elif keys:
        _print_keys(keys)
    if keys is None:
        _say(f"there is no file {file.path}, and so no key")
        return
    _warn_if_empty(keys, file)
    _warn_if_loose(file)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As 'dulian keys list' shows it.")],
    keys_file: File = None,
) -> None:
    """Take a key back: a running service refuses it within seconds."""
    file = _open(keys_file)
    key = file.revoke(key_id)
    typer.echo(printable(f"revoked {key.id} {key.name}".rstrip()))
    _warn_if_empty(file.read(), file)
    _warn_if_loose(file)


def _open(path: Path | None) -> KeysFile:
    """The file that a service with the same settings looks at."""
    from dulian.keys import find_keys_file
    from dulian.settings import read_settings

    return find_keys_file(read_settings(keys_file=path).keys_file)


def _described(key: Key) -> dict[str, str | None]:
    return {"id": key.id, "name": key.name, "rate": str(key.rate) if key.rate else None, "created": key.created}


def _print_keys(keys: tuple[Key, ...]) -> None:
    from rich.table import Table

    table = Table("id", "name", "rate", "created", box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for key in keys:
        table.add_row(key.id, printable(key.name), str(key.rate or "no limit"), key.created)
    print_table(table)


def _warn_if_empty(keys: tuple[Key, ...] | None, file: KeysFile) -> None:
    if not keys:
        _say(f"{file.path} has no key left, so the service answers nobody; remove the file to have it ask for none")


def _warn_if_loose(file: KeysFile) -> None:
    if file.is_loose():
        _say(f"{file.path} can be read or changed by others; chmod 600 mends that")


def _say(line: str) -> None:
    typer.echo(f"dulian: {printable(line)}", err=True)
