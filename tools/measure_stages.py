"""Mean milliseconds of every stage over folders of photos, by python tools/measure_stages.py PROFILE FOLDER ….

Each folder is gone through for three seconds by one caller and then by two at once, one engine thread each.
"""

from __future__ import annotations

import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dulian.factory import open_profile
from dulian.image import ImageLimits
from dulian.models.catalog import find_profile
from dulian.pipeline import Pipeline
from dulian.settings import read_settings
from dulian.store import ModelStore

SECONDS = 3.0


def main() -> None:
    factory = open_profile(find_profile(sys.argv[1]), ModelStore(model_dir=read_settings().model_dir), workers=2)
    pipeline = Pipeline(factory.new_analyzer, limits=ImageLimits(), warm=True)
    for folder in map(Path, sys.argv[2:]):
        pictures = [file.read_bytes() for file in sorted(folder.iterdir())]
        for callers in (1, 2):
            with ThreadPoolExecutor(callers) as threads:
                list(threads.map(pipeline.analyze, pictures * 2))
                results = []
                wall, cpu = time.perf_counter(), time.process_time()
                while time.perf_counter() - wall < SECONDS:
                    results += [result for result, _ in threads.map(pipeline.analyze, pictures * 2)]
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            stages = ("decode", "detect", "attributes", "total")
            means = [statistics.mean(getattr(result.timings_ms, stage) for result in results) for stage in stages]
            faces = statistics.mean(len(result.faces) for result in results)
            print(f"{folder.name}, {callers} at once: {len(results) / wall:.1f} photos/s,", end=" ")
            print(f"{cpu / len(results) * 1000:.1f} ms of processor each; {faces:.2f} faces;", end=" ")
            print(", ".join(f"{stage} {mean:.1f}" for stage, mean in zip(stages, means, strict=True)), flush=True)


if __name__ == "__main__":
    main()
