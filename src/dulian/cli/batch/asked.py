"""What is said on the command line of a batch, read and checked before anything begins."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from dulian.errors import MalformedInputError

if TYPE_CHECKING:
    from dulian.batch.drivers import Driver

NO_FILES = "none"
DEFAULT_FORMATS = "jsonl,html"
# A place in the memory of one process, which no other one sees.
_IN_MEMORY = "memory://"


class Drivers(StrEnum):
    """Who computes, as the command line spells it."""

    local = "local"
    ray = "ray"
    inline = "inline"


def parse_share(text: str | None) -> tuple[int, int] | None:
    """``2/8``: the third of eight shares.

    Raises:
        MalformedInputError: It is no such text, or there is no such share.
    """
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None:
        raise MalformedInputError(f"--shard {text!r} is no share; the first of eight is 0/8")
    index, count = int(found[1]), int(found[2])
    if index >= count:
        last = f"; of {count} shares the first is 0/{count} and the last {count - 1}/{count}" if count else ""
        raise MalformedInputError(f"--shard {text}: shares are counted from 0{last}")
    return index, count


def parse_formats(text: str) -> tuple[str, ...]:
    """The kinds of files that are written at the end.

    Raises:
        MalformedInputError: There is no such kind.
        MissingDependencyError: What it needs is not installed.
    """
    from dulian.batch.writers import find_writer

    words = tuple(dict.fromkeys(word.strip().lower().removeprefix(".") for word in text.split(",") if word.strip()))
    kinds = () if words == (NO_FILES,) else words
    for kind in kinds:
        find_writer(f".{kind}")
    return kinds


@dataclass(frozen=True, slots=True)
class Crew:
    """How many processes, and threads of each."""

    processes: int
    threads: int


def choose_driver(asked: Drivers | None, places: Sequence[str], address: str | None) -> Drivers:
    """The driver that was asked for; without a wish this machine's processes, if they see what this one sees.

    Raises:
        MalformedInputError: It cannot reach a place that only this process has, or does not go with an address.
    """
    in_memory = next((place for place in places if place.startswith(_IN_MEMORY)), None)
    if address and asked not in (None, Drivers.ray):
        raise MalformedInputError("--ray-address is for --driver ray")
    if asked is None and not address:
        return Drivers.inline if in_memory else Drivers.local
    kind = asked or Drivers.ray
    if in_memory and kind is not Drivers.inline:
        raise MalformedInputError(f"{in_memory} is in the memory of this process alone; use --driver inline")
    return kind


def make_crew(kind: Drivers, processes: int | None, threads: int | None) -> Crew:
    """As asked for; what is left open goes by the cores and the memory of this machine, where it is this machine's."""
    from dulian.batch.drivers.local import this_machine
    from dulian.machine import effective_cores

    if kind is Drivers.ray:
        return Crew(processes or 1, threads or 1)
    cores = effective_cores()
    if kind is Drivers.inline:
        return Crew(1, threads or cores)
    if processes is None:
        return Crew(*this_machine()) if threads is None else Crew(max(1, cores // threads), threads)
    return Crew(processes, threads or max(1, cores // processes))


def make_driver(kind: Drivers, crew: Crew, *, tasks: int | None, address: str | None, stall_s: float) -> Driver:
    """The driver of this kind."""
    if kind is Drivers.inline:
        from dulian.batch.drivers.inline import InlineDriver

        return InlineDriver()
    if kind is Drivers.ray:
        from dulian.batch.drivers.ray import RayDriver

        return RayDriver(address=address, tasks=tasks, stall_s=stall_s)
    from dulian.batch.drivers.local import LocalDriver

    return LocalDriver(processes=crew.processes, stall_s=stall_s)
