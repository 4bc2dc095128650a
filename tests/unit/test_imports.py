"""Importing dulian must cost nothing: laziness is a promise, so it has a test."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import dulian

HEAVY = {"numpy", "cv2", "onnxruntime", "openvino", "onnx", "PIL", "pydantic", "typer", "rich", "pandas", "fastapi"}


def modules_after(code: str) -> set[str]:
    script = f"import sys, json\n{code}\nprint(json.dumps([name for name in sys.modules if '.' not in name]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not modules_after("import dulian; dir(dulian)") & HEAVY


def test_results_can_be_read_without_numpy() -> None:
    assert not modules_after("from dulian import AnalysisResult; AnalysisResult.from_dict") & HEAVY


def test_the_command_line_shows_its_version_without_the_networks() -> None:
    code = "sys.argv = ['dulian', '--version']\nfrom dulian.cli import main\ntry: main()\nexcept SystemExit: pass"
    assert not modules_after(code) & {"cv2", "onnxruntime", "openvino", "onnx", "PIL", "pandas"}


def test_analysing_imports_neither_converter_nor_other_engines() -> None:
    code = "import dulian.api, dulian.runtimes.onnxruntime"
    assert not modules_after(code) & {"onnx", "openvino", "pandas", "typer", "fastapi", "grpc", "ray"}


def test_all_is_sorted_and_real() -> None:
    assert dulian.__all__ == sorted(dulian.__all__)
    for name in dulian.__all__:
        assert getattr(dulian, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = dulian.nonsense  # type: ignore[attr-defined]
