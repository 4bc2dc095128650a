"""A Ray cluster, or a local one: core tasks over the ledger's ranges. What Ray would repeat is left to the ledger.

No more tasks are under way than there is room for, and none waits in Ray: a shard takes seconds, the way to the next
one milliseconds.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from dulian import __version__
from dulian.batch.destinations import Destination
from dulian.batch.destinations.names import Temporary
from dulian.batch.drivers.local import PROCESS_BYTES as WORKER_BYTES
from dulian.batch.drivers.local import THREAD_BYTES, this_machine
from dulian.batch.drivers.ray_node import Errand
from dulian.batch.inputs import open_reader
from dulian.batch.job import read_inputs
from dulian.batch.ledger import Ledger
from dulian.batch.records import Input
from dulian.batch.shards import STAGING, Range
from dulian.batch.work import Orders
from dulian.errors import BackendError, InputError, MalformedInputError, MissingDependencyError
from dulian.quiet import forbid_reports

_LOOK_S = 1.0
_GRACE_S = 10.0
# A range whose node was lost so often: the cluster is to blame, or the range, and nobody can tell from here.
_MAX_LOSSES = 5
# A node that has lost a task, or is not known yet to those who give them out, while the list says that it is alive.
_LEFT_OUT_S = 5.0
_WITNESSES = 16
_STARTS = 2
_KNOCK_S = 10.0
# The smallest that Ray accepts: what goes through it are orders and counts.
_STORE_BYTES = 80 * 2**20
_QUIET = {
    # What raylets have to say would go to standard output, whatever ``log_to_driver`` says.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RayDriver:
    """A cluster by its ``address``: ``auto`` or host:port on one of its machines, ``ray://host:10001`` from elsewhere.

    Without one a cluster is started on this machine, and ended. ``tasks`` are at most so many at once; without a number
    as many as there are CPUs, less one of each node. A range that gives no sign for ``stall_s`` counts as if its
    process had died. Without any node that could compute the run fails after ``patience_s``.
    """

    address: str | None = None
    tasks: int | None = None
    stall_s: float = 120.0
    patience_s: float = 60.0

    def run(self, ledger: Ledger, orders: Orders) -> None:
        if ledger.finished:
            return
        _check_place(orders.destination)
        ray = _import_ray()
        with _connected(ray, self, orders.threads), _translated(ray, self), _sign(orders) as (key, sign):
            errand = Errand(
                key=key, orders=orders, sign=sign, witness=_find_witness(ledger, orders), stall_s=self.stall_s
            )
            crew = _Crew(ray, ledger, self, errand)
            try:
                crew.work()
            except BaseException:
                crew.dismiss()
                raise


def room(resources: Mapping[str, float], threads: int) -> int:
    """How many tasks of so many threads a node takes: a CPU stays free if there is one, and memory suffices for all."""
    cpus = int(resources.get("CPU", 0))
    free = cpus - 1 if cpus > threads else cpus
    return min(free // threads, int(resources.get("memory", 0)) // _bytes(threads))


def _bytes(threads: int) -> int:
    return WORKER_BYTES + (threads - 1) * THREAD_BYTES


# ── the cluster ──────────────────────────────────────────────────────────────────────────────────


def _check_place(destination: Destination) -> None:
    if destination.url.startswith("memory://"):
        raise MalformedInputError(
            f"{destination.url} is in the memory of this process, where no node can see it; name a folder that all"
            " nodes share, or a place in an object store"
        )


def _import_ray() -> ModuleType:
    forbid_reports()
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise MissingDependencyError("driver 'ray' needs Ray; pip install 'dulian[ray]'") from error
    return ray


@contextmanager
def _connected(ray: ModuleType, driver: RayDriver, threads: int) -> Iterator[None]:
    """For the block; a connection that the program has made already is used, and left to it.

    Raises:
        BackendError: There is no such cluster, or it does not let us in.
    """
    if ray.is_initialized():
        yield
        return
    with _kept_sigterm():
        if driver.address is None:
            _start(ray, (driver.tasks or this_machine()[0]) * threads + 1)
        else:
            _reach(ray, driver.address)
    try:
        yield
    finally:
        ray.shutdown()


def _reach(ray: ModuleType, address: str) -> None:
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise BackendError(f"cannot reach the Ray cluster at {address}: {error}") from error


def _knock(address: str) -> None:
    """Ray itself would try for minutes.

    Raises:
        OSError: Nobody listens there.
    """
    host, _, port = address.removeprefix("ray://").partition("/")[0].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


def _start(ray: ModuleType, cpus: int) -> None:
    given = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    for _ in range(_STARTS):
        try:
            ray.init(address="local", **given, log_to_driver=False, logging_level=logging.CRITICAL)
            return
        except Exception as error:  # noqa: BLE001 - Ray raises that very class if its processes are slow to start
            ray.shutdown()
            failure = error
    raise BackendError(
        f"cannot start a Ray cluster on this machine: {failure}; a machine that is very busy may need another try, and"
        " without Ray the driver 'local' does the same work"
    ) from failure


@contextmanager
def _kept_sigterm() -> Iterator[None]:
    """Ray puts a handler of its own in the place of the program's."""
    ours = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if ours is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)


