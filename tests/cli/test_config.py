from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from dulian.cli import config
from dulian.cli.app import app
from dulian.settings import HIDDEN, Reading, Settings


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DULIAN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", os.devnull)  # the keys of whoever runs the tests are not theirs


def dulian(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["config", *map(str, arguments)])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "dulian.toml"
    path.write_text('port = 99\nlanguage = "zh"\n', "utf-8")
    return path


def test_every_setting_is_shown_with_its_value_and_where_that_comes_from(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DULIAN_LANGUAGE", "en")
    shown = dulian("show", "--config", file)
    rows = [line.split(maxsplit=2) for line in shown.stdout.splitlines()]
    assert rows[0] == ["setting", "value", "from"]
    assert {row[0] for row in rows[1:]} == set(Settings.model_fields)
    assert ["port", "99", f"file {file}"] in rows
    assert ["language", "en", "DULIAN_LANGUAGE"] in rows
    assert ["model_dir", "none", "default"] in rows
    told = json.loads(dulian("show", "--config", file, "--json").stdout)
    assert set(told) == set(Settings.model_fields)
    assert told["port"] == {"value": 99, "origin": f"file {file}"}
    assert told["config"] == {"value": str(file), "origin": "option"}
    assert told["model_dir"] == {"value": None, "origin": "default"}


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading(
        settings=Settings().model_copy(update={"profile": SecretStr("hush")}),
        problems=(),
        origins=dict.fromkeys(Settings.model_fields, "default"),
    )
    monkeypatch.setattr("dulian.settings.examine_settings", lambda **_: reading)
    for option in ((), ("--json",)):
        shown = dulian("show", *option).stdout
        assert HIDDEN in shown
        assert "hush" not in shown
    assert reading.settings
    assert reading.settings.in_full()["profile"] == "hush"


def test_settings_that_make_sense_pass(file: Path) -> None:
    checked = dulian("check", "--config", file)
    assert (checked.exit_code, checked.stdout, checked.stderr) == (0, "ok\n", "")


def test_every_mistake_is_a_line_and_the_exit_code_2(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('prot = 1\nmode = "fast"', "utf-8")
    monkeypatch.setenv("DULIAN_PROFILE", "classy")
    monkeypatch.setenv("DULIAN_PROFIL", "classic")
    checked = dulian("check", "--config", file)
    assert (checked.exit_code, checked.stdout) == (config.WRONG, "")
    assert checked.stderr.splitlines() == [
        "dulian: unknown variable DULIAN_PROFIL; did you mean DULIAN_PROFILE?",
        f"dulian: setting mode: Input should be 'auto', 'latency' or 'throughput' (from file {file})",
        f"dulian: unknown setting 'prot' in file {file}; did you mean 'port'?",
    ]
    shown = dulian("show", "--config", file)
    assert shown.exception
    assert "DULIAN_PROFIL;" in str(shown.exception)


def test_names_and_a_host_that_serve_would_refuse_are_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"DULIAN_PROFILE": "classy", "DULIAN_ENGINE": "tpu", "DULIAN_HOST": "0.0.0.0"}.items():
        monkeypatch.setenv(name, value)
    checked = dulian("check")
    assert checked.exit_code == config.WRONG
    profile, engine, host = checked.stderr.splitlines()
    assert profile.startswith("dulian: unknown profile 'classy'; choose from ")
    assert engine.startswith("dulian: unknown engine 'tpu'; choose from ")
    assert host.startswith("dulian: host '0.0.0.0' can be reached from outside, and there is no key")
