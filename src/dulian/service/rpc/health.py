"""``grpc.health.v1`` by the library's own servicer, but that who watches can be let go."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc_health.v1 import health, health_pb2

SERVICE_NAME: str = health.SERVICE_NAME
_STATUS = health_pb2.HealthCheckResponse


class Health(health.aio.HealthServicer):  # type: ignore[misc]
    """The health of all services, which is one. Belongs to one event loop."""

    def __init__(self, services: tuple[str, ...]) -> None:
        super().__init__()
        self._services = ("", *services)
        self._ready: bool | None = None
        self._ending = asyncio.Event()

    async def tell(self, *, ready: bool) -> None:
        """Let those who watch know, if it is not what they know already."""
        if ready == self._ready:
            return
        self._ready = ready
        for name in self._services:
            await self.set(name, _STATUS.SERVING if ready else _STATUS.NOT_SERVING)

    def end(self) -> None:
        """End all calls of those who watch: they would keep the server from its end."""
        self._ending.set()

    async def Watch(self, request: Any, context: Any) -> None:
        watching = asyncio.create_task(super().Watch(request, context))
        ending = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait((watching, ending), return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
        finally:
            watching.cancel()
            ending.cancel()
