"""From sources to inputs: what each source is, and who lists it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from dulian.batch.inputs.archives import list_archive
from dulian.batch.inputs.folders import Tally, local_input, reason_of, walk
from dulian.batch.inputs.lists import Entry, read_list
from dulian.batch.inputs.names import (
    ARCHIVE_SUFFIXES,
    LIST_SUFFIXES,
    Place,
    file_input,
    is_hidden,
    is_picture,
    member_input,
    moved,
    place_of,
    refused_input,
    renamed,
)
from dulian.batch.inputs.pages import list_objects
from dulian.batch.inputs.patterns import Everything, Pattern, Selection, has_wildcard, split_key, split_local
from dulian.batch.inputs.stores import Found, Stores
from dulian.batch.records import Input
from dulian.errors import InputNotFoundError, MalformedInputError
from dulian.sources import STDIN, open_file, printable


class SourceLister:
    """Goes through sources one after the other. What they are is judged when it is made, what they hold on the way.

    Raises:
        MalformedInputError: A source is empty or an address of a kind that is not accepted.
    """

    def __init__(self, sources: Sequence[str], *, column: str | None, base: str | None) -> None:
        self._places = [None if source == STDIN else place_of(source) for source in sources]
        self._column, self._stores, self._tally = column, Stores(), Tally()
        here = os.getcwd()
        is_here = base is None or os.path.abspath(base) == here
        self._base = "" if base is None else base
        # Relative names are opened below `base`; where that is not the current folder, sources say so.
        self._here = None if is_here else here

    @property
    def left_alone(self) -> int:
        """Files that were passed over because their names are no pictures'."""
        return self._tally.left_alone

    def __iter__(self) -> Iterator[Input]:
        for place in self._places:
            yield from self._of_stdin() if place is None else self._of(place)

    def _of(self, place: Place) -> Iterator[Input]:
        if place.member is not None:
            return self._opened_here([member_input(place.address, place.member)])
        return self._of_path(place.path) if place.scheme is None else self._of_store(place)

    def _opened_here(self, inputs: Iterable[Input]) -> Iterator[Input]:
        here = self._here
        return iter(inputs) if here is None else (moved(one, here) for one in inputs)

    # ── this machine ─────────────────────────────────────────────────────────────────────────────

    def _of_path(self, path: str) -> Iterator[Input]:
        # As people write it, without `./` and doubled slashes.
        path = str(Path(path))
        if os.path.isdir(path):
            return self._opened_here(walk(path, Everything(), self._tally))
        if has_wildcard(path) and not os.path.lexists(path):
            return self._of_glob(path)
        return self._of_file(path)

    def _of_file(self, path: str) -> Iterator[Input]:
        if path.lower().endswith(LIST_SUFFIXES):
            return self._of_list(Place(path))
        if path.lower().endswith(ARCHIVE_SUFFIXES):
            # A link to an archive was named by somebody; what it leads to now is what will be opened.
            real = os.path.realpath(path) if os.path.islink(path) else path
            listed = list_archive(path, partial(open_file, Path(real), follow_links=False), self._tally)
            return self._opened_here(listed if real == path else (_behind_link(one, path, real) for one in listed))
        return self._opened_here([local_input(path)])

    def _of_glob(self, path: str) -> Iterator[Input]:
        root, pattern = split_local(path)
        selection = Pattern(pattern)
        for one in walk(root, selection, self._tally):
            # What a pattern with a suffix finds is taken as if it had been named: archives and lists are opened.
            if selection.any_suffix and one.problem is None:
                yield from self._of_file(place_of(one.location).path)
            else:
                yield from self._opened_here([one])

    # ── stores ───────────────────────────────────────────────────────────────────────────────────

    def _of_store(self, place: Place) -> Iterator[Input]:
        store = self._stores.of(place)
        key = place.key
        found = store.find(place) if key and not key.endswith("/") else None
        if found is not None and not found.is_folder:
            return self._of_object(place, found)
        if has_wildcard(key):
            folder, pattern = split_key(key)
            return self._below(place, f"{folder}/" if folder else "", Pattern(pattern))
        return self._below(place, f"{key.rstrip('/')}/" if key else "", Everything())

    def _of_object(self, place: Place, found: Found) -> Iterator[Input]:
        if place.path.lower().endswith(LIST_SUFFIXES):
            return self._of_list(place)
        if place.path.lower().endswith(ARCHIVE_SUFFIXES):
            return list_archive(place.address, partial(self._stores.of(place).stream, place), self._tally)
        return iter([file_input(place.address, size=found.size, version=found.version)])

    def _below(self, place: Place, folder: str, selection: Selection) -> Iterator[Input]:
        """Objects below a folder; a pattern's first letters narrow what is asked for."""
        asked = folder
        if isinstance(selection, Pattern):
            asked += selection.head
        is_empty = True
        try:
            for found in list_objects(self._stores.of(place), Place(f"{place.bucket}/{asked}", place.scheme)):
                is_empty = False
                yield from self._selected(place, found, found.key.removeprefix(folder), selection)
        except FileNotFoundError:
            yield refused_input(place.address, "no such bucket or folder")
            return
        if is_empty and isinstance(selection, Everything):
            yield refused_input(place.address, "there is no such object, and nothing below it")

    def _selected(self, place: Place, found: Found, path: str, selection: Selection) -> Iterator[Input]:
        # Stores show folders as objects whose names end so.
        if found.key.endswith("/") or is_hidden(path) or not selection.matches(path):
            return iter(())
        here = Place(f"{place.bucket}/{found.key}", place.scheme)
        if selection.any_suffix:
            return self._of_object(here, found)
        if not is_picture(path):
            self._tally.left_alone += 1
            return iter(())
        return iter([file_input(here.address, size=found.size, version=found.version)])

    # ── lists ────────────────────────────────────────────────────────────────────────────────────

    def _of_stdin(self) -> Iterator[Input]:
        if sys.stdin is None:
            raise InputNotFoundError("standard input is closed")
        return map(self._of_entry, read_list("standard input", sys.stdin.buffer, self._column))

    def _of_list(self, place: Place) -> Iterator[Input]:
        opened: Callable[[], BinaryIO]
        if place.scheme is None:
            opened = partial(open_file, Path(place.path))
        else:
            opened = partial(self._stores.of(place).stream, place)
        name = place.address
        try:
            with closing(opened()) as stream:
                yield from map(self._of_entry, read_list(name, stream, self._column))
        except InputNotFoundError as error:
            yield refused_input(name, str(error).removeprefix(f"cannot read {printable(name)}: "))
        except (OSError, ValueError) as error:
            yield refused_input(name, reason_of(error))

    def _of_entry(self, entry: Entry) -> Input:
        """One input for one entry, whatever it names; nothing is asked of stores and archives."""
        if entry.problem is not None:
            return refused_input(entry.name, entry.problem)
        try:
            place = place_of(entry.name)
        except MalformedInputError as error:
            return file_input(entry.name, problem=(error.code, str(error)))
        if place.member is not None or place.scheme is not None:
            return renamed(Input(source=entry.name), entry.name)
        return renamed(local_input(place.path, below=self._base), entry.name)


def _behind_link(one: Input, link: str, real: str) -> Input:
    return replace(one, path=f"{real}{one.location.removeprefix(link)}")
