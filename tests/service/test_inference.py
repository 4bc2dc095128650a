"""The Open Inference Protocol: over REST and gRPC the same tensors, and those of ``/v1/analyze``."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from tests.service.rpcs import Rpc, calling, failure, serving
from tests.service.services import MODEL, PATIENCE_S, FakeAnalysis, wait_until
from tests.service.test_grpc import RESULTS

from dulian import __version__
from dulian.analyzer import AnalyzeOptions
from dulian.errors import UnsupportedImageError
from dulian.factory import open_profile
from dulian.keys import KeysFile, Rate
from dulian.models.catalog import find_profile
from dulian.service import inference
from dulian.service.access import Access
from dulian.service.inference.http import MAX_THINGS
from dulian.service.rpc import open_inference_pb2 as pb
from dulian.service.server import make_service
from dulian.store import ModelStore

INFER = "/v2/models/face-attributes/infer"
NAMES = [output.name for output in inference.OUTPUTS]
PACKED = {"INT32": "i", "FP32": "f"}


def asking(*pictures: bytes, outputs: Any = (), parameters: Any = None, **more: Any) -> dict[str, Any]:
    data = [base64.b64encode(picture).decode() for picture in pictures]
    given = {"name": "image", "datatype": "BYTES", "shape": [len(pictures)], "data": data}
    wanted = {"outputs": [{"name": name} for name in outputs]} if outputs else {}
    return {"inputs": [given], **wanted, **({"parameters": parameters} if parameters else {}), **more}


def calling_for(*pictures: bytes, outputs: Any = (), raw: bool = False, **parameters: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="face-attributes")
    given = request.inputs.add(name="image", datatype="BYTES", shape=[len(pictures)])
    if raw:
        request.raw_input_contents.append(b"".join(struct.pack("<I", len(one)) + one for one in pictures))
    else:
        given.contents.bytes_contents.extend(pictures)
    for name in outputs:
        request.outputs.add(name=name)
    for name, value in parameters.items():
        kind = {int: "int64_param", float: "double_param", str: "string_param", bool: "bool_param"}[type(value)]
        setattr(request.parameters[name], kind, value)
    return request


def unpacked(datatype: str, raw: bytes) -> list[Any]:
    if datatype == "BYTES":
        values, at = [], 0
        while at < len(raw):
            (size,) = struct.unpack_from("<I", raw, at)
            values.append(raw[at + 4 : at + 4 + size].decode())
            at += 4 + size
        return values
    return [*struct.unpack(f"<{len(raw) // 4}{PACKED[datatype]}", raw)]


def tensors(response: pb.ModelInferResponse) -> dict[str, Any]:
    return {
        one.name: (one.datatype, list(one.shape), unpacked(one.datatype, raw))
        for one, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def single(value: Any) -> Any:
    """A number as 32 bits keep it."""
    return struct.unpack("<f", struct.pack("<f", value))[0] if isinstance(value, float) else value


def of_json(answer: dict[str, Any]) -> dict[str, Any]:
    return {
        one["name"]: (one["datatype"], one["shape"], [single(value) for value in one["data"]])
        for one in answer["outputs"]
    }


def infer(run: Rpc, request: pb.ModelInferRequest, metadata: Any = ()) -> Any:
    return run.inference.ModelInfer(request, timeout=PATIENCE_S, metadata=metadata)


# ── the same tensors ─────────────────────────────────────────────────────────────────────────────


def test_pictures_without_faces_give_empty_tensors() -> None:
    made = inference.tensors_of([RESULTS["hint"], RESULTS["nothing"]], inference.OUTPUTS)
    assert [one.name for one in made] == NAMES
    assert [one.shape for one in made] == [[0], [0, 4], *[[0]] * 7]
    assert all(one.packed() == b"" for one in made)


def test_an_undecided_gender_is_unknown() -> None:
    wanted = [one for one in inference.OUTPUTS if one.name in ("picture", "genders", "female_probabilities")]
    made = {one.name: one.values for one in inference.tensors_of([RESULTS["hint"], RESULTS["all"]], wanted)}
    assert made == {"picture": [1, 1], "female_probabilities": [0.97, 0.45], "genders": ["female", "unknown"]}


@pytest.fixture(scope="module")
def real(model_store: ModelStore) -> Any:
    factory = open_profile(find_profile("standard"), model_store, threads=1, workers=2)
    service = make_service(factory, 2)
    with serving(service) as run:
        yield run
    service.pool.close()


@pytest.mark.weights
def test_all_ways_lead_to_the_same_tensors(real: Rpc, samples: Path) -> None:
    pictures = [(samples / name).read_bytes() for name in ("astronaut.png", "chelsea.png", "astronaut.png")]
    faces = [httpx.post(f"{real.url}/v1/analyze", content=one).json()["faces"] for one in pictures]
    rows = [(number, face) for number, seen in enumerate(faces) for face in seen]
    answer = httpx.post(f"{real.url}{INFER}", json=asking(*pictures, id="seven")).json()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == (
        "seven",
        "face-attributes",
        real.service.model.digest,
    )
    by_json = of_json(answer)
    assert list(by_json) == NAMES
    assert by_json["picture"] == ("INT32", [len(rows)], [number for number, _ in rows])
    assert {0, 2} <= set(by_json["picture"][2])
    assert by_json["boxes"][1] == [len(rows), 4]
    assert by_json["boxes"][2] == [single(edge) for _, face in rows for edge in face["bbox"]]
    for name, key in (("ages", "value"), ("age_lows", "low"), ("age_highs", "high")):
        assert by_json[name][2] == [single(face["age"][key]) for _, face in rows]
    assert by_json["confidences"][2] == [single(face["confidence"]) for _, face in rows]
    assert by_json["female_probabilities"][2] == [single(face["gender"]["female_probability"]) for _, face in rows]
    assert by_json["genders"][2] == [face["gender"]["value"] or "unknown" for _, face in rows]
    assert by_json["statuses"][2] == [face["status"] for _, face in rows]
    assert tensors(infer(real, calling_for(*pictures))) == by_json
    assert tensors(infer(real, calling_for(*pictures, raw=True))) == by_json
    assert binary(real.url, pictures) == by_json


def binary(url: str, pictures: list[bytes]) -> dict[str, Any]:
    """The same with pictures and tensors after the JSON."""
    data = b"".join(struct.pack("<I", len(one)) + one for one in pictures)
    given = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [len(pictures)],
        "parameters": {"binary_data_size": len(data)},
    }
    head = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
    headers = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    answer = httpx.post(f"{url}{INFER}", content=head + data, headers=headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    size = int(answer.headers["inference-header-content-length"])
    outputs, rest, found = json.loads(answer.content[:size])["outputs"], answer.content[size:], {}
    for one in outputs:
        count = one["parameters"]["binary_data_size"]
        found[one["name"]] = (one["datatype"], one["shape"], unpacked(one["datatype"], rest[:count]))
        rest = rest[count:]
    assert rest == b""
    return found


# ── what is asked ────────────────────────────────────────────────────────────────────────────────


def test_outputs_are_those_that_are_wanted_and_nothing_else_is_computed() -> None:
    analysis = FakeAnalysis()
    with calling(analysis) as run:
        for wanted in (["boxes", "picture"], ["ages"], ["genders", "boxes"], ["statuses"]):
            answer = httpx.post(f"{run.url}{INFER}", json=asking(b"x", outputs=wanted))
            assert [one["name"] for one in answer.json()["outputs"]] == wanted
            assert list(tensors(infer(run, calling_for(b"x", outputs=wanted)))) == wanted
    needed = [sorted(options.attributes) for _, options in analysis.seen[::2]]
    assert needed == [[], ["age"], ["gender"], ["age", "gender"]]


def test_parameters_are_options_of_the_query() -> None:
    analysis = FakeAnalysis()
    parameters = {"max_faces": 3, "min_confidence": 0.25, "order": "quality", "coverage": 0.5, "max_ms": 900}
    with calling(analysis) as run:
        assert httpx.post(f"{run.url}{INFER}", json=asking(b"x", parameters=parameters)).status_code == 200
        infer(run, calling_for(b"x", **parameters))
    wished = AnalyzeOptions(max_faces=3, min_confidence=0.25, order="quality", coverage=0.5)
    assert [options for _, options in analysis.seen] == [wished, wished]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"{", "the body is not"),
        (b"[" * 3000, "the body is not"),
        (b"[" * (MAX_THINGS + 1), "too many parts"),
        (asking(), "[N]"),
        (asking(b""), "empty"),
        (asking(b"x", inputs=[]), "one input"),
        (asking(b"x", outputs=["mood"]), "mood"),
        (asking(b"x", parameters={"mood": 1}), "mood"),
        (asking(b"x", parameters={"max_faces": 99}), "max_faces 99"),
        (asking(b"x", parameters={"attributes": "age"}), "attributes"),
        (asking(*[b"x"] * 33), "from 1 to 32"),
        ({"inputs": [{"name": "photo", "datatype": "BYTES", "shape": [1], "data": [""]}]}, "photo"),
        ({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1], "data": [""]}]}, "BYTES"),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1, 1], "data": [""]}]}, "[N]"),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": ["eA=="]}]}, "1 elements"),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["?"]}]}, "Base64"),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1]}]}, "binary_data_size"),
    ],
)
def test_json_that_makes_no_sense(body: Any, words: str) -> None:
    analysis = FakeAnalysis()
    with calling(analysis) as run:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = httpx.post(f"{run.url}{INFER}", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]
    assert not analysis.seen


def test_binary_data_that_makes_no_sense() -> None:
    given = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}}
    head = json.dumps({"inputs": [given]}).encode()
    wrong = [(len(head), b"\x01\0\0\0"), (len(head), b"\x09\0\0\0x"), (9999, b""), ("x", b""), ("9" * 10, b"")]
    with calling(FakeAnalysis()) as run:
        statuses = [sent(run, head, size, data).status_code for size, data in wrong]
        assert sent(run, head, len(head), b"\x01\0\0\0x").status_code == 200
    assert statuses == [400] * len(wrong)


def sent(run: Rpc, head: bytes, size: object, data: bytes) -> httpx.Response:
    headers = {"inference-header-content-length": str(size)}
    return httpx.post(f"{run.url}{INFER}", content=head + data, headers=headers)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda request: request.ClearField("inputs"), "one input"),
        (lambda request: request.inputs.add(name="image"), "one input"),
        (lambda request: request.raw_input_contents.extend([b"\0\0\0\0", b""]), "either"),
        (lambda request: request.inputs[0].shape.append(1), "[N]"),
        (lambda request: request.inputs[0].contents.bytes_contents.append(b"x"), "2 elements"),
        (lambda request: request.outputs.add(name="mood"), "mood"),
    ],
)
def test_messages_that_make_no_sense(change: Any, words: str) -> None:
    request = calling_for(b"x")
    change(request)
    with calling(FakeAnalysis()) as run:
        refused = failure(lambda: infer(run, request))
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in refused.details()


def test_a_picture_that_is_refused_is_the_error_of_all() -> None:
    with calling(FakeAnalysis(error=UnsupportedImageError("no picture"))) as run:
        run.service.analyze = FakeAnalysis(error=UnsupportedImageError("no picture"))
        answer = httpx.post(f"{run.url}{INFER}", json=asking(b"x", b"y"))
        refused = failure(lambda: infer(run, calling_for(b"x", b"y")))
    assert (answer.status_code, refused.code()) == (415, grpc.StatusCode.INVALID_ARGUMENT)
    assert answer.json()["error"] == refused.details()
    assert refused.details() in ("picture 0: no picture", "picture 1: no picture")


# ── what there is ────────────────────────────────────────────────────────────────────────────────


def test_metadata_is_the_same_both_ways() -> None:
    with calling(FakeAnalysis()) as run, httpx.Client(base_url=run.url) as client:
        server = client.get("/v2").json()
        assert server == {"name": "dulian", "version": __version__, "extensions": ["binary_tensor_data"]}
        told = run.inference.ServerMetadata(pb.ServerMetadataRequest(), timeout=PATIENCE_S)
        assert (told.name, told.version, list(told.extensions)) == tuple(server.values())
        model = client.get("/v2/models/face-attributes").json()
        assert model == client.get("/v2/models/face-attributes/versions/1").json()
        assert model["versions"] == ["1", MODEL.digest]
        assert [one["name"] for one in model["outputs"]] == NAMES
        asked = pb.ModelMetadataRequest(name="face-attributes", version=MODEL.digest)
        said = run.inference.ModelMetadata(asked, timeout=PATIENCE_S)
        for mine, others in ((model["inputs"], said.inputs), (model["outputs"], said.outputs)):
            assert mine == [{"name": one.name, "datatype": one.datatype, "shape": list(one.shape)} for one in others]


def test_health_and_readiness() -> None:
    with calling(FakeAnalysis(), max_queued=1) as run, httpx.Client(base_url=run.url) as client:
        stub, ready = run.inference, "/v2/models/face-attributes/ready"
        asked = pb.ModelReadyRequest(name="face-attributes")
        assert client.get("/v2/health/live").json() == {"live": True}
        assert client.get("/v2/health/ready").json() == {"ready": True}
        assert client.get(ready).json() == {"name": "face-attributes", "ready": True}
        assert stub.ServerLive(pb.ServerLiveRequest(), timeout=PATIENCE_S).live
        assert stub.ServerReady(pb.ServerReadyRequest(), timeout=PATIENCE_S).ready
        assert stub.ModelReady(asked, timeout=PATIENCE_S).ready
        run.service.draining = True
        assert [client.get(path).status_code for path in ("/v2/health/live", "/v2/health/ready", ready)] == [
            200,
            503,
            503,
        ]
        assert client.get(ready).json()["error"]
        assert not stub.ServerReady(pb.ServerReadyRequest(), timeout=PATIENCE_S).ready
        assert not stub.ModelReady(asked, timeout=PATIENCE_S).ready
        run.service.hung = True
        assert client.get("/v2/health/live").status_code == 503
        assert not stub.ServerLive(pb.ServerLiveRequest(), timeout=PATIENCE_S).live


def test_other_models_and_versions_are_not_there() -> None:
    with calling(FakeAnalysis()) as run, httpx.Client(base_url=run.url) as client:
        body = asking(b"x")
        for model in ("other", "face-attributes/versions/2"):
            assert client.get(f"/v2/models/{model}").status_code == 404
            assert client.get(f"/v2/models/{model}/ready").status_code == 404
            answer = client.post(f"/v2/models/{model}/infer", json=body)
            assert (answer.status_code, list(answer.json())) == (404, ["error"])
        for version in ("1", MODEL.digest):
            assert client.post(f"/v2/models/face-attributes/versions/{version}/infer", json=body).status_code == 200
        assert list(client.get("/v2/nothing").json()) == ["error"]
        for request in (calling_for(b"x"), calling_for(b"x")):
            request.model_version = "2"
            assert failure(lambda request=request: infer(run, request)).code() is grpc.StatusCode.NOT_FOUND


# ── as other routes ──────────────────────────────────────────────────────────────────────────────


def test_keys_and_rates_hold_here_too(tmp_path: Path) -> None:
    file = KeysFile(tmp_path / "keys.json")
    secret, _ = file.create(rate=Rate(3, "minute"))
    with calling(FakeAnalysis()) as run:
        run.service.access = Access(file)
        assert httpx.get(f"{run.url}/v2/health/ready").status_code == 200
        answer = httpx.post(f"{run.url}{INFER}", json=asking(b"x"))
        assert (answer.status_code, list(answer.json())) == (401, ["error"])
        for call in (
            lambda: infer(run, calling_for(b"x")),
            lambda: run.inference.ServerMetadata(pb.ServerMetadataRequest(), timeout=PATIENCE_S),
            lambda: run.inference.ModelMetadata(pb.ModelMetadataRequest(), timeout=PATIENCE_S),
            lambda: run.inference.ModelReady(pb.ModelReadyRequest(), timeout=PATIENCE_S),
        ):
            assert failure(call).code() is grpc.StatusCode.UNAUTHENTICATED
        metadata = [("x-api-key", secret)]
        infer(run, calling_for(b"x", b"y"), metadata)
        refused = failure(lambda: infer(run, calling_for(b"x", b"y"), metadata))
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_pictures_of_one_request_leave_room_for_others() -> None:
    """Several pictures have no more places in the queue than there are threads, over both transports together."""
    analysis = FakeAnalysis()
    with calling(analysis) as run:
        analysis.leave.clear()
        several = run.inference.ModelInfer.future(calling_for(*[b"x"] * 5), timeout=PATIENCE_S)
        wait_until(lambda: run.service.batch_places.locked())
        assert analysis.begun.acquire(timeout=PATIENCE_S)
        wait_until(lambda: run.service.pool.queued == 0)
        several.cancel()
        analysis.leave.set()
        wait_until(lambda: not run.service.pool.busy)
    assert len(analysis.seen) == 1


def test_the_deadline_is_one_for_all() -> None:
    analysis = FakeAnalysis()
    with calling(analysis) as run:
        analysis.leave.clear()
        refused = failure(lambda: infer(run, calling_for(b"x", b"y", max_ms=200)))
        answer = httpx.post(f"{run.url}{INFER}", json=asking(b"x"), headers={"x-request-timeout-ms": "200"})
        analysis.leave.set()
    assert refused.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert answer.status_code in (503, 504)
