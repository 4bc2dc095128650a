"""Attempts that were begun: an empty file each, which its process removes when it ends in order.

What is left of them tells who died, also when the driver died too. They spare work; correctness never needs them.
"""

from __future__ import annotations

import re
import secrets
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from dulian.batch.destinations import Destination
from dulian.batch.destinations.names import Temporary
from dulian.batch.shards import STAGING, Range

PREFIX = "attempt_"
_NAME = re.compile(rf"{PREFIX}([0-9]+)_([0-9]+)-([0-9]+)_([A-Za-z0-9.-]+)_([0-9]+)_[0-9a-f]+")


def new_attempt(part: Range) -> str:
    """A name for an attempt of this process and its children."""
    mine = Temporary.of_this_process()
    at = f"{part.shard:06d}_{part.start}-{part.stop}"
    return f"{STAGING}/{PREFIX}{at}_{mine.host}_{mine.pid}_{secrets.token_hex(4)}"


@dataclass(slots=True)
class Attempts:
    """Names of attempts that died, by the shard."""

    _died: defaultdict[int, list[tuple[Range, str]]]

    @classmethod
    def find(cls, destination: Destination, shards: Iterable[int]) -> Attempts:
        """Those that processes left behind which are no more; of other hosts all, because nobody can tell from here."""
        wanted = set(shards)
        died: defaultdict[int, list[tuple[Range, str]]] = defaultdict(list)
        for name in destination.names(STAGING):
            found = _NAME.fullmatch(name)
            if found and int(found[1]) in wanted and not _is_alive(Temporary(found[4], int(found[5]))):
                part = Range(int(found[1]), int(found[2]), int(found[3]))
                died[part.shard].append((part, f"{STAGING}/{name}"))
        return cls(died)

    def deaths(self) -> dict[Range, int]:
        """How often each range has died."""
        counts: defaultdict[Range, int] = defaultdict(int)
        for attempts in self._died.values():
            for part, _ in attempts:
                counts[part] += 1
        return counts

    def died(self, part: Range, name: str) -> None:
        """Remember one that has just died."""
        self._died[part.shard].append((part, name))

    def forget(self, destination: Destination, shard: int) -> None:
        """The shard is committed: remove what was left of its attempts."""
        for _, name in self._died.pop(shard, ()):
            destination.remove(name)


def of_others(destination: Destination) -> bool:
    """Whether anybody but this process has begun something there, here or on another machine."""
    mine = Temporary.of_this_process()
    found = (_NAME.fullmatch(name) for name in destination.names(STAGING))
    return any((one[4], int(one[5])) != (mine.host, mine.pid) for one in found if one)


def others_at_work(destination: Destination, shards: Iterable[int]) -> set[int]:
    """Other processes of this host that drive attempts at these shards at this moment."""
    wanted = set(shards)
    found = (_NAME.fullmatch(name) for name in destination.names(STAGING))
    owners = {Temporary(one[4], int(one[5])) for one in found if one and int(one[1]) in wanted}
    return {owner.pid for owner in owners if _is_alive(owner)}


def _is_alive(owner: Temporary) -> bool:
    """Whether the driver of an attempt still runs on this machine; our own earlier attempts have ended."""
    mine = Temporary.of_this_process()
    return owner.host == mine.host and owner.pid != mine.pid and not owner.is_dead()
