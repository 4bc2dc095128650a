"""A port of its own for the metrics and the probes, so that who watches the service never queues with its clients."""

from __future__ import annotations

import socket

import uvicorn

from dulian.service.guard import guarded_protocol
from dulian.service.http import create_metrics_app
from dulian.service.limits import GuardLimits
from dulian.service.log import log_event
from dulian.service.state import Service

END_WITHIN_S = 1


class MetricsServer(uvicorn.Server):
    """A second server on the loop of the first, which starts it, passes its ticks on, and ends it last.

    It has connections of its own to count, and it can still be asked while the first one finishes its work.
    """

    def __init__(self, service: Service, listener: socket.socket) -> None:
        config = uvicorn.Config(
            create_metrics_app(service),
            http=guarded_protocol(GuardLimits(), refused=service.metrics.count_refusal),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=END_WITHIN_S,
        )
        config.load()
        super().__init__(config)
        self.lifespan = config.lifespan_class(config)
        self._listener = listener

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([self._listener])
        host, port = self._listener.getsockname()[:2]
        log_event("metrics_listening", host=host, port=port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown([self._listener])
