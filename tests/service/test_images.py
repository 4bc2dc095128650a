"""Drawn pictures that are kept for a while: how long, how many, and who can find them."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.service.processes import running
from tests.service.services import PATIENCE_S, FakeAnalysis, eventually, fake_service, served

from dulian.image import encode_jpeg
from dulian.machine import effective_cores
from dulian.service.http import create_app
from dulian.service.images import KeptPictures
from dulian.service.limits import ServiceLimits
from dulian.service.state import Service
from dulian.store import ModelStore


class Clock:
    """Stands still unless told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


NAMES = [f"{letter}{'-' * 21}" for letter in "abcdefgh"]
OLD, NEW = NAMES[:2]


def keeping(action: Callable[[KeptPictures, Clock], Awaitable[None]], **limits: Any) -> None:
    """Run on a loop with pictures to keep, and a clock in hand; in memory of one process and of several."""

    async def main(memory: int | None) -> None:
        clock = Clock()
        await action(KeptPictures(ServiceLimits(**limits), memory, clock=clock), clock)

    asyncio.run(main(None))
    with shared_memory() as memory:
        asyncio.run(main(memory))


@contextmanager
def shared_memory() -> Iterator[int]:
    memory = os.memfd_create("test")
    try:
        yield memory
    finally:
        os.close(memory)


async def found(pictures: KeptPictures, names: list[str]) -> list[bytes | None]:
    return [await pictures.get(name) for name in names]


def test_a_picture_is_there_until_its_time_is_over() -> None:
    async def action(pictures: KeptPictures, clock: Clock) -> None:
        await pictures.put(OLD, b"one")
        clock.now += 9.9
        assert await pictures.get(OLD) == b"one"
        assert await pictures.get(OLD) == b"one"
        clock.now += 0.1  # looking at it has not prolonged its life
        assert await pictures.get(OLD) is None
        assert await pictures.get(NEW) is None

    keeping(action, kept_s=10.0)


@pytest.mark.parametrize("path", ["", "a", "-" * 21, "-" * 23, "\0" * 22, "é" * 11])
def test_only_the_whole_name_leads_to_a_picture(path: str) -> None:
    async def action(pictures: KeptPictures, clock: Clock) -> None:
        await pictures.put(OLD, b"one")
        assert await found(pictures, [path, OLD + path]) == [None, b"one" if not path else None]

    keeping(action)


def test_what_is_over_leaves_memory_although_nobody_comes() -> None:
    async def main() -> None:
        pictures = KeptPictures(ServiceLimits(kept_s=0.05))
        for name in NAMES[:3]:
            await pictures.put(name, b"12345")
            await asyncio.sleep(0.02)
        await eventually(lambda: not pictures.sizes())
        await pictures.put(NEW, b"12345")
        await eventually(lambda: not pictures.sizes())

    asyncio.run(main())


def test_a_picture_that_comes_during_a_sweep_is_swept_too() -> None:
    async def main() -> None:
        pictures = KeptPictures(ServiceLimits(kept_s=0.05))
        looked, done = threading.Event(), threading.Event()
        drop = pictures._drop_expired

        def slowly() -> float | None:
            wait_s = drop()
            looked.set()
            assert done.wait(PATIENCE_S)
            return wait_s

        pictures._drop_expired = slowly  # type: ignore[method-assign]
        await pictures.put(OLD, b"1")
        await eventually(looked.is_set)
        await pictures.put(NEW, b"2")
        done.set()
        await eventually(lambda: not pictures.sizes())

    asyncio.run(main())


def test_the_system_gets_its_memory_back() -> None:
    async def main(memory: int) -> None:
        clock = Clock()
        pictures = KeptPictures(ServiceLimits(), memory, clock=clock)
        await pictures.put(OLD, b"x" * 4_000_000)
        assert os.fstat(memory).st_blocks * 512 > 4_000_000
        clock.now += 61
        await pictures._sweep()
        assert os.fstat(memory).st_blocks * 512 < 100_000
        await pictures.put(NEW, b"again")
        assert await pictures.get(NEW) == b"again"

    with shared_memory() as memory:
        asyncio.run(main(memory))


