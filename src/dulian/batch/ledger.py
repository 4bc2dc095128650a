"""What a driver has to do whatever it drives: hand out ranges, take in what became of them, put pieces together."""

from __future__ import annotations

import random
import re
import time
from collections import defaultdict
from collections.abc import Sequence

from dulian.batch.attempts import Attempts, new_attempt, of_others
from dulian.batch.destinations import Destination
from dulian.batch.job import Job, committed_shards, read_inputs
from dulian.batch.records import Record, failed_record
from dulian.batch.schedule import Schedule, cover
from dulian.batch.shards import PIECES, Range, decode, encode, name_of_piece, name_of_shard
from dulian.batch.tally import Brief, Tally
from dulian.errors import DamagedJobError, ProcessDiedError

_PIECE = re.compile(r"(\d+)\.(\d+)-(\d+)\.jsonl")


# How often a driver looks for what others have committed meanwhile: it spares work, nothing else.
LOOK_AGAIN_S = 30.0


class Ledger:
    """The driver's half of the commit rule, over a destination; used by one thread."""

    def __init__(
        self, job: Job, destination: Destination, *, share: tuple[int, int] = (0, 1), tally: Tally | None = None
    ) -> None:
        """``share`` (i, n) takes every n-th shard, from the i-th on."""
        self.tally = tally or Tally()
        self._job, self._destination = job, destination
        self._names: dict[Range, str] = {}
        self._died_of: dict[Range, str] = {}
        mine = range(share[0], job.shards, share[1])
        self._attempts = Attempts.find(destination, mine)
        committed = committed_shards(destination, job).intersection(mine)
        pieces = self._find_pieces(mine, committed)
        for shard, parts in [*pieces.items()]:
            chosen, gaps = cover(parts, job.whole(shard))
            if gaps:
                continue
            if damaged := self._assemble(shard, chosen):
                parts.remove(damaged)
            else:
                committed.add(shard)
                del pieces[shard]
        for shard in committed:
            self._attempts.forget(destination, shard)
        self.tally.shards = len(mine)
        self.tally.inputs = sum(len(job.whole(shard)) for shard in mine)
        self.tally.before = sum(len(job.whole(shard)) for shard in committed)
        missing = [shard for shard in mine if shard not in committed]
        if missing and of_others(destination):
            # Where others are at work too, everybody begins at another place, and they help each other.
            missing = _rotated(missing)
        self._looked = time.monotonic()
        self._schedule = Schedule(missing, job.whole, pieces=pieces, deaths=self._attempts.deaths())

    @property
    def finished(self) -> bool:
        """Whether all records of this share are committed."""
        return self._schedule.finished

    @property
    def waiting(self) -> int:
        """About how many ranges wait to be computed."""
        return self._schedule.waiting

    def next(self) -> tuple[Range, str] | None:
        """A range to compute now, and the name of its attempt; None if there is none, at least for the moment."""
        if time.monotonic() - self._looked > LOOK_AGAIN_S:
            self._leave_out_what_others_did()
        part = self._schedule.next()
        self._give_up()
        return None if part is None else self._begin(part)

    def next_beside(self, part: Range) -> tuple[Range, str] | None:
        """A range that a process may begin while it still works on another one.

        Both must be whole shards that have never died: if the process dies of one, the other bears the blame too.
        """
        beside = self._schedule.next_sound() if self._schedule.is_sound(part) else None
        return None if beside is None else self._begin(beside)

    def told(self, part: Range, one: Brief) -> None:
        """A worker has a record of a range that it is working on."""
        self.tally.told(part, one)

    def done(self, part: Range) -> None:
        """A worker has committed a range."""
        self._names.pop(part, None)
        self.tally.committed(part)
        self._commit(part)

    def back(self, part: Range) -> None:
        """A worker hands a range back undone, in good order."""
        # A node that is lost takes the end of its attempt with it.
        self._attempts.died(part, self._names.pop(part))
        self._schedule.back(part)
        self.tally.undone(part, by_death=False)

    def died(self, part: Range, how: str) -> None:
        """The process that worked on a range has died."""
        self._attempts.died(part, self._names.pop(part))
        self._died_of[part] = how
        self._schedule.died(part)
        self.tally.undone(part, by_death=True)
        self._give_up()

    def _leave_out_what_others_did(self) -> None:
        dropped = self._schedule.drop(committed_shards(self._destination, self._job))
        self.tally.before += sum(len(self._job.whole(shard)) for shard in dropped)
        self._looked = time.monotonic()

    def _begin(self, part: Range) -> tuple[Range, str]:
        self._names[part] = new_attempt(part)
        return part, self._names[part]

    def _give_up(self) -> None:
        """Write the records of single inputs that have died too often."""
        for part in self._schedule.take_given_up():
            how = self._died_of.get(part, "the process ended")
            source = read_inputs(self._destination, self._job, part.shard)[part.start].source
            record = failed_record(
                source, ProcessDiedError(f"{how} whenever this picture was looked at, also with no other one beside it")
            )
            whole = part == self._job.whole(part.shard)
            name = name_of_shard(part.shard) if whole else name_of_piece(part)
            self._destination.create(name, encode([record], job=self._job.id, shard=part.shard))
            self.tally.gave_up(record)
            self._commit(part)

    def _commit(self, part: Range) -> None:
        chosen = self._schedule.done(part)
        if part == self._job.whole(part.shard):
            self._attempts.forget(self._destination, part.shard)
        elif chosen is None:
            return
        elif damaged := self._assemble(part.shard, chosen):
            self._schedule.lost(damaged)
        else:
            self._attempts.forget(self._destination, part.shard)
            self._schedule.assembled(part.shard)

    # ── pieces ───────────────────────────────────────────────────────────────────────────────────

    def _find_pieces(self, mine: Sequence[int], committed: set[int]) -> dict[int, list[Range]]:
        """Pieces of shards that are not committed; those of the others are removed."""
        found: defaultdict[int, list[Range]] = defaultdict(list)
        for name in [*self._destination.names(PIECES)]:
            match = _PIECE.fullmatch(name)
            if match is None or int(match[1]) not in mine:
                continue
            part = Range(int(match[1]), int(match[2]), int(match[3]))
            if part.shard in committed:
                self._destination.remove(name_of_piece(part))
            else:
                found[part.shard].append(part)
        return found

    def _assemble(self, shard: int, parts: Sequence[Range]) -> Range | None:
        """Commit a shard out of its pieces; a piece that is damaged is removed instead, and returned."""
        records: list[Record] = []
        for part in parts:
            data = self._destination.read(name_of_piece(part))
            try:
                piece = decode(data or b"", job=self._job.id, shard=shard)
            except DamagedJobError:
                piece = []
            if len(piece) != len(part):
                self._destination.remove(name_of_piece(part))
                return part
            records += piece
        self._destination.create(name_of_shard(shard), encode(records, job=self._job.id, shard=shard))
        for part in parts:
            self._destination.remove(name_of_piece(part))
        return None


def _rotated(shards: list[int]) -> list[int]:
    start = random.randrange(len(shards))
    return shards[start:] + shards[:start]
