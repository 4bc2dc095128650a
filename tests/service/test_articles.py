"""The articles' routes: their exact shapes, the same findings as everywhere else, and their own words for errors."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
import re
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
from tests.service.services import FakeAnalysis, eventually, fake_service, served
from tests.service.test_http import answer_on, connect, get, post, with_client

from dulian.calibration import BUCKET_LABELS
from dulian.errors import InferenceError
from dulian.faces import (
    AgeEstimate,
    AnalysisResult,
    BoundingBox,
    Face,
    GenderEstimate,
    ImageInfo,
    ModelInfo,
    Quality,
    Timings,
)
from dulian.factory import open_profile
from dulian.models.catalog import find_profile
from dulian.service import admission, schema
from dulian.service.articles import as_faces, as_predictions, as_timed_results
from dulian.service.http import create_app
from dulian.service.inference import http as inference_http
from dulian.service.server import make_service
from dulian.store import ModelStore

WORKERS = 2
ROUTES = ("/predict", "/api/analyze", "/analyze")
WITH_FACES = ("astronaut", "astronaut jpeg", "twelve astronauts", "astronaut turned 90", "astronaut small")
NOBODY = ("cat", "plain")
WHERE_TO = "send one picture as file field 'image' of multipart/form-data"

FORM = {"content-type": "multipart/form-data; boundary=b"}


def form(filename: str | None, data: bytes, name: str = "image") -> dict[str, Any]:
    """One part of a form, to the letter."""
    disposition = f'form-data; name="{name}"' + ("" if filename is None else f'; filename="{filename}"')
    content = f"--b\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + data + b"\r\n--b--\r\n"
    return {"content": content, "headers": FORM}


def text_of(answer: httpx.Response) -> str:
    """The text of an error in the articles' shape."""
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    text = answer.json()["error"]
    assert isinstance(text, str)
    return text


# ── shapes ───────────────────────────────────────────────────────────────────────────────────────


def face(female: float, bucket: str = "(25-32)", **changes: Any) -> Face:
    decided = max(female, 1 - female) >= 0.6
    value = None if not decided else "female" if female >= 0.5 else "male"
    given: dict[str, Any] = {
        "id": 0,
        "box": BoundingBox(120.4, 79.6, 200.5, 180.0),
        "confidence": 0.93123456,
        "landmarks": None,
        "age": AgeEstimate(31.4, 26.0, 37.0, 0.9, bucket, 0.71),
        "gender": GenderEstimate(value, max(female, 1 - female), female),
        "quality": Quality(0.8, 0.7, 0.5, 80),
        "status": "ok",
        "label": "",
    }
    return Face(**{**given, **changes})


def result_of(*faces: Face) -> AnalysisResult:
    return AnalysisResult(ImageInfo(640, 480), ModelInfo("p", "e", "d"), faces, timings_ms=Timings(total=123.6))


def test_a_result_in_the_words_of_each_article() -> None:
    result = result_of(face(0.9))
    assert as_faces(result) == {
        "faces": [{"bbox": [120, 80, 200, 180], "gender": "Female", "age": "25-32", "confidence": 0.9312}],
        "processing_time_ms": 124,
    }
    usage = {"cpu_percent": 1.0, "memory_mb": 2.0, "timestamp": 3.0}
    assert as_predictions(result, "/images/x", usage) == {
        "results": [{"bbox": [120, 80, 200, 180], "gender": "Female", "age": "(25-32)", "confidence": 0.9312}],
        "output_image": "/images/x",
        "resource_usage": usage,
    }
    assert as_timed_results(result) == {
        "results": [{"bbox": [120, 80, 80, 100], "gender": "Female", "age": "25-32"}],
        "processing_time": "0.12s",
    }


@pytest.mark.parametrize(
    ("female", "word"), [(0.99, "Female"), (0.55, "Female"), (0.5, "Female"), (0.49, "Male"), (0.01, "Male")]
)
def test_an_undecided_gender_becomes_the_likelier_one(female: float, word: str) -> None:
    assert as_faces(result_of(face(female)))["faces"][0]["gender"] == word


def test_what_was_not_asked_for_is_left_out() -> None:
    result = result_of(face(0.9, age=None, gender=None))
    assert as_faces(result)["faces"] == [{"bbox": [120, 80, 200, 180], "confidence": 0.9312}]
    assert as_timed_results(result)["results"] == [{"bbox": [120, 80, 80, 100]}]


@pytest.mark.parametrize("bucket", BUCKET_LABELS)
def test_every_age_range_fits_the_documented_shape(bucket: str) -> None:
    result = result_of(face(0.9, bucket))
    schema.ArticleFaces.model_validate(as_faces(result), strict=True)
    schema.TimedResults.model_validate(as_timed_results(result), strict=True)
    usage = {"cpu_percent": 1.0, "memory_mb": None, "timestamp": 3.0}
    schema.Predictions.model_validate(as_predictions(result, "/images/x", usage), strict=True)