def test_only_what_is_over_is_dropped() -> None:
    async def action(pictures: KeptPictures, clock: Clock) -> None:
        await pictures.put(OLD, b"1")
        clock.now += 6
        await pictures.put(NEW, b"22")
        clock.now += 4
        await pictures._sweep()
        assert pictures.sizes() == [2]
        assert await found(pictures, [OLD, NEW]) == [None, b"22"]

    keeping(action, kept_s=10.0)


def test_the_oldest_make_room_for_the_newest() -> None:
    async def action(pictures: KeptPictures, clock: Clock) -> None:
        for number in range(5):
            await pictures.put(NAMES[number], bytes([number]))
            assert await pictures.get(NAMES[0]) == (b"\0" if number < 3 else None)
        assert await found(pictures, NAMES[:5]) == [None, None, b"\2", b"\3", b"\4"]

    keeping(action, max_kept_pictures=3)


def test_so_do_the_bytes() -> None:
    async def action(pictures: KeptPictures, clock: Clock) -> None:
        a, b, c, d, e, f = NAMES[:6]
        for name, size in ((a, 4), (b, 3), (c, 3)):
            await pictures.put(name, name[:1].encode() * size)
        assert pictures.sizes() == [4, 3, 3]
        await pictures.put(d, b"ddddd")
        assert await found(pictures, [a, b, c, d]) == [None, None, b"ccc", b"ddddd"]
        await pictures.put(e, bytes(11))  # would not fit at all, and chases nobody away
        assert pictures.sizes() == [3, 5]
        await pictures.put(f, b"f" * 10)
        assert await found(pictures, [c, d, e, f]) == [None, None, None, b"f" * 10]

    keeping(action, max_kept_bytes=10)


@given(st.lists(st.integers(0, 30), max_size=40))
def test_whatever_comes_the_newest_are_there_whole_and_in_bounds(sizes: list[int]) -> None:
    async def main() -> None:
        pictures = KeptPictures(ServiceLimits(max_kept_bytes=25, max_kept_pictures=4))
        contents: dict[str, bytes] = {}
        for number, size in enumerate(sizes):
            name = f"{number:022}"
            contents[name] = bytes([number]) * size
            await pictures.put(name, contents[name])
            assert await pictures.get(name) == (contents[name] if size <= 25 else None)
            kept = [name for name in contents if await pictures.get(name) is not None]
            assert await found(pictures, kept) == [contents[name] for name in kept]
            assert pictures.sizes() == [len(contents[name]) for name in kept]
            assert len(kept) <= 4
            assert sum(pictures.sizes()) <= 25

    asyncio.run(main())


def test_names_differ_and_cannot_be_guessed() -> None:
    names = {KeptPictures.new_id() for _ in range(1000)}
    assert len(names) == 1000
    assert all(re.fullmatch(r"[\w-]{22}", name) for name in names)


# ── several processes ────────────────────────────────────────────────────────────────────────────

OTHER_PROCESS = """
import asyncio, sys
from dulian.service.images import KeptPictures
from dulian.service.limits import ServiceLimits

async def main():
    pictures = KeptPictures(ServiceLimits(max_kept_bytes=4_000_000), int(sys.argv[1]))
    own = sys.argv[2]
    for number in range(200):
        name, content = f"{own}{number:021}", own.encode() * (500_000 + 3700 * number % 200_000)
        await pictures.put(name, content)
        seen = await pictures.get(name)
        assert seen in (content, None), "another's bytes"
    await pictures.put(own * 22, b"the last of " + own.encode())

asyncio.run(main())
"""


def test_what_one_process_keeps_another_one_finds() -> None:
    with shared_memory() as memory:
        limits = ServiceLimits(max_kept_bytes=4_000_000)
        others = [
            subprocess.Popen([sys.executable, "-c", OTHER_PROCESS, str(memory), own], pass_fds=[memory])
            for own in "xyz"
        ]
        assert [other.wait(60) for other in others] == [0, 0, 0]
        contents = asyncio.run(found(KeptPictures(limits, memory), [own * 22 for own in "xyz"]))
    assert any(contents)
    assert {content for content in contents if content} <= {b"the last of x", b"the last of y", b"the last of z"}


