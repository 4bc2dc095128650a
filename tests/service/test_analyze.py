"""``POST /v1/analyze`` with the real networks: the same answers as the library, in every form and from every side."""

from __future__ import annotations

import base64
import json
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from tests.golden.pictures import sample_pictures
from tests.service.services import served

from dulian.api import FaceAnalyzer, load_analyzer
from dulian.errors import DulianError
from dulian.factory import open_profile
from dulian.models.catalog import find_profile
from dulian.service import schema
from dulian.service.http import create_app
from dulian.service.server import make_service
from dulian.service.state import Service
from dulian.store import ModelStore

pytestmark = pytest.mark.weights
WORKERS = 2
CLIENTS = 8


@pytest.fixture(scope="module")
def analyzer(model_store: ModelStore) -> FaceAnalyzer:
    return load_analyzer(model_dir=model_store.write_dir)


@pytest.fixture(scope="module")
def pictures(samples: Path) -> dict[str, bytes]:
    return sample_pictures(samples)


@pytest.fixture(scope="module")
def service(model_store: ModelStore) -> Iterator[Service]:
    made = make_service(open_profile(find_profile("standard"), model_store, workers=WORKERS), WORKERS)
    yield made
    made.pool.close()


@pytest.fixture(scope="module")
def url(service: Service) -> Iterator[str]:
    with served(create_app(service)) as address:
        yield f"{address}/v1/analyze"


def comparable(answer: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in answer.items() if name not in ("request_id", "timings_ms")})


def forms(picture: bytes) -> list[dict[str, Any]]:
    boundary = {"content-type": "multipart/form-data; boundary=x"}
    field = b'--x\r\ncontent-disposition: form-data; name=image; filename=""\r\n\r\n' + picture + b"\r\n--x--"
    return [
        {"content": picture},
        {"content": picture, "headers": {"content-type": "image/png"}},
        {"content": iter([picture[:1000], picture[1000:5000], picture[5000:]])},
        {"files": {"image": ("名.png", picture)}},
        {"files": {"image": picture}, "data": {"other": "field"}},
        {"content": field, "headers": boundary},
        {"json": {"image": base64.b64encode(picture).decode()}},
    ]


def test_every_form_gives_the_librarys_answer(url: str, analyzer: FaceAnalyzer, pictures: dict[str, bytes]) -> None:
    for name in ("astronaut jpeg", "twelve astronauts", "cat"):
        expected = comparable(analyzer.analyze(pictures[name]).to_dict())
        for request in forms(pictures[name]):
            answer = httpx.post(url, **request, timeout=30)
            assert answer.status_code == 200
            assert comparable(answer.json()) == expected
            schema.AnalysisResult.model_validate(answer.json(), strict=True)


def test_options_do_what_they_do_in_the_library(url: str, analyzer: FaceAnalyzer, pictures: dict[str, bytes]) -> None:
    options: dict[str, Any] = {"max_faces": 3, "order": "left_to_right", "coverage": 0.5, "min_confidence": 0.5}
    answer = httpx.post(url, params={**options, "attributes": "age"}, content=pictures["twelve astronauts"]).json()
    library = analyzer.analyze(pictures["twelve astronauts"], attributes="age", **options).to_dict()
    assert comparable(answer) == comparable(library)
    assert (answer["truncated"], answer["skipped"]) == (True, 9)
    only_detected = httpx.post(f"{url}?attributes=", content=pictures["astronaut"]).json()["faces"][0]
    assert (only_detected["age"], only_detected["gender"]) == (None, None)


def test_the_annotated_picture_shows_the_picture(url: str, pictures: dict[str, bytes]) -> None:
    answer = httpx.post(url, content=pictures["astronaut"], headers={"accept": "image/jpeg"}).content
    drawn = cv2.imdecode(np.frombuffer(answer, np.uint8), cv2.IMREAD_COLOR)
    original = cv2.imdecode(np.frombuffer(pictures["astronaut"], np.uint8), cv2.IMREAD_COLOR)
    assert drawn is not None
    assert original is not None
    difference = np.abs(drawn.astype(int) - original.astype(int)).max(axis=2)
    assert np.median(difference) < 8
    assert (difference > 60).sum() > 500


def test_refused_pictures_have_the_librarys_reason(
    url: str, analyzer: FaceAnalyzer, pictures: dict[str, bytes]
) -> None:
    bomb = bytearray(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    bomb[16:24] = (30000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    refused = {
        b"no picture at all": (415, "unsupported_image"),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>": (415, "unsupported_image"),
        pictures["astronaut jpeg"][:20_000]: (422, "image_truncated"),
        bytes(bomb): (413, "input_too_large"),
    }
    for data, (status, code) in refused.items():
        answer = httpx.post(url, files={"image": data})
        with pytest.raises(DulianError) as caught:
            analyzer.analyze(data)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert answer.json()["error"]["message"] == str(caught.value)


def test_eight_clients_get_the_answers_of_one(url: str, pictures: dict[str, bytes]) -> None:
    data = list(pictures.values())
    work = [index for turn in range(3) for index in range(len(data))]

    def ask(index: int) -> str:
        answer = httpx.post(url, content=data[index], timeout=60)
        assert answer.status_code == 200, answer.text
        return comparable(answer.json())

    serial = [ask(index) for index in range(len(data))]
    with ThreadPoolExecutor(CLIENTS) as clients:
        concurrent = list(clients.map(ask, work))
    assert concurrent == [serial[index] for index in work]


def test_each_thread_has_its_own_analyzer(model_store: ModelStore) -> None:
    factory = open_profile(find_profile("standard"), model_store, workers=3)
    made: list[tuple[int, object]] = []

    class Watched:
        profile, model = factory.profile, factory.model

        new_solo_analyzer = None

        @staticmethod
        def new_analyzer() -> Any:
            made.append((threading.get_ident(), analyzer := factory.new_analyzer()))
            return analyzer

    service = make_service(Watched(), 3)  # type: ignore[arg-type]
    service.pool.close()
    assert len({thread for thread, _ in made}) == len({id(analyzer) for _, analyzer in made}) == len(made) == 3


def test_what_answers_is_described(service: Service, url: str) -> None:
    root = url.removesuffix("/v1/analyze")
    models = schema.Models.model_validate(httpx.get(f"{root}/v1/models").json())
    assert [network.name for network in models.networks] == [row.name for row in find_profile("standard").rows]
    assert models.digest == service.model.digest
    assert httpx.get(root + models.card).headers["content-type"] == "text/html; charset=utf-8"
    status = schema.Status.model_validate(httpx.get(f"{root}/v1/status").json())
    assert (status.profile, status.workers) == ("standard", WORKERS)
