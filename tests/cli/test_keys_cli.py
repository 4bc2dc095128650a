"""``dulian keys``, and what ``dulian serve`` says to a file of keys that it cannot use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dulian.cli.keys import app
from dulian.errors import InputNotFoundError, KeysFileError, MalformedInputError
from dulian.keys import KeyRing, KeysFile, Rate

OK, BAD_INPUT, BACKEND = 0, 2, 3


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeysFile:
    """The file that the environment names, which is not there yet."""
    found = KeysFile(tmp_path / "config" / "keys.json")
    monkeypatch.setenv("DULIAN_KEYS_FILE", str(found.path))
    return found


def keys(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def dulian(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "dulian", *arguments], capture_output=True, text=True, timeout=60)


def test_create_prints_the_key_alone_and_this_once(file: KeysFile) -> None:
    done = keys("create", "--name", "laptop 笔记本", "--rate", "60/minute")
    assert done.exit_code == OK
    (secret,) = done.stdout.splitlines()
    (key,) = file.read() or ()
    assert KeyRing([key]).find(secret.encode()) == key
    assert (key.name, key.rate) == ("laptop 笔记本", Rate(60, "minute"))
    assert key.id in done.stderr
    assert secret not in done.stderr
    assert secret[3:] not in keys("list").output + keys("list", "--json").output + keys("revoke", key.id).output


def test_a_shell_can_keep_the_key(file: KeysFile) -> None:
    done = dulian("keys", "create")
    assert done.returncode == OK
    assert KeyRing(file.read() or ()).find(done.stdout.removesuffix("\n").encode())


def test_another_file_can_be_named(file: KeysFile, tmp_path: Path) -> None:
    other = KeysFile(tmp_path / "other.json")
    assert keys("create", "--keys-file", str(other.path)).exit_code == OK
    assert (file.read(), len(other.read() or ())) == (None, 1)


def test_the_file_is_the_one_of_the_services_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = KeysFile(tmp_path / "named.json")
    (tmp_path / "dulian.toml").write_text(f'keys_file = "{named.path}"')
    monkeypatch.setenv("DULIAN_CONFIG", str(tmp_path / "dulian.toml"))
    assert keys("create").exit_code == OK
    assert len(named.read() or ()) == 1


def test_list_shows_what_is_known(file: KeysFile) -> None:
    first, second = file.create(name="laptop", rate=Rate(5, "day"))[1], file.create()[1]
    shown = keys("list").stdout
    for word in (first.id, "laptop", "5/day", first.created, second.id, "no limit"):
        assert word in shown
    lines = [json.loads(line) for line in keys("list", "--json").stdout.splitlines()]
    assert lines == [
        {"id": first.id, "name": "laptop", "rate": "5/day", "created": first.created},
        {"id": second.id, "name": "", "rate": None, "created": second.created},
    ]


def test_without_keys_it_is_said_which_kind_of_nothing_there_is(file: KeysFile) -> None:
    for arguments in (("list",), ("list", "--json")):
        done = keys(*arguments)
        assert (done.exit_code, done.stdout) == (OK, "")
        assert "there is no file" in done.stderr
    key = file.create()[1]
    assert "answers nobody" in keys("revoke", key.id).stderr
    done = keys("list")
    assert (done.exit_code, done.stdout) == (OK, "")
    assert "answers nobody" in done.stderr


def test_revoke_takes_one_back(file: KeysFile) -> None:
    first, second = file.create(name="laptop")[1], file.create()[1]
    done = keys("revoke", first.id)
    assert (done.exit_code, done.stdout, done.stderr) == (OK, f"revoked {first.id} laptop\n", "")
    assert file.read() == (second,)
    assert isinstance(keys("revoke", first.id).exception, InputNotFoundError)


@pytest.mark.skipif(os.name != "posix", reason="file rights are a matter of POSIX")
def test_a_file_open_to_others_is_warned_of(file: KeysFile) -> None:
    key = file.create()[1]
    file.path.chmod(0o644)
    for arguments in (("create",), ("list",), ("revoke", key.id)):
        assert "chmod 600" in keys(*arguments).stderr


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("create", "--rate", "often"), MalformedInputError),
        (("create", "--name", "x" * 65), MalformedInputError),
        (("create", "--name", "a\nb"), MalformedInputError),
        (("revoke", "nonsense"), InputNotFoundError),
    ],
)
def test_mistakes_change_nothing(file: KeysFile, arguments: tuple[str, ...], error: type[Exception]) -> None:
    assert isinstance(keys(*arguments).exception, error)
    assert file.read() is None


def test_a_damaged_file_stops_every_command(file: KeysFile) -> None:
    file.path.parent.mkdir()
    file.path.write_text("{}")
    for arguments in (("create",), ("list",), ("revoke", "00000000")):
        assert isinstance(keys(*arguments).exception, KeysFileError)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("keys", "revoke", "nonsense"), BAD_INPUT, "there is no key 'nonsense'"),
        (("keys", "create", "--rate", "x"), BAD_INPUT, "'x' is no rate"),
        (("keys", "create", "--keys-file", "{damaged}"), BACKEND, "is damaged"),
        (("serve", "--port", "0", "--offline", "--keys-file", "{damaged}"), BACKEND, "is damaged"),
        (("serve", "--port", "0", "--offline", "--insecure", "--host", "0.0.0.0"), BACKEND, "does not exist"),
        (("serve", "--port", "0", "--offline", "--cors-origin", "*"), BAD_INPUT, "'*' is no origin"),
        (("serve", "--port", "0", "--offline", "--allowed-host", "*"), BAD_INPUT, "'*' is no host name"),
    ],
)
def test_mistakes_are_one_line_and_an_exit_code(
    file: KeysFile, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    damaged = tmp_path / "damaged.json"
    damaged.write_text('{"version": 1, "keys": [')
    done = dulian(*(argument.format(damaged=damaged) for argument in arguments))
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("dulian: ")
    assert said in line


def test_no_command_shows_what_is_in_the_file(file: KeysFile) -> None:
    secret, key = file.create()
    for arguments in (("doctor",), ("config", "show")):
        done = dulian(*arguments)
        assert done.returncode == OK
        for part in (secret, key.sha256):
            assert part not in done.stdout + done.stderr
