"""A collector that keeps what it gets, or behaves as badly as a test needs; and requests that belong to a trace."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.service.services import PATIENCE_S, wait_until


def attributes(of: Any) -> dict[str, Any]:
    """Of a span or a resource, as plain values."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in of.attributes}


@dataclass
class Collector:
    """What came, in its order; ``status`` and ``delay_s`` may be changed at any time."""

    url: str = ""
    status: int = 200
    delay_s: float = 0.0
    asked: int = 0
    bodies: list[bytes] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    leave: threading.Event = field(default_factory=threading.Event)

    def take(self, body: bytes, head: dict[str, str]) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for one in request.resource_spans:
            self.resources.append(attributes(one.resource))
            self.spans += [span for scope in one.scope_spans for span in scope.spans]
        self.heads.append(head)
        self.bodies.append(body)

    def traces(self) -> dict[str, list[Span]]:
        found = defaultdict(list)
        for span in tuple(self.spans):
            found[span.trace_id.hex()].append(span)
        return found

    def wait_for(self, trace_id: str) -> list[Span]:
        """The spans of a trace; its call is the last one to end, but not the last one to be sent."""
        wait_until(lambda: any(span.kind == Span.SPAN_KIND_SERVER for span in self.traces()[trace_id]))
        return self.traces()[trace_id]


class _Handler(BaseHTTPRequestHandler):
    collector: ClassVar[Collector]

    def do_POST(self) -> None:
        collector = self.collector
        body = self.rfile.read(int(self.headers["content-length"]))
        collector.asked += 1
        if collector.delay_s:
            collector.leave.wait(collector.delay_s)
        if collector.status == 200:
            collector.take(body, {"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
        try:
            self.send_response(collector.status)
            self.send_header("content-length", "0")
            self.end_headers()
        except OSError:
            pass  # who asked has gone

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass


@contextmanager
def collecting(**behaviour: Any) -> Iterator[Collector]:
    collector = Collector(**behaviour)
    handler = type("Handler", (_Handler,), {"collector": collector})
    with _Server(("127.0.0.1", 0), handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="collector")
        thread.start()
        try:
            yield collector
        finally:
            collector.leave.set()
            server.shutdown()
            thread.join(PATIENCE_S)


def parent(number: int, *, sampled: bool = True) -> tuple[str, str, dict[str, str]]:
    """The ids of a trace and of the caller's span in it, and the header that tells them."""
    trace_id, span_id = f"{number + 1:032x}", f"{number + 0xABC:016x}"
    return trace_id, span_id, {"traceparent": f"00-{trace_id}-{span_id}-{int(sampled):02x}"}
