"""In this very process: for places that only it can see (``memory://``), and where starting others is not worth it."""

from __future__ import annotations

from dulian.batch.ledger import Ledger
from dulian.batch.tally import brief
from dulian.batch.work import Orders, Worker


class InlineDriver:
    """One range after the other; what kills the process kills the run, which can be taken up again."""

    def run(self, ledger: Ledger, orders: Orders) -> None:
        if ledger.finished:
            return
        worker = Worker(orders)
        try:
            while (given := ledger.next()) is not None:
                part, attempt = given
                worker.run(part, attempt, lambda record, part=part: ledger.told(part, brief(record)))  # type: ignore[misc]
                ledger.done(part)
        finally:
            worker.close()
