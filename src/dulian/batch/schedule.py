"""What is computed next, and what follows when a process dies of it. Pure: no files, no processes, no clocks.

A shard is tried as a whole. When it has died twice it is halved, and so are its halves, until one input is left; if
that one dies three times, by itself, it is given up. What dies by chance is tried again and lives.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from dulian.batch.shards import Range

DEATHS_OF_MANY = 2
DEATHS_OF_ONE = 3


class Schedule:
    """Ranges that wait, and those that are under way; every range given out comes back by one of three methods."""

    def __init__(
        self,
        shards: Iterable[int],
        whole: Callable[[int], Range],
        *,
        pieces: Mapping[int, Iterable[Range]] | None = None,
        deaths: Mapping[Range, int] | None = None,
    ) -> None:
        """``pieces`` of shards are there already, from a run before this one, and so are ``deaths``."""
        self._whole = whole
        self._shards = deque(shards)
        self._urgent: deque[Range] = deque()
        self._deaths = Counter(dict(deaths or {}))
        self._pieces: dict[int, set[Range]] = {shard: set(parts) for shard, parts in (pieces or {}).items()}
        self._under_way: set[Range] = set()
        self._given_up: list[Range] = []

    @property
    def finished(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not (self._shards or self._urgent or self._under_way or self._given_up)

    @property
    def waiting(self) -> int:
        """How many ranges could be given out now, at least if none of them is halved first."""
        return len(self._shards) + len(self._urgent)

    def drop(self, shards: Collection[int]) -> list[int]:
        """Take out whole shards that have been committed by others; those that were waiting."""
        dropped = [shard for shard in self._shards if shard in shards]
        self._shards = deque(shard for shard in self._shards if shard not in shards)
        return dropped

    def next(self) -> Range | None:
        """A range to compute now; None if there is none, or none before something comes back."""
        while self._urgent or self._shards:
            part = self._urgent.popleft() if self._urgent else self._enter(self._shards.popleft())
            if part is None or self._is_cut(part):
                continue
            self._under_way.add(part)
            return part
        return None

    def next_sound(self) -> Range | None:
        """A whole shard nothing of which has died yet; None if something else comes first."""
        if self._urgent or not self._shards:
            return None
        whole = self._whole(self._shards[0])
        if self._pieces.get(whole.shard) or not self.is_sound(whole):
            return None
        self._shards.popleft()
        self._under_way.add(whole)
        return whole

    def is_sound(self, part: Range) -> bool:
        """Whether a range is a whole shard that has never died."""
        return part == self._whole(part.shard) and not self._deaths[part]

    def take_given_up(self) -> list[Range]:
        """Single inputs that are not tried any more; whoever takes one writes its piece and says :meth:`done`."""
        taken, self._given_up = self._given_up, []
        self._under_way.update(taken)
        return taken

    def done(self, part: Range) -> list[Range] | None:
        """A range was committed. When that completes a shard in pieces: these, in order, to be put together."""
        self._under_way.discard(part)
        whole = self._whole(part.shard)
        if part == whole:
            self._pieces.pop(part.shard, None)
            return None
        pieces = self._pieces.setdefault(part.shard, set())
        pieces.add(part)
        chosen, gaps = cover(pieces, whole)
        return None if gaps else chosen

    def assembled(self, shard: int) -> None:
        """A shard in pieces was committed as a whole."""
        self._pieces.pop(shard, None)

    def lost(self, part: Range) -> None:
        """A piece that was committed is not there any more, or is not what it was."""
        self._pieces[part.shard].discard(part)
        self._urgent.append(part)

    def died(self, part: Range) -> None:
        """The process that computed a range died."""
        self._under_way.discard(part)
        self._deaths[part] += 1
        if not self._is_cut(part):
            self._urgent.append(part)

    def back(self, part: Range) -> None:
        """A range comes back as it was given out; nobody is to blame."""
        self._under_way.discard(part)
        self._urgent.append(part)

    def _enter(self, shard: int) -> Range | None:
        """A shard as a whole, or what is missing of one that is in pieces."""
        whole = self._whole(shard)
        if not self._pieces.get(shard):
            return whole
        chosen, _ = cover(self._pieces[shard], whole)
        self._urgent.extend(_remaining(whole, chosen))
        return None

    def _is_cut(self, part: Range) -> bool:
        """Whether a range has died so often that it is not tried again as it is; then its halves are."""
        if len(part) == 1:
            if self._deaths[part] < DEATHS_OF_ONE:
                return False
            self._given_up.append(part)
            return True
        if self._deaths[part] < DEATHS_OF_MANY:
            return False
        self._urgent.extendleft(reversed(part.halves()))
        return True


def cover(pieces: Iterable[Range], whole: Range) -> tuple[list[Range], list[Range]]:
    """Of ranges of one shard those that lie side by side, in order, and the gaps that they leave."""
    chosen: list[Range] = []
    gaps: list[Range] = []
    at = whole.start
    for part in sorted(pieces):
        if part.start < at or part.stop > whole.stop:
            continue
        if part.start > at:
            gaps.append(Range(whole.shard, at, part.start))
        chosen.append(part)
        at = part.stop
    if at < whole.stop:
        gaps.append(Range(whole.shard, at, whole.stop))
    return chosen, gaps


def _remaining(part: Range, pieces: Sequence[Range]) -> list[Range]:
    """What halving leaves of a range when these pieces of it, which do not overlap, are there already."""
    if part in pieces:
        return []
    inside = [piece for piece in pieces if piece.start < part.stop and part.start < piece.stop]
    if not inside:
        return [part]
    if len(part) == 1:
        return []
    return [rest for half in part.halves() for rest in _remaining(half, inside)]
