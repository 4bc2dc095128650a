"""``dulian doctor --plan``: what to start on a machine of a given size."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

# A process that gets less than this share of its cores is held up by others.
ENOUGH = 0.85

if TYPE_CHECKING:
    from dulian.service.plan import Plan


def print_plan(
    memory: str,
    cores: int,
    *,
    profile: str | None,
    engine: str | None,
    precision: str | None,
    model_dir: Path | None,
    as_json: bool,
) -> None:
    """Measure, reckon and print; settings that are not given are those of the service."""
    from dulian.bench import one_portrait
    from dulian.cli.models import make_store
    from dulian.service.plan import PICTURE_SIDE, check_cores, make_plan, parse_memory
    from dulian.settings import read_settings

    size, cores = parse_memory(memory), check_cores(cores)
    settings = read_settings(profile=profile, engine=engine, precision=precision, model_dir=model_dir)
    store = make_store(settings.model_dir, offline=settings.offline)
    plan = make_plan(settings, size, cores, one_portrait(store, PICTURE_SIDE))
    if as_json:
        typer.echo(json.dumps(asdict(plan)))
        return
    from rich.table import Table

    from dulian.cli.console import print_table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for line in _lines(plan):
        table.add_row(*line)
    print_table(table)


def _lines(plan: Plan) -> list[tuple[str, str]]:
    measured, workers = plan.measured, plan.workers
    watcher = " and the process that watches them" if workers > 1 else ""
    share = plan.requests_per_s / measured.requests_per_s if measured.requests_per_s else 0.0
    lines = [
        ("for", f"{_mebibytes(plan.memory_bytes)}, cores: {plan.cores}, profile {plan.profile}"),
        ("workers", f"{workers}, threads of each: {plan.threads}"),
        (
            "memory, usually",
            f"{_mebibytes(plan.usual_bytes)}: {workers} × {_mebibytes(measured.resident_bytes)}{watcher}",
        ),
        (
            "memory, at most",
            f"{_mebibytes(plan.most_bytes)}: with the largest pictures that the limits allow, in all processes at once",
        ),
        (
            "requests/s",
            (
                f"{plan.requests_per_s:g}: one process answered {measured.requests_per_s:g} here with threads:"
                f" {measured.threads}, times {share:g}"
            ),
        ),
        (
            "measured with",
            f"a JPEG of one megapixel with one face, clients: {measured.clients}, {measured.seconds:g} seconds",
        ),
        ("start it with", plan.command),
    ]
    used = measured.cores_used
    if used is not None and used < ENOUGH * measured.threads:
        alone = plan.requests_per_s * measured.threads / used if used else 0.0
        said = f"it got {used:g} of {measured.threads} cores here, because others use them too; alone up to {alone:.3g}"
        lines.insert(-1, ("too low", said))
    if not plan.fits:
        said = (
            f"{_mebibytes(plan.memory_bytes)} are too little: this profile may take {_mebibytes(plan.most_bytes)};"
            " the largest pictures may get the process killed"
        )
        lines.insert(0, ("does not fit", said))
    return lines


def _mebibytes(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 2**20:.0f} MiB"
