"""Puts files of the catalog into the write folder, one at a time. The caller holds the folder's lock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dulian.models import catalog
from dulian.models.catalog import ModelRow, WeightsFile
from dulian.store.directories import Damaged, Directories, Found
from dulian.store.files import write_atomically
from dulian.store.importing import Offers
from dulian.store.originals import Notify, converted
from dulian.store.records import How, Installed

Fetch = Callable[[WeightsFile], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Installer:
    """Takes what is on this machine where it can, and calls ``fetch`` for the rest."""

    directories: Directories
    fetch: Fetch
    notify: Notify

    def settled(self, file: WeightsFile) -> Installed | None:
        """The file, if it already is where it is wanted.

        Raises:
            WeightsError: A damaged file in a folder that is searched earlier would hide whatever is put.
        """
        seen = self.directories.look(file, self.notify)
        if isinstance(seen, Damaged) and not self.directories.is_hidden_by_write(seen.path):
            self.directories.refuse(seen, file)
        if isinstance(seen, Found) and self.directories.is_wanted_at(seen.path):
            return Installed(file=file, path=seen.path, how="already there")
        return None

    def install(self, row: ModelRow) -> tuple[Installed, bytes]:
        """What a session of this network loads; another process may have put it while this one waited."""
        seen = self._found(row.weights)
        if seen is not None or not row.originals:
            return self.install_file(row.weights)
        data = converted(row, tuple(self._obtained(file) for file in row.originals))
        return self._put(row.weights, data, "converted"), data

    def install_file(self, file: WeightsFile) -> tuple[Installed, bytes]:
        """One file as published."""
        settled = self.settled(file)
        seen = self._found(file)
        if seen is None:
            data = self.fetch(file)
            return self._put(file, data, "fetched"), data
        return settled or self._put(file, seen.data, "copied"), seen.data

    def import_files(self, offers: Offers) -> Iterator[Installed]:
        """Those of the offers that belong into this folder, converted as far as their counterparts are here."""
        for row in catalog.all_rows():
            if row.weights in offers:
                yield self._put(row.weights, offers[row.weights](), "imported")
            elif any(file in offers for file in row.originals):
                yield from self._import_originals(row, offers)

    def import_samples(self, offers: Offers) -> Iterator[Installed]:
        """The sample pictures among the offers."""
        for file in catalog.SAMPLES:
            if file in offers:
                yield self._put(file, offers[file](), "imported")

    def _import_originals(self, row: ModelRow, offers: Offers) -> Iterator[Installed]:
        here = {file: found.data for file in row.originals if file not in offers and (found := self._found(file))}
        lacks = tuple(file.name for file in row.originals if file not in offers and file not in here)
        if lacks:
            for file in row.originals:
                if file in offers:
                    yield self._put(file, offers[file](), "kept for later", lacks=lacks)
            return
        data = converted(row, tuple(here[file] if file in here else offers[file]() for file in row.originals))
        yield self._put(row.weights, data, "converted")

    def _found(self, file: WeightsFile) -> Found | None:
        seen = self.directories.look(file, self.notify)
        return seen if isinstance(seen, Found) else None

    def _obtained(self, file: WeightsFile) -> bytes:
        found = self._found(file)
        return found.data if found else self.fetch(file)

    def _put(self, file: WeightsFile, data: bytes, how: How, *, lacks: tuple[str, ...] = ()) -> Installed:
        folder: Path = self.directories.write
        folder.mkdir(exist_ok=True)
        write_atomically(folder / file.name, data)
        return Installed(file=file, path=folder / file.name, how=how, lacks=lacks)
