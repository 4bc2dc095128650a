"""P1 to P6 and P11: files and requests that mean harm, by every way that a picture takes into the product.

The networks and the server are real. Whatever comes, it is refused with the right status and code or answered, nothing
of it is the server's fault, and a good picture gets the same answer afterwards.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import PIL.Image
import pytest
import simplejpeg
from websockets.sync.client import connect

import dulian.image
from dulian.factory import open_profile
from dulian.models.catalog import find_profile
from dulian.service import schema
from dulian.service.server import make_service
from dulian.store import ModelStore
from tests.docs.pages import rows, text_of
from tests.pictures import save
from tests.promises import corpus
from tests.promises.corpus import ANSWERED, INCOMPLETE, STATUSES, Case
from tests.promises.envelopes import FORM, JSON, QUERIES, Body, form, forms, in_form, in_json, json_bodies, part
from tests.promises.harness import PATIENCE_S, Reply, Server, closed_loop, comparable, dulian_server, post
from tests.service.streams import running

pytestmark = pytest.mark.weights

CLIENTS = 4
MIB = 2**20
BODY_BYTES = 10 * MIB
FRAME_BYTES = MIB


# ── the ways ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Way:
    """A route, and how a picture is put into a request of it."""

    path: str
    wrap: Callable[[bytes], tuple[bytes, str]]
    answer: type[schema.Wire] | None = None
    text_errors: bool = False

    def request(self, data: bytes) -> bytes:
        body, content_type = self.wrap(data)
        return post(self.path, body, f"Content-Type: {content_type}")

    def outcomes(self, reply: Reply) -> frozenset[str]:
        """What the answer may stand for, once it has the shape and the headers that it should have."""
        head = reply.head.lower()
        assert b"\r\nx-content-type-options: nosniff" in head
        assert b"\r\ncache-control: no-store" in head
        assert b" at 0x" not in reply.body
        kind = b"image/jpeg" if reply.status == 200 and self.answer is None else b"application/json"
        assert b"\r\ncontent-type: " + kind + b"\r\n" in head
        if reply.status == 200:
            return self._success(reply.body)
        if self.text_errors:
            assert schema.TextError.model_validate_json(reply.body).error
            return frozenset(outcome for outcome, status in STATUSES.items() if status == reply.status)
        return frozenset({error_code(reply)})

    def _success(self, body: bytes) -> frozenset[str]:
        if self.answer is None:
            assert body.startswith(b"\xff\xd8\xff")
        else:
            answer = self.answer.model_validate_json(body)
            if isinstance(answer, schema.AnalysisResult):
                return frozenset({outcome_of(answer)})
        return frozenset({ANSWERED, INCOMPLETE})


def error_code(reply: Reply) -> str:
    error = schema.ErrorAnswer.model_validate_json(reply.body).error
    assert error.message
    assert b"\r\nx-request-id: " + error.request_id.encode() in reply.head.lower()
    assert STATUSES[error.code] == reply.status
    return error.code


def outcome_of(answer: schema.AnalysisResult) -> str:
    return INCOMPLETE if any("incomplete" in face.quality.reasons for face in answer.faces) else ANSWERED


def alone(data: bytes) -> tuple[bytes, str]:
    return data, "image/jpeg"


def as_form(data: bytes) -> tuple[bytes, str]:
    return in_form(data), FORM


def as_json(data: bytes) -> tuple[bytes, str]:
    return in_json(data), JSON


WAYS = {
    "alone": Way("/v1/analyze", alone, schema.AnalysisResult),
    "form": Way("/v1/analyze", as_form, schema.AnalysisResult),
    "Base64": Way("/v1/analyze", as_json, schema.AnalysisResult),
    "article 000": Way("/v1/analyze?format=faces", alone, schema.ArticleFaces),
    "article 001": Way("/predict", as_form, schema.Predictions, text_errors=True),
    "article 002": Way("/api/analyze", as_form, schema.TimedResults, text_errors=True),
    "article 004": Way("/analyze", as_form, text_errors=True),
}


# ── the server, and what is sent ─────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def photo(samples: Path) -> PIL.Image.Image:
    return PIL.Image.open(samples / "astronaut.png").convert("RGB")


@pytest.fixture(scope="module")
def good(photo: PIL.Image.Image) -> bytes:
    return save(photo, "JPEG", quality=90)


@pytest.fixture(scope="module")
def everything(photo: PIL.Image.Image) -> list[Case]:
    groups = (corpus.bombs(), corpus.many_frames(), corpus.truncations(), corpus.lies(photo))
    more = (corpus.polyglots(), corpus.metadata(), corpus.flipped(4))
    return [one for group in (*groups, *more) for one in group]


@pytest.fixture(scope="module")
def most(everything: list[Case]) -> list[Case]:
    """All but three of four cuts."""
    some = {one.name for one in corpus.truncations(every=4)}
    return [one for one in everything if not one.name.startswith("cut: ") or one.name in some]


@pytest.fixture(scope="module")
def server(model_store: ModelStore) -> Iterator[Server]:
    # What is asked is which answer comes, and not how soon on a machine that has other things to do.
    with dulian_server(model_store, DULIAN_DEADLINE_S="20") as started:
        yield started
        assert started.stop() == 0


@contextmanager
def unharmed(server: Server, good: bytes) -> Iterator[None]:
    """A good picture is answered as before, and the log tells of no defect."""
    known, before = len(server.events), ask(server, [post("/v1/analyze", good)])[0]
    assert before.status == 200
    yield
    after = ask(server, [post("/v1/analyze", good)])[0]
    assert (after.status, comparable(after.body)) == (200, comparable(before.body))
    logged = server.events[known:]
    # What is no JSON comes from the decoders: they complain of damaged files on their own.
    assert [event for event in logged if event["event"] != "unreadable"] == []
    assert not any("Traceback" in event["line"] for event in logged)


def ask(server: Server, requests: Sequence[bytes], clients: int = 1) -> list[Reply]:
    """The answers in the order of the requests, each sent once."""
    replies = asyncio.run(closed_loop(server.port, requests, clients=clients, count=len(requests)))
    return sorted(replies, key=lambda reply: reply.request)


def wrong(cases: Sequence[Case | Body], found: Sequence[frozenset[str]]) -> dict[str, Any]:
    """Those of which something else came than may come."""
    pairs = zip(cases, found, strict=True)
    return {one.name: sorted(outcomes) for one, outcomes in pairs if not outcomes & one.outcomes}


# ── files ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", WAYS)
def test_every_file_gets_the_answer_it_should(
    name: str, server: Server, good: bytes, everything: list[Case], most: list[Case]
) -> None:
    """P1, P2, P3, P5, P6."""
    way = WAYS[name]
    cases = everything if name == "alone" else most
    with unharmed(server, good):
        replies = ask(server, [way.request(one.data) for one in cases], CLIENTS)
        assert wrong(cases, [way.outcomes(reply) for reply in replies]) == {}


def test_a_bad_picture_in_a_batch_harms_no_other(server: Server, good: bytes, most: list[Case]) -> None:
    """P1, P2, P3, P5, P6: each result of a batch is, byte for byte, the answer to that picture alone."""
    fine = corpus.files()["png"]
    cases = [one for one in most if len(in_form(good, one.data, fine)) <= BODY_BYTES]
    with unharmed(server, good):
        way = WAYS["form"]
        first, *middles, last = ask(server, [way.request(data) for data in (good, *(c.data for c in cases), fine)], 1)
        batch = Way("/v1/batch", lambda data: (in_form(good, data, fine), FORM))
        together = ask(server, [batch.request(one.data) for one in cases], CLIENTS)
    assert {reply.status for reply in together} == {200}
    for one, middle, reply in zip(cases, middles, together, strict=True):
        results = b",".join(comparable(answer.body) for answer in (first, middle, last))
        assert comparable(reply.body) == b'{"results":[' + results + b"]}", one.name


def test_every_frame_gets_the_answer_it_should(server: Server, good: bytes, most: list[Case]) -> None:
    """P1, P2, P3, P5, P6."""
    cases = [one for one in most if len(one.data) <= FRAME_BYTES]
    address = f"ws://127.0.0.1:{server.port}/v1/stream"
    found = []
    with unharmed(server, good), connect(address, compression=None, max_size=None, proxy=None) as client:
        for number, one in enumerate(cases, 1):
            client.send(one.data)
            said = json.loads(client.recv(timeout=PATIENCE_S))
            assert said.pop("id") == number
            error = said.get("error")
            found.append(frozenset({error["code"] if error else outcome_of(schema.AnalysisResult(**said))}))
    assert wrong(cases, found) == {}


def test_the_command_line_refuses_each_bad_file_in_a_line(
    everything: list[Case], model_store: ModelStore, tmp_path: Path
) -> None:
    """P1, P2, P3, P5, P6: names tell nothing, so all of them are called JPEG."""
    for number, one in enumerate(everything):
        (tmp_path / f"{number:04}.jpg").write_bytes(one.data)
    environment = {**os.environ, "DULIAN_MODEL_DIR": str(model_store.write_dir), "DULIAN_OFFLINE": "1"}
    command = [sys.executable, "-m", "dulian", "analyze", "--json", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=PATIENCE_S, check=False)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(line.pop("source")).stem for line in lines] == [f"{number:04}" for number in range(len(everything))]
    found = [
        line["error"]["code"] if "error" in line else outcome_of(schema.AnalysisResult(**line | {"request_id": ""}))
        for line in lines
    ]
    assert wrong(everything, [frozenset({outcome}) for outcome in found]) == {}
    assert all(line["error"]["message"] for line in lines if "error" in line)


def test_every_outcome_is_documented() -> None:
    """P1 to P6: no code is expected that the documentation does not have."""
    documented = {cell.strip("`") for cell, *_ in rows(text_of("errors.md"))}
    assert documented >= corpus.REFUSED


# ── bombs ────────────────────────────────────────────────────────────────────────────────────────


def test_no_decoder_sees_a_bomb(good: bytes, model_store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """P1: refused by every route and by the stream, with not one call of anything that decodes."""
    calls: list[str] = []

    def watch(owner: Any, name: str) -> None:
        decode = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given, **named: calls.append(name) or decode(*given, **named))

    for owner, name in (
        (dulian.image, "decode_pixels"),
        (cv2, "imdecode"),
        (simplejpeg, "decode_jpeg"),
        (simplejpeg, "decode_jpeg_header"),
        (PIL.Image, "open"),
    ):
        watch(owner, name)
    cases = list(corpus.bombs())
    ways = [*WAYS.values(), Way("/v1/batch", as_form, schema.BatchAnswer)]
    service = make_service(open_profile(find_profile("standard"), model_store, workers=2), 2)
    with running(service) as run, run.open() as client:
        port = int(run.host.rpartition(":")[2])
        calls.clear()  # of the rehearsal
        requests = [way.request(one.data) for way in ways for one in cases]
        replies = asyncio.run(closed_loop(port, requests, clients=CLIENTS, count=len(requests)))
        for one in (one for one in cases if len(one.data) <= FRAME_BYTES):
            client.send(one.data)
            assert "error" in json.loads(client.recv(timeout=PATIENCE_S))
        assert calls == []
        for reply in replies:
            in_batch = reply.request >= len(cases) * len(WAYS)
            assert reply.status in ({200} if in_batch else {413, 415, 422})
            assert b'"error":' in reply.body
        asyncio.run(closed_loop(port, [WAYS["alone"].request(good)], clients=1, count=1))
        assert calls  # a good picture is seen to be decoded
    service.pool.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory is read from /proc")
def test_bombs_take_no_memory(server: Server, good: bytes) -> None:
    """P1: less than 20 MB more than a good picture takes, whatever they would inflate to."""
    requests = [WAYS["alone"].request(one.data) for one in (*corpus.bombs(), *corpus.many_frames())]
    ask(server, [post("/v1/analyze", good), post("/v1/analyze", bytes(4 * MIB))] * 4, CLIENTS)
    process = Path("/proc", str(server.process.pid))
    before = memory_kb(process, "VmRSS")
    (process / "clear_refs").write_text("5")  # the peak begins anew
    ask(server, requests)
    assert memory_kb(process, "VmHWM") - before < 20_000


def memory_kb(process: Path, name: str) -> int:
    (line,) = (line for line in (process / "status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


# ── wrappings and wishes ─────────────────────────────────────────────────────────────────────────


def send_bodies(server: Server, path: str, bodies: Sequence[Body]) -> list[Reply]:
    return ask(server, [post(path, body.data, f"Content-Type: {body.content_type}") for body in bodies], CLIENTS)


@pytest.mark.parametrize("name", ["form", "article 001", "article 002", "article 004"])
def test_forms_that_no_browser_writes(name: str, server: Server, good: bytes) -> None:
    """P7, P11: a thousand parts, a hundred thousand fields, odd boundaries, heads without an end."""
    way, bodies = WAYS[name], list(forms(good))
    two = Body("two pictures", FORM, in_form(good, good), frozenset({corpus.MALFORMED}))
    with unharmed(server, good):
        replies = send_bodies(server, way.path, [*bodies, two])
        assert wrong([*bodies, two], [way.outcomes(reply) for reply in replies]) == {}


def test_batches_that_no_browser_writes(server: Server, good: bytes) -> None:
    """P7, P11: what is wrong with the form is told for all of it, what is wrong with a picture in its place."""
    bodies = list(forms(good))
    with unharmed(server, good):
        replies = send_bodies(server, "/v1/batch", bodies)
    found = []
    for reply in replies:
        if reply.status == 200:
            (result,) = schema.BatchAnswer.model_validate_json(reply.body).results
            found.append(result.error.code if isinstance(result, schema.ErrorAnswer) else outcome_of(result))
        else:
            found.append(error_code(reply))
    assert wrong(bodies, [frozenset({outcome}) for outcome in found]) == {}
    many = form(*[part(b"x")] * 33)
    (refused,) = send_bodies(server, "/v1/batch", [Body("33 pictures", FORM, many, frozenset())])
    assert error_code(refused) == corpus.MALFORMED


def test_json_that_is_not_exactly_a_picture(server: Server, good: bytes) -> None:
    """P11: depth, names twice, numbers that are none, loose Base64, ten megabytes of anything."""
    way, bodies = WAYS["Base64"], list(json_bodies(good))
    with unharmed(server, good):
        replies = send_bodies(server, way.path, bodies)
        assert wrong(bodies, [way.outcomes(reply) for reply in replies]) == {}


@pytest.mark.parametrize("path", ["/v1/analyze", "/v1/batch", "/predict", "/api/analyze", "/analyze"])
def test_wishes_that_make_no_sense(path: str, server: Server, good: bytes) -> None:
    """P11: refused before the picture is looked at."""
    body = in_form(good)
    with unharmed(server, good):
        replies = ask(server, [post(f"{path}?{query}", body, f"Content-Type: {FORM}") for query in QUERIES], CLIENTS)
    assert {
        query[:60]: reply.status for query, reply in zip(QUERIES, replies, strict=True) if reply.status != 400
    } == {}
