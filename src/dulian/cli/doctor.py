"""``dulian doctor``: what it finds on this machine, and what it will do."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dulian.machine import share_cores
from dulian.sources import printable

if TYPE_CHECKING:
    from dulian.doctor import Examination


def doctor(
    model_dir: Annotated[Path | None, typer.Option(envvar="DULIAN_MODEL_DIR", help="Folder of the models.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    plan: Annotated[
        tuple[str, int] | None,
        typer.Option(
            metavar="MEMORY CORES",
            help="Measure for a few seconds, and tell what to start on such a machine, as in 2G 4.",
        ),
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Of the plan; standard if not given.")] = None,
    engine: Annotated[str | None, typer.Option(help="Of the plan; auto if not given.")] = None,
    precision: Annotated[str | None, typer.Option(help="Of the plan; f32 if not given.")] = None,
) -> None:
    """Tell what this machine offers and how dulian will use it, or with --plan what to start on another one."""
    if plan:
        from dulian.cli.plan import print_plan

        memory, cores = plan
        print_plan(
            memory,
            cores,
            profile=profile,
            engine=engine,
            precision=precision,
            model_dir=model_dir,
            as_json=as_json,
        )
        return
    from dulian.cli.console import print_table
    from dulian.cli.models import make_store
    from dulian.doctor import examine

    found = examine(make_store(model_dir, offline=True))
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for name, value in _lines(found):
        table.add_row(name, printable(value))
    print_table(table)


def _lines(found: Examination) -> list[tuple[str, str]]:
    quota = "no quota" if found.cores_quota is None else f"quota {found.cores_quota:g}"
    limit = "no limit" if found.memory_limit is None else f"limit {_gigabytes(found.memory_limit)}"
    return [
        ("dulian", found.dulian),
        ("python", found.python),
        ("system", found.system),
        ("libraries", ", ".join(f"{name} {version}" for name, version in found.libraries.items())),
        ("cores", f"host {found.cores_host}, affinity {found.cores_allowed}, {quota}: uses {found.cores_used}"),
        ("memory", f"{_gigabytes(found.memory_physical)}, {limit}"),
        ("instructions", ", ".join(found.instruction_sets)),
        *((f"engine {name}", state) for name, state in found.engines.items()),
        ("engine auto", ", ".join(f"{engine} ({precision})" for precision, engine in found.engine_auto.items())),
        *((f"profile {name}", state) for name, state in found.profiles.items()),
        ("models", found.model_folder),
        ("Chinese labels", found.chinese_font or "no CJK font found; labels on pictures will be English"),
        ("one picture", _plan(1, found.cores_used)),
        ("many pictures", _plan(1000, found.cores_used)),
        ("serve", _plan_service(1, found.cores_used)),
        ("serve --workers auto", _plan_service("auto", found.cores_used)),
    ]


def _plan(pictures: int, cores: int) -> str:
    workers, threads = share_cores(pictures, cores)
    return f"threads: {workers}, of the engine for each: {threads}"


def _plan_service(workers: int | Literal["auto"], cores: int) -> str:
    from dulian.service.start import available_memory, lay_out
    from dulian.settings import Settings

    processes, threads = lay_out(Settings(workers=workers), cores, available_memory())
    return f"processes: {processes}, threads of each: {threads}"


def _gigabytes(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 2**30:.1f} GiB"
