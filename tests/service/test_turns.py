"""Processes that take turns: each lets those go first who have fewer connections."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.service.services import PATIENCE_S

from dulian.service import turns
from dulian.service.child import new_memory
from dulian.service.start import Share, bind
from dulian.service.turns import COURTESY_S, SharedListener


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    made: list[float] = []
    monkeypatch.setattr(turns.time, "sleep", made.append)
    return made


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listeners(stack: ExitStack, *, processes: int = 2, alone: bool = False) -> list[SharedListener]:
    """What each of several processes has of one socket."""
    bound = stack.enter_context(bind("127.0.0.1", 0))
    tally = None if alone else new_memory("test")
    if tally is not None:
        stack.callback(os.close, tally)
    shares = [Share(index=index, processes=processes, tally=tally) for index in range(processes)]
    made = [stack.enter_context(SharedListener(os.dup(bound.fileno()), share)) for share in shares]
    made[0].listen(1)
    return made


def take(stack: ExitStack, listener: SharedListener) -> None:
    stack.enter_context(socket.create_connection(listener.getsockname(), PATIENCE_S))
    connection, _ = listener.accept()
    stack.enter_context(connection)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memory without a file")
def test_whoever_has_more_connections_lets_the_others_go_first(stack: ExitStack, pauses: list[float]) -> None:
    first, second, third = listeners(stack, processes=3)
    take(stack, first)
    assert pauses == []
    take(stack, first)
    assert pauses == [COURTESY_S]
    take(stack, second)
    take(stack, third)
    assert pauses == [COURTESY_S]
    take(stack, second)
    assert pauses == [COURTESY_S]
    first.note(0)
    take(stack, first)
    assert pauses == [COURTESY_S]
    take(stack, second)
    assert pauses == [COURTESY_S] * 2


def test_whoever_knows_of_no_other_waits_for_none(stack: ExitStack, pauses: list[float]) -> None:
    _, second = listeners(stack, alone=True)
    for _ in range(3):
        take(stack, second)
    assert pauses == []


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memory without a file")
def test_a_successor_begins_with_none(stack: ExitStack, pauses: list[float]) -> None:
    tally = new_memory("test")
    assert tally is not None
    stack.callback(os.close, tally)
    bound = stack.enter_context(bind("127.0.0.1", 0))
    share = Share(index=1, processes=2, tally=tally)
    old = stack.enter_context(SharedListener(os.dup(bound.fileno()), share))
    old.listen(1)
    for _ in range(3):
        take(stack, old)
    pauses.clear()
    successor = stack.enter_context(SharedListener(os.dup(bound.fileno()), share))
    take(stack, successor)
    assert pauses == []


def test_many_may_wait_whatever_asyncio_asks_for(stack: ExitStack) -> None:
    first, second = listeners(stack)
    waiting = [stack.enter_context(socket.create_connection(first.getsockname(), PATIENCE_S)) for _ in range(50)]
    first.setblocking(False)
    for _ in waiting:
        stack.enter_context(second.accept()[0])
