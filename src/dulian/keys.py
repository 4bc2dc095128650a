"""API keys: made here, kept only as their sha256 in one file, and recognised by it.

Nothing here knows a request: what is asked of a key is decided where it is presented.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

from dulian.errors import InputNotFoundError, KeysFileError, MalformedInputError
from dulian.files import is_loose, read_regular, shown, write_atomically
from dulian.sources import printable

PREFIX = "dl_"
# 256 bits: guessing is hopeless, so a plain hash is enough and one key may be tried as often as anybody likes.
KEY_BYTES = 32
MAX_NAME_CHARS = 64
# The moments of so many requests are remembered for each key: 3 MB at most.
MAX_RATE = 100_000
MAX_FILE_BYTES = 1 << 20
FORMAT_VERSION = 1

Period = Literal["second", "minute", "hour", "day"]

_RATE = re.compile(r"([1-9][0-9]{0,5})/(second|minute|hour|day)")
_ID = re.compile(r"[0-9a-f]{8}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NEW_FILE_MODE = 0o600
_NEW_FOLDER_MODE = 0o700


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``count`` requests within any such period."""

    count: int
    period: Period

    def __str__(self) -> str:
        return f"{self.count}/{self.period}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What is known of a key; not the key. ``created`` is a moment in UTC, after ISO 8601."""

    id: str
    name: str
    sha256: str
    rate: Rate | None
    created: str


