"""``dulian batch status``: how far a batch is."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from dulian.cli import interruptible
from dulian.cli.batch.outcome import error_kinds, print_facts, print_next
from dulian.cli.batch.texts import TEXTS, size
from dulian.cli.options import Tongue

if TYPE_CHECKING:
    from dulian.batch.status import Status
    from dulian.messages import Language

Place = Annotated[str, typer.Argument(metavar="DEST", help="The folder, or address in a store, of a batch.")]


def status(
    place: Place,
    details: Annotated[
        bool | None,
        typer.Option("--details/--quick", help="Read all records, or none; while they are few, they are read."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    language: Tongue = None,
) -> None:
    """Show how far a batch is: by the names of its files, which is quick however large it is."""
    from dulian.batch.destinations import open_destination
    from dulian.batch.status import status as look
    from dulian.settings import choose_language, read_settings

    tongue = choose_language(read_settings(language=language).language)
    interruptible()
    found = look(open_destination(place), details=details)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False))
        return
    print_facts(_facts(found, tongue))
    if not found.finished:
        print_next("goes_on", tongue, "run", "--output", place)


def _facts(found: Status, language: Language) -> Iterable[tuple[str, str]]:
    texts = TEXTS[language]
    yield texts["job"], texts["job_of"].format(id=found.job, **found.model)
    yield (
        texts["done"],
        texts["done_of"].format(
            done=found.inputs_done,
            inputs=found.inputs,
            shards_done=found.shards_done,
            shards=found.shards,
            percent=_percent(found.inputs_done, found.inputs),
        ),
    )
    if found.attempts or found.pieces:
        yield texts["under_way"], texts["under_way_of"].format(attempts=found.attempts, pieces=found.pieces)
    if (counted := found.details) is None:
        yield texts["not_read"], texts["not_read_of"]
    else:
        yield texts["ok"], texts["with_faces"].format(count=counted.statuses["ok"], faces=counted.faces)
        if counted.statuses["duplicate"]:
            yield texts["duplicate"], f"{counted.statuses['duplicate']:,}"
        yield texts["error"], error_kinds(counted.errors, language)
        sizes = {"inputs": size(counted.input_bytes), "records": size(counted.record_bytes)}
        yield texts["sizes"], texts["sizes_of"].format(**sizes)
        if counted.damaged_shards:
            yield texts["damaged_shards"], texts["damaged_shards_of"].format(count=counted.damaged_shards)


def _percent(done: int, of: int) -> str:
    """100 % only when all is done."""
    return f"{100 * done // of} %"
