from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from dulian.machine import effective_cores
from dulian.models.catalog import PROFILES


def doctor(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dulian", "doctor", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout


def test_what_it_says_is_what_will_be_done(tmp_path: Path) -> None:
    text = doctor(XDG_CACHE_HOME=str(tmp_path), DULIAN_MODEL_DIR=str(tmp_path))
    assert f"threads: 1, of the engine for each: {effective_cores()}" in text
    assert f"threads: {effective_cores()}, of the engine for each: 1" in text
    assert f"processes: 1, threads of each: {effective_cores()}" in text
    assert "missing: face_detection_yunet_2023mar_symbolic.onnx" in text


@pytest.mark.weights
def test_json_for_scripts(model_store) -> None:  # type: ignore[no-untyped-def]
    found = json.loads(doctor("--json", "--model-dir", str(model_store.write_dir)))
    assert found["profiles"] == dict.fromkeys(PROFILES, "ready")
    assert found["engines"]["onnxruntime"] == "ready"
    old = int(cv2.__version__.partition(".")[0]) < 5
    assert (found["engines"]["opencv-caffe"] == "ready") == old
    assert found["cores_used"] == effective_cores()


@pytest.mark.weights
def test_damage_is_named(model_store, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "age-v1-flushed.onnx").write_bytes(b"broken")
    assert "damaged" in doctor("--model-dir", str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
