"""Servers with a port for gRPC as in production, in a thread, and what their clients need."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from tests.service.services import PATIENCE_S, FakeAnalysis, fake_service, wait_until

from dulian.service.http import create_app
from dulian.service.rpc import dulian_pb2_grpc, open_inference_pb2_grpc
from dulian.service.rpc.server import RpcServer
from dulian.service.rpc.status import DETAILS
from dulian.service.server import DrainingServer
from dulian.service.start import bind
from dulian.service.state import Service


@dataclass
class Rpc:
    """A server, and an open channel to it."""

    service: Service
    server: DrainingServer
    rpc: RpcServer
    url: str
    channel: grpc.Channel

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.rpc.port}"

    @property
    def dulian(self) -> dulian_pb2_grpc.DulianStub:
        return dulian_pb2_grpc.DulianStub(self.channel)

    @property
    def inference(self) -> open_inference_pb2_grpc.GRPCInferenceServiceStub:
        return open_inference_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def metric(self, name: str, **labels: str) -> float:
        return self.service.metrics._registry.get_sample_value(f"dulian_{name}", labels) or 0.0


@contextmanager
def serving(service: Service, *, grace_s: float = 0.0, reflection: bool = False) -> Iterator[Rpc]:
    with bind("127.0.0.1", 0) as listener:
        rpc = RpcServer(service, "127.0.0.1", 0, reflection=reflection)
        server = DrainingServer(create_app(service), service, grace_s=grace_s, rpc=rpc)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started and rpc.port > 0)
            with grpc.insecure_channel(f"127.0.0.1:{rpc.port}") as channel:
                url = "http://{}:{}".format(*listener.getsockname()[:2])
                yield Rpc(service, server, rpc, url, channel)
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
    assert service.streams == 0


@contextmanager
def calling(analysis: FakeAnalysis, *, grace_s: float = 0.0, reflection: bool = False, **limits: Any) -> Iterator[Rpc]:
    """The same over an analysis without networks; nothing is left of any call afterwards."""
    with fake_service(analysis, **limits) as service:
        with serving(service, grace_s=grace_s, reflection=reflection) as run:
            analysis.seen.clear()  # of the rehearsal
            while analysis.begun.acquire(blocking=False):
                pass
            try:
                yield run
            finally:
                analysis.leave.set()
        wait_until(lambda: service.admission.bytes_in_flight == 0)


def failure(call: Any) -> grpc.RpcError:
    """How a call ends that is not answered."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def last_words(error: Any) -> dict[str, Any]:
    return dict(error.trailing_metadata() or ())


def details_of(error: Any) -> dict[str, Any]:
    """The details of an error in their standard form, by the names of their types."""
    from google.rpc import error_details_pb2

    status = status_pb2.Status.FromString(last_words(error)[DETAILS])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    found: dict[str, Any] = {}
    for packed in status.details:
        name = packed.TypeName().rpartition(".")[2]
        found[name] = getattr(error_details_pb2, name)()
        assert packed.Unpack(found[name])
    return found