@pytest.mark.skipif(effective_cores() < 2, reason="one core: there is no second process")
@pytest.mark.weights
def test_a_drawn_picture_is_found_whichever_process_is_asked(model_store: ModelStore) -> None:
    photo = encode_jpeg(np.full((200, 300, 3), 90, np.uint8))
    with running(model_store, "--workers", "2") as (_, url, _):
        for _ in range(20):  # each request is a connection of its own, and goes to either of the two
            answer = httpx.post(f"{url}/predict", files={"image": photo}).json()
            assert httpx.get(url + answer["output_image"]).status_code == 200


# ── over HTTP ────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def served_service(**limits: Any) -> Iterator[tuple[Service, httpx.Client]]:
    with (
        fake_service(FakeAnalysis(), **limits) as service,
        served(create_app(service)) as url,
        httpx.Client(base_url=url) as client,
    ):
        yield service, client


def predict(client: httpx.Client, name: str = "me.jpg") -> str:
    answer = client.post("/predict", files={"image": (name, b"picture")})
    assert answer.status_code == 200
    path: str = answer.json()["output_image"]
    return path


def test_a_drawn_picture_can_be_fetched_and_asked_for() -> None:
    with served_service() as (_, client):
        path = predict(client)
        for _ in range(2):
            answer = client.get(path)
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "image/jpeg"
            assert answer.headers["cache-control"] == "no-store"
            assert answer.content.startswith(b"\xff\xd8\xff")
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(answer.content))


def test_every_answer_has_a_picture_of_its_own() -> None:
    with served_service() as (service, client):
        paths = [predict(client) for _ in range(20)]
        assert len(set(paths)) == 20
        assert all(re.fullmatch(r"/images/[\w-]{22}", path) for path in paths)
        assert len(service.pictures.sizes()) == 20


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b.jpg", "名.jpg", "output.jpg", "x" * 3000])
def test_nothing_of_a_clients_file_name_comes_back(name: str) -> None:
    with served_service() as (_, client):
        path = predict(client, name)
        assert re.fullmatch(r"/images/[\w-]{22}", path)
        for guess in (name, f"output_{name}"):
            assert client.get(f"/images/{guess}").status_code == 404


@pytest.mark.parametrize("path", ["x", "%2e%2e%2fetc%2fpasswd", "..%5c..%5cwin.ini", "%00", "a/b", "é", "", "x" * 4000])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_other_names_lead_nowhere(method: str, path: str) -> None:
    with served_service() as (_, client):
        predict(client)
        answer = client.request(method, f"/images/{path}")
    assert answer.status_code == 404
    assert answer.headers["cache-control"] == "no-store"
    if method == "GET":
        assert set(answer.json()) == {"error"}
        assert isinstance(answer.json()["error"], str)


def test_a_picture_whose_time_is_over_is_not_found() -> None:
    with served_service() as (service, client):
        clock = Clock()
        service.pictures = KeptPictures(service.limits, clock=clock)
        path = predict(client)
        clock.now += service.limits.kept_s - 0.1
        assert client.get(path).status_code == 200
        clock.now += 0.2
        assert client.get(path).status_code == 404


def test_a_picture_that_made_room_is_not_found() -> None:
    with served_service(max_kept_pictures=2) as (_, client):
        paths = [predict(client) for _ in range(3)]
        assert [client.get(path).status_code for path in paths] == [404, 200, 200]


def test_pictures_are_read_only() -> None:
    with served_service() as (_, client):
        path = predict(client)
        for method in ("POST", "PUT", "DELETE"):
            answer = client.request(method, path)
            assert answer.status_code == 405
            assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}
            assert isinstance(answer.json()["error"], str)


def test_a_refused_picture_leaves_nothing_behind() -> None:
    with served_service() as (service, client):
        assert client.post("/predict", files={"photo": b"picture"}).status_code == 400
        assert client.post("/api/analyze", files={"image": b"picture"}).status_code == 200
        assert client.post("/analyze", files={"image": b"picture"}).status_code == 200
        assert not service.pictures.sizes()
