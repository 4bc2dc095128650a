from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dulian.errors import InputNotFoundError, KeysFileError, MalformedInputError
from dulian.keys import KeyRing, KeysFile, Rate, find_keys_file, parse_rate

posix = pytest.mark.skipif(os.name != "posix", reason="file rights are a matter of POSIX")


@pytest.fixture
def file(tmp_path: Path) -> KeysFile:
    return KeysFile(tmp_path / "config" / "keys.json")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ── making, reading, revoking ────────────────────────────────────────────────────────────────────


def test_what_was_made_is_read_and_found(file: KeysFile) -> None:
    assert file.read() is None
    made = [file.create(name="laptop", rate=Rate(60, "minute")), file.create()]
    keys = file.read()
    assert keys == tuple(key for _, key in made)
    assert [(key.name, key.rate) for key in keys] == [("laptop", Rate(60, "minute")), ("", None)]
    ring = KeyRing(keys)
    assert [ring.find(secret.encode()) for secret, _ in made] == list(keys)
    assert [ring.get(key.id) for key in keys] == list(keys)
    assert len(ring) == 2


@pytest.mark.parametrize("presented", [b"", b"dl_", b"x" * 10_000, "dl_é".encode()])
def test_what_is_no_key_is_not_found(file: KeysFile, presented: bytes) -> None:
    secret, key = file.create()
    ring = KeyRing([key])
    for wrong in (presented, secret.upper().encode(), secret[:-1].encode(), key.sha256.encode(), key.id.encode()):
        assert ring.find(wrong) is None


def test_a_key_has_256_random_bits_and_is_kept_as_its_hash_alone(file: KeysFile) -> None:
    secrets = [file.create()[0] for _ in range(20)]
    assert all(secret.startswith("dl_") for secret in secrets)
    assert {len(base64.urlsafe_b64decode(secret[3:] + "=")) for secret in secrets} == {32}
    text = file.path.read_text("utf-8")
    assert len(set(secrets)) == 20
    for secret in secrets:
        assert secret[3:] not in text
        assert hashlib.sha256(secret.encode()).hexdigest() in text


def test_the_day_of_a_key_is_in_utc(file: KeysFile) -> None:
    created = datetime.fromisoformat(file.create()[1].created)
    assert created.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - created) < timedelta(minutes=10)


def test_a_revoked_key_is_gone_and_the_others_stay(file: KeysFile) -> None:
    first, second = file.create()[1], file.create()[1]
    assert file.revoke(first.id) == first
    assert file.read() == (second,)
    with pytest.raises(InputNotFoundError, match=f"there is no key '{first.id}'"):
        file.revoke(first.id)
    file.revoke(second.id)
    assert file.read() == ()


def test_revoking_makes_no_file(file: KeysFile) -> None:
    with pytest.raises(InputNotFoundError):
        file.revoke("00000000")
    assert not file.path.parent.exists()


@pytest.mark.parametrize("name", ["x" * 65, "two\nlines", "\x1b[31m", "half \udc80"])
def test_names_are_short_and_printable(file: KeysFile, name: str) -> None:
    with pytest.raises(MalformedInputError, match="a key's name"):
        file.create(name=name)
    assert file.read() is None


def test_every_change_changes_the_signature(file: KeysFile) -> None:
    seen = [file.signature()]
    for _ in range(3):
        file.create()
        seen.append(file.signature())
    assert seen[0] is None
    assert len(set(seen)) == 4


def test_many_processes_lose_no_key(file: KeysFile) -> None:
    code = "import sys; from pathlib import Path; from dulian.keys import KeysFile\n"
    code += "for _ in range(5): KeysFile(Path(sys.argv[1])).create()"
    makers = [subprocess.Popen([sys.executable, "-c", code, str(file.path)]) for _ in range(4)]
    assert [maker.wait(60) for maker in makers] == [0] * 4
    assert len(file.read() or ()) == 20


def test_the_default_file_is_in_the_folder_for_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_keys_file(None).path.name == "keys.json"
    if sys.platform == "linux":
        assert find_keys_file(None).path == tmp_path / "dulian" / "keys.json"
    assert find_keys_file(Path("~/mine.json")).path == tmp_path / "mine.json"


# ── rights ───────────────────────────────────────────────────────────────────────────────────────


