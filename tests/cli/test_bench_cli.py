"""``dulian bench`` measures what it says; how much that is belongs in no test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dulian.bench import STAGES

pytestmark = pytest.mark.weights


@pytest.fixture
def bench(model_store):  # type: ignore[no-untyped-def]
    def run(*arguments: str | Path, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dulian", "bench", "--runs", "2", *map(os.fspath, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, "DULIAN_MODEL_DIR": str(model_store.write_dir)},
            timeout=300,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    return run


def test_every_stage_of_every_configuration_is_timed(bench, samples: Path) -> None:  # type: ignore[no-untyped-def]
    text = bench("--images", samples, "--json", "--engine", "onnxruntime,opencv", "--threads", "1,2")
    timings = [json.loads(line) for line in text.splitlines()]
    assert len(timings) == 2 * 2 * 2 * 2 * len(STAGES)
    assert all(timing["p10"] <= timing["median"] <= timing["p90"] for timing in timings)
    faces = {timing["picture"]: timing["faces"] for timing in timings if timing["profile"] == "standard"}
    assert faces == {"astronaut.png": 1, "chelsea.png": 0}


def test_tables_for_people(bench, samples: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert "astronaut.png" in bench("--images", samples, "--profile", "standard")
    (tmp_path / "a").write_text(bench("--images", samples, "--profile", "standard", "--json"))
    table = bench("--compare", tmp_path / "a", tmp_path / "a")
    assert len([line for line in table.splitlines() if line.endswith("1.00") or line.endswith("–")]) == 2 * len(STAGES)


def test_mistakes(bench, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "broken").write_text("{}")
    assert "not what 'dulian bench --json' writes" in bench(
        "--compare", tmp_path / "broken", tmp_path / "broken", code=2
    )
    assert "no picture" in bench("--images", tmp_path / "gone", code=2)
    assert "whole numbers" in bench("--threads", "many", code=2)
