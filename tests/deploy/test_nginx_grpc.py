"""gRPC through nginx."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.front import HARDLY_REFILLED, NAME, NONE, UNLIMITED, Front, front
from tests.deploy.replicas import GRPC, Replica
from tests.service.services import PATIENCE_S

pytestmark = pytest.mark.weights

MIB = 2**20


@contextmanager
def calling(nginx: Front) -> Iterator[Any]:
    """A stub behind TLS; the names of messages are its module's."""
    if not GRPC:
        pytest.skip("gRPC is not installed: pip install 'dulian[grpc]'")
    import grpc

    from dulian.service.rpc import dulian_pb2_grpc

    credentials = grpc.ssl_channel_credentials((nginx.folder / "cert.pem").read_bytes())
    options = [("grpc.ssl_target_name_override", NAME), ("grpc.enable_retries", 0)]
    with grpc.secure_channel(f"127.0.0.1:{nginx.port}", credentials, options) as channel:
        yield dulian_pb2_grpc.DulianStub(channel)


def status_of(call: Callable[[], object]) -> str:
    """The name of the status with which a call ends."""
    import grpc

    try:
        call()
    except grpc.RpcError as error:
        return str(error.code().name)  # type: ignore[attr-defined]
    return "OK"


def boxes_of(answer: Any) -> list[list[float]]:
    return [list(face.bbox) for face in answer.faces]


@contextmanager
def grpc_front(folder: Path, replicas: tuple[Replica, Replica], changes: dict[str, str] = UNLIMITED) -> Iterator[Front]:
    ports = [one.port for one in replicas]
    with front(folder, *ports, grpc=[one.grpc_port for one in replicas], changes=changes) as nginx:
        yield nginx


def test_calls_and_streams_over_grpc_pass(
    tmp_path: Path, replicas: tuple[Replica, Replica], photos: list[bytes], boxes: list[list[list[float]]]
) -> None:
    with grpc_front(tmp_path, replicas) as nginx, calling(nginx) as stub:
        from dulian.service.rpc import dulian_pb2

        for photo, expected in zip(photos, boxes, strict=True):
            answer = stub.Analyze(dulian_pb2.AnalyzeRequest(image=photo), timeout=PATIENCE_S)
            assert boxes_of(answer) == expected
        frames = iter([dulian_pb2.Frame(image=photos[0])])
        (streamed,) = stub.AnalyzeStream(frames, timeout=PATIENCE_S)
        assert boxes_of(streamed.result) == boxes[0]
        large = dulian_pb2.AnalyzeRequest(image=bytes(10 * MIB + 70_000))
        assert status_of(lambda: stub.Analyze(large, timeout=PATIENCE_S)) == "RESOURCE_EXHAUSTED"
        log = nginx.whole_log()
    assert {line["route"] for line in log} == {"gRPC"}
    assert {line["replica"].rpartition(":")[2] for line in log} == {str(one.grpc_port) for one in replicas}


def test_refusals_of_nginx_have_a_grpc_status(tmp_path: Path, replicas: tuple[Replica, Replica]) -> None:
    nobody = tmp_path / "nobody"
    nobody.mkdir()
    with front(nobody, NONE) as nginx, calling(nginx) as stub:
        from dulian.service.rpc import dulian_pb2

        request = dulian_pb2.AnalyzeRequest(image=b"a picture")
        assert status_of(lambda: stub.Analyze(request, timeout=PATIENCE_S)) == "UNAVAILABLE"
    with grpc_front(tmp_path, replicas, HARDLY_REFILLED) as nginx, calling(nginx) as stub:
        met = Counter(status_of(lambda: stub.Analyze(request, timeout=PATIENCE_S)) for _ in range(150))
    assert set(met) == {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}


def test_a_replica_that_is_gone_costs_no_call(
    tmp_path: Path, replicas: tuple[Replica, Replica], photos: list[bytes]
) -> None:
    """What is not sent yet is sent elsewhere. What was being answered is lost: nginx has not kept it."""
    with grpc_front(tmp_path, replicas) as nginx, calling(nginx) as stub:
        from dulian.service.rpc import dulian_pb2

        request = dulian_pb2.AnalyzeRequest(image=photos[3])
        replicas[1].server.process.kill()
        replicas[1].server.process.wait(PATIENCE_S)
        met = Counter(status_of(lambda: stub.Analyze(request, timeout=PATIENCE_S)) for _ in range(20))
        replicas[1].again()
        assert met == {"OK": 20}
        assert any(", " in line["replica"] for line in nginx.whole_log())
