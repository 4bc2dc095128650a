"""Settings that are secrets, from files and shown to nobody."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import get_args

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from dulian.cli.app import app
from dulian.errors import MalformedInputError
from dulian.settings import (
    HIDDEN,
    MAX_SECRET_BYTES,
    MIN_SECRET_CHARS,
    OF_FILE,
    Settings,
    examine_settings,
    names_of_secrets,
    read_secret,
    read_settings,
)

SECRET = "hush " * 8
URL = "redis://:hush@127.0.0.1:6379"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DULIAN_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n", "utf-8")
    return path


def test_every_secret_may_be_in_a_file() -> None:
    assert names_of_secrets() == ("redis_url", "cache_secret")
    for name in names_of_secrets():
        assert Path in get_args(Settings.model_fields[name + OF_FILE].annotation)


def test_a_secret_in_a_file_is_as_good_as_one_in_the_environment(
    secret_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "url").write_bytes(URL.encode() + b"\r\n")
    (tmp_path / "dulian.toml").write_text(f"redis_url_file = '{tmp_path / 'url'}'", "utf-8")
    monkeypatch.setenv("DULIAN_CACHE_SECRET_FILE", str(secret_file))
    reading = examine_settings(config=tmp_path / "dulian.toml")
    assert reading.problems == ()
    assert reading.settings
    assert reading.settings.cache_secret == SecretStr(SECRET)
    assert reading.settings.redis_url == SecretStr(URL)
    assert reading.origins["cache_secret"] == f"file {secret_file}"
    assert reading.origins["cache_secret_file"] == "DULIAN_CACHE_SECRET_FILE"
    assert reading.origins["redis_url_file"] == f"file {tmp_path / 'dulian.toml'}"
    monkeypatch.delenv("DULIAN_CACHE_SECRET_FILE")
    monkeypatch.setenv("DULIAN_CACHE_SECRET", SECRET)
    assert read_settings(config=tmp_path / "dulian.toml").cache_secret == SecretStr(SECRET)


def test_another_process_gets_secrets_as_they_are_and_reads_no_file(
    secret_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DULIAN_CACHE_SECRET_FILE", str(secret_file))
    monkeypatch.setenv("DULIAN_REDIS_URL", URL)
    read = read_settings()
    secret_file.unlink()
    passed_on = Settings(**json.loads(json.dumps(read.in_full())))
    assert passed_on == read
    assert passed_on.cache_secret == SecretStr(SECRET)


@pytest.mark.parametrize("option", [(), ("--json",)])
def test_no_secret_is_shown(secret_file: Path, monkeypatch: pytest.MonkeyPatch, option: tuple[str, ...]) -> None:
    monkeypatch.setenv("DULIAN_CACHE_SECRET_FILE", str(secret_file))
    monkeypatch.setenv("DULIAN_REDIS_URL", URL)
    shown = CliRunner().invoke(app, ["config", "show", *option], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert "hush" not in shown.output
    assert shown.output.count(HIDDEN) == 2
    assert "hush" not in repr(read_settings())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file or directory"),
        (b"", "it is empty"),
        (b"\n", "it is empty"),
        (b"\xff" * 40, "no text in UTF-8"),
        (b"h" * (MAX_SECRET_BYTES + 1), f"more than the {MAX_SECRET_BYTES} bytes that a secret may have"),
    ],
)
def test_a_file_without_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, said: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("DULIAN_CACHE_SECRET_FILE", str(path))
    monkeypatch.setenv("DULIAN_REDIS_URL", URL)
    assert examine_settings().problems == (
        f"setting cache_secret_file: file {path}: {said} (from DULIAN_CACHE_SECRET_FILE)",
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_neither_a_pipe_nor_a_folder_holds_a_secret_and_nobody_waits_for_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(MalformedInputError, match="not a regular file"):
            read_secret(path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is unreadable to root")
def test_a_file_that_may_not_be_read(secret_file: Path) -> None:
    secret_file.chmod(0)
    with pytest.raises(MalformedInputError, match="Permission denied"):
        read_secret(secret_file)


def test_only_the_end_of_the_line_is_not_part_of_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    for content, secret in (
        (b" a b ", " a b "),
        (b"a\n", "a"),
        (b"a\r\n", "a"),
        (b"a\n\n", "a\n"),
        ("嘘".encode(), "嘘"),
    ):
        path.write_bytes(content)
        assert read_secret(path) == secret


def test_a_secret_is_given_once(secret_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dulian.toml").write_text(f"cache_secret_file = '{secret_file}'", "utf-8")
    monkeypatch.setenv("DULIAN_CONFIG", str(tmp_path / "dulian.toml"))
    monkeypatch.setenv("DULIAN_CACHE_SECRET", "hush " * 9)
    assert examine_settings().problems == (
        (
            "settings cache_secret and cache_secret_file are both set (from DULIAN_CACHE_SECRET and"
            f" file {tmp_path / 'dulian.toml'}): leave one out"
        ),
    )


def test_a_secret_that_is_too_short_is_told_without_being_shown(
    secret_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret_file.write_text("x" * (MIN_SECRET_CHARS - 1), "utf-8")
    monkeypatch.setenv("DULIAN_CACHE_SECRET_FILE", str(secret_file))
    (problem,) = examine_settings().problems
    assert problem == (
        "setting cache_secret: it has 31 characters, and at least 32 are needed; 'openssl rand -hex 32' makes a good"
        f" one (from file {secret_file})"
    )
    secret_file.write_text("x" * MIN_SECRET_CHARS, "utf-8")
    assert examine_settings().problems == ()


@pytest.mark.parametrize("url", [URL, "rediss://127.0.0.1", "unix:///run/redis.sock"])
def test_redis_needs_a_secret(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DULIAN_REDIS_URL", url)
    with pytest.raises(
        MalformedInputError, match="redis_url needs a cache_secret, the same for all instances"
    ) as caught:
        read_settings()
    assert "hush" not in str(caught.value)
    monkeypatch.setenv("DULIAN_CACHE_SECRET", SECRET)
    assert read_settings().redis_url == SecretStr(url)
    monkeypatch.delenv("DULIAN_REDIS_URL")
    assert read_settings().redis_url is None


def test_what_is_no_address_of_redis_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DULIAN_REDIS_URL", "http://:hush@127.0.0.1")
    monkeypatch.setenv("DULIAN_CACHE_SECRET", SECRET)
    assert examine_settings().problems == (
        "setting redis_url: it begins with none of redis://, rediss://, unix:// (from DULIAN_REDIS_URL)",
    )
