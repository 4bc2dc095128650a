"""Room for large pictures: never more than there is, in order, and given back whatever happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

import dulian.room
from dulian.errors import DeadlineError
from dulian.room import Room, keeping, room_for

PATIENCE_S = 30.0


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    """Ten pixels for all, of which two are asked for without a question."""
    made = Room(10)
    monkeypatch.setattr(dulian.room, "_room", made)
    monkeypatch.setattr(dulian.room, "SMALL_PICTURE_PIXELS", 2)
    yield made
    assert made.free == 10
    assert made.asking == 0


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.002)


def test_room_lasts_as_long_as_the_decoding(room: Room) -> None:
    with room_for(7):
        assert room.free == 3
        with room_for(2):
            assert room.free == 3
    assert room.free == 10


def test_what_is_larger_than_all_gets_all(room: Room) -> None:
    with room_for(1000):
        assert room.free == 0


def test_room_is_given_back_after_an_error(room: Room) -> None:
    with pytest.raises(ZeroDivisionError), keeping(PATIENCE_S), room_for(7):
        raise ZeroDivisionError
    assert room.free == 10


def test_a_picture_that_is_worked_on_keeps_its_room(room: Room) -> None:
    with keeping(PATIENCE_S):
        with room_for(7):
            pass
        assert room.free == 3
        with room_for(6):
            assert room.free == 3
        with room_for(9):
            assert room.free == 1
        assert room.free == 1
    with room_for(4):
        assert room.free == 6


def test_who_waits_too_long_is_told(room: Room) -> None:
    def ask() -> None:
        with pytest.raises(DeadlineError), keeping(0.01), room_for(4):
            pytest.fail("there was no room")

    with room_for(7):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        assert room.free == 3


def test_the_first_who_asks_is_the_first_who_gets(room: Room) -> None:
    """A large picture is not kept waiting by smaller ones that fit."""
    got: list[int] = []

    def ask(pixels: int) -> None:
        with room_for(pixels):
            got.append(pixels)

    threads = [threading.Thread(target=ask, args=(pixels,)) for pixels in (9, 3)]
    with room_for(5):
        for number, thread in enumerate(threads, 1):
            thread.start()
            wait_until(lambda number=number: room.asking == number)  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert got == [9, 3]


def test_two_that_want_more_than_they_have_do_not_wait_for_each_other(room: Room) -> None:
    both = threading.Barrier(2)
    done: list[bool] = []

    def work() -> None:
        with keeping(PATIENCE_S):
            with room_for(4):
                both.wait(PATIENCE_S)
            with room_for(10):
                done.append(True)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [True, True]
