"""P22: the long run finds a leak, and none where there is none. Here it is seconds long, and its bounds are wide."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.soak import soak
from tests.soak.soak import Sample, Tally, judge, theil_sen

# A process that has just begun still grows, by far less than this; the leak below makes it four times as much.
WIDE_MIB = 1000
LARGE_LEAK = 400_000
GROWTH, DESCRIPTORS, THREADS = "growth in 10,000 requests", "descriptors gained", "threads gained"


@pytest.mark.weights
@pytest.mark.parametrize(("leak_bytes", "missed"), [(0, []), (LARGE_LEAK, [GROWTH])], ids=["good", "leaking"])
def test_seconds_of_it(leak_bytes: int, missed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """P22 and its negative control."""
    options = ["--minutes=0.15", "--pause-ms=20", f"--leak-bytes={leak_bytes}", f"--bound-mib={WIDE_MIB}"]
    code = soak.main([*options, "--json", "--", "--cache-mb", "1"])
    told = capsys.readouterr()
    figures = {figure["what"].rpartition(": ")[2]: figure for figure in json.loads(told.out)}
    missing = [what.removeprefix("memory, ") for what, figure in figures.items() if not figure["met"]]
    assert missing == missed, (figures, told.err)
    assert code == bool(missed)
    assert figures["requests"]["measured"] > 0


def missed_of(*, leak: float = 0.0, descriptors: float = 0.0, threads: float = 0.0, wrong: tuple[str, ...] = ()) -> str:
    """The targets that a run made by arithmetic misses: noise, large pictures, steps; and what grows with requests."""
    chance = random.Random(22)
    tally = Tally(requests=100_000, wrong=list(wrong))
    samples = []
    for number in range(0, 100_000, 200):
        warming = 30 * min(1.0, number / 15_000)
        spike = 150 * (chance.random() < 0.1)
        step = 4 * (chance.random() < 0.5)
        used_mib = 200 + warming + chance.gauss(0, 0.5) + spike + step + leak * number / 2**20
        held, at_work = round(number * descriptors), round(number * threads)
        samples.append(Sample(number, used_mib, used_mib + 60, 15 + chance.randrange(4) + held, 12 + at_work))
    return ", ".join(figure.what for figure in judge(samples, tally, "made") if not figure.met)


@pytest.mark.parametrize(
    ("grown", "missed"),
    [
        ({}, ""),
        ({"leak": 100}, ""),
        ({"leak": 400}, f"made: memory, {GROWTH}"),
        ({"leak": 1024}, f"made: memory, {GROWTH}"),
        ({"descriptors": 0.001}, f"made: {DESCRIPTORS}"),
        ({"threads": 0.0001}, f"made: {THREADS}"),
        ({"wrong": ("another answer",)}, "made: wrong answers"),
    ],
)
def test_what_counts_as_growth(grown: dict[str, Any], missed: str) -> None:
    assert missed_of(**grown) == missed


def test_the_slope_is_not_moved_by_a_quarter_of_outliers() -> None:
    x = [float(number) for number in range(40)]
    y = [3 * one + (1000 if number % 4 == 3 else 0) for number, one in enumerate(x)]
    assert theil_sen(x, y) == pytest.approx(3, abs=0.01)
    assert theil_sen([0, 0, 1], [5, 7, 8]) == 2.0
