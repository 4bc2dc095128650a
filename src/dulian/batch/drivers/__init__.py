"""Who computes: this process, processes of this machine, or a cluster. All of them drive the same ledger."""

from __future__ import annotations

from typing import Protocol

from dulian.batch.ledger import Ledger
from dulian.batch.work import Orders


class Driver(Protocol):
    """Something that has the ranges of a ledger computed."""

    def run(self, ledger: Ledger, orders: Orders) -> None:
        """Until the ledger is finished.

        An exception, KeyboardInterrupt too, ends all that was started, within seconds, and leaves what is committed.

        Raises:
            DulianError: What makes it pointless to go on: the destination fails, models are missing, a store is out of
                reach.
        """
        ...
