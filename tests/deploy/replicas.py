"""Services that nginx stands in front of."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec

from dulian.store import ModelStore
from tests.deploy.front import NAME
from tests.deploy.programs import free_ports
from tests.promises.harness import Server, dulian_server

GRPC = all(find_spec(name) for name in ("grpc", "grpc_health", "grpc_reflection", "google.rpc"))


@dataclass
class Replica:
    """A service on a port of its own, which can be ended in any way and started again."""

    store: ModelStore
    port: int
    grpc_port: int
    server: Server
    stack: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def start(cls, store: ModelStore) -> Replica:
        replica = cls(store, *free_ports(2), None)  # type: ignore[arg-type]
        replica.again()
        return replica

    def again(self) -> None:
        self.stack.close()
        arguments = ["--port", str(self.port), "--threads", "1", "--allowed-host", NAME]
        if GRPC:
            arguments += ["--grpc-port", str(self.grpc_port)]
        self.server = self.stack.enter_context(dulian_server(self.store, *arguments, DULIAN_GRACE_S="0.5"))
