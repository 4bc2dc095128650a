from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dulian.batch.schedule import DEATHS_OF_MANY, DEATHS_OF_ONE, Schedule, cover
from dulian.batch.shards import Range

SIZE = 8


def whole(shard: int) -> Range:
    return Range(shard, 0, SIZE)


def play(schedule: Schedule, deadly: set[tuple[int, int]], *, chance: float = 0.0, seed: int = 0) -> Counter[Range]:
    """Compute until all is done, dying of deadly inputs and by chance; what was committed, and how often."""
    generator = random.Random(seed)
    committed: Counter[Range] = Counter()
    under_way: list[Range] = []
    for _ in range(100_000):
        if schedule.finished:
            return committed
        while len(under_way) < 3 and (part := schedule.next()) is not None:
            under_way.append(part)
        for part in schedule.take_given_up():
            committed[part] += 1
            finish(schedule, part, committed)
        if not under_way:
            continue
        part = under_way.pop(generator.randrange(len(under_way)))
        kills = any((part.shard, index) in deadly for index in range(part.start, part.stop))
        if kills or generator.random() < chance:
            schedule.died(part)
        else:
            committed[part] += 1
            finish(schedule, part, committed)
    raise AssertionError("it never ends")


def finish(schedule: Schedule, part: Range, committed: Counter[Range]) -> None:
    if pieces := schedule.done(part):
        assert cover(pieces, whole(part.shard)) == (pieces, [])
        schedule.assembled(part.shard)


def covered(committed: Counter[Range]) -> Counter[tuple[int, int]]:
    return Counter((part.shard, index) for part in committed.elements() for index in range(part.start, part.stop))


def test_without_deaths_every_shard_is_computed_once_and_whole() -> None:
    committed = play(Schedule(range(5), whole), set())
    assert committed == Counter(map(whole, range(5)))


@pytest.mark.parametrize("deadly", [{(1, 0)}, {(1, 7)}, {(0, 3), (0, 4)}, {(2, index) for index in range(SIZE)}])
def test_deadly_inputs_are_found_by_halving_and_cost_nobody_else(deadly: set[tuple[int, int]]) -> None:
    committed = play(Schedule(range(3), whole), deadly)
    assert covered(committed) == Counter({(shard, index): 1 for shard in range(3) for index in range(SIZE)})
    assert {(part.shard, part.start) for part in committed if len(part) == 1} >= deadly


def test_one_deadly_input_costs_few_processes() -> None:
    schedule, deaths = Schedule([0], lambda shard: Range(shard, 0, 256)), 0
    while not schedule.finished:
        part = schedule.next()
        if part is None:
            (given_up,) = schedule.take_given_up()
            assert given_up == Range(0, 77, 78)
            schedule.done(given_up)
            continue
        if part.start <= 77 < part.stop:
            deaths += 1
            schedule.died(part)
        else:
            schedule.done(part)
    assert deaths == DEATHS_OF_MANY * 8 + DEATHS_OF_ONE


@given(st.integers(0, 10_000))
def test_deaths_by_chance_lose_and_repeat_nothing(seed: int) -> None:
    committed = play(Schedule(range(4), whole), set(), chance=0.2, seed=seed)
    assert set(covered(committed)) == {(shard, index) for shard in range(4) for index in range(SIZE)}
    assert max(covered(committed).values()) == 1


def test_what_comes_back_is_given_out_again_without_blame() -> None:
    schedule = Schedule([0], whole)
    for _ in range(10):
        part = schedule.next()
        assert part == whole(0)
        schedule.back(part)
    assert not schedule.finished


def test_a_range_under_way_is_not_given_out_twice() -> None:
    schedule = Schedule([0], whole)
    assert schedule.next() == whole(0)
    assert schedule.next() is None
    assert not schedule.finished


def test_pieces_and_deaths_of_an_earlier_run_count() -> None:
    pieces = {0: [Range(0, 0, 4)], 1: [Range(1, 6, 8), Range(1, 0, 2)]}
    deaths = {Range(0, 4, 8): DEATHS_OF_MANY, Range(2, 0, 8): DEATHS_OF_MANY - 1}
    schedule = Schedule(range(3), whole, pieces=pieces, deaths=deaths)
    given_out = [schedule.next() for _ in range(6)]
    assert given_out == [Range(0, 4, 6), Range(0, 6, 8), Range(1, 2, 4), Range(1, 4, 6), whole(2), None]
    schedule.died(whole(2))
    assert [schedule.next(), schedule.next()] == [Range(2, 0, 4), Range(2, 4, 8)]


def test_a_lost_piece_is_computed_again() -> None:
    schedule = Schedule([0], whole, pieces={0: [Range(0, 0, 4)]})
    last = schedule.next()
    assert last == Range(0, 4, 8)
    assert schedule.done(last) == [Range(0, 0, 4), Range(0, 4, 8)]
    schedule.lost(Range(0, 0, 4))
    assert not schedule.finished
    assert schedule.next() == Range(0, 0, 4)
    assert schedule.done(Range(0, 0, 4)) == [Range(0, 0, 4), Range(0, 4, 8)]


def test_only_whole_shards_that_never_died_are_computed_side_by_side() -> None:
    """A process that dies of one of two is to blame for both: that must never add up to giving up an innocent input."""
    schedule = Schedule(range(4), whole, pieces={3: [Range(3, 0, 4)]})
    first = schedule.next()
    assert first == whole(0)
    assert schedule.is_sound(whole(0))
    assert schedule.next_sound() == whole(1)
    schedule.died(whole(0))
    assert not schedule.is_sound(whole(0))
    assert schedule.next_sound() is None
    assert schedule.next() == whole(0)
    assert schedule.next_sound() == whole(2)
    assert schedule.next_sound() is None
    assert schedule.next() == Range(3, 4, 8)
    assert not schedule.is_sound(Range(3, 4, 8))


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(1, 8))))
def test_a_cover_and_its_gaps_make_up_the_whole(pairs: list[tuple[int, int]]) -> None:
    pieces = [Range(0, start, stop) for start, stop in pairs if start < stop]
    chosen, gaps = cover(pieces, whole(0))
    together = sorted([*chosen, *gaps])
    assert [index for part in together for index in range(part.start, part.stop)] == [*range(SIZE)]
    assert set(chosen) <= set(pieces)