# ── with the networks ────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def photos(samples: Path) -> dict[str, bytes]:
    return sample_pictures(samples)


@pytest.fixture(scope="module")
def client(model_store: ModelStore) -> Iterator[httpx.Client]:
    service = make_service(open_profile(find_profile("standard"), model_store, workers=WORKERS), WORKERS)
    with served(create_app(service)) as url, httpx.Client(base_url=url, timeout=60) as made:
        yield made
    service.pool.close()


def native(client: httpx.Client, photo: bytes, **params: Any) -> list[dict[str, Any]]:
    faces: list[dict[str, Any]] = client.post("/v1/analyze", content=photo, params=params).json()["faces"]
    return faces


def drawn(client: httpx.Client, photo: bytes, **params: Any) -> bytes:
    return client.post("/v1/analyze", content=photo, params=params, headers={"accept": "image/jpeg"}).content


def agree(said: list[dict[str, Any]], found: list[dict[str, Any]], *, brackets: bool) -> bool:
    """Whether faces in an article's words are those of the native shape, whose edges are rounded once already."""
    for face, native_face in zip(said, found, strict=True):
        box = face["bbox"]
        assert all(type(edge) is int for edge in box)
        assert all(abs(edge - exact) < 0.56 for edge, exact in zip(box, native_face["bbox"], strict=True))
        bucket = native_face["age"]["bucket"]
        assert face == {
            "bbox": box,
            "gender": "Female" if native_face["gender"]["female_probability"] >= 0.5 else "Male",
            "age": bucket if brackets else bucket[1:-1],
            "confidence": native_face["confidence"],
        }
    return True


@pytest.mark.weights
@pytest.mark.parametrize("name", WITH_FACES + NOBODY)
def test_article_001(client: httpx.Client, photos: dict[str, bytes], name: str) -> None:
    photo = photos[name]
    answer = client.post("/predict", files={"image": ("me.jpg", photo)})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    said = answer.json()
    assert list(said) == ["results", "output_image", "resource_usage"]
    assert agree(said["results"], native(client, photo), brackets=True)
    assert bool(said["results"]) is (name in WITH_FACES)
    assert list(said["resource_usage"]) == ["cpu_percent", "memory_mb", "timestamp"]
    schema.Predictions.model_validate_json(answer.content, strict=True)
    assert said["resource_usage"]["timestamp"] > 1.7e9
    assert client.get(said["output_image"]).content == drawn(client, photo)


@pytest.mark.weights
@pytest.mark.parametrize("name", WITH_FACES + NOBODY)
def test_article_002(client: httpx.Client, photos: dict[str, bytes], name: str) -> None:
    answer = client.post("/api/analyze", files={"image": ("me.jpg", photos[name])})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    said = answer.json()
    assert list(said) == ["results", "processing_time"]
    found = native(client, photos[name])
    assert all(set(result) == {"bbox", "gender", "age"} for result in said["results"])
    for result, native_face in zip(said["results"], found, strict=True):
        x, y, width, height = result["bbox"]
        result |= {"bbox": [x, y, x + width, y + height], "confidence": native_face["confidence"]}
    assert agree(said["results"], found, brackets=False)
    assert re.fullmatch(r"\d+\.\d\ds", said["processing_time"])
    schema.TimedResults.model_validate_json(answer.content, strict=True)


