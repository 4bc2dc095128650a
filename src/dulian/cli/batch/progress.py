"""How far a batch is, on standard error: a bar on a terminal, a line every now and then elsewhere."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from dulian.cli.batch.texts import TEXTS, duration
from dulian.cli.console import error_console
from dulian.sources import printable

if TYPE_CHECKING:
    from dulian.batch.tally import Tally
    from dulian.messages import Language

# Seconds between two looks at a terminal, and between two lines elsewhere.
LOOK_S, LINE_S = 0.2, 10.0
# The rate is that of so many of the last seconds.
_MEMORY_S = 30.0
# Below this many columns there is room for the errors alone.
_NARROW = 100


class Pace:
    """How many a second, lately."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    @property
    def is_new(self) -> bool:
        """Whether nothing has been told yet."""
        return not self._seen

    def add(self, now: float, done: int) -> float | None:
        """The rate, now that so many are done; None while it is too early to tell."""
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] < now - _MEMORY_S:
            self._seen.popleft()
        then, before = self._seen[0]
        return (done - before) / (now - then) if now > then and done > before else None


class Watch:
    """Shows what goes on; a context, so that the terminal is left as it was."""

    def __init__(self, language: Language) -> None:
        self._language: Language = language
        self._texts = TEXTS[language]
        self._console = error_console()
        self._bar = self._make_bar() if self._console.is_terminal else None
        self._narrow = self._console.width < _NARROW
        self._pace = Pace()
        # The first line elsewhere comes after a while too: short runs need none.
        self._looked = time.monotonic()

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, name: str, **values: object) -> None:
        """A remark of its own."""
        self._console.print(f"dulian: {printable(self._texts[name].format(**values))}")

    def doing(self, what: str, *, count: int = 0, total: int | None = None, **values: object) -> None:
        """Something that takes a while, and how far it is."""
        if self._is_due(0.0 if not count else None):
            text = self._texts[what].format(count=count, all=total or 0, **values)
            self._show(text, done=count, total=total)

    def tally(self, tally: Tally) -> None:
        """The counts have changed."""
        if self._pace.is_new:
            self._pace.add(time.monotonic(), tally.computed)
        if not self._is_due(None):
            return
        done = tally.before + tally.computed
        rate = self._pace.add(self._looked, tally.computed)
        self._show("   ".join([f"{done:,}/{tally.inputs:,}", *self._notes(tally, done, rate)]), done, tally.inputs)

    def _notes(self, tally: Tally, done: int, rate: float | None) -> list[str]:
        texts = self._texts
        if rate is None:
            return [texts["starting"]] if not tally.computed else []
        notes = [texts["rate"].format(rate=rate)]
        if done < tally.inputs:
            notes.append(texts["left"].format(time=duration(round((tally.inputs - done) / rate), self._language)))
        errors = sum(count for kind, count in tally.kinds.items() if kind not in ("ok", "duplicate"))
        counts = {"errors": errors, "faces": tally.faces, "quarantined": tally.quarantined}
        wanted = ("errors", "quarantined") if self._narrow and self._bar else ("errors", "faces", "quarantined")
        return notes + [texts[name].format(count=counts[name]) for name in wanted if counts[name]]

    def _is_due(self, pause_s: float | None) -> bool:
        """Whether it is time for another look; if so, that is when it was."""
        now = time.monotonic()
        pause_s = pause_s if pause_s is not None and self._bar else LOOK_S if self._bar else LINE_S
        if now - self._looked < pause_s:
            return False
        self._looked = now
        return True

    def _show(self, text: str, done: int, total: int | None) -> None:
        if self._bar:
            self._bar.update(self._task, description=text, completed=done, total=total)
        else:
            self._console.print(f"dulian: {text}")

    def _make_bar(self) -> Any:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
        from rich.table import Column

        width = max(8, min(40, self._console.width - 70))
        bar = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=width),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            console=self._console,
            transient=True,
        )
        self._task = bar.add_task(self._texts["starting"], total=None)
        return bar
