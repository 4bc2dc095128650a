"""Several Ray nodes on one machine, for whoever reads and writes lines: python -m tests.batch.ray_owner NODES SECONDS.

``ready ADDRESS`` is said first; ``kill N`` ends a node at once, as a power cut does, ``add`` starts one more. The end
of the lines is the end of the nodes, and so is the end of the seconds.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
from typing import Any


def main() -> None:
    count, seconds = map(int, sys.argv[1:])
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("it took too long"))
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(seconds + 10, exit=True)
    from ray.cluster_utils import Cluster

    checks = {
        "health_check_period_ms": 1000,
        "health_check_failure_threshold": 3,
        "health_check_initial_delay_ms": 0,
    }
    cluster = Cluster(
        initialize_head=True, head_node_args={**node(), "include_dashboard": False, "_system_config": checks}
    )
    nodes = [cluster.head_node, *(cluster.add_node(**node()) for _ in range(count - 1))]
    say(f"ready {cluster.address}")
    for line in sys.stdin:
        word, *number = line.split()
        if word == "kill":
            cluster.remove_node(nodes[int(number[0])], allow_graceful=False)
        elif word == "add":
            nodes.append(cluster.add_node(**node()))
        say(word)
    cluster.shutdown()


def node() -> dict[str, Any]:
    return {"num_cpus": 2, "object_store_memory": 80 * 2**20}


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
