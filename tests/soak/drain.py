"""P20: a service that is restarted again and again under load loses nothing.

Sixteen clients ask without a pause, half of them on a new connection each time, while the service is told to end
(SIGTERM), ends, and is started again on the same port. A connection that is refused, because nobody listens, is tried
again. Lost is a request whose connection was made and ended without an answer.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from tests.promises.harness import Restarted, closed_loop, comparable, dulian_server, fake_server, post, through
from tests.soak import Figure, arguments, filled_store, portraits, report


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1, help="processes of the service")
    parser.add_argument("--grace-s", type=float, default=0.0, help="from the signal until it stops listening")
    parser.add_argument("--between-s", type=float, default=1.0, help="from one restart to the next")
    parser.add_argument("--fake", action="store_true", help="5 ms of nothing instead of networks, one process")
    options = parser.parse_args(given)
    if options.fake:
        pictures = [bytes([number]) * 20_000 for number in range(16)]
        service = Restarted(lambda port: fake_server("--seconds", "0.005", "--port", str(port)))
    else:
        store = filled_store()
        pictures = portraits(store)
        grace = {"DULIAN_GRACE_S": str(options.grace_s)}
        workers = ("--workers", str(options.workers))
        service = Restarted(lambda port: dulian_server(store, "--port", str(port), *workers, **grace))
    requests = [post("/v1/analyze", picture) for picture in pictures]
    with service:
        port = service.server.port
        alone = asyncio.run(closed_loop(port, requests, clients=1, count=len(requests)))
        expected = {one.request: comparable(one.body) for one in alone}
        load = through(
            service.restart,
            port,
            requests,
            expected,
            times=options.restarts,
            clients=options.clients,
            between_s=options.between_s,
        )
        met = asyncio.run(load)
    at = f"{options.restarts} restarts"
    other = sum(count for status, count in met.statuses.items() if status != 200)
    figures = [
        Figure("P20", f"{at}: lost", met.broken, at_most=0),
        Figure("P20", f"{at}: answered", met.answered, "requests", at_least=50 * options.restarts),
        Figure("P20", f"{at}: wrong answers", met.wrong, at_most=0),
        Figure("P20", f"{at}: answered with an error", other, at_most=0),
        Figure("P20", f"{at}: refused connections, tried again", met.refused),
        Figure("P20", f"{at}: ends with an exit code other than 0", sum(map(bool, service.codes)), at_most=0),
    ]
    return report(figures, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