@posix
def test_only_the_owner_may_read_a_new_file(file: KeysFile) -> None:
    file.create()
    assert mode_of(file.path) == 0o600
    assert mode_of(file.path.parent) == 0o700
    assert not file.is_loose()


@posix
@pytest.mark.parametrize(
    ("mode", "loose"), [(0o600, False), (0o640, False), (0o400, False), (0o644, True), (0o602, True), (0o660, True)]
)
def test_rights_of_others_are_noticed(file: KeysFile, mode: int, loose: bool) -> None:
    file.create()
    file.path.chmod(mode)
    assert file.is_loose() is loose


@posix
def test_a_file_handed_to_a_group_or_user_stays_theirs(file: KeysFile) -> None:
    file.create()
    file.path.chmod(0o640)
    owner = (65534, 65534) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    os.chown(file.path, *owner)
    file.create()
    info = file.path.stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o640, *owner)


@posix
def test_a_link_to_the_file_stays_a_link(file: KeysFile, tmp_path: Path) -> None:
    file.create()
    link = tmp_path / "link.json"
    link.symlink_to(file.path)
    KeysFile(link).create()
    assert link.is_symlink()
    assert len(file.read() or ()) == 2


# ── damage ───────────────────────────────────────────────────────────────────────────────────────

ENTRY: dict[str, Any] = {"id": "0" * 8, "name": "", "sha256": "0" * 64, "rate": None, "created": "2026-01-01"}


def with_entry(**changed: Any) -> str:
    return json.dumps({"version": 1, "keys": [ENTRY | changed]})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        "\udc80",
        '{"version": 1}',
        '{"version": 1, "keys": {}}',
        '{"version": 2, "keys": []}',
        '{"version": 1, "keys": [], "more": 1}',
        '{"version": 1, "keys": ["dl_key"]}',
        json.dumps({"version": 1, "keys": [ENTRY, ENTRY | {"sha256": "1" * 64}]}),
        json.dumps({"version": 1, "keys": [ENTRY, ENTRY | {"id": "1" * 8}]}),
        json.dumps({"version": 1, "keys": [{**ENTRY, "more": "text"}]}),
        json.dumps({"version": 1, "keys": [{name: value for name, value in ENTRY.items() if name != "created"}]}),
        with_entry(id="../../x"),
        with_entry(id=None),
        with_entry(name=7),
        with_entry(sha256="0" * 63),
        with_entry(sha256="G" * 64),
        with_entry(rate="often"),
        with_entry(rate="0/minute"),
        with_entry(rate=60),
        with_entry(created=None),
    ],
)
def test_a_damaged_file_is_no_empty_one(file: KeysFile, text: str) -> None:
    file.path.parent.mkdir()
    file.path.write_bytes(text.encode("utf-8", "surrogateescape"))
    for attempt in (file.read, file.create, lambda: file.revoke("00000000")):
        with pytest.raises(KeysFileError, match="is damaged") as caught:
            attempt()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000
    assert file.path.read_bytes() == text.encode("utf-8", "surrogateescape")


def test_the_example_of_the_damage_is_sound_itself(file: KeysFile) -> None:
    file.path.parent.mkdir()
    file.path.write_text(with_entry(rate="5/hour"))
    assert [key.rate for key in file.read() or ()] == [Rate(5, "hour")]


def test_a_file_that_cannot_be_read_is_no_missing_one(file: KeysFile, tmp_path: Path) -> None:
    file.path.mkdir(parents=True)
    with pytest.raises(KeysFileError, match="cannot be read"):
        file.read()
    large = tmp_path / "large.json"
    large.write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(KeysFileError, match="more than the 1048576 allowed"):
        KeysFile(large).read()


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(KeysFileError, match=r"cannot write the keys file .*--keys-file \(DULIAN_KEYS_FILE\)"):
        KeysFile(tmp_path / "taken" / "keys.json").create()


# ── rates ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", ["1/second", "60/minute", "100000/hour", "7/day"])
def test_a_rate_is_its_own_text(text: str) -> None:
    assert str(parse_rate(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "60", "60/", "/minute", "0/minute", "-1/minute", "1.5/minute", "60/minutes", "60 / minute"),
        *("100001/day", "1e3/day", "6٠/minute", "60/week", "60/minute\n"),
    ],
)
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(MalformedInputError, match="as in 60/minute"):
        parse_rate(text)
