"""Whether there is a port for gRPC, and where; nothing of that library is imported before there is one."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dulian.errors import MissingDependencyError
from dulian.service.start import bind

if TYPE_CHECKING:
    from dulian.service.rpc.server import RpcServer
    from dulian.service.state import Service
    from dulian.settings import Settings

LIBRARIES = ("grpc", "grpc_health", "grpc_reflection", "google.rpc")


def check_extra() -> None:
    """Refuse to start without the packages that it takes; imports none of them.

    Raises:
        MissingDependencyError: One of them is missing.
    """
    for name in LIBRARIES:
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise MissingDependencyError("grpc_port is set, and gRPC is missing; pip install 'dulian[grpc]'")


@contextmanager
def reserved(settings: Settings, processes: int) -> Iterator[Settings]:
    """Find out early whether the port is to be had; for several processes it is kept, and each listens there itself.

    Yields the settings, with a port that all of them can use.

    Raises:
        BackendError: It is taken, or the packages are missing.
    """
    if settings.grpc_port is None:
        yield settings
        return
    check_extra()
    with bind(settings.host, settings.grpc_port) as first:
        port = first.getsockname()[1]
    if processes == 1:
        yield settings
        return
    # Kept, so that the system gives it to nobody between two processes; who does not listen gets no connections.
    with bind(settings.host, port, shared=True):
        yield settings.model_copy(update={"grpc_port": port})


def open_rpc(settings: Settings, service: Service, *, shared: bool) -> RpcServer | None:
    """The server of that port, if there shall be one; ``shared`` if other processes listen there too.

    Raises:
        MissingDependencyError: The packages are missing.
    """
    if settings.grpc_port is None:
        return None
    check_extra()
    from dulian.service.rpc.server import RpcServer

    reflection = settings.grpc_reflection
    return RpcServer(service, settings.host, settings.grpc_port, reflection=reflection, shared=shared)
