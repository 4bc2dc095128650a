"""Processes that create one name at once, several times: ``python -m`` this module, a pickled destination as its input.

They are forked from one that has used the destination already, so that what it has opened is not theirs to use.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import sys

from dulian.batch.destinations import Destination

PATIENCE_S = 60.0


def name_of(race: int) -> str:
    """What they race for."""
    return f"records/{race:06d}.jsonl"


def bytes_of(racer: int) -> bytes:
    """What each of them writes; long enough to be seen torn."""
    return b"%d\n" % racer * 20_000


def main() -> None:
    count, races = int(sys.argv[1]), int(sys.argv[2])
    destination: Destination = pickle.load(sys.stdin.buffer)
    destination.create("before", b"")
    together = multiprocessing.get_context("fork").Barrier(count)
    result_out, result_in = os.pipe()
    children = []
    for racer in range(count):
        if pid := os.fork():
            children.append(pid)
            continue
        for race in range(races):
            together.wait(PATIENCE_S)
            if destination.create(name_of(race), bytes_of(racer)):
                os.write(result_in, f"{race} {racer}\n".encode())
        os._exit(0)
    statuses = [os.waitpid(pid, 0)[1] for pid in children]
    os.close(result_in)
    wins = [tuple(map(int, line.split())) for line in os.fdopen(result_out)]
    json.dump({"failed": sum(map(bool, statuses)), "wins": wins}, sys.stdout)


if __name__ == "__main__":
    main()