@contextmanager
def _translated(ray: ModuleType, driver: RayDriver) -> Iterator[None]:
    """What Ray raises when the cluster itself is out of reach, in our words; a defect in a task stays what it is."""
    try:
        yield
    except ray.exceptions.RayTaskError:
        raise
    except (ConnectionError, ray.exceptions.RayError) as error:
        raise BackendError(
            f"the Ray cluster {driver.address or ''} is lost ({error}); run the batch again when it is back: what is"
            " committed stays"
        ) from error


@contextmanager
def _sign(orders: Orders) -> Iterator[tuple[str, str]]:
    """A file in the destination by which nodes prove that they see the same one: what it says, and its name."""
    key = f"{orders.job.id}-{secrets.token_hex(8)}"
    name = f"{STAGING}/{Temporary.of_this_process().new_name('ray')}"
    orders.destination.replace(name, key.encode())
    try:
        yield key, name
    finally:
        orders.destination.remove(name)


def _find_witness(ledger: Ledger, orders: Orders) -> Input | None:
    """An input that can be read here, so that a node which cannot read it is not one of ours; None if there is none."""
    job = orders.job
    reader = open_reader(base=job.base, max_bytes=orders.limits.max_bytes)
    try:
        for one in read_inputs(orders.destination, job, 0)[:_WITNESSES]:
            if one.problem is None and one.same_as is None:
                with suppress(InputError):
                    reader.read(one)
                    return one
    finally:
        reader.close()
    return None


# ── the work ─────────────────────────────────────────────────────────────────────────────────────


def _task() -> Callable[..., tuple[str, Any]]:
    """The function that nodes run; made in here so that it travels by value, also to nodes that lack dulian."""

    def dulian_batch(version: str, box: list[Any], key: str, part: tuple[int, int, int], attempt: str) -> Any:
        import socket

        import ray

        try:
            import dulian

            found = dulian.__version__
        except ImportError:
            found = "none"
        if found != version:
            node = socket.gethostname()
            return "refused", f"node {node} has dulian {found}, this is {version}; install the same one on all nodes"
        from dulian.quiet import forbid_reports
        from dulian.settings import guard_opencv

        guard_opencv()
        forbid_reports()
        from dulian.batch.drivers.ray_node import compute
        from dulian.batch.shards import Range

        return compute(key, lambda: ray.get(box[0]), Range(*part), attempt)

    return dulian_batch


