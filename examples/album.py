"""Go through an album, and say what is in it: python album.py ALBUM DEST.

How many pictures have how many faces, and which answers are in doubt: a list of those pictures lies in DEST afterwards,
to be looked through by a person. Stop it whenever you like; the next run goes on. DEST has all records.
"""

from __future__ import annotations

import sys
from collections import Counter

from dulian.batch.analysis import ModelAnalysis
from dulian.batch.destinations import open_destination
from dulian.batch.drivers.local import LocalDriver, this_machine
from dulian.batch.merge import merge, merged
from dulian.batch.run import Wish, prepare, run

FOLLOW_UP = "to-look-at.txt"


def main(album: str, place: str) -> None:
    analysis = ModelAnalysis(profile="standard")
    destination = open_destination(place)
    job, _ = prepare(Wish(sources=[album], analysis=analysis), destination)
    processes, threads = this_machine()
    run(job, destination, analysis, driver=LocalDriver(processes=processes), threads=threads)

    pictures: Counter[int] = Counter()
    refused: Counter[str] = Counter()
    for record in merged(destination, job):
        if record["status"] == "ok":
            pictures[len(record["faces"])] += 1
        else:
            refused[record["error"]["code"]] += 1
    for faces, count in sorted(pictures.items()):
        print(f"{count:6,} pictures, faces in each: {faces}")
    for code, count in refused.most_common():
        print(f"{count:6,} not answered: {code}")

    doubtful = merge(destination, job, f"{destination.url}/{FOLLOW_UP}", where=["status!=ok"])
    print(f"{doubtful.written:6,} with a face in doubt: {place}/{FOLLOW_UP}")


if __name__ == "__main__":  # the processes that compute read this file too
    main(sys.argv[1], sys.argv[2])
