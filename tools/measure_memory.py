"""Peak resident memory of a profile at work, by python tools/measure_memory.py PROFILE ARENAS FOLDER ….

Two threads go through each folder of photos for three seconds, as the service's do; ARENAS is the number of pools
that glibc may keep, which also give back late what is freed (0 for its own choices; before decision 37 they gave it
back at once). What a row's ``max_batch`` costs is seen by changing it.
"""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from dulian.factory import open_profile
from dulian.image import ImageLimits
from dulian.machine import tune_malloc
from dulian.models.catalog import find_profile
from dulian.pipeline import Pipeline
from dulian.settings import read_settings
from dulian.store import ModelStore


def main() -> None:
    if arenas := int(sys.argv[2]):
        tune_malloc(arenas)
    store = ModelStore(model_dir=read_settings().model_dir)
    factory = open_profile(find_profile(sys.argv[1]), store, workers=2, solo_threads=2)
    print(f"networks open: {resident()} MiB")
    pipeline = Pipeline(
        factory.new_analyzer, limits=ImageLimits(), warm=True, new_solo_analyzer=factory.new_solo_analyzer
    )
    for folder in map(Path, sys.argv[3:]):
        pictures = [file.read_bytes() for file in sorted(folder.iterdir())]
        done, seen = threading.Event(), [0]
        watcher = threading.Thread(target=watch, args=(done, seen))
        watcher.start()
        with ThreadPoolExecutor(2) as threads:
            until = time.perf_counter() + 3
            while time.perf_counter() < until:
                list(threads.map(lambda data: pipeline.analyze(data)[0], pictures))
        done.set()
        watcher.join()
        print(f"{folder.name}: at most {max(seen)} MiB, then {resident()}", flush=True)


def watch(done: threading.Event, seen: list[int]) -> None:
    while not done.wait(0.01):
        seen.append(resident())


def resident() -> int:
    return round(psutil.Process().memory_info().rss / 2**20)


if __name__ == "__main__":
    main()