class _Crew:
    """The tasks that are under way, and on which node each is.

    Each is bound to its node: a task that Ray places waits for a node that is cut off until a connection times out,
    which takes minutes, while the list of nodes tells of it within seconds.
    """

    def __init__(self, ray: ModuleType, ledger: Ledger, driver: RayDriver, errand: Errand) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._ray, self._ledger, self._driver = ray, ledger, driver
        self._threads, self._key = errand.orders.threads, errand.key
        self._box = [ray.put(errand)]
        self._task = ray.remote(_task())
        self._options = {
            "name": "dulian batch",
            "num_cpus": self._threads,
            "memory": _bytes(self._threads),
            "max_retries": 0,
        }
        self._bound_to: Callable[..., object] = NodeAffinitySchedulingStrategy
        self._running: dict[Any, tuple[Range, str]] = {}
        self._losses: Counter[Range] = Counter()
        self._nodes: dict[str, int] = {}
        self._left_out: dict[str, float] = {}
        self._looked = -_LOOK_S
        self._had_room = time.monotonic()

    def work(self) -> None:
        while not self._ledger.finished:
            self._look()
            self._employ()
            if not self._running:
                time.sleep(_LOOK_S)  # no node has room
            for reference in self._finished(_LOOK_S):
                part, node = self._running.pop(reference)
                self._hear(reference, part, node)

    def dismiss(self) -> None:
        """End all tasks: each is interrupted, and its process killed if that takes too long."""
        with suppress(ConnectionError, self._ray.exceptions.RayError):
            for reference in self._running:
                self._ray.cancel(reference)
            ended = self._finished(_GRACE_S, all_of_them=True)
            for reference in self._running.keys() - ended:
                self._ray.cancel(reference, force=True)

    def _look(self) -> None:
        """See now and then which nodes there are, and take back what was given to those that are gone.

        Raises:
            BackendError: For too long no node could take a task.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        self._nodes = {node["NodeID"]: room(node["Resources"], self._threads) for node in alive}
        self._left_out = {node: until for node, until in self._left_out.items() if now < until}
        self._nodes.update(dict.fromkeys(self._nodes.keys() & self._left_out, 0))
        for reference, (part, node) in [*self._running.items()]:
            if node not in self._nodes:
                del self._running[reference]
                self._lose(part, f"node {node} is gone, or cannot be reached")
        if any(self._nodes.values()):
            self._had_room = now
        elif now - self._had_room > self._driver.patience_s:
            raise BackendError(
                f"for {self._driver.patience_s:g} seconds no node of the Ray cluster could take a task, which needs"
                f" {self._threads} CPU and {_bytes(self._threads) >> 20} MiB ({len(alive)} nodes are there); run the"
                " batch again when there are some: what is committed stays"
            )

    def _employ(self) -> None:
        free = Counter(self._nodes)
        free.subtract(node for _, node in self._running.values())
        while free and len(self._running) < (self._driver.tasks or math.inf):
            node, count = free.most_common(1)[0]
            if count < 1 or (given := self._ledger.next()) is None:
                return
            free[node] -= 1
            part, attempt = given
            task = self._task.options(**self._options, scheduling_strategy=self._bound_to(node, soft=False))
            bounds = (part.shard, part.start, part.stop)
            self._running[task.remote(__version__, self._box, self._key, bounds, attempt)] = part, node

    def _finished(self, wait_s: float, *, all_of_them: bool = False) -> list[Any]:
        """Those of the tasks under way that have ended; one at least, or all, unless that takes too long."""
        tasks = [*self._running]
        if not tasks:
            return []
        self._ray.wait(tasks, num_returns=len(tasks) if all_of_them else 1, timeout=wait_s)
        ended, _ = self._ray.wait(tasks, num_returns=len(tasks), timeout=0)
        return [*ended]

    def _hear(self, reference: Any, part: Range, node: str) -> None:
        errors = self._ray.exceptions
        try:
            kind, said = self._ray.get(reference)
        except errors.WorkerCrashedError:
            self._ledger.died(part, "the Ray worker process ended")
        except errors.OutOfMemoryError:
            self._ledger.died(part, "the node ran out of memory, and Ray ended the process")
        except errors.RayError as error:
            if isinstance(error, errors.RayTaskError) and not isinstance(error, errors.TaskCancelledError):
                raise
            self._nodes[node], self._left_out[node] = 0, time.monotonic() + _LEFT_OUT_S
            self._lose(part, str(error))
        else:
            if kind == "failed":
                raise said
            if kind == "refused":
                raise BackendError(said)
            for one in said:
                self._ledger.told(part, one)
            self._ledger.done(part)

    def _lose(self, part: Range, reason: str) -> None:
        """The node is gone, or cannot be reached, or somebody has cancelled the task: no picture is to blame.

        Raises:
            BackendError: The same range has been lost too often.
        """
        self._losses[part] += 1
        if self._losses[part] >= _MAX_LOSSES:
            raise BackendError(
                f"inputs {part.start} to {part.stop} of shard {part.shard} were lost {_MAX_LOSSES} times, the last time"
                f" because: {reason}"
            )
        self._ledger.back(part)
