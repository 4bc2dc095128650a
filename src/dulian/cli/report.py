"""What ``dulian analyze`` prints: a table for people, JSON lines for programs, progress while it takes long."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import typer

from dulian.cli.console import error_console, output_console, print_table
from dulian.errors import DulianError
from dulian.faces import AnalysisResult, Face
from dulian.sources import Source, printable

if TYPE_CHECKING:
    from dulian.messages import Language

# From this many pictures on, people want to see that something moves.
PROGRESS_FROM = 4
# Below this many columns, what can be had from --json gives way to the notes.
NARROW = 90

HEADINGS = {
    "en": ("picture", "face", "gender", "age", "likely range", "bucket", "size", "notes"),
    "zh": ("图片", "人脸", "性别", "年龄", "可能范围", "年龄段", "大小", "说明"),
}
SUMMARY = {
    "en": "pictures: {pictures}, faces: {faces}, refused: {refused} · {profile} on {engine} · {ms:.0f} ms per picture",
    "zh": "图片 {pictures} 张,人脸 {faces} 张,拒绝 {refused} 张 · {profile},引擎 {engine} · 每张 {ms:.0f} 毫秒",
}
MORE_FACES = {"en": "and {count} more faces", "zh": "另有 {count} 张人脸"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one picture: a result, or the error that refused it; perhaps its copy could not be written."""

    source: Source
    outcome: AnalysisResult | DulianError
    copy_error: DulianError | None = None

    def to_dict(self) -> dict[str, Any]:
        """One JSON line of ``--json``."""
        if isinstance(self.outcome, AnalysisResult):
            return {"source": self.source.name, **self.outcome.to_dict()}
        error = {"code": self.outcome.code, "message": printable(str(self.outcome)), "request_id": None}
        return {"source": self.source.name, "error": error}


class Report:
    """Collects answers and prints them; refused pictures are one line each on standard error, at once."""

    def __init__(self, expected: int, *, language: Language, json_lines: bool) -> None:
        self.refused = self.uncopied = 0
        self._expected = expected
        self._language: Language = language
        self._json_lines = json_lines
        self._errors = error_console()
        self._progress = self._make_progress()
        self._narrow = False
        self._results: list[tuple[Source, AnalysisResult]] = []

    def __enter__(self) -> Self:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.stop()
        # After an interrupt too: what was answered is not thrown away.
        if not self._json_lines and self._results:
            self._print_table()

    @property
    def failed(self) -> bool:
        """Whether any picture was refused or any copy could not be written."""
        return bool(self.refused or self.uncopied)

    def add(self, answer: Answer) -> None:
        """Take the next answer."""
        if isinstance(answer.outcome, DulianError):
            self.refused += 1
            self._errors.print(f"refused {answer.source.name}: {printable(str(answer.outcome))}")
        elif not self._json_lines:
            self._results.append((answer.source, answer.outcome))
        if answer.copy_error is not None:
            self.uncopied += 1
            self._errors.print(f"answered {answer.source.name}, but {printable(str(answer.copy_error))}")
        if self._json_lines:
            typer.echo(json.dumps(answer.to_dict(), ensure_ascii=False))
        if self._progress:
            self._progress.advance(self._task, 1)

    def _make_progress(self) -> Any:
        mixed = self._json_lines and sys.stdout is not None and sys.stdout.isatty()
        if self._expected < PROGRESS_FROM or not self._errors.is_terminal or mixed:
            return None
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TimeRemainingColumn

        progress = Progress(
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            _rate_column(),
            TimeRemainingColumn(),
            console=self._errors,
            transient=True,
        )
        self._task = progress.add_task("dulian", total=self._expected)
        return progress

    def _print_table(self) -> None:
        from rich.table import Table

        self._narrow = output_console().width < NARROW
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
        for heading in self._fitting(HEADINGS[self._language]):
            table.add_column(heading, overflow="fold")
        shared = _shared_folder([source.name for source, _ in self._results])
        for source, result in self._results:
            name = os.path.relpath(source.name, shared) if shared else source.name
            self._add_rows(table, name, result)
        print_table(table)
        typer.echo(f"\n{self._summary()}")

    def _add_rows(self, table: Any, shown_name: str, result: AnalysisResult) -> None:
        from rich.text import Text

        name = Text(shown_name)
        if not result.faces:
            note = getattr(result.hint.message, self._language) if result.hint else ""
            table.add_row(*self._fitting((name, "–", "–", "–", "–", "–", "–", Text(note, style="yellow"))))
        for face in result.faces:
            table.add_row(*self._fitting((name, *self._cells(face))))
            name = Text("")
        if result.truncated:
            note = MORE_FACES[self._language].format(count=result.skipped)
            table.add_row(*self._fitting((name, "…", "", "", "", "", "", Text(note, style="yellow"))))

    def _fitting(self, cells: tuple[Any, ...]) -> tuple[Any, ...]:
        """The cells for which there is room: a narrow terminal goes without bucket and size."""
        return (*cells[:5], cells[7]) if self._narrow else cells

    def _cells(self, face: Face) -> tuple[Any, ...]:
        from rich.text import Text

        from dulian.messages import GENDERS

        zh = self._language == "zh"
        gender = age = likely = bucket = Text("–")
        if face.gender is not None:
            word = GENDERS[face.gender.value][zh]
            gender = Text(f"{word} {_percent(face.gender.probability)}")
        if face.age is not None:
            age = Text(f"{face.age.value:.0f}", style="bold")
            likely = Text(f"{face.age.low:.0f}–{face.age.high:.0f}")
            bucket = Text(face.age.bucket)
        note = Text(getattr(face.message, self._language) if face.message else "", style="yellow")
        return str(face.id), gender, age, likely, bucket, f"{face.quality.size_px} px", note

    def _summary(self) -> str:
        results = [result for _, result in self._results]
        return SUMMARY[self._language].format(
            pictures=len(results) + self.refused,
            faces=sum(len(result.faces) for result in results),
            refused=self.refused,
            profile=results[0].model.profile,
            engine=results[0].model.engine,
            ms=sum(result.timings_ms.total for result in results) / len(results),
        )


def _shared_folder(names: list[str]) -> str:
    """The folder that all these paths lie in, or nothing."""
    folders = {os.path.dirname(name) for name in names}
    return os.path.commonpath(folders) if len({os.path.isabs(folder) for folder in folders}) == 1 else ""


def _percent(probability: float) -> str:
    """Whole percent, but never 100: nothing here is certain."""
    return ">99%" if probability > 0.99 else f"{probability:.0%}"


def _rate_column() -> Any:
    """A progress column with pictures per second."""
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "")

    return RateColumn()