@pytest.mark.weights
@pytest.mark.parametrize("name", WITH_FACES + NOBODY)
def test_article_004(client: httpx.Client, photos: dict[str, bytes], name: str) -> None:
    answer = client.post("/analyze", files={"image": ("me.jpg", photos[name])})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    picture = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    original = cv2.imdecode(np.frombuffer(photos[name], np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert original is not None
    assert picture.shape == original.shape
    assert answer.content == drawn(client, photos[name])


@pytest.mark.weights
@pytest.mark.parametrize("name", WITH_FACES + NOBODY)
def test_article_000(client: httpx.Client, photos: dict[str, bytes], name: str) -> None:
    photo = photos[name]
    bodies: list[dict[str, Any]] = [
        {"content": photo},
        {"files": {"image": photo}},
        {"json": {"image": base64.b64encode(photo).decode()}},
    ]
    for body in bodies:
        answer = client.post("/v1/analyze?format=faces", **body)
        said = answer.json()
        assert list(said) == ["faces", "processing_time_ms", "annotated_image"]
        assert agree(said["faces"], native(client, photo), brackets=False)
        assert base64.b64decode(said["annotated_image"], validate=True) == drawn(client, photo)
        schema.ArticleFaces.model_validate_json(answer.content, strict=True)
    # To the letter the article's own example:
    bare = client.post("/v1/analyze?format=faces&annotate=none", content=photo).json()
    assert list(bare) == ["faces", "processing_time_ms"]
    assert bare["faces"] == said["faces"]
    picture = client.post("/v1/analyze?format=faces", content=photo, headers={"accept": "image/jpeg"})
    assert picture.content == drawn(client, photo)


@pytest.mark.weights
@pytest.mark.parametrize("path", ROUTES)
def test_the_articles_routes_know_the_options(client: httpx.Client, photos: dict[str, bytes], path: str) -> None:
    photo = photos["twelve astronauts"]
    options = {"max_faces": 3, "order": "left_to_right", "min_confidence": 0.5}
    answer = client.post(path, files={"image": photo}, params=options)
    if path == "/analyze":
        assert answer.content == drawn(client, photo, **options) != drawn(client, photo)
        return
    found = native(client, photo, **options)
    results = answer.json()["results"]
    assert len(results) == 3
    for result, native_face in zip(results, found, strict=True):
        assert all(abs(a - b) < 0.56 for a, b in zip(result["bbox"][:2], native_face["bbox"][:2], strict=True))
    (alone,) = client.post(path, files={"image": photos["astronaut"]}, params={"attributes": ""}).json()["results"]
    assert set(alone) <= {"bbox", "confidence"}


def bomb() -> bytes:
    """A picture of a few bytes that says it is huge."""
    data = bytearray(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    data[16:24] = (30000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.weights
@pytest.mark.parametrize("path", ROUTES)
def test_refused_pictures_have_the_same_status_and_reason(
    client: httpx.Client, photos: dict[str, bytes], path: str
) -> None:
    refused = {
        b"no picture at all": 415,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>": 415,
        photos["astronaut jpeg"][:20_000]: 422,
        bomb(): 413,
        b"": 400,
    }
    for data, status in refused.items():
        answer = client.post(path, files={"image": ("me.jpg", data)})
        elsewhere = client.post("/v1/analyze", files={"image": ("me.jpg", data)})
        assert answer.status_code == elsewhere.status_code == status
        assert text_of(answer) == elsewhere.json()["error"]["message"]


@pytest.mark.weights
def test_all_routes_at_once_answer_as_each_alone(client: httpx.Client, photos: dict[str, bytes]) -> None:
    def ask(number: int) -> str:
        path, name = ROUTES[number % 3], WITH_FACES[number % len(WITH_FACES)]
        answer = client.post(path, files={"image": photos[name]})
        if path == "/analyze":
            return answer.content.hex()
        return json.dumps(answer.json()["results"])

    serial = [ask(number) for number in range(15)]
    with ThreadPoolExecutor(8) as clients:
        assert list(clients.map(ask, [*range(15)] * 3)) == serial * 3


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────


NO_PICTURE: list[dict[str, Any]] = [
    {},
    {"content": b""},
    {"content": b"", "headers": FORM},
    {"content": b"\xff\xd8\xff", "headers": {"content-type": "image/jpeg"}},
    {"content": b"image=x", "headers": {"content-type": "application/x-www-form-urlencoded"}},
    {"json": {"image": "QUJD"}},
    {"files": {"photo": b"x"}},
    {"files": {"img": b"x"}},
    {"json": {"img": "QUJD"}},
    form(None, b"x"),
]
NOT_CHOSEN: list[dict[str, Any]] = [form("", b""), form("", b"x")]


@pytest.mark.parametrize(
    ("path", "missing", "not_chosen"),
    [
        ("/predict", "No image uploaded", "No image uploaded"),
        ("/api/analyze", "没有上传图片", "没有选择文件"),
        ("/analyze", WHERE_TO, WHERE_TO),
    ],
)
def test_without_a_picture_the_articles_own_words(path: str, missing: str, not_chosen: str) -> None:
    analysis = FakeAnalysis()
    with fake_service(analysis) as service:
        for request in NO_PICTURE:
            answer = post(service, path=path, **request)
            assert (answer.status_code, text_of(answer)) == (400, missing), request
        for request in NOT_CHOSEN:
            answer = post(service, path=path, **request)
            assert (answer.status_code, text_of(answer)) == (400, not_chosen), request
        assert service.admission.bytes_in_flight == 0
    assert not analysis.seen


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ({"files": [("image", b"1"), ("image", b"2")]}, 400, "more than one file field 'image'"),
        ({"content": b"nonsense", "headers": FORM}, 400, "the multipart body is broken"),
        ({"content": b"--b\r\n", "headers": FORM}, 400, "ends before its last boundary"),
        ({"files": {"image": b"1"}, "data": {str(n): "x" for n in range(20)}}, 400, "more than 20 parts"),
        ({"files": {"image": b"1"}, "params": {"max_faces": 0}}, 400, "max_faces 0"),
        ({"files": {"image": b"1"}, "params": {"annotate": "base64"}}, 400, "unknown parameter 'annotate'"),
        ({"files": {"image": b"1"}, "params": {"format": "faces"}}, 400, "unknown parameter 'format'"),
        ({"files": {"image": bytes(3000)}}, 413, "larger than 3,000 bytes"),
        ({"files": {"image": b"1"}, "headers": {"content-encoding": "gzip"}}, 415, "compressed"),
    ],
)
def test_bad_requests_have_the_usual_status(path: str, request_: dict[str, Any], status: int, said: str) -> None:
    analysis = FakeAnalysis()
    with fake_service(analysis, max_body_bytes=3000) as service:
        answer = post(service, path=path, **request_)
        assert service.admission.bytes_in_flight == 0
    assert answer.status_code == status
    assert said in text_of(answer)
    assert not analysis.seen


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("error", [InferenceError("secret shape"), RuntimeError("secret text"), MemoryError("secret")])
def test_no_text_of_an_exception_comes_back(path: str, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    with fake_service(FakeAnalysis(error=error)) as service, caplog.at_level(logging.INFO, "dulian.service"):
        answer = post(service, path=path, files={"image": b"picture"})
    assert answer.status_code == 500
    assert "secret" not in text_of(answer)
    (record,) = caplog.records
    assert record.exc_info


@pytest.mark.parametrize("path", ROUTES)
def test_load_is_told_as_everywhere(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "PROBE_INTERVAL_S", math.inf)
    analysis = FakeAnalysis()
    analysis.leave.clear()
    picture = {"files": {"image": b"picture"}}
    with fake_service(analysis, max_queued=1) as service:

        async def main(client: httpx.AsyncClient) -> None:
            first = asyncio.create_task(client.post(path, **picture))
            await eventually(lambda: service.pool.busy == 1)
            late = await client.post(f"{path}?max_ms=30", **picture)
            assert late.status_code == 504
            assert "deadline" in text_of(late)
            waiting = asyncio.create_task(client.post(path, **picture))
            await eventually(lambda: service.pool.queued == 1)
            full = await client.post(path, **picture)
            assert (full.status_code, text_of(full)) == (503, "the queue is full")
            assert int(full.headers["retry-after"]) >= 1
            analysis.leave.set()
            assert [answer.status_code for answer in await asyncio.gather(first, waiting)] == [200, 200]

        with_client(service, main)


def test_a_slow_and_an_oversized_body_end_their_connection() -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    with (
        fake_service(FakeAnalysis(), max_body_bytes=1000, body_timeout_s=0.1) as service,
        served(create_app(service)) as url,
    ):
        for length, status in ((b"10", b"408"), (b"1001", b"413")):
            with connect(url) as connection:
                connection.sendall(head + b"Content-Length: " + length + b"\r\n\r\n12345")
                answer = answer_on(connection)
            assert answer.startswith(b"HTTP/1.1 " + status)
            assert b'{"error":"' in answer


@pytest.mark.parametrize("path", ROUTES)
def test_the_wrong_method_learns_the_right_one(path: str) -> None:
    with fake_service(FakeAnalysis()) as service:
        answer = get(service, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert text_of(answer)


def test_openapi_describes_the_articles_routes() -> None:
    with fake_service(FakeAnalysis()) as service:
        document = get(service, "/openapi.json").json()
    statuses = {"200", "400", "401", "408", "413", "415", "422", "429", "500", "503", "504"}
    for path in ROUTES:
        operation = document["paths"][path]["post"]
        assert set(operation["responses"]) == statuses
        assert list(operation["requestBody"]["content"]) == ["multipart/form-data"]
        error = operation["responses"]["400"]["content"]["application/json"]["schema"]
        assert error == {"$ref": "#/components/schemas/TextError"}
    content = {path: list(document["paths"][path]["post"]["responses"]["200"]["content"]) for path in ROUTES}
    assert content == {
        "/predict": ["application/json"],
        "/api/analyze": ["application/json"],
        "/analyze": ["image/jpeg"],
    }
    assert set(document["components"]["schemas"]["Prediction"]["required"]) == {"bbox", "confidence"}


def test_the_examples_of_openapi_are_what_is_sent() -> None:
    with fake_service(FakeAnalysis()) as service:
        document = get(service, "/openapi.json").json()
    described = document["components"]["schemas"]
    examples = {name: model["examples"][0] for name, model in described.items() if "examples" in model}
    assert {"AnalysisResult", "BatchAnswer", "ArticleFaces", "Predictions", "TimedResults", "TextError"} <= set(
        examples
    )
    for name, example in examples.items():
        (getattr(schema, name, None) or getattr(inference_http, name)).model_validate(example, strict=True)
