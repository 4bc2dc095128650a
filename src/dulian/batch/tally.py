"""How far a run is, for whoever watches: what is committed, and what is under way and may yet be lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from dulian.batch.records import ERROR, Record
from dulian.batch.shards import Range

Brief = tuple[str, int]
"""Of a record the error's code, or its status, and the number of its faces: small enough to be sent for each."""


def brief(record: Record) -> Brief:
    """What a tally keeps of a record."""
    kind = record["error"]["code"] if record["status"] == ERROR else record["status"]
    return kind, len(record.get("faces", ()))


@dataclass(slots=True)
class Tally:
    """Counts of one run; ``changed`` is called after every change, from the driver's thread."""

    changed: Callable[[Tally], None] = lambda tally: None
    inputs: int = 0
    """All inputs of this share, those of earlier runs included."""
    before: int = 0
    """… of which so many had their records before this run."""
    shards: int = 0
    deaths: int = 0
    quarantined: int = 0
    _committed: Counter[str] = field(default_factory=Counter)
    _faces: int = 0
    _running: dict[Range, list[Brief]] = field(default_factory=dict)

    @property
    def computed(self) -> int:
        """Inputs of this run with a record, committed or not."""
        return self._committed.total() + sum(map(len, self._running.values()))

    @property
    def kinds(self) -> Counter[str]:
        """Of these, how many are of which status, or have which error."""
        running = Counter(kind for briefs in self._running.values() for kind, _ in briefs)
        return self._committed + running

    @property
    def faces(self) -> int:
        return self._faces + sum(count for briefs in self._running.values() for _, count in briefs)

    def told(self, part: Range, one: Brief) -> None:
        """A worker has a record of a range that it is still working on."""
        self._running.setdefault(part, []).append(one)
        self.changed(self)

    def committed(self, part: Range) -> None:
        """What was told of a range is durable."""
        briefs = self._running.pop(part, [])
        self._committed.update(kind for kind, _ in briefs)
        self._faces += sum(count for _, count in briefs)
        self.changed(self)

    def undone(self, part: Range, *, by_death: bool) -> None:
        """What was told of a range is lost, and will be computed again."""
        self._running.pop(part, None)
        self.deaths += by_death
        self.changed(self)

    def gave_up(self, record: Record) -> None:
        """An input was quarantined."""
        self._committed[brief(record)[0]] += 1
        self.quarantined += 1
        self.changed(self)
