"""Two real services, nginx before them, and what they answer without it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from dulian.store import ModelStore
from tests.deploy.front import Front, front
from tests.deploy.programs import needed
from tests.deploy.replicas import Replica
from tests.promises.harness import comparable
from tests.service.services import PATIENCE_S


@pytest.fixture(scope="package")
def replicas(model_store: ModelStore) -> Iterator[tuple[Replica, Replica]]:
    needed("nginx", "nginx")
    first, second = Replica.start(model_store), Replica.start(model_store)
    with first.stack, second.stack:
        yield first, second


@pytest.fixture
def nginx(tmp_path: Path, replicas: tuple[Replica, Replica]) -> Iterator[Front]:
    """nginx before both, with no limits of rate."""
    with front(tmp_path, *(one.port for one in replicas)) as running:
        yield running


@pytest.fixture(scope="package")
def photos(samples: Path) -> list[bytes]:
    """The portrait in four sizes, and a cat."""
    made = []
    widths = (("astronaut", 512), ("astronaut", 400), ("astronaut", 300), ("astronaut", 240), ("chelsea", 320))
    for name, width in widths:
        file = io.BytesIO()
        picture = Image.open(samples / f"{name}.png").convert("RGB")
        picture.resize((width, picture.height * width // picture.width)).save(file, "JPEG", quality=90)
        made.append(file.getvalue())
    return made


@pytest.fixture(scope="package")
def direct_answers(replicas: tuple[Replica, Replica], photos: list[bytes]) -> list[bytes]:
    """What a replica answers when nothing is in front of it."""
    with httpx.Client(base_url=replicas[0].server.url, timeout=PATIENCE_S) as client:
        found = [client.post("/v1/analyze", content=photo) for photo in photos]
    assert [len(answer.json()["faces"]) for answer in found] == [1, 1, 1, 1, 0]
    return [answer.content for answer in found]


@pytest.fixture(scope="package")
def direct(direct_answers: list[bytes]) -> list[bytes]:
    """The same without what is each answer's own."""
    return [comparable(answer) for answer in direct_answers]


@pytest.fixture(scope="package")
def boxes(direct_answers: list[bytes]) -> list[list[list[float]]]:
    """Where the faces are, for each photo."""
    return [[face["bbox"] for face in json.loads(answer)["faces"]] for answer in direct_answers]
