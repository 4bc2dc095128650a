"""A process that commits one file after the other until it is killed: ``python -m`` this module, a folder."""

from __future__ import annotations

import hashlib
import itertools
import sys

from dulian.batch.destinations import open_destination


def bytes_of(name: str) -> bytes:
    """What is written under a name."""
    return hashlib.sha256(name.encode()).digest() * 4_000


def main() -> None:
    destination = open_destination(sys.argv[1])
    for number in itertools.count():
        name = f"records/{sys.argv[2]}-{number:06d}.jsonl"
        destination.create(name, bytes_of(name))
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
