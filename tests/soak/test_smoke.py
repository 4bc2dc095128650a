"""The scripts that measure still run, for seconds: what they measure then means nothing, what they count does."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from types import ModuleType

import pytest

from dulian.machine import effective_cores
from tests.soak import (
    Figure,
    bad_input,
    drain,
    grpc_against_http,
    memory,
    overload,
    quantile,
    redis_faults,
    report,
    respawn,
    slow_clients,
    tracing,
)

REAL = pytest.mark.weights
TWO_CORES = pytest.mark.skipif(effective_cores() < 2, reason="two processes need two cores")
OTEL = pytest.mark.skipif(
    not (find_spec("opentelemetry") and find_spec("opentelemetry.exporter")), reason="the extra otel is not installed"
)
REDIS = pytest.mark.skipif(not shutil.which("redis-server"), reason="redis-server is not installed")


@pytest.mark.parametrize(
    ("script", "options"),
    [
        (overload, "--fake --factor 10 --seconds 0.5 --rounds 1"),
        (overload, "--factor 100 --loop closed --seconds 0.5 --rounds 1"),
        (drain, "--fake --restarts 1 --between-s 0.2"),
        (slow_clients, "--fake --connections 60 --seconds 1"),
        pytest.param(bad_input, "--rounds 1 --only P1 --only P6", marks=REAL),
        pytest.param(memory, "--seconds 1", marks=REAL),
        pytest.param(grpc_against_http, "--seconds 0.3 --rounds 1", marks=REAL),
        pytest.param(respawn, "--kills 1 --between-s 0.2", marks=[REAL, TWO_CORES]),
        pytest.param(redis_faults, "--rounds 1 --requests 20 --only again --only silent", marks=[REAL, REDIS]),
        pytest.param(tracing, "--rounds 1 --requests 8", marks=[REAL, OTEL]),
    ],
    ids=lambda value: value.__name__.rpartition(".")[2] if isinstance(value, ModuleType) else "",
)
def test_a_script_runs_and_what_it_counts_is_right(
    script: ModuleType, options: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = script.main([*options.split(), "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert figures
    assert code == (not all(figure["met"] for figure in figures))
    counted = [figure for figure in figures if not figure["unit"]]
    assert all(figure["met"] for figure in counted), counted


def test_a_missed_target_is_told_and_is_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    figures = [
        Figure("P0", "seen", 1.23456, "s"),
        Figure("P0", "enough", 90.0, "%", at_least=90),
        Figure("P0", "few", 3, at_most=2),
        Figure("P0", "nothing", quantile([], 0.5), at_most=2),
    ]
    assert report(figures[:2], as_json=False) == 0
    assert capsys.readouterr().out == "| P0 | seen | – | 1.235 s | |\n| P0 | enough | ≥ 90 | 90 % | met |\n"
    assert report(figures, as_json=False) == 1
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| P0 | few | ≤ 2 | 3 | **missed** |",
        "| P0 | nothing | ≤ 2 | nan | **missed** |",
    ]
    assert quantile([3, 1, 2], 0.5) == 2
    assert quantile([3, 1, 2], 0.99) == 3
