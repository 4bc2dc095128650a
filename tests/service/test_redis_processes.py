"""Real services that share a real Redis, which dies under load."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.promises.harness import closed_loop, comparable, post
from tests.service.processes import command, finished, running
from tests.service.redis_server import RedisServer, redis_server
from tests.service.services import PATIENCE_S, wait_until

from dulian.machine import effective_cores
from dulian.store import ModelStore

SECRET = "a secret of thirty-two characters"
PASSWORD = "p:@/?"
CLIENTS = 8
TRIES = 30
HITS = 'dulian_cache_requests_total{result="hit",tier="redis"}'


def secrets_in(folder: Path, url: str) -> dict[str, str]:
    """Files with the secrets, and the variables that name them."""
    files = {"DULIAN_REDIS_URL_FILE": folder / "url", "DULIAN_CACHE_SECRET_FILE": folder / "secret"}
    for path, value in zip(files.values(), (url, SECRET), strict=True):
        path.write_text(f"{value}\n", "utf-8")
        path.chmod(0o600)
    return {name: str(path) for name, path in files.items()}


def metric(url: str, name: str) -> float:
    for line in httpx.get(f"{url}/metrics").text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    raise AssertionError(name)


def pictures_in(samples: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(samples.iterdir()) if path.suffix in (".png", ".jpg")]


def given_again(server: RedisServer, one: str, other: str, picture: bytes) -> tuple[httpx.Response, httpx.Response]:
    """An answer, and the same from another service; on a busy machine what is written may come late a few times."""
    for _ in range(TRIES):
        with server.client(password=PASSWORD) as client:
            client.flushall()
            first = httpx.post(f"{one}/v1/analyze", content=picture, timeout=PATIENCE_S)
            until = time.monotonic() + 1.0
            while not client.dbsize() and time.monotonic() < until:
                time.sleep(0.005)
        second = httpx.post(f"{other}/v1/analyze", content=picture, timeout=PATIENCE_S)
        assert {first.status_code, second.status_code} == {200}
        if (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit"):
            return first, second
    raise AssertionError("nothing is shared")


def load(urls: Sequence[str], requests: Sequence[bytes], clients: int, seconds: float) -> list[Any]:
    async def main() -> list[Any]:
        ports = [int(url.rpartition(":")[2]) for url in urls]
        share = clients // len(ports)
        parts = [closed_loop(port, requests, clients=share, seconds=seconds) for port in ports]
        return [reply for replies in await asyncio.gather(*parts) for reply in replies]

    return asyncio.run(main())


@pytest.mark.weights
def test_two_services_share_results_and_lose_redis_without_anybody_noticing(
    model_store: ModelStore, samples: Path, tmp_path: Path
) -> None:
    pictures = pictures_in(samples)
    requests = [post(f"/v1/analyze?max_faces={count}", picture) for picture in pictures for count in range(1, 8)]
    with redis_server(tmp_path, "--requirepass", PASSWORD) as server:
        environment = secrets_in(tmp_path, f"redis://:p%3A%40%2F%3F@127.0.0.1:{server.port}")
        workers = ("--workers", "2") if effective_cores() > 1 else ()
        with (
            running(model_store, **environment) as (process, one, events),
            running(model_store, *workers, **environment) as (_, other, others),
        ):
            for picture in pictures:
                first, second = given_again(server, one, other, picture)
                identity = [f'"request_id":"{answer.json()["request_id"]}"'.encode() for answer in (first, second)]
                assert first.content.replace(identity[0], identity[1]) == second.content
            expected = {reply.request: comparable(reply.body) for reply in load([one], requests, 1, 3.0)}
            before = metric(one, HITS)

            def kill_amid_hits() -> None:
                wait_until(lambda: metric(one, HITS) > before)
                server.kill()

            killer = threading.Thread(target=kill_amid_hits)
            killer.start()
            replies = []
            while killer.is_alive():
                replies += load([one, other], requests, CLIENTS, 1.0)
            assert server.process.poll() is not None
            replies += load([one, other], requests, CLIENTS, 2.0)
            assert {reply.status for reply in replies} == {200}
            known = [reply for reply in replies if reply.request in expected]
            assert known
            assert [reply.request for reply in known if comparable(reply.body) != expected[reply.request]] == []
            assert any(b"x-cache: hit" in reply.head for reply in replies)
            wait_until(
                lambda: (
                    httpx.post(f"{one}/v1/analyze", content=pictures[0], timeout=PATIENCE_S).status_code == 200
                    and metric(one, "dulian_cache_breaker_open") == 1
                )
            )
            assert httpx.get(f"{one}/readyz").status_code == 200
            process.terminate()
            assert process.stderr
            for line in process.stderr:
                events.append(json.loads(line))
            assert process.wait(PATIENCE_S) == 0
            assert {event["tier"] for event in events if event["event"] == "cache_breaker_open"} == {"redis"}
            told = json.dumps([events, others])
            assert SECRET not in told
            assert "p%3A" not in told
            assert "secret_file_loose" not in told


@pytest.mark.weights
def test_a_service_starts_although_redis_is_down(model_store: ModelStore, samples: Path, tmp_path: Path) -> None:
    environment = secrets_in(tmp_path, "redis://127.0.0.1:1")
    os.chmod(environment["DULIAN_CACHE_SECRET_FILE"], 0o644)
    with running(model_store, "--cache-mb", "1", **environment) as (_, url, events):
        assert httpx.get(f"{url}/readyz").status_code == 200
        for found in ("miss", "hit"):
            answer = httpx.post(f"{url}/v1/analyze", content=pictures_in(samples)[0], timeout=PATIENCE_S)
            assert (answer.status_code, answer.headers["x-cache"]) == (200, found)
    if os.name == "posix":
        loose = [event["setting"] for event in events if event["event"] == "secret_file_loose"]
        assert loose == ["cache_secret_file"]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"DULIAN_REDIS_URL": "redis://:hush@127.0.0.1"}, "redis_url needs a cache_secret"),
        ({"DULIAN_REDIS_URL": "http://:hush@127.0.0.1"}, "setting redis_url: it begins with none of redis://"),
        (
            {"DULIAN_REDIS_URL": "redis://:hush@127.0.0.1", "DULIAN_CACHE_SECRET": "hush"},
            "setting cache_secret: it has 4 characters, and at least 32 are needed",
        ),
    ],
)
def test_without_a_secret_that_is_one_it_does_not_start(environment: dict[str, str], said: str) -> None:
    code, out, err = finished(command("--port", "0", "--offline", **environment))
    assert (code, out) == (2, "")
    assert said in err
    assert "hush" not in err
    assert len(err.splitlines()) == 1
