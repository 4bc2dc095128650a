"""The application over fake analyses: statuses, shapes, headers, limits."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import math
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.service.services import FakeAnalysis, client_of, eventually, fake_service, served, wait_until

from dulian.errors import ImageTruncatedError, InferenceError, WeightsError
from dulian.service import admission, schema
from dulian.service.http import create_app
from dulian.service.state import Service

MULTIPART = {"content-type": "multipart/form-data; boundary=b"}
JSON = {"content-type": "application/json"}
ERROR = schema.ErrorAnswer.model_validate


def with_client(service: Service, action: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with client_of(service) as client:
            return await action(client)

    return asyncio.run(main())


def post(service: Service, **request: Any) -> httpx.Response:
    path = request.pop("path", "/v1/analyze")
    answer: httpx.Response = with_client(service, lambda client: client.post(path, **request))
    return answer


def get(service: Service, path: str) -> httpx.Response:
    answer: httpx.Response = with_client(service, lambda client: client.get(path))
    return answer


def code_of(answer: httpx.Response) -> str:
    error = ERROR(answer.json()).error
    assert error.request_id == answer.headers["x-request-id"]
    assert error.message
    return error.code


# ── answers ──────────────────────────────────────────────────────────────────────────────────────


def test_options_reach_the_analysis_and_the_answer_is_the_contract() -> None:
    analysis = FakeAnalysis()
    with fake_service(analysis) as service:
        answer = post(service, content=b"picture", params={"max_faces": 2, "attributes": "age"})
    assert answer.status_code == 200
    assert schema.AnalysisResult.model_validate(answer.json()).faces == []
    ((data, options),) = analysis.seen
    assert data == b"picture"
    assert (options.max_faces, options.attributes) == (2, {"age"})


def test_an_annotated_picture_comes_within_the_json_or_instead_of_it() -> None:
    with fake_service(FakeAnalysis()) as service:
        inside = post(service, content=b"picture", params={"annotate": "base64"}).json()["annotated_image"]
        alone = post(service, content=b"picture", headers={"accept": "image/jpeg"})
    assert alone.headers["content-type"] == "image/jpeg"
    assert base64.b64decode(inside, validate=True) == alone.content
    assert alone.content.startswith(b"\xff\xd8\xff")


@pytest.mark.parametrize("path", ["/v1/analyze", "/livez", "/nowhere", "/openapi.json"])
def test_every_answer_carries_the_same_headers(path: str) -> None:
    with fake_service(FakeAnalysis()) as service:
        first, second = get(service, path), get(service, path)
    for answer in (first, second):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("order-7/Ä".encode(), False),
        (b"a b", False),
        (b"", False),
        (b"x" * 129, False),
        (b"x" * 128, True),
        (b"~!7", True),
    ],
)
def test_a_valid_request_id_is_kept(given: bytes, kept: bool) -> None:
    with fake_service(FakeAnalysis()) as service:
        answer = post(service, content=b"picture", headers=[(b"x-request-id", given)])
    assert (answer.headers["x-request-id"].encode() == given) is kept
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"content": b""}, 400, "malformed_input"),
        ({"content": b"x", "params": {"max_faces": "0"}}, 400, "malformed_input"),
        ({"content": b"x", "params": {"nonsense": "1"}}, 400, "malformed_input"),
        ({"content": b"x", "headers": {"x-request-timeout-ms": "soon"}}, 400, "malformed_input"),
        ({"content": b"x", "headers": MULTIPART}, 400, "malformed_input"),
        ({"files": {"photo": b"x"}}, 400, "malformed_input"),
        ({"json": {"image": "?"}}, 400, "malformed_input"),
        ({"json": {"img": "QUJD"}}, 400, "malformed_input"),
        ({"content": b'{"image": NaN}', "headers": JSON}, 400, "malformed_input"),
        ({"content": b"x", "path": "/v1/analyse"}, 404, "not_found"),
        ({"content": b"x", "path": "/v1/analyze/"}, 404, "not_found"),
        ({"content": b"x", "path": "/livez"}, 405, "method_not_allowed"),
        ({"content": bytes(2001)}, 413, "input_too_large"),
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, 415, "unsupported_media_type"),
        ({"content": b"x", "headers": {"content-encoding": "gzip"}}, 415, "unsupported_media_type"),
    ],
)
def test_bad_requests(request_: dict[str, Any], status: int, code: str) -> None:
    analysis = FakeAnalysis()
    with fake_service(analysis, max_body_bytes=2000) as service:
        answer = post(service, **request_)
        assert service.admission.bytes_in_flight == 0
    assert (answer.status_code, code_of(answer)) == (status, code)
    assert not analysis.seen


def test_the_missing_field_is_named() -> None:
    with fake_service(FakeAnalysis()) as service:
        answer = post(service, files={"photo": b"x"})
    assert answer.json()["error"]["message"] == "no file field 'image' in the form"


def test_the_wrong_method_learns_the_right_one() -> None:
    with fake_service(FakeAnalysis()) as service:
        answer = get(service, "/v1/analyze")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("error", "status", "code", "told"),
    [
        (ImageTruncatedError("the file ends early"), 422, "image_truncated", True),
        (InferenceError("secret shape"), 500, "inference_failed", False),
        (WeightsError("secret path"), 503, "weights_invalid", False),
        (RuntimeError("secret text"), 500, "internal", False),
        (MemoryError("secret size"), 500, "internal", False),
    ],
)
def test_errors_of_the_analysis(
    error: Exception, status: int, code: str, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with fake_service(FakeAnalysis(error=error)) as service, caplog.at_level(logging.INFO, "dulian.service"):
        answer = post(service, content=b"picture", headers={"x-request-id": "find-me"})
        assert service.admission.bytes_in_flight == 0
    assert (answer.status_code, code_of(answer)) == (status, code)
    assert (str(error) in answer.text) is told
    assert ("retry-after" in answer.headers) is (status == 503)
    if not told:
        (record,) = caplog.records
        assert vars(record)["fields"]["request_id"] == "find-me"
        assert record.exc_info


def test_the_frameworks_own_refusals_have_the_same_shape() -> None:
    with fake_service(FakeAnalysis()) as service:
        app = create_app(service)

        @app.get("/typed")
        async def typed(number: int) -> int:
            return number

        async def main() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
                return await client.get("/typed?number=three")

        answer = asyncio.run(main())
    assert (answer.status_code, code_of(answer)) == (400, "malformed_input")
    assert answer.json()["error"]["message"].startswith("number: ")


def test_an_error_after_the_answer_has_begun_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    with fake_service(FakeAnalysis()) as service, caplog.at_level(logging.INFO, "dulian.service"):
        app = create_app(service)

        async def half(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise RuntimeError("halfway")

        app.add_route("/half", lambda request: half, methods=["GET"])
        with served(app) as url, pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{url}/half")
    assert [record.message for record in caplog.records if record.name == "dulian.service"] == ["internal_error"]


# ── load ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_full_queue_and_a_distant_deadline_are_503_with_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "PROBE_INTERVAL_S", math.inf)
    analysis = FakeAnalysis()
    analysis.leave.clear()
    with fake_service(analysis, max_queued=1) as service:

        async def main(client: httpx.AsyncClient) -> None:
            accepted = [asyncio.create_task(client.post("/v1/analyze", content=b"1"))]
            await eventually(lambda: service.pool.busy == 1)
            accepted.append(asyncio.create_task(client.post("/v1/analyze", content=b"2")))
            await eventually(lambda: service.pool.queued == 1)
            full = await client.post("/v1/analyze", content=b"3")
            assert (full.status_code, code_of(full)) == (503, "overloaded")
            assert int(full.headers["retry-after"]) >= 1
            status = (await client.get("/v1/status")).json()
            assert (status["busy"], status["queue"]["length"]) == (1, 1)
            assert status["in_flight"] == {"requests": 2, "bytes": 2}
            analysis.leave.set()
            assert [answer.status_code for answer in await asyncio.gather(*accepted)] == [200, 200]
            service.admission.service_s = 3.0
            far = await client.post("/v1/analyze?max_ms=1000", content=b"4")
            assert (far.status_code, code_of(far)) == (503, "overloaded")
            assert "3000 ms" in far.json()["error"]["message"]

        with_client(service, main)
    assert [data for data, _ in analysis.seen] == [b"1", b"2"]


def test_an_expired_deadline_is_504_and_nothing_is_analysed() -> None:
    analysis = FakeAnalysis()
    analysis.leave.clear()
    with fake_service(analysis) as service:

        async def main(client: httpx.AsyncClient) -> None:
            first = asyncio.create_task(client.post("/v1/analyze", content=b"1"))
            await eventually(lambda: service.pool.busy == 1)
            late = await client.post("/v1/analyze", content=b"2", headers={"x-request-timeout-ms": "30"})
            assert (late.status_code, code_of(late)) == (504, "deadline_exceeded")
            analysis.leave.set()
            await first

        with_client(service, main)
    assert [data for data, _ in analysis.seen] == [b"1"]


# ── sockets ──────────────────────────────────────────────────────────────────────────────────────


def connect(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def head(*lines: str) -> bytes:
    return "\r\n".join(["POST /v1/analyze HTTP/1.1", "Host: a", *lines, "", ""]).encode()


def answer_on(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received


@pytest.fixture
def small() -> Iterator[tuple[Service, str]]:
    """A served service with small limits, and its address."""
    with (
        fake_service(FakeAnalysis(), max_body_bytes=1_000_000, body_timeout_s=0.1) as service,
        served(create_app(service)) as url,
    ):
        yield service, url


def test_a_declared_length_above_the_limit_is_refused_unread(small: tuple[Service, str]) -> None:
    with connect(small[1]) as connection:
        connection.sendall(head("Content-Length: 1000001", "Expect: 100-continue"))
        answer = answer_on(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer
    assert b'"code":"input_too_large"' in answer


def test_an_endless_body_stops_being_read(small: tuple[Service, str]) -> None:
    service, url = small
    sent = 0
    with connect(url) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(head("Transfer-Encoding: chunked"))
        piece = b"10000\r\n" + bytes(65536) + b"\r\n"
        while sent < 200_000_000:
            connection.sendall(piece)
            sent += 65536
    # What the buffers of two kernels hold was sent, but never read.
    assert sent < 20_000_000
    assert service.admission.bytes_in_flight == 0


def test_a_slow_body_is_408(small: tuple[Service, str]) -> None:
    with connect(small[1]) as connection:
        connection.sendall(head("Content-Length: 10") + b"12345")
        answer = answer_on(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"slow_client"' in answer


@pytest.mark.parametrize("body", [b"12345", b"1234567890"], ids=["while sending", "while waiting"])
def test_a_client_that_leaves_has_its_job_dropped(body: bytes) -> None:
    analysis = FakeAnalysis()
    analysis.leave.clear()
    with fake_service(analysis) as service, served(create_app(service)) as url:
        with connect(url) as first, connect(url) as second:
            first.sendall(head("Content-Length: 5") + b"first")
            wait_until(lambda: service.pool.busy == 1)
            second.sendall(head("Content-Length: 10") + body)
            wait_until(lambda: service.admission.bytes_in_flight == 5 + len(body))
            second.close()
            wait_until(lambda: service.admission.bytes_in_flight == 5 and service.pool.queued == 0)
            analysis.leave.set()
            assert first.recv(100).startswith(b"HTTP/1.1 200 ")
        assert httpx.post(f"{url}/v1/analyze", content=b"third").status_code == 200
    assert [data for data, _ in analysis.seen] == [b"first", b"third"]


def test_a_refused_request_leaves_its_connection_usable() -> None:
    with (
        fake_service(FakeAnalysis()) as service,
        served(create_app(service)) as url,
        httpx.Client(base_url=url) as client,
    ):
        for _ in range(3):
            assert client.post("/v1/analyze?max_faces=0", content=bytes(1_000_000)).status_code == 400
            assert client.post("/v1/analyze", content=b"x").status_code == 200


# ── health and descriptions ──────────────────────────────────────────────────────────────────────


def test_readiness_falls_while_draining_and_liveness_does_not() -> None:
    with fake_service(FakeAnalysis()) as service:
        assert get(service, "/readyz").json() == {"ready": True}
        service.draining = True
        ready, alive = get(service, "/readyz"), get(service, "/livez")
        assert (ready.status_code, code_of(ready)) == (503, "draining")
        assert ready.headers["retry-after"] == "1"
        assert (alive.status_code, alive.json()) == (200, {"alive": True})
        assert alive.headers["connection"] == "close"
        assert post(service, content=b"still answered").status_code == 200
        assert get(service, "/v1/status").json()["ready"] is False


def test_status_tells_what_happened() -> None:
    with fake_service(FakeAnalysis()) as service:
        assert schema.Status.model_validate(get(service, "/v1/status").json()).latency_ms.p50 is None
        for _ in range(4):
            post(service, content=b"picture")
        post(service, content=b"")
        status = schema.Status.model_validate(get(service, "/v1/status").json())
    assert status.requests_total == 5
    assert status.requests_per_s > 0
    assert status.latency_ms.p50 is not None
    assert status.latency_ms.p99 is not None
    assert 0 < status.latency_ms.p50 <= status.latency_ms.p99
    assert status.memory.used_bytes is None or status.memory.used_bytes > 1_000_000


def test_limits_are_those_that_are_obeyed() -> None:
    with fake_service(FakeAnalysis(), max_body_bytes=777, deadline_s=2.0) as service:
        limits = schema.Limits.model_validate(get(service, "/v1/limits").json())
    assert (limits.body_bytes, limits.deadline_ms, limits.faces, limits.head_bytes) == (777, 2000, 50, 32768)


ENDS = ("", "/ready", "/infer")


def test_openapi_describes_what_there_is() -> None:
    with fake_service(FakeAnalysis()) as service:
        document = get(service, "/openapi.json").json()
        again = get(service, "/openapi.json").json()
        undocumented = get(service, "/redoc").status_code
    assert document == again
    assert document["openapi"].startswith("3.1")
    assert undocumented == 404
    assert set(document["paths"]) == {
        *("/v1/analyze", "/v1/batch", "/v1/stream", "/v1/status", "/v1/models", "/v1/limits"),
        *("/predict", "/images/{picture_id}", "/api/analyze", "/analyze"),
        *("/livez", "/readyz", "/metrics"),
        *("/v2", "/v2/health/live", "/v2/health/ready"),
        *(f"/v2/models/{{model}}{version}{end}" for version in ("", "/versions/{version}") for end in ENDS),
    }
    references = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert references <= set(document["components"]["schemas"])
    assert "HTTPValidationError" not in references


def test_openapi_describes_the_analysis_truly() -> None:
    from dulian.service.query import PARAMETERS
    from dulian.service.status import STATUSES

    with fake_service(FakeAnalysis()) as service:
        operation = get(service, "/openapi.json").json()["paths"]["/v1/analyze"]["post"]
    assert [item["name"] for item in operation["parameters"] if item["in"] == "query"] == list(PARAMETERS)
    assert set(operation["requestBody"]["content"]) == {
        "image/*",
        "application/octet-stream",
        "multipart/form-data",
        "application/json",
    }
    statuses = {str(status) for status in STATUSES.values()} - {"403", "404"}
    assert set(operation["responses"]) == {"200", *statuses}
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "image/jpeg"}
    assert "Retry-After" in operation["responses"]["503"]["headers"]
