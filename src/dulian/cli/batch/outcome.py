"""What became of a run: for people on standard output, for programs as one JSON object."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from dulian.cli.batch.texts import TEXTS, duration
from dulian.cli.console import print_table
from dulian.sources import printable

if TYPE_CHECKING:
    from dulian.batch.destinations import Destination
    from dulian.batch.job import Job
    from dulian.messages import Language

_NO_ERRORS = ("ok", "duplicate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Counts of all inputs of a job, or of one share of it, and what this run did for them."""

    destination: str
    job: Job
    share: tuple[int, int] | None
    inputs: int
    kinds: Mapping[str, int]
    faces: int
    before: int
    computed: int
    quarantined: int
    deaths: int
    seconds: float
    computing_s: float
    left_alone: int
    files: tuple[str, ...]

    @property
    def errors(self) -> dict[str, int]:
        """How many inputs have which error, the most frequent first."""
        return _ordered({kind: count for kind, count in self.kinds.items() if kind not in _NO_ERRORS})

    @property
    def rate(self) -> float:
        """Inputs a second of this run, while it computed."""
        return self.computed / self.computing_s if self.computing_s else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The object of ``--json``."""
        return {
            "destination": self.destination,
            "job": self.job.id,
            "model": dict(self.job.model),
            "share": self.share and list(self.share),
            "inputs": self.inputs,
            "before": self.before,
            "computed": self.computed,
            "ok": self.kinds.get("ok", 0),
            "duplicates": self.kinds.get("duplicate", 0),
            "errors": self.errors,
            "faces": self.faces,
            "quarantined": self.quarantined,
            "deaths": self.deaths,
            "left_alone": self.left_alone,
            "seconds": round(self.seconds, 3),
            "pictures_per_s": round(self.rate, 3),
            "files": list(self.files),
        }


def count_records(
    destination: Destination, job: Job, shards: Iterable[int], progress: Callable[[int], None]
) -> tuple[Counter[str], int]:
    """Of shards that are committed, how many records are of which status or have which error; and all their faces."""
    from dulian.batch.merge import shard_records
    from dulian.batch.tally import brief

    kinds: Counter[str] = Counter()
    faces = 0
    for shard in shards:
        for kind, count in map(brief, shard_records(destination, job, shard)):
            kinds[kind] += 1
            faces += count
        progress(kinds.total())
    return kinds, faces


def command_line(*words: str) -> str:
    """A command to be copied into a shell; what no terminal should show is escaped."""
    return printable(shlex.join(("dulian", "batch", *words)))


def print_outcome(outcome: Outcome, language: Language, *, as_json: bool) -> None:
    """Print it."""
    if as_json:
        typer.echo(json.dumps(outcome.to_dict(), ensure_ascii=False))
        return
    print_facts(_facts(outcome, language))
    if outcome.share:
        print_next("share_next", language, "merge", outcome.destination, "--output", "records.jsonl")
    elif outcome.errors:
        print_next("failures", language, "merge", outcome.destination, "--where", "error", "--output", "failures.csv")


def print_next(name: str, language: Language, *words: str) -> None:
    """A command that may come next, in a line of its own, which a terminal wraps so that it can still be copied."""
    typer.echo(f"\n{TEXTS[language][name]}: {command_line(*words)}")


def error_kinds(errors: Mapping[str, int], language: Language) -> str:
    """How many errors, and of which kinds."""
    texts = TEXTS[language]
    kinds = ", ".join(f"{code} {count:,}" for code, count in _ordered(errors).items())
    return texts["error_kinds"].format(count=sum(errors.values()), kinds=kinds) if errors else texts["none"]


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Names and what there is to say of each, side by side."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in facts:
        table.add_row(Text(name, style="bold"), Text(text))
    print_table(table)


def _ordered(errors: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(errors.items(), key=lambda one: (-one[1], one[0])))


def _facts(outcome: Outcome, language: Language) -> Iterable[tuple[str, str]]:
    texts, kinds, errors = TEXTS[language], outcome.kinds, outcome.errors
    if outcome.share:
        share = f"{outcome.share[0]}/{outcome.share[1]}"
        inputs = texts["of_share"].format(count=outcome.inputs, share=share)
    else:
        inputs = texts["inputs_of"].format(count=outcome.inputs, shards=outcome.job.shards, size=outcome.job.shard_size)
    yield texts["inputs"], texts["before"].format(text=inputs, count=outcome.before) if outcome.before else inputs
    yield texts["ok"], texts["with_faces"].format(count=kinds.get("ok", 0), faces=outcome.faces)
    if duplicates := kinds.get("duplicate"):
        yield texts["duplicate"], f"{duplicates:,}"
    yield texts["error"], error_kinds(errors, language)
    if outcome.deaths:
        yield texts["deaths"], f"{outcome.deaths:,}"
    if outcome.left_alone:
        yield texts["left_alone"], texts["left_alone_of"].format(count=outcome.left_alone)
    pace = "pace" if outcome.computed else "nothing_to_do"
    yield texts["took"], texts[pace].format(time=duration(outcome.seconds, language), rate=outcome.rate)
    yield texts["files"], "\n".join(map(printable, outcome.files or (outcome.destination,)))
