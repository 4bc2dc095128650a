"""A process of a Ray cluster that computes ranges: what it must see before it begins, and how it is kept from hanging.

It knows nothing of Ray: :mod:`dulian.batch.drivers.ray` calls it there.
"""

from __future__ import annotations

import faulthandler
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

from dulian.batch.inputs import open_reader
from dulian.batch.records import Input
from dulian.batch.shards import Range
from dulian.batch.tally import Brief, brief
from dulian.batch.work import Orders, Worker
from dulian.errors import BackendError, DestinationError, DulianError, InputError
from dulian.machine import tune_malloc

Outcome = tuple[Literal["done"], list[Brief]] | tuple[Literal["failed"], DulianError] | tuple[Literal["refused"], str]

# A shared folder may show a new file late.
_SEEN_WITHIN_S = 10.0
_LOOK_S = 0.2
_STDERR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What a node is given once. ``key`` is one run's of one driver.

    ``sign`` is a file that the driver has put into the destination, with the key in it; ``witness`` is an input that
    the driver can read. A process that gives no sign for ``stall_s`` ends itself.
    """

    key: str
    orders: Orders
    sign: str
    witness: Input | None
    stall_s: float


_open: tuple[Errand, Worker] | None = None


def compute(key: str, fetch: Callable[[], Errand], part: Range, attempt: str) -> Outcome:
    """Compute a range of an errand, which is fetched only by the first range of this process."""
    try:
        errand, worker = _opened(key, fetch)
        briefs: list[Brief] = []
        with _ended_if_silent(errand.stall_s) as give_sign:

            def told(record: dict[str, object]) -> None:
                briefs.append(brief(record))
                give_sign()

            worker.run(part, attempt, told)
    except DulianError as error:
        return "failed", error
    return "done", briefs


def _opened(key: str, fetch: Callable[[], Errand]) -> tuple[Errand, Worker]:
    global _open
    if _open is not None and _open[0].key != key:
        _open[1].close()
        _open = None
    if _open is None:
        tune_malloc()
        errand = fetch()
        _check_sight(errand)
        _check_model(errand.orders)
        _open = errand, Worker(errand.orders)
    return _open


def _check_sight(errand: Errand) -> None:
    """Refuse to work on a machine that does not see what the driver sees: it would answer what nobody asked.

    Raises:
        DestinationError: The destination is another one here.
        BackendError: The pictures are not here.
    """
    orders = errand.orders
    deadline = time.monotonic() + _SEEN_WITHIN_S
    while orders.destination.read(errand.sign) != errand.key.encode():
        if time.monotonic() > deadline:
            raise DestinationError(
                f"node {socket.gethostname()} does not see what the driver has put into {orders.destination.url}: share"
                " this folder with all nodes, under the same path, or name a place in an object store"
            )
        time.sleep(_LOOK_S)
    if errand.witness is None:
        return
    reader = open_reader(base=orders.job.base, max_bytes=orders.limits.max_bytes)
    try:
        reader.read(errand.witness)
    except InputError as error:
        raise BackendError(
            f"node {socket.gethostname()} cannot read {errand.witness.source}, which the driver can: share the pictures"
            f" with all nodes, under the same path, or put them into an object store ({error})"
        ) from error
    finally:
        reader.close()


def _check_model(orders: Orders) -> None:
    """Refuse to compute with other networks than the job was begun with.

    Raises:
        BackendError: An engine or weights are others here.
    """
    here, begun = dict(orders.analysis.model()), dict(orders.job.model)
    if here != begun:
        raise BackendError(
            f"node {socket.gethostname()} would compute with {here}, and the batch was begun with {begun}: install the"
            " same release, engines and weights on all nodes"
        )


@contextmanager
def _ended_if_silent(stall_s: float) -> Iterator[Callable[[], None]]:
    """End this process if nothing is heard for so long; the timer needs no lock that what hangs may hold."""
    give_sign = partial(faulthandler.dump_traceback_later, stall_s, exit=True, file=_STDERR)
    give_sign()
    try:
        yield give_sign
    finally:
        faulthandler.cancel_dump_traceback_later()
