"""The page on batches, held against the command, the library and what they write."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from tests.docs.pages import python_blocks, rows, text_of

from dulian.batch import merge, work
from dulian.batch.drivers import local
from dulian.batch.run import LARGE_SHARD_SIZE, MAX_SHARD_SIZE, MIN_SHARD_SIZE, SHARD_SIZE, fitting_shard_size
from dulian.batch.schedule import DEATHS_OF_MANY, DEATHS_OF_ONE
from dulian.batch.where import OF_FACES, OF_RECORDS, WORDS
from dulian.batch.writers import WRITERS
from dulian.batch.writers.columns import OF_A_FACE, OF_A_PICTURE
from dulian.cli.app import app
from dulian.cli.batch.asked import DEFAULT_FORMATS
from dulian.cli.batch.verify import DAMAGED, INCOMPLETE
from dulian.store import ModelStore

PAGE = text_of("batch.md")


def section(heading: str) -> str:
    """From a heading to the next one of the same level or a higher one."""
    found = re.search(rf"^(#+) {re.escape(heading)}.*?$(.*?)(?=^#{{1,2}} |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[2]


def command(*names: str) -> Any:
    found: Any = typer.main.get_command(app)
    for name in names:
        found = found.commands[name]
    return found


def flags(*names: str) -> set[str]:
    return {
        flag for one in command(*names).params for flag in (*one.opts, *one.secondary_opts) if flag.startswith("--")
    }


# Of every command, or of the whole program's.
COMMON = {"--help", "--model-dir", "--offline", "--language", "--json"}


def test_every_option_of_run_is_described_and_no_other() -> None:
    described = set(re.findall(r"`(--[\w-]+)`", "\n".join(row[0] for row in rows(section("Options")))))
    assert described - COMMON == flags("batch", "run") - COMMON


@pytest.mark.parametrize("name", ["status", "verify", "merge"])
def test_the_options_of_the_others_are_described(name: str) -> None:
    missing = {flag for flag in flags("batch", name) - COMMON if not re.search(rf"{flag}\b", PAGE)}
    assert not missing


def test_no_command_line_has_an_option_that_does_not_exist() -> None:
    lines = re.findall(r"dulian batch (run|status|verify|merge)\b([^`\n#]*)", PAGE)
    assert len(lines) > 10
    for name, words in lines:
        assert set(re.findall(r"(?<!\S)--[\w-]+", words)) <= flags("batch", name), words


def test_defaults_and_limits_are_the_codes() -> None:
    options = {row[0]: row[1] for row in rows(section("Options"))}
    assert options["`--format`"] == f"`{DEFAULT_FORMATS}`"
    assert f"from {MIN_SHARD_SIZE} to {SHARD_SIZE}" in PAGE
    assert f"up to {LARGE_SHARD_SIZE:,}" in PAGE
    assert [fitting_shard_size(count) for count in (10, 6_400, 10**6, 5 * 10**6, 10**9)] == [8, 100, 256, 500, 1000]
    limits = {row[0]: row[1] for row in rows(section("Limits and errors"))}
    assert limits["inputs of a shard"] == f"{MAX_SHARD_SIZE:,}"
    assert limits["deaths of a shard; of a picture alone"] == f"{DEATHS_OF_MANY}; {DEATHS_OF_ONE}"
    assert limits["inputs one after the other that a store does not give"] == str(work.OUT_OF_REACH)
    assert limits["read ahead, of each process"] == f"{work.READ_AHEAD_BYTES >> 20} MiB, {work.READERS} threads"
    assert f"{local.PROCESS_BYTES >> 20} MiB of memory for each (and {local.THREAD_BYTES >> 20}" in PAGE


def test_exit_codes_of_verify_are_described() -> None:
    told = {row[0]: row[1] for row in rows(section("Status, verify, merge"))}
    assert {"`complete`": "0", "`incomplete`": str(INCOMPLETE), "`damaged`": str(DAMAGED)}.items() <= told.items()


def test_every_condition_is_described() -> None:
    described = set(re.findall(r"`(\w+)", section("Filters")))
    assert described >= {*OF_RECORDS, *OF_FACES, *WORDS}


def test_every_column_is_described() -> None:
    text = section("Outputs")
    missing = [name for name in (*OF_A_PICTURE, *OF_A_FACE) if not re.search(rf"\b{name}\b", text)]
    assert not missing
    assert all(f"`{suffix.removeprefix('.')}`" in text or f"`{suffix}`" in text for suffix in WRITERS)
    assert merge.STDOUT == "-"


@pytest.mark.weights
def test_examples_run(
    tmp_path: Path,
    samples: Path,
    model_store: ModelStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cache = tmp_path / "cache/dulian"
    cache.mkdir(parents=True)
    (cache / "models").symlink_to(model_store.write_dir)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "holiday").mkdir()
    picture = (samples / "astronaut.png").read_bytes()
    (tmp_path / "holiday/me.png").write_bytes(picture)
    (tmp_path / "holiday/you.jpg").write_text("no picture")
    names: dict[str, Any] = {}
    for block in python_blocks(PAGE):
        exec(compile(block, "<batch.md>", "exec"), names)
    assert capsys.readouterr().out == "holiday/me.png ok 1\nholiday/you.jpg error 0\n"
    batches = [
        pd.DataFrame({"path": ["a", "b"], "content": [picture, b"no picture"]}),
        pd.DataFrame({"path": [], "content": []}),
    ]
    full, empty = names["find_faces"](iter(batches))
    assert list(full.columns) == list(empty.columns) == ["path", "result", "error"]
    assert len(json.loads(full["result"][0])["faces"]) == 1
    assert full["error"].isna().tolist() == [True, False]
    assert full["error"][1] == "unsupported_image"
    assert len(empty) == 0
