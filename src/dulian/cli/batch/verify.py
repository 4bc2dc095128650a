"""``dulian batch verify``: whether a batch is complete and whole."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from dulian.cli import interruptible
from dulian.cli.analyze import ANY_FAILED
from dulian.cli.batch.outcome import print_facts, print_next
from dulian.cli.batch.progress import Watch
from dulian.cli.batch.status import Place
from dulian.cli.batch.texts import TEXTS
from dulian.cli.options import Tongue
from dulian.sources import printable

if TYPE_CHECKING:
    from dulian.batch.verify import Findings, Verdict
    from dulian.messages import Language

# Those of the errors that say so: a damaged installation, and what only takes time.
DAMAGED, INCOMPLETE = 3, 4
# So many of each kind of finding are printed.
_SHOWN = 10


def verify(
    place: Place,
    reread: Annotated[
        bool, typer.Option("--reread", help="Also read all pictures again: do they still hold what was analysed?")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    language: Tongue = None,
) -> None:
    """Check that every input has exactly one record, whole and in its place.

    Exit code 0: complete; 2: complete, but pictures have changed since (--reread); 3: damaged; 4: not complete yet.
    """
    from dulian.batch.destinations import open_destination
    from dulian.batch.inputs import open_reader
    from dulian.batch.job import read_job
    from dulian.batch.verify import verify as check
    from dulian.image import ImageLimits
    from dulian.settings import choose_language, read_settings

    tongue = choose_language(read_settings(language=language).language)
    interruptible()
    destination = open_destination(place)
    job = read_job(destination)
    with ExitStack() as stack:
        watch = stack.enter_context(Watch(tongue))
        heard = partial(watch.doing, "verifying", total=job.inputs)
        reader = open_reader(base=job.base, max_bytes=ImageLimits().max_bytes) if reread else None
        if reader is not None:
            stack.callback(reader.close)
        verdict = check(destination, reader=reader, progress=lambda count: heard(count=count))
    if as_json:
        typer.echo(json.dumps(verdict.to_dict(), ensure_ascii=False))
    else:
        _print(verdict, place, tongue, reread)
    code = {"damaged": DAMAGED, "incomplete": INCOMPLETE, "complete": ANY_FAILED if verdict.changed else 0}
    if code[verdict.state]:
        raise typer.Exit(code[verdict.state])


def _print(verdict: Verdict, place: str, language: Language, reread: bool) -> None:
    counts = {"complete": 0, "incomplete": verdict.missing.count, "damaged": verdict.damage.count}
    text = TEXTS[language][verdict.state]
    typer.echo(f"{text.format(count=counts[verdict.state], all=verdict.shards)}\n")
    print_facts(_facts(verdict, language, reread))
    if verdict.state == "incomplete":
        print_next("goes_on", language, "run", "--output", place)


def _facts(verdict: Verdict, language: Language, reread: bool) -> Iterable[tuple[str, str]]:
    texts = TEXTS[language]
    yield texts["inputs"], f"{verdict.inputs:,}"
    counts = {status: verdict.records.get(status, 0) for status in ("ok", "error", "duplicate")}
    yield texts["records"], texts["records_of"].format(**counts)
    for name in ("damage", "missing", "foreign"):
        found: Findings = getattr(verdict, name)
        if found:
            yield texts[name], _shown(found, language)
    if any(verdict.left_over.values()):
        yield texts["left_over"], texts["left_over_of"].format(**verdict.left_over)
    if reread:
        yield texts["reread"], texts["reread_of"].format(count=verdict.reread, changed=verdict.changed.count)
        if verdict.changed:
            yield texts["changed"], _shown(verdict.changed, language)


def _shown(found: Findings, language: Language) -> str:
    lines = [printable(one) for one in found.first[:_SHOWN]]
    if found.count > len(lines):
        lines.append(TEXTS[language]["more"].format(count=found.count - len(lines)))
    return "\n".join(lines)