class KeyRing:
    """Keys to be found by what a caller presents."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._by_id = {key.id: key for key in keys}
        self._by_hash = {bytes.fromhex(key.sha256): key for key in self._by_id.values()}

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, key_id: str) -> Key | None:
        """The key with an id, if it has not been revoked."""
        return self._by_id.get(key_id)

    def find(self, presented: bytes) -> Key | None:
        """The key that this is, if it is one.

        The time of the look-up depends on the sha256 of what was presented. Nobody can choose a value whose sha256
        begins like that of an unknown key without knowing the latter, so this time tells nothing that helps, and it
        is the same for one key and a thousand. The hash that was found is still compared in constant time.
        """
        digest = hashlib.sha256(presented).digest()
        key = self._by_hash.get(digest)
        return key if key is not None and hmac.compare_digest(bytes.fromhex(key.sha256), digest) else None


def parse_rate(text: str) -> Rate:
    """A rate from its text, ``60/minute``.

    Raises:
        MalformedInputError: It is none, or too high.
    """
    match = _RATE.fullmatch(text)
    if match is None or int(match[1]) > MAX_RATE:
        raise MalformedInputError(
            f"{printable(text)!r} is no rate; write a number from 1 to {MAX_RATE}, a stroke, and second, minute, hour"
            " or day, as in 60/minute"
        )
    return Rate(int(match[1]), cast(Period, match[2]))


@dataclass(frozen=True, slots=True)
class KeysFile:
    """The file that keys are kept in, which need not exist."""

    path: Path

    def signature(self) -> tuple[int, ...] | None:
        """What changes whenever the file does; None if there is none.

        Raises:
            KeysFileError: That cannot be found out.
        """
        try:
            info = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unreadable(error) from error
        return info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns

    def is_loose(self) -> bool:
        """Whether others can read or change the file: a key could be added, or one's owner learnt."""
        return is_loose(self.path)

    def read(self) -> tuple[Key, ...] | None:
        """The keys; None if there is no file.

        Raises:
            KeysFileError: It cannot be read, or is not what :meth:`create` writes.
        """
        try:
            text = read_regular(self.path, MAX_FILE_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            return _parse(json.loads(text))
        except (ValueError, RecursionError, MalformedInputError) as error:
            raise KeysFileError(
                f"the keys file {shown(self.path)} is damaged ({printable(str(error))}); restore it, or remove it and"
                " make new keys with 'dulian keys create'"
            ) from error

    def create(self, *, name: str = "", rate: Rate | None = None) -> tuple[str, Key]:
        """Make a key and keep its sha256; the key itself is returned and nowhere else.

        Raises:
            MalformedInputError: The name is too long or cannot be shown.
            KeysFileError: The file is damaged or cannot be written.
        """
        if len(name) > MAX_NAME_CHARS or not name.isprintable():
            raise MalformedInputError(f"a key's name is at most {MAX_NAME_CHARS} printable characters")
        secret = PREFIX + secrets.token_urlsafe(KEY_BYTES)
        with self._changing() as keys:
            key = Key(
                id=_new_id({key.id for key in keys}),
                name=name,
                sha256=hashlib.sha256(secret.encode("ascii")).hexdigest(),
                rate=rate,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            keys.append(key)
        return secret, key

    def revoke(self, key_id: str) -> Key:
        """Forget a key.

        Raises:
            InputNotFoundError: There is no such key.
            KeysFileError: The file is damaged or cannot be written.
        """
        if key_id not in {key.id for key in self.read() or ()}:
            raise self._unknown(key_id)
        with self._changing() as keys:
            found = next((key for key in keys if key.id == key_id), None)
            if found is None:
                raise self._unknown(key_id)
            keys.remove(found)
        return found

    @contextmanager
    def _changing(self) -> Iterator[list[Key]]:
        """The keys as a list to be changed, then written; one process at a time."""
        from filelock import FileLock

        try:
            # A link to the file stays one, and the lock is the same whichever way one comes.
            path = Path(os.path.realpath(self.path))
            path.parent.mkdir(mode=_NEW_FOLDER_MODE, parents=True, exist_ok=True)
            with FileLock(path.with_name(f".{path.name}.lock")):
                keys = list(self.read() or ())
                yield keys
                _write(path, keys)
        except OSError as error:
            raise KeysFileError(
                f"cannot write the keys file {shown(self.path)}: {error.strerror or error}; make its folder writable or"
                " name another file with --keys-file (DULIAN_KEYS_FILE)"
            ) from error

    def missing(self) -> KeysFileError:
        """The error for a file that should be there."""
        return KeysFileError(
            f"the keys file {shown(self.path)} does not exist; make it with 'dulian keys create', or name another with"
            " --keys-file (DULIAN_KEYS_FILE)"
        )

    def _unknown(self, key_id: str) -> InputNotFoundError:
        return InputNotFoundError(
            f"there is no key {printable(key_id)!r} in {shown(self.path)}; 'dulian keys list' shows those there are"
        )

    def _unreadable(self, error: OSError) -> KeysFileError:
        return KeysFileError(
            f"the keys file {shown(self.path)} cannot be read: {error.strerror or error}; mend its rights or name"
            " another with --keys-file (DULIAN_KEYS_FILE)"
        )


def find_keys_file(named: Path | None) -> KeysFile:
    """The file that is named, else the one in the user's folder for configuration."""
    import platformdirs

    return KeysFile(named.expanduser() if named else platformdirs.user_config_path("dulian") / "keys.json")


def _new_id(taken: set[str]) -> str:
    while (new := secrets.token_hex(4)) in taken:
        pass
    return new


def _write(path: Path, keys: Iterable[Key]) -> None:
    wire = {"version": FORMAT_VERSION, "keys": [_to_wire(key) for key in keys]}
    text = json.dumps(wire, ensure_ascii=False, indent=1) + "\n"
    try:
        like = os.stat(path)
    except FileNotFoundError:
        like = None
    # A file that was handed to the service's user stays readable for it, whoever changes it.
    write_atomically(path, text.encode(), mode=_NEW_FILE_MODE, like=like)


def _to_wire(key: Key) -> dict[str, Any]:
    return asdict(key) | {"rate": str(key.rate) if key.rate else None}


def _parse(wire: object) -> tuple[Key, ...]:
    if not isinstance(wire, dict) or set(wire) != {"version", "keys"} or not isinstance(wire["keys"], list):
        raise ValueError("it is no list of keys")
    if wire["version"] != FORMAT_VERSION:
        raise ValueError(f"its version is {wire['version']!r}, not {FORMAT_VERSION}")
    keys = tuple(_parse_key(number, entry) for number, entry in enumerate(wire["keys"]))
    for what, values in (("id", {key.id for key in keys}), ("sha256", {key.sha256 for key in keys})):
        if len(values) != len(keys):
            raise ValueError(f"two keys have the same {what}")
    return keys


def _parse_key(number: int, wire: object) -> Key:
    if not isinstance(wire, dict) or set(wire) != set(Key.__slots__):
        raise ValueError(f"entry {number} is no key")
    rate = wire["rate"]
    if any(not isinstance(value, str) for name, value in wire.items() if name != "rate" or value is not None):
        raise ValueError(f"entry {number} is no key")
    if not _ID.fullmatch(wire["id"]) or not _SHA256.fullmatch(wire["sha256"]):
        raise ValueError(f"entry {number} has a broken id or sha256")
    return Key(**wire | {"rate": None if rate is None else parse_rate(rate)})
