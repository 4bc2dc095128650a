"""P12, P13: more is asked than can be done. What is done is right, and what is not says when to come back."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from dulian.store import ModelStore
from tests.golden.pictures import sample_pictures
from tests.promises.harness import (
    Probes,
    Reply,
    Server,
    closed_loop,
    comparable,
    dulian_server,
    fake_server,
    open_loop,
    post,
)
from tests.service.services import wait_until

# As many clients as keep a service busy; one queue has room for four times as many.
USUAL = 16
MOST = 400
Expected = dict[int, bytes]


def check(replies: Sequence[Reply], expected: Expected) -> Counter[int]:
    """Every answer is the right one, a refusal that says when to come back, or a deadline's; how many there are."""
    for one in replies:
        assert one.status in (200, 503, 504), one
        if one.status == 200:
            assert comparable(one.body) == expected[one.request]
        elif one.body:
            assert set(json.loads(one.body)["error"]) == {"code", "message", "request_id"}
        if one.status == 503:
            assert one.retry_after
            assert one.retry_after.isdigit()
            assert int(one.retry_after) >= 1
    return Counter(one.status for one in replies)


def overload(server: Server, requests: list[bytes], factor: int, loop: str, count: int) -> Expected:
    """Load a server, ask for its health meanwhile, and see that it is as good as before; the right answers."""
    expected = alone(server, requests)
    began = time.monotonic()
    asyncio.run(closed_loop(server.port, requests, clients=USUAL, count=40))
    capacity = 40 / (time.monotonic() - began)
    with Probes(server.port, "/livez", "/readyz") as probes:
        if loop == "open":
            offered = asyncio.run(open_loop(server.port, requests, rate=factor * capacity, count=count))
            replies, unsent = offered.replies, offered.unsent
        else:
            clients = min(MOST, factor * USUAL)
            replies, unsent = asyncio.run(closed_loop(server.port, requests, clients=clients, count=count)), 0
    statuses = check(replies, expected)
    assert sum(statuses.values()) + unsent == count
    assert statuses[200]
    assert statuses[503] or factor < 10
    assert probes.statuses("/livez") == {200}
    assert probes.statuses("/readyz") <= {200, 503}  # a queue that was full for long sends others elsewhere
    assert 200 in probes.statuses("/readyz")
    wait_until(lambda: is_idle(server))
    assert httpx.get(f"{server.url}/readyz").status_code == 200
    assert alone(server, requests) == expected
    return expected


def alone(server: Server, requests: list[bytes]) -> Expected:
    """The answers to one client; asked again if the machine has paused for longer than a deadline."""
    replies: list[Reply] = []

    def all_answered() -> bool:
        replies[:] = asyncio.run(closed_loop(server.port, requests, clients=1, count=len(requests)))
        statuses = {one.status for one in replies}
        assert statuses <= {200, 504}
        return statuses == {200}

    wait_until(all_answered)
    return {one.request: comparable(one.body) for one in replies}


def is_idle(server: Server) -> bool:
    """Nothing is left over; what nobody waits for any more may still be worked on for a moment."""
    status = httpx.get(f"{server.url}/v1/status").json()
    return not (status["queue"]["length"] or status["busy"] or any(status["in_flight"].values()))


@pytest.fixture(scope="module")
def real(model_store: ModelStore) -> Iterator[Server]:
    with dulian_server(model_store) as server:
        yield server
        assert server.stop() == 0
        assert [event["event"] for event in server.events] == ["models_ready", "listening", "draining", "stopped"]


@pytest.mark.weights
@pytest.mark.parametrize("loop", ["open", "closed"])
@pytest.mark.parametrize(("factor", "count"), [(2, 250), (10, 1200)])
def test_real_networks_under_two_and_ten_times_the_load(
    factor: int, count: int, loop: str, real: Server, samples: Path
) -> None:
    """P12, P13."""
    pictures = sample_pictures(samples)
    requests = [post("/v1/analyze", pictures[name]) for name in ("astronaut jpeg", "astronaut small", "astronaut webp")]
    assert all(b'"bbox"' in body for body in overload(real, requests, factor, loop, count).values())


@pytest.mark.parametrize(
    ("loop", "limits"),
    [
        ("open", {}),
        ("closed", {}),
        ("open", {"deadline_s": 0.2}),
        ("closed", {"max_bytes_in_flight": 100_000, "max_body_bytes": 20_000}),
    ],
    ids=["open, queue", "closed, queue", "open, deadline", "closed, bytes"],
)
def test_a_hundred_times_the_load(loop: str, limits: dict[str, Any]) -> None:
    """P12, P13: 20 milliseconds a picture, and each of the bounds of what is let in."""
    bodies = [bytes([number]) * 10_000 for number in range(8)]
    requests = [post("/v1/analyze", body) for body in bodies]
    options = [option for name, value in limits.items() for option in ("--limit", f"{name}={value}")]
    with fake_server("--seconds", "0.02", *options) as server:
        told = overload(server, requests, 100, loop, 4000)
        assert len(set(told.values())) == len(bodies)
        assert server.stop() == 0


def test_a_wrong_answer_is_noticed() -> None:
    """P12, negative control."""
    right = Reply(0, 200, b"", b'{"request_id":"a","faces":[]}', 0.0, 0.0)
    refused = Reply(0, 503, b"HTTP/1.1 503 x\r\nretry-after: 1", b"", 0.0, 0.0)
    expected = {0: b'{"faces":[]}', 1: b'{"faces":[1]}'}
    assert check([right, refused], expected) == {200: 1, 503: 1}
    for wrong in (
        right._replace(request=1),
        refused._replace(head=b"HTTP/1.1 503 x"),
        refused._replace(head=b"HTTP/1.1 503 x\r\nretry-after: 0.5"),
        right._replace(status=0),
        right._replace(status=429),
        right._replace(status=500),
    ):
        with pytest.raises(AssertionError):
            check([wrong], expected)
