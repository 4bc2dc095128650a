"""``POST /v1/batch``: every picture on its own, in order, within the limits, and never before its turn."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
from tests.golden.pictures import sample_pictures
from tests.service.services import FakeAnalysis, eventually, fake_service, served
from tests.service.test_http import code_of, connect, get, post, wait_until, with_client

from dulian.analyzer import AnalyzeOptions
from dulian.errors import ImageTruncatedError, InferenceError, OverloadedError
from dulian.faces import AnalysisResult, ImageInfo
from dulian.factory import open_profile
from dulian.image import Image
from dulian.models.catalog import find_profile
from dulian.service import admission, schema
from dulian.service.http import create_app
from dulian.service.server import make_service
from dulian.service.state import Service
from dulian.store import ModelStore

WORKERS = 2
REFUSALS = {b"cut": ImageTruncatedError("the file ends early"), b"ours": InferenceError("secret shape")}


class Echo(FakeAnalysis):
    """Says the number that a "picture" consists of as its width, refuses some, and gets stuck on one."""

    def __init__(self, seconds: float = 0.0, *, stuck_at: bytes | None = None) -> None:
        super().__init__(seconds)
        self.stuck_at = stuck_at

    def __call__(self, data: bytes, options: AnalyzeOptions) -> tuple[AnalysisResult, Callable[[], Image]]:
        if data == self.stuck_at:
            self.leave.clear()
        result, load = super().__call__(data, options)
        if data in REFUSALS:
            raise REFUSALS[data]
        return replace(result, image=ImageInfo(int(data), 1)), load


def pictures(*contents: bytes) -> list[tuple[str, bytes]]:
    return [("image", content) for content in contents]


def send(service: Service, *contents: bytes, **request: Any) -> httpx.Response:
    return post(service, path="/v1/batch", files=pictures(*contents), **request)


def outcomes(answer: httpx.Response) -> list[int | str]:
    """Of each picture what was seen, or the code of its error."""
    assert answer.status_code == 200, answer.text
    parts = schema.BatchAnswer.model_validate(answer.json()).results
    return [part.error.code if isinstance(part, schema.ErrorAnswer) else part.image.width for part in parts]


# ── answers ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("workers", [1, 3])
def test_every_picture_is_answered_in_its_place(workers: int) -> None:
    contents = [b"%d" % number for number in range(1, 21)]
    with fake_service(Echo(), workers=workers) as service:
        answer = send(service, *contents)
        assert service.admission.bytes_in_flight == 0
    assert outcomes(answer) == [int(content) for content in contents]
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert {part["request_id"] for part in answer.json()["results"]} == {answer.headers["x-request-id"]}


def test_one_bad_picture_fails_alone() -> None:
    with fake_service(Echo(), workers=2) as service:
        answer = send(service, b"1", b"cut", b"3")
        assert outcomes(answer) == [1, "image_truncated", 3]
        alone = send(service, b"cut")
    error = schema.ErrorAnswer.model_validate(answer.json()["results"][1]).error
    assert (error.message, error.request_id) == ("the file ends early", answer.headers["x-request-id"])
    assert outcomes(alone) == ["image_truncated"]


@pytest.mark.parametrize(("data", "code"), [(b"ours", "inference_failed"), (b"no number", "internal")])
def test_a_defect_hits_one_picture_and_is_logged(data: bytes, code: str, caplog: pytest.LogCaptureFixture) -> None:
    with fake_service(Echo()) as service, caplog.at_level(logging.INFO, "dulian.service"):
        answer = send(service, b"1", data, b"3", headers={"x-request-id": "find-me"})
    assert outcomes(answer) == [1, code, 3]
    assert "secret" not in answer.text
    assert "literal" not in answer.text
    (record,) = caplog.records
    assert vars(record)["fields"]["request_id"] == "find-me"
    assert record.exc_info


def test_options_are_those_of_every_picture() -> None:
    analysis = Echo()
    with fake_service(analysis) as service:
        answer = send(service, b"1", b"2", params={"max_faces": 3, "attributes": "age", "annotate": "base64"})
    assert [(options.max_faces, options.attributes) for _, options in analysis.seen] == [(3, {"age"})] * 2
    for result in answer.json()["results"]:
        assert base64.b64decode(result["annotated_image"], validate=True).startswith(b"\xff\xd8\xff")


def test_other_fields_are_passed_over() -> None:
    parts: list[Any] = [("note", (None, "text")), ("image", b"1"), ("photo", b"2"), ("image", b"3")]
    with fake_service(Echo()) as service:
        assert outcomes(post(service, path="/v1/batch", files=parts)) == [1, 3]


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ({"files": {"photo": b"1"}}, 400, "no file field 'image'"),
        ({"data": {"image": "1"}, "files": {"x": b""}}, 400, "no file field 'image'"),
        ({"files": pictures(*[b"1"] * 5)}, 400, "more than 4 parts"),
        ({"files": pictures(b"1"), "data": dict.fromkeys("abcd", "1")}, 400, "more than 4 parts"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400, "broken"),
        ({"content": b"--b\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400, "ends before"),
        ({"content": b"", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400, "empty"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        ({"files": pictures(b"1"), "params": {"format": "faces"}}, 400, "unknown parameter 'format'"),
        ({"files": pictures(b"1"), "params": {"max_ms": "0"}}, 400, "max_ms"),
        ({"files": pictures(bytes(2000))}, 413, "2,000 bytes"),
        ({"content": b"1"}, 415, "file fields 'image'"),
        ({"content": b"1", "headers": {"content-type": "image/jpeg"}}, 415, "file fields 'image'"),
        ({"json": {"image": "QUJD"}}, 415, "file fields 'image'"),
        ({"files": pictures(b"1"), "headers": {"content-encoding": "gzip"}}, 415, "compressed"),
    ],
)
def test_a_form_that_is_refused_is_refused_as_a_whole(request_: dict[str, Any], status: int, said: str) -> None:
    analysis = Echo()
    with fake_service(analysis, max_batch_parts=4, max_body_bytes=2000) as service:
        answer = post(service, path="/v1/batch", **request_)
        assert service.admission.bytes_in_flight == 0
    assert answer.status_code == status
    assert code_of(answer)
    assert said in answer.json()["error"]["message"]
    assert not analysis.seen


def test_as_many_pictures_as_the_limits_say() -> None:
    with fake_service(Echo()) as service:
        most = get(service, "/v1/limits").json()["batch_parts"]
        assert outcomes(send(service, *[b"7"] * most)) == [7] * most
        assert send(service, *[b"7"] * (most + 1)).status_code == 400


def test_boundary_lookalikes_are_refused_by_counting() -> None:
    body = b"--a\r\n" + b"\r\n--aX" * 1_500_000
    with fake_service(Echo()) as service:
        answer = post(
            service, path="/v1/batch", content=body, headers={"content-type": "multipart/form-data; boundary=a"}
        )
    assert (answer.status_code, code_of(answer)) == (400, "malformed_input")


def test_answers_have_an_end_too() -> None:
    """Drawn copies may be far larger than what was sent."""
    with fake_service(Echo(), max_batch_answer_bytes=4000) as service:
        drawn = outcomes(send(service, *[b"1"] * 6, params={"annotate": "base64"}))
        assert drawn == [1] * drawn.count(1) + ["input_too_large"] * drawn.count("input_too_large")
        assert 0 < drawn.count(1) < 6
        assert outcomes(send(service, *[b"1"] * 6)) == [1] * 6
        assert service.admission.bytes_in_flight == 0


def test_answers_count_as_bytes_in_flight() -> None:
    with fake_service(Echo(), max_bytes_in_flight=4000) as service:
        drawn = outcomes(send(service, *[b"1"] * 6, params={"annotate": "base64"}))
        assert drawn.count("overloaded") == 6 - drawn.count(1) > 0
        assert service.admission.bytes_in_flight == 0


# ── load ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_single_picture_waits_behind_one_round_of_all_batches() -> None:
    analysis = Echo()
    analysis.leave.clear()
    with fake_service(analysis, workers=WORKERS) as service:

        async def main(client: httpx.AsyncClient) -> None:
            batches = [
                asyncio.create_task(client.post("/v1/batch", files=pictures(*[b"%d" % number] * 10)))
                for number in (1, 2, 3)
            ]
            await eventually(lambda: len(analysis.seen) == WORKERS)
            # The forms of all three are to be split; then nothing of them waits for a thread.
            single = asyncio.create_task(client.post("/v1/analyze", content=b"99"))
            await eventually(lambda: service.pool.queued >= 1)
            analysis.leave.set()
            assert (await single).json()["image"]["width"] == 99
            assert [len(outcomes(answer)) for answer in await asyncio.gather(*batches)] == [10, 10, 10]

        with_client(service, main)
    order = [data for data, _ in analysis.seen]
    assert order.index(b"99") <= 2 * WORKERS + 1
    assert len(order) == 31


def test_batches_together_have_no_more_jobs_in_the_queue_than_there_are_threads() -> None:
    analysis = Echo()
    analysis.leave.clear()
    most = 0
    with fake_service(analysis, workers=1) as service:

        async def main(client: httpx.AsyncClient) -> None:
            nonlocal most
            blocker = asyncio.create_task(client.post("/v1/analyze", content=b"5"))
            await eventually(lambda: service.pool.busy == 1)
            batches = [asyncio.create_task(client.post("/v1/batch", files=pictures(b"1", b"2"))) for _ in range(3)]
            await eventually(lambda: service.pool.queued == 3)  # their forms
            submit = service.pool.submit

            def watched(job: Any) -> None:
                nonlocal most
                submit(job)
                most = max(most, service.pool.queued + service.pool.busy)

            service.pool.submit = watched  # type: ignore[method-assign]
            analysis.leave.set()
            assert (await blocker).status_code == 200
            for answer in await asyncio.gather(*batches):
                assert outcomes(answer) == [1, 2]

        with_client(service, main)
    assert most <= 3  # a picture, beside two forms that are not split yet


def test_what_the_deadline_cuts_off_says_so_in_its_place() -> None:
    analysis = Echo()
    analysis.leave.clear()
    with fake_service(analysis) as service:

        async def main(client: httpx.AsyncClient) -> None:
            answer = await client.post("/v1/batch?max_ms=300", files=pictures(b"1", b"2", b"3"))
            assert outcomes(answer) == ["deadline_exceeded"] * 3
            analysis.leave.set()
            await eventually(lambda: service.admission.bytes_in_flight == 0)

        with_client(service, main)
    assert [data for data, _ in analysis.seen] == [b"1"]  # the others were never begun


def test_what_was_answered_before_the_deadline_is_kept() -> None:
    with fake_service(Echo(stuck_at=b"2")) as service:
        answer = send(service, b"1", b"2", b"3", params={"max_ms": 1000})
    assert outcomes(answer) == [1, "deadline_exceeded", "deadline_exceeded"]


def test_a_batch_does_not_outlive_its_deadline_for_another_one() -> None:
    analysis = Echo(stuck_at=b"1")
    analysis.leave.clear()
    with fake_service(analysis, deadline_s=30.0) as service:

        async def main(client: httpx.AsyncClient) -> None:
            blocker = asyncio.create_task(client.post("/v1/analyze", content=b"5"))
            await eventually(lambda: service.pool.busy == 1)
            patient = asyncio.create_task(client.post("/v1/batch", files=pictures(b"1", b"1")))
            await eventually(lambda: service.pool.queued == 1)
            hasty = asyncio.create_task(client.post("/v1/batch?max_ms=1000", files=pictures(b"2", b"3")))
            await eventually(lambda: service.pool.queued == 2)
            analysis.leave.set()  # both forms are split, and the first picture of the first gets stuck
            assert (await blocker).status_code == 200
            assert outcomes(await hasty) == ["deadline_exceeded"] * 2
            assert not patient.done()
            analysis.stuck_at = None
            analysis.leave.set()
            assert outcomes(await patient) == [1, 1]

        with_client(service, main)


def test_without_room_for_any_the_request_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "PROBE_INTERVAL_S", math.inf)
    with fake_service(Echo()) as service:
        assert outcomes(send(service, b"1")) == [1]
        service.admission.service_s = 10.0
        answer = send(service, b"1", b"2")
        assert (answer.status_code, code_of(answer)) == (503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
        service.admission.service_s = 0.0
        check = service.admission.check

        def full_after_the_door(declared_bytes: int, budget_s: float, *args: Any) -> None:
            check(declared_bytes, budget_s, *args)
            if budget_s == math.inf:
                raise OverloadedError("the queue is full")

        monkeypatch.setattr(service.admission, "check", full_after_the_door)
        answer = send(service, b"1", b"2")
        assert (answer.status_code, code_of(answer)) == (503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
        assert service.admission.bytes_in_flight == 0


def test_room_for_some_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_service(Echo()) as service:
        check = service.admission.check
        asked = 0

        def full_once(declared_bytes: int, budget_s: float, *args: Any) -> None:
            nonlocal asked
            check(declared_bytes, budget_s, *args)
            if budget_s == math.inf:
                asked += 1
                if asked == 2:
                    raise OverloadedError("the queue is full")

        monkeypatch.setattr(service.admission, "check", full_once)
        assert outcomes(send(service, b"1", b"2", b"3")) == [1, "overloaded", 3]
        assert service.admission.bytes_in_flight == 0


def test_splitting_a_form_is_no_measure_of_a_picture() -> None:
    with fake_service(Echo(0.05)) as service:
        for _ in range(3):
            send(service, b"1")
        assert service.admission.service_s >= 0.05


def test_a_client_that_leaves_takes_its_pictures_with_it() -> None:
    analysis = Echo()
    analysis.leave.clear()
    request = httpx.Request("POST", "http://a/v1/batch", files=pictures(b"1", b"2", b"3", b"4"))
    body = request.read()
    head = f"POST /v1/batch HTTP/1.1\r\nHost: a\r\nContent-Type: {request.headers['content-type']}\r\n"
    with fake_service(analysis) as service, served(create_app(service)) as url:
        with connect(url) as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            wait_until(lambda: len(analysis.seen) == 1)
            with mock.patch.object(service.pool, "submit", side_effect=service.pool.submit) as submit:
                connection.close()
                wait_until(lambda: service.admission.waiting == 0)
        assert submit.call_count <= 1  # the next one may have been on its way
        assert service.admission.bytes_in_flight == len(body)  # a thread still has them
        analysis.leave.set()
        wait_until(lambda: service.admission.bytes_in_flight == 0)
        answer = httpx.post(f"{url}/v1/batch", files=pictures(b"5"))
    assert outcomes(answer) == [5]
    assert [data for data, _ in analysis.seen] == [b"1", b"5"]


def test_openapi_describes_batches() -> None:
    with fake_service(FakeAnalysis(), max_batch_parts=7) as service:
        operation = get(service, "/openapi.json").json()["paths"]["/v1/batch"]["post"]
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["image"]["maxItems"] == 7
    assert set(operation["responses"]) == {"200", "400", "401", "408", "413", "415", "429", "500", "503", "504"}


# ── with the networks ────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def photos(samples: Path) -> dict[str, bytes]:
    return sample_pictures(samples)


@pytest.fixture(scope="module")
def url(model_store: ModelStore) -> Iterator[str]:
    service = make_service(open_profile(find_profile("standard"), model_store, workers=WORKERS), WORKERS)
    with served(create_app(service)) as address:
        yield address
    service.pool.close()


def comparable(answer: dict[str, Any]) -> str:
    if "error" in answer:
        return json.dumps({name: answer["error"][name] for name in ("code", "message")})
    return json.dumps({name: value for name, value in answer.items() if name not in ("request_id", "timings_ms")})


def in_turn(url: str, contents: list[bytes], **params: Any) -> list[str]:
    """What each picture is answered alone."""
    answers = [httpx.post(f"{url}/v1/analyze", files=pictures(c), params=params, timeout=60) for c in contents]
    return [comparable(answer.json()) for answer in answers]


def in_a_batch(url: str, contents: list[bytes], **params: Any) -> list[str]:
    answer = httpx.post(f"{url}/v1/batch", files=pictures(*contents), params=params, timeout=60)
    assert answer.status_code == 200, answer.text
    schema.BatchAnswer.model_validate(answer.json())
    return [comparable(part) for part in answer.json()["results"]]


@pytest.mark.weights
@pytest.mark.parametrize("params", [{}, {"annotate": "base64", "max_faces": 2, "order": "left_to_right"}])
def test_a_batch_answers_as_its_pictures_alone(url: str, photos: dict[str, bytes], params: dict[str, Any]) -> None:
    contents = [*photos.values(), photos["astronaut jpeg"][:9000], b"no picture", b"", photos["cat"]]
    assert in_a_batch(url, contents, **params) == in_turn(url, contents, **params)


@pytest.mark.weights
def test_batches_and_single_pictures_at_once_answer_as_each_alone(url: str, photos: dict[str, bytes]) -> None:
    contents = list(photos.values())
    expected = in_turn(url, contents)

    def many(turn: int) -> bool:
        return in_a_batch(url, contents[turn:] + contents[:turn]) == expected[turn:] + expected[:turn]

    def one(turn: int) -> bool:
        return in_turn(url, contents[turn : turn + 4]) == expected[turn : turn + 4]

    with ThreadPoolExecutor(8) as clients:
        futures = [clients.submit(ask, turn) for turn in range(4) for ask in (many, one)]
        assert all(future.result() for future in futures)
