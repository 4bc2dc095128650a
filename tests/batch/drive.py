"""A batch with a fake analysis in processes of its own, to be killed: python -m tests.batch.drive SOURCE DEST LOG."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from dulian.batch.analysis import Analysis, ModelAnalysis
from dulian.batch.destinations import open_destination
from dulian.batch.drivers import Driver
from dulian.batch.drivers.local import LocalDriver
from dulian.batch.drivers.ray import RayDriver
from dulian.batch.run import Wish, prepare, run
from tests.batch.fake_work import FakeAnalysis


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("destination")
    parser.add_argument("log", type=Path)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--shard-size", type=int, default=16)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--stall-s", type=float, default=60.0)
    parser.add_argument("--ray", help="the address of a Ray cluster, or local")
    parser.add_argument("--patience-s", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model-dir", type=Path, help="of real models")
    asked = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    analysis: Analysis = FakeAnalysis(asked.log, asked.seconds)
    if asked.model_dir is not None:
        analysis = ModelAnalysis(profile="standard", model_dir=asked.model_dir, offline=True)
    destination = open_destination(asked.destination)
    job, _ = prepare(Wish(sources=[asked.source], analysis=analysis, shard_size=asked.shard_size), destination)
    driver: Driver = LocalDriver(processes=asked.processes, stall_s=asked.stall_s)
    if asked.ray is not None:
        address = None if asked.ray == "local" else asked.ray
        driver = RayDriver(address=address, stall_s=asked.stall_s, patience_s=asked.patience_s)
    tally = run(job, destination, analysis, driver=driver, threads=asked.threads)
    print(tally.before, tally.computed, tally.deaths, tally.quarantined)  # noqa: T201


if __name__ == "__main__":
    main()
