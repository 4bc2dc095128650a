"""P23: whatever is asked at once, everybody gets the answer that they would get alone, byte for byte."""

from __future__ import annotations

import asyncio
import json
import random
import runpy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from websockets.sync.client import connect

from dulian.store import ModelStore
from tests.conftest import ROOT
from tests.golden.pictures import sample_pictures
from tests.promises.harness import Reply, Server, closed_loop, comparable, dulian_server, form, post

pytestmark = pytest.mark.weights

MIB = 2**20
HTTP_CLIENTS = 6
STREAMS = 2


class Setup(NamedTuple):
    """How a service is started; of all questions each ``every``-th is asked, so many times."""

    profile: str
    engine: str
    mode: str
    every: int
    rounds: int
    cache: bool = False


SETUPS = [
    Setup("standard", "onnxruntime", "auto", 1, 6),
    Setup("standard", "onnxruntime", "latency", 1, 2),
    Setup("standard", "onnxruntime", "throughput", 1, 3, cache=True),
    Setup("classic", "onnxruntime", "auto", 3, 3),
    Setup("classic", "onnxruntime", "throughput", 3, 3, cache=True),
    Setup("standard", "openvino", "auto", 4, 2),
    Setup("classic", "openvino", "throughput", 5, 2),
    Setup("standard", "opencv", "throughput", 4, 2),
    Setup("classic", "opencv", "auto", 6, 2),
]


@pytest.fixture(scope="module")
def pictures(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The sample pictures and what they are made into, those of the demonstration too."""
    album = tmp_path_factory.mktemp("album")
    runpy.run_path(str(ROOT / "examples" / "derive_samples.py"))["main"](samples, album)
    return sample_pictures(samples) | {file.stem: file.read_bytes() for file in sorted(album.iterdir())}


@pytest.fixture(scope="module")
def questions(pictures: dict[str, bytes]) -> list[bytes]:
    """Every picture at the plain route, and a few at every other one and with every kind of wish; one is refused."""
    some = [pictures[name] for name in ("astronaut jpeg", "twelve astronauts", "astronaut turned 90", "cat")]
    asked = [post("/v1/analyze", data) for data in pictures.values()]
    asked += [post(f"/v1/analyze?{wish}", some[1]) for wish in ("max_faces=3&order=left_to_right", "attributes=")]
    asked += [post(path, *form(data)) for data in some for path in ("/predict", "/api/analyze", "/analyze")]
    asked += [post("/v1/analyze?format=faces&annotate=none", *form(some[0]))]
    asked += [post("/v1/analyze?annotate=base64", some[1]), post("/v1/analyze", some[0], "Accept: image/jpeg")]
    asked += [post("/v1/batch", *form(*some)), post("/v1/batch?max_faces=2", *form(*reversed(some), b"none"))]
    asked += [post("/v1/analyze", some[0][:20_000])]
    return asked


def stream(server: Server, frames: list[bytes]) -> list[bytes]:
    """The answers to frames that are sent one after the other."""
    said: list[bytes] = []
    with connect(f"ws://127.0.0.1:{server.port}/v1/stream", compression=None, max_size=None, proxy=None) as client:
        for number, frame in enumerate(frames):
            client.send(json.dumps({"id": number}))
            client.send(frame)
            said.append(comparable(str(client.recv(timeout=60)).encode()))
    return said


def differing(replies: list[Reply], expected: dict[int, tuple[int, bytes]]) -> list[int]:
    """Requests that were not answered as they were alone."""
    return [one.request for one in replies if (one.status, comparable(one.body)) != expected[one.request]]


def start(setup: Setup, store: ModelStore) -> Any:
    wishes = ["--profile", setup.profile, "--engine", setup.engine, "--mode", setup.mode]
    cache = {"DULIAN_CACHE_MB": "1"} if setup.cache else {}
    # What a slow machine does not finish in time would be another answer.
    return dulian_server(store, *wishes, DULIAN_DEADLINE_S="20", **cache)


Alone = tuple[dict[int, tuple[int, bytes]], list[bytes]]


@pytest.fixture(scope="module")
def alone(model_store: ModelStore, questions: list[bytes], pictures: dict[str, bytes]) -> Any:
    """What one client is told that asks everything once, of a service in its usual mode."""
    known: dict[tuple[str, str], Alone] = {}

    def ask(setup: Setup) -> Alone:
        key = setup.profile, setup.engine
        if key not in known:
            numbers = range(0, len(questions), setup.every)
            asked = [questions[number] for number in numbers]
            with start(setup._replace(mode="auto", cache=False), model_store) as server:
                replies = asyncio.run(closed_loop(server.port, asked, clients=1, count=len(asked)))
                streamed = stream(server, frames_of(pictures)[:: setup.every])
            known[key] = {numbers[one.request]: (one.status, comparable(one.body)) for one in replies}, streamed
        return known[key]

    return ask


def frames_of(pictures: dict[str, bytes]) -> list[bytes]:
    return [data for data in pictures.values() if len(data) <= MIB]


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: "-".join(map(str, setup)))
def test_eight_clients_get_what_one_would(
    setup: Setup, model_store: ModelStore, questions: list[bytes], pictures: dict[str, bytes], alone: Any
) -> None:
    """P23: six clients at all routes, and two streams, in every mode and on every engine, with a cache and without."""
    expected, streamed = alone(setup)
    assert {status for status, _ in expected.values()} <= {200, 422}
    assert len({body for _, body in expected.values()}) > 0.8 * len(expected)
    order = random.Random(23)
    work = [number for _ in range(setup.rounds) for number in order.sample(sorted(expected), len(expected))]
    with start(setup, model_store) as server, ThreadPoolExecutor(STREAMS) as pool:
        frames = frames_of(pictures)[:: setup.every]
        streams = [pool.submit(stream, server, frames) for _ in range(STREAMS)]
        asked = [questions[number] for number in work]
        replies = asyncio.run(closed_loop(server.port, asked, clients=HTTP_CLIENTS, count=len(asked)))
        answers = [one._replace(request=work[one.request]) for one in replies]
        assert differing(answers, expected) == []
        assert sorted(one.request for one in answers) == sorted(work)
        assert all(done.result() == streamed for done in streams)
        assert server.stop() == 0
    assert any(b"x-cache: hit" in one.head for one in replies) == setup.cache


def test_a_swapped_answer_is_noticed() -> None:
    """P23, negative control."""
    expected = {0: (200, b'{"faces":[1]}'), 1: (200, b'{"faces":[2]}')}
    bodies = [b'{"request_id":"a","faces":[1]}', b'{"request_id":"b","faces":[2]}']
    replies = [Reply(number, 200, b"", body, 0.0, 0.0) for number, body in enumerate(bodies)]
    assert differing(replies, expected) == []
    swapped = [one._replace(body=bodies[1 - one.request]) for one in replies]
    assert differing(swapped, expected) == [0, 1]
