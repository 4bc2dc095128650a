"""The application for Ray Serve, run by a real one: the same answers and errors as the library and the service give."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from dulian import load_analyzer
from dulian.store import ModelStore
from tests.batch.ray_clusters import RAY_TESTS, children_of, end, ray_environment
from tests.conftest import ROOT
from tests.deploy.programs import DEPLOY, free_ports

pytest.importorskip("ray.serve", reason="Ray Serve is not installed: pip install 'ray[serve]'")
pytestmark = [*RAY_TESTS, pytest.mark.weights]

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def url(model_store: ModelStore) -> Iterator[str]:
    """One replica that lets three pictures wait."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    environment = ray_environment(folder)
    environment["PYTHONPATH"] += f":{DEPLOY / 'ray'}"
    environment |= {
        "DULIAN_MODEL_DIR": str(model_store.write_dir),
        "DULIAN_OFFLINE": "1",
        "DULIAN_MAX_QUEUED": "3",
        "DULIAN_MAX_BODY_MB": "2",
    }
    port = free_ports(1)[0]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.deploy.ray_serve", str(port)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        assert any(line == "ready\n" for line in server.stdout), (folder / "log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        started = children_of(server.pid)
        server.stdin.close()
        try:
            server.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        server.stdout.close()
        end(started)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def portrait(samples: Path) -> bytes:
    return (samples / "astronaut.png").read_bytes()


def test_a_picture_is_answered_as_by_the_library(url: str, portrait: bytes, model_store: ModelStore) -> None:
    answer = httpx.post(f"{url}/v1/analyze", content=portrait, timeout=PATIENCE_S)
    assert answer.status_code == 200
    assert answer.headers["x-content-type-options"] == "nosniff"
    theirs = answer.json()
    ours = load_analyzer("standard", model_dir=model_store.write_dir).analyze(portrait).to_dict()
    for result in (theirs, ours):
        del result["timings_ms"], result["request_id"]
    assert theirs == ours
    assert len(theirs["faces"]) == 1


@pytest.mark.parametrize(
    ("body", "query", "status", "code"),
    [
        (b"no picture", "", 415, "unsupported_image"),
        (b"", "", 400, "malformed_input"),
        (b"\xff\xd8\xff\xe0" + bytes(1000), "", 422, "image_decode_failed"),
        (bytes(3 * 2**20), "", 413, "input_too_large"),
        (b"x", "?max_faces=many", 400, "malformed_input"),
    ],
)
def test_what_is_wrong_gets_our_error(url: str, body: bytes, query: str, status: int, code: str) -> None:
    answer = httpx.post(f"{url}/v1/analyze{query}", content=body, timeout=PATIENCE_S)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    ids = answer.headers.get_list("x-request-id", split_commas=True)  # Ray Serve's proxy says it once more
    assert {*ids} == {answer.json()["error"]["request_id"]}


def test_probes_answer_and_metrics_of_one_replica_are_not_offered(url: str) -> None:
    assert httpx.get(f"{url}/readyz", timeout=PATIENCE_S).json() == {"ready": True}
    assert httpx.get(f"{url}/metrics", timeout=PATIENCE_S).status_code == 404


def test_overload_is_a_503_that_says_when_to_come_back(url: str, portrait: bytes) -> None:
    def ask(number: int) -> httpx.Response:
        return httpx.post(f"{url}/v1/analyze", content=portrait, timeout=PATIENCE_S)

    with ThreadPoolExecutor(30) as callers:
        answers = [*callers.map(ask, range(90))]
    assert Counter(answer.status_code for answer in answers).keys() == {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["code"] == "overloaded"
