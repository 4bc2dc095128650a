"""P22: the long run finds a leak, and none where there is none. Here it is seconds long, and its bounds are wide."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from dulian.store import ModelStore
from tests.soak import soak
from tests.soak.soak import Sample, Tally, judge, theil_sen

# A process that has just begun still grows, by a sixth of this or less; the leak below makes it four times as much.
WIDE_MIB = 1000
LARGE_LEAK = 400_000


@pytest.mark.weights
@pytest.mark.parametrize(("leak_bytes", "faults"), [(0, []), (LARGE_LEAK, ["memory grows"])], ids=["good", "leaking"])
def test_seconds_of_it(
    leak_bytes: int, faults: list[str], model_store: ModelStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """P22 and its negative control."""
    options = [f"--leak-bytes={leak_bytes}", f"--bound-mib={WIDE_MIB}", f"--model-dir={model_store.write_dir}"]
    code = soak.main(["--minutes=0.15", "--pause-ms=20", "--json", *options])
    head, rule, row, told = capsys.readouterr().out.splitlines()
    report = json.loads(told)
    assert report["faults"] == faults, report
    assert code == bool(faults)
    assert head.count("|") == rule.count("|") == row.count("|")
    assert "/v1/analyze 200" in report["outcomes"]


def run_of(*, leak: float = 0.0, descriptors: float = 0.0, threads: float = 0.0, wrong: str = "") -> list[str]:
    """The faults of an hour made by arithmetic: noise, large pictures, steps; and what grows with every request."""
    chance = random.Random(22)
    tally = Tally(requests=100_000, wrong=[wrong] if wrong else [])
    samples = []
    for number in range(0, 100_000, 200):
        warming = 30 * min(1.0, number / 15_000)
        spike = 150 * (chance.random() < 0.1)
        step = 4 * (chance.random() < 0.5)
        rss_mib = 200 + warming + chance.gauss(0, 0.5) + spike + step + leak * number / 2**20
        held, at_work = round(number * descriptors), round(number * threads)
        samples.append(Sample(number, rss_mib, 15 + chance.randrange(4) + held, 12 + at_work))
    return judge(samples, tally, seconds=3600, leak_bytes=0, bound_mib=soak.BOUND_MIB).faults


@pytest.mark.parametrize(
    ("grown", "faults"),
    [
        ({}, []),
        ({"leak": 100}, []),
        ({"leak": 400}, ["memory grows"]),
        ({"leak": 1024}, ["memory grows"]),
        ({"descriptors": 0.001}, ["descriptors grow"]),
        ({"threads": 0.0001}, ["threads grow"]),
        ({"wrong": "another answer"}, ["answers are wrong"]),
    ],
)
def test_what_counts_as_growth(grown: dict[str, Any], faults: list[str]) -> None:
    assert run_of(**grown) == faults


def test_the_slope_is_not_moved_by_a_quarter_of_outliers() -> None:
    x = [float(number) for number in range(40)]
    y = [3 * one + (1000 if number % 4 == 3 else 0) for number, one in enumerate(x)]
    assert theil_sen(x, y) == pytest.approx(3, abs=0.01)
    assert theil_sen([0, 0, 1], [5, 7, 8]) == 2.0
