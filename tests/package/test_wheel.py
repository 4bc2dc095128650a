"""The built wheel, in an environment that has nothing but its dependencies, analyses a picture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from tests.conftest import ROOT

from dulian.service.webui import assets

pytestmark = [pytest.mark.weights, pytest.mark.wheel]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the wheel and the pinned run-time requirements."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "-r", str(ROOT / "requirements" / "run.txt")], check=True, timeout=600)
    subprocess.run([*pip, "--no-deps", str(wheel)], check=True, timeout=300)
    return python


def test_the_wheel_analyses_a_picture(python: Path, model_store, samples: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    dulian = python.parent / "dulian"
    environment = {**os.environ, "DULIAN_MODEL_DIR": str(model_store.write_dir)}
    environment.pop("PYTHONPATH", None)
    for profile in ("standard", "classic"):
        done = subprocess.run(
            [str(dulian), "analyze", str(samples / "astronaut.png"), "--json", "--profile", profile, "-o", "out"],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            check=True,
            timeout=120,
        )
        (face,) = json.loads(done.stdout)["faces"]
        assert face["age"]["low"] < face["age"]["value"] < face["age"]["high"]
    assert (tmp_path / "out" / "astronaut_faces.jpg").is_file()


def test_the_wheel_depends_on_no_extra(python: Path) -> None:
    code = "import dulian.api, importlib.util as u; assert u.find_spec('openvino') is None; dulian.load_analyzer"
    subprocess.run([str(python), "-c", code], check=True, cwd=python.parent, timeout=120)


def test_the_wheel_has_the_whole_page(python: Path) -> None:
    code = "from dulian.service.webui import assets; print(*sorted(assets()), sep='\\n')"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True, cwd=python.parent)
    assert done.stdout.splitlines() == sorted(assets())
