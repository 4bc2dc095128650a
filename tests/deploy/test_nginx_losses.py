"""Replicas that are killed, end, hang or refuse: what clients of nginx see of it."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.deploy.front import UNLIMITED, Front, front, shape_of
from tests.deploy.replicas import Replica
from tests.promises.harness import comparable
from tests.service.services import wait_until

pytestmark = pytest.mark.weights

MIB = 2**20


def test_a_replica_that_hangs_is_soon_left_alone(
    tmp_path: Path, replicas: tuple[Replica, Replica], photos: list[bytes]
) -> None:
    """Connections are made and nothing comes back: the other one answers, and alone there is a 504."""
    quick = {"proxy_read_timeout 8s": "proxy_read_timeout 2s", "max_fails=3": "max_fails=1"}
    alone = tmp_path / "alone"
    alone.mkdir()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as hanging:
        port = hanging.getsockname()[1]
        with front(tmp_path, port, replicas[0].port, changes=quick) as nginx, nginx.client() as client:
            for _ in range(6):
                assert client.post("/v1/analyze", content=photos[0]).status_code == 200
            tries = [line["replica_status"] for line in nginx.whole_log()]
            assert tries.count("504, 200") in (1, 2)  # then it is left alone for a while
        with front(alone, port, port, changes=quick) as nginx, nginx.client() as client:
            answer = client.post("/v1/analyze", content=photos[0])
            assert (answer.status_code, shape_of(answer)["code"]) == (504, "deadline_exceeded")


async def load(
    nginx: Front,
    photos: list[bytes],
    expected: list[bytes],
    *,
    clients: int,
    each: int,
    events: dict[int, Callable[[], None]],
) -> Counter[str]:
    """What clients meet that never ask twice, while at some counts of answers something happens."""
    met: Counter[str] = Counter()

    async def client(index: int) -> None:
        async with nginx.async_client() as asking:
            for number in range(each):
                which = (index + number) % len(photos)
                try:
                    answer = await asking.post("/v1/analyze", content=photos[which])
                    right = answer.status_code == 200 and comparable(answer.content) == expected[which]
                    met["right" if right else f"wrong: {answer.status_code}"] += 1
                except httpx.HTTPError as error:
                    met[repr(error)] += 1
                if event := events.pop(met.total(), None):
                    await asyncio.to_thread(event)

    await asyncio.gather(*(client(index) for index in range(clients)))
    return met


def test_a_replica_killed_under_load_costs_nobody_an_answer(
    nginx: Front, replicas: tuple[Replica, Replica], photos: list[bytes], direct: list[bytes]
) -> None:
    victim = replicas[1]
    events = {100: victim.server.process.kill, 250: victim.again}
    met = asyncio.run(load(nginx, photos, direct, clients=4, each=100, events=events))
    assert met == {"right": 400}
    assert not events

    def is_back() -> bool:
        with nginx.client() as client:
            client.get("/v1/limits")
        last = nginx.log_until_now()[-1]
        return last["route"] == "/v1/limits" and last["replica"].endswith(f":{victim.port}")

    wait_until(is_back)
    lines = [line for line in nginx.whole_log() if line["route"] == "/v1/analyze"]
    assert len(lines) == 400
    tried_again = [line for line in lines if line["replica_status"].startswith("502, ")]
    assert tried_again  # somebody was being answered by it
    assert {line["replica_status"] for line in tried_again} == {"502, 200"}


def test_a_replica_that_ends_in_order_costs_nobody_an_answer(
    nginx: Front, replicas: tuple[Replica, Replica], photos: list[bytes], direct: list[bytes]
) -> None:
    codes: list[int] = []

    def restart() -> None:
        codes.append(replicas[1].server.stop())
        replicas[1].again()

    met = asyncio.run(load(nginx, photos, direct, clients=4, each=40, events={30: restart}))
    assert met == {"right": 160}
    assert codes == [0]


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, set()),
        (
            {"timeout http_502 non_idempotent;\n    proxy": "timeout http_502 http_503 non_idempotent;\n    proxy"},
            {502},
        ),
    ],
    ids=["shipped", "control: with http_503"],
)
def test_a_wish_that_cannot_be_met_makes_no_replica_look_dead(
    tmp_path: Path, replicas: tuple[Replica, Replica], photos: list[bytes], changes: dict[str, str], failed: set[int]
) -> None:
    with (
        front(tmp_path, *(one.port for one in replicas), changes=UNLIMITED | changes) as nginx,
        nginx.client() as client,
    ):
        for _ in range(12):
            assert client.post("/v1/analyze?max_ms=1", content=photos[0]).status_code in {503, 504, *failed}
        answers = {client.post("/v1/analyze", content=photos[0]).status_code for _ in range(4)}
        assert answers == (failed or {200})


def test_a_large_body_that_nobody_wants_makes_no_replica_look_dead(nginx: Front, photos: list[bytes]) -> None:
    """The answer comes before the body has been read; the connection must not break before nginx has seen it."""
    body = bytes(9 * MIB)
    with nginx.client() as client:
        for _ in range(8):
            answer = client.post("/v1/analyze", content=body, headers={"content-type": "text/html"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
        assert client.post("/v1/analyze", content=photos[0]).status_code == 200
    assert all(", " not in line["replica"] for line in nginx.whole_log())
