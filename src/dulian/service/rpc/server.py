"""The port for gRPC: a server on the loop of the HTTP server, its limits, its health, its end."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from dulian.errors import BackendError
from dulian.service.log import log_event
from dulian.service.state import Service

# The library writes to standard error by itself, where our log is; it reads this when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from grpc_health.v1 import health_pb2_grpc

from dulian.service.rpc import analysis, dulian_pb2, inference, open_inference_pb2, streaming
from dulian.service.rpc.calls import Calls
from dulian.service.rpc.health import SERVICE_NAME, Health

DULIAN = dulian_pb2.DESCRIPTOR.services_by_name["Dulian"].full_name
INFERENCE = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
SERVICES = (DULIAN, INFERENCE)

# Names and options of a message beside its pictures.
MESSAGE_OVERHEAD = 64 * 2**10
STREAMS_PER_CONNECTION = 100
IDLE_MS = 300_000
KEEPALIVE_MS = 60_000
KEEPALIVE_TIMEOUT_MS = 20_000
MIN_PING_INTERVAL_MS = 10_000
# How long answers that have been given may still take to leave.
LAST_WORDS_S = 2.0
LOOK_EVERY_S = 0.05


class RpcServer:
    """Answers calls beside the HTTP server of the same service, which starts it, passes its ticks on, and ends it."""

    def __init__(
        self, service: Service, host: str, port: int, *, reflection: bool = False, shared: bool = False
    ) -> None:
        self._service = service
        self._host = f"[{host}]" if ":" in host else host
        self.port = port
        self._reflection = reflection
        self._shared = shared

    async def startup(self) -> None:
        """Listen.

        Raises:
            BackendError: The port is taken, or not to be had.
        """
        service = self._service
        self._calls = Calls(service)
        self._streams = streaming.Streams(service, places=self._calls.reading.places)
        self._server = grpc.aio.server(
            options=self._options(), maximum_concurrent_rpcs=service.guard_limits.connections
        )
        self._health = Health(SERVICES)
        await self.on_tick()
        self._add_handlers()
        try:
            self.port = self._server.add_insecure_port(f"{self._host}:{self.port}")
        except RuntimeError:
            raise BackendError(f"cannot listen on {self._host} port {self.port} for gRPC: it is taken") from None
        await self._server.start()
        log_event("grpc_listening", host=self._host, port=self.port)

    def _add_handlers(self) -> None:
        handler = self._calls.handler
        answers = {
            analysis.METHOD: handler(analysis.METHOD, analysis.analyze),
            streaming.METHOD: handler(streaming.METHOD, self._streams.answer, stream=True),
            **{method: handler(method, answer) for method, answer in inference.ANSWERS.items()},
        }
        for service in SERVICES:
            methods = {method.rpartition("/")[2]: one for method, one in answers.items() if service in method}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if self._reflection:
            from grpc_reflection.v1alpha import reflection

            names = (*SERVICES, SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)

    def _options(self) -> list[tuple[str, int]]:
        limits, guard = self._service.limits, self._service.guard_limits
        return [
            # One process alone must find out that its port is taken.
            ("grpc.so_reuseport", int(self._shared)),
            ("grpc.max_receive_message_length", limits.max_body_bytes + MESSAGE_OVERHEAD),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION),
            ("grpc.max_allowed_incoming_connections", guard.connections),
            ("grpc.max_metadata_size", guard.head_bytes),
            ("grpc.absolute_max_metadata_size", guard.head_bytes),
            ("grpc.server_handshake_timeout_ms", int(guard.head_seconds * 1000)),
            ("grpc.max_connection_idle_ms", IDLE_MS),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
            ("grpc.http2.max_ping_strikes", 2),
            # Pictures are compressed already, and what unpacks to more than it is must not come in; identity is bit 0.
            ("grpc.compression_enabled_algorithms_bitset", 1),
            # Windows that grow by themselves would hold bytes that nobody has asked for yet.
            ("grpc.http2.bdp_probe", 0),
        ]

    async def on_tick(self) -> None:
        """Let those who watch the health know, and when another process takes over, send clients there."""
        service = self._service
        await self._health.tell(ready=service.unready is None and not service.retiring)

    async def shutdown(self, within_s: float, hurry: Callable[[], bool] = lambda: False) -> None:
        """Accept nothing more, finish what was accepted, and end what is left after so many seconds, or in a hurry."""
        await self._health.enter_graceful_shutdown()
        self._streams.ending.set()
        stopping = asyncio.create_task(self._server.stop(within_s))
        until = time.monotonic() + within_s
        while self._calls.open and time.monotonic() < until and not hurry():
            await asyncio.sleep(LOOK_EVERY_S)
        self._health.end()
        await asyncio.wait({stopping}, timeout=LAST_WORDS_S)
        await self._server.stop(None)
        await stopping
