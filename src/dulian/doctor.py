"""What dulian finds on this machine and what it will do with it; nothing is changed, nothing is timed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from dulian import __version__
from dulian.errors import DulianError
from dulian.fonts import find_cjk_font
from dulian.machine import (
    allowed_cores,
    cgroup_cpu_quota,
    effective_cores,
    instruction_sets,
    memory_limit_bytes,
    physical_memory_bytes,
)
from dulian.models.catalog import PROFILES
from dulian.runtimes import RUNTIMES, Precision, choose_engine, find_runtime
from dulian.runtimes.opencv_dnn import check_caffe, check_dnn
from dulian.store import ModelStore

LIBRARIES = (
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "onnxruntime",
    "openvino",
    "pillow",
    "pillow-heif",
    "simplejpeg",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """One machine as dulian sees it; byte counts in bytes, cores in whole cores but for the quota."""

    dulian: str
    python: str
    system: str
    libraries: Mapping[str, str]
    cores_host: int
    cores_allowed: int
    cores_quota: float | None
    cores_used: int
    memory_physical: int | None
    memory_limit: int | None
    instruction_sets: tuple[str, ...]
    engines: Mapping[str, str]
    engine_auto: Mapping[str, str]
    model_folder: str
    profiles: Mapping[str, str]
    chinese_font: str | None


def examine(store: ModelStore) -> Examination:
    """Look at everything; takes as long as importing OpenCV and hashing the models that are there."""
    return Examination(
        dulian=__version__,
        python=f"{platform.python_version()} ({sys.executable})",
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        libraries=_libraries(),
        cores_host=os.cpu_count() or 1,
        cores_allowed=allowed_cores(),
        cores_quota=cgroup_cpu_quota(),
        cores_used=effective_cores(),
        memory_physical=physical_memory_bytes(),
        memory_limit=memory_limit_bytes(),
        instruction_sets=instruction_sets(),
        engines={name: _engine_state(name) for name in RUNTIMES},
        engine_auto={precision: choose_engine("auto", precision) for precision in get_args(Precision)},
        model_folder=str(store.write_dir),
        profiles={name: _profile_state(store, name) for name in PROFILES},
        chinese_font=str(font) if (font := find_cjk_font()) else None,
    )


def _libraries() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _engine_state(name: str) -> str:
    try:
        row = find_runtime(name)
        if row.requires == "cv2":
            check_dnn()
        if row.format == "caffe":
            check_caffe()
    except DulianError as error:
        return str(error)
    return "ready"


def _profile_state(store: ModelStore, name: str) -> str:
    """``ready``, or the worst that is wrong with its weights."""
    states = tuple(dict.fromkeys(store.inspect(row) for row in PROFILES[name].rows))
    damaged = [state.note or state.file.name for state in states if state.state == "damaged"]
    missing = [state.file.name for state in states if state.state == "missing"]
    if damaged:
        return f"damaged: {'; '.join(damaged)}"
    return f"missing: {', '.join(missing)}" if missing else "ready"
