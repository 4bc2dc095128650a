"""``dulian batch run --dry-run``: what would be done, and how long it would take here."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from dulian.cli.batch.outcome import error_kinds, print_facts
from dulian.cli.batch.texts import TEXTS, duration, size
from dulian.sources import printable

if TYPE_CHECKING:
    from dulian.batch.preview import Preview
    from dulian.messages import Language


def print_preview(preview: Preview, place: str, language: Language, *, threads: int, as_json: bool) -> None:
    """Print it."""
    if as_json:
        told = {"dry_run": True, "destination": place, **preview.to_dict()}
        typer.echo(json.dumps(told, ensure_ascii=False))
        return
    print_facts(_facts(preview, place, language, threads))
    typer.echo(f"\n{TEXTS[language]['dry_run']}")


def _facts(preview: Preview, place: str, language: Language, threads: int) -> Iterable[tuple[str, str]]:
    texts = TEXTS[language]
    yield (
        texts["inputs"],
        texts["inputs_of"].format(count=preview.inputs, shards=preview.shards, size=preview.shard_size),
    )
    if preview.problems:
        yield texts["problems"], error_kinds(preview.problems, language)
    if preview.duplicates:
        yield texts["duplicate"], f"{preview.duplicates:,}"
    yield texts["bytes"], _bytes(preview, language)
    if preview.left_alone:
        yield texts["left_alone"], texts["left_alone_of"].format(count=preview.left_alone)
    yield texts["place"].format(place=printable(place)), texts[f"begun_{preview.begun}"].format(count=preview.committed)
    if preview.pictures_per_s is None or preview.seconds is None:
        yield texts["estimate"], texts["no_sample"]
    else:
        time = duration(preview.seconds, language)
        yield texts["estimate"], texts["estimate_of"].format(time=time, rate=preview.pictures_per_s, threads=threads)


def _bytes(preview: Preview, language: Language) -> str:
    texts = TEXTS[language]
    if not preview.unknown_sizes:
        return size(preview.bytes)
    if not preview.bytes:
        return texts["all_unknown"]
    return texts["bytes_unknown"].format(count=size(preview.bytes), unknown=preview.unknown_sizes)
