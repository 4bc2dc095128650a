"""Tiny wheels in a folder, catalog rows that point to them, and a dulian that knows only these rows.

The real pip reads the folder by the user's own settings (``PIP_FIND_LINKS``): exactly what the store promises.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from dulian.models import catalog
from dulian.models.rows import ModelRow, Package, Profile, Recipe, Source, WeightsFile

_DRIVER = """
import pickle, sys
from dulian.models import catalog
with open(sys.argv.pop(1), "rb") as stream:
    profiles, samples = pickle.load(stream)
catalog.PROFILES.clear()
catalog.PROFILES.update(profiles)
catalog.SAMPLES = samples
from dulian.cli import main
main()
"""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def blob(seed: int, size: int) -> bytes:
    """Bytes that do not compress, the same each time."""
    blocks = (hashlib.sha256(f"{seed}/{index}".encode()).digest() for index in range(size // 32 + 1))
    return b"".join(blocks)[:size]


def write_wheel(folder: Path, requirement: str, members: dict[str, bytes], *, compress: bool = False) -> Package:
    """A wheel that pip accepts, and the catalog's words for it."""
    name, version = requirement.split("==")
    stem = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{stem}-py3-none-any.whl"
    info = f"{stem}.dist-info"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        for member, data in {**members, **metadata}.items():
            archive.writestr(member, data)
    return package_of(path, requirement)


def package_of(path: Path, requirement: str) -> Package:
    data = path.read_bytes()
    return Package(requirement=requirement, archive_bytes=len(data), sha256=sha256(data), licence="none")


def weights_file(name: str, data: bytes, *sources: Source, aliases: tuple[str, ...] = ()) -> WeightsFile:
    return WeightsFile(name=name, size=len(data), sha256=sha256(data), sources=sources, aliases=aliases)


def model_row(
    name: str, weights: WeightsFile, *, originals: tuple[WeightsFile, ...] = (), recipe: Recipe | None = None
) -> ModelRow:
    return ModelRow(
        name=name,
        family="classifier",
        weights=weights,
        originals=originals,
        recipe=recipe,
        input_wh=(8, 8),
        colour_order="bgr",
        age_output="age",
        licence_code="MIT",
        licence_weights="MIT",
        trained_on="nothing",
        origin="tests",
    )


@dataclass
class FakeRegistry:
    """Rows ``tiny`` and ``other`` in profile ``standard``, one sample picture, and their wheels."""

    root: Path
    size: int = 4_000
    profiles: dict[str, Profile] = field(init=False)
    samples: tuple[WeightsFile, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.tiny_data, self.other_data, picture = blob(1, self.size), blob(2, self.size), blob(3, 500)
        self.package = write_wheel(
            self.folder, "tiny-models==1.0", {"tiny/tiny.onnx": self.tiny_data, "tiny/other.onnx": self.other_data}
        )
        pictures = write_wheel(self.folder, "tiny-pictures==1.0", {"pictures/face.png": picture})
        self.tiny = model_row("tiny", weights_file("tiny.onnx", self.tiny_data, self.source("tiny/tiny.onnx")))
        self.other = model_row("other", weights_file("other.onnx", self.other_data, self.source("tiny/other.onnx")))
        self.samples = (weights_file("face.png", picture, Source(pictures, "pictures/face.png")),)
        self.use(self.tiny, self.other)

    @property
    def folder(self) -> Path:
        return self.root / "registry"

    @property
    def wheel(self) -> Path:
        return self.folder / "tiny_models-1.0-py3-none-any.whl"

    def source(self, member: str) -> Source:
        return Source(self.package, member)

    def use(self, detector: ModelRow, *estimators: ModelRow) -> None:
        """Make these the rows of profile ``standard``."""
        like = catalog.find_profile("standard") if "standard" in catalog.PROFILES else self.profiles["standard"]
        self.profiles = {"standard": replace(like, detector=detector, estimators=estimators)}

    def pip_settings(self) -> dict[str, str]:
        return {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.folder),
            "PIP_NO_CACHE_DIR": "1",
        }

    def environment(self, **settings: str) -> dict[str, str]:
        """Of a child: no pip settings but ours and those given, and an own cache folder."""
        bare = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "DULIAN_"))}
        source = str(Path(catalog.__file__).parents[2])
        cache = {"XDG_CACHE_HOME": str(self.root / "cache"), "PYTHONPATH": source, "NO_COLOR": "1"}
        return {**bare, **cache, **self.pip_settings(), **settings}

    def command(self, *arguments: str, python: str = sys.executable) -> list[str]:
        known = self.root / "catalog.pickle"
        known.write_bytes(pickle.dumps((self.profiles, self.samples)))
        return [python, "-c", _DRIVER, str(known), *arguments]

    def run(self, *arguments: str, python: str = sys.executable, **settings: str) -> subprocess.CompletedProcess[str]:
        """``dulian ARGUMENTS`` over the fake catalog; nothing of it may ever show a traceback."""
        done = subprocess.run(
            self.command(*arguments, python=python),
            env=self.environment(**settings),
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done

    @property
    def cached(self) -> Path:
        """Where a child without ``--model-dir`` puts models."""
        return self.root / "cache" / "dulian" / "models"


def leftovers(folder: Path) -> list[str]:
    """What is in a model folder beside finished files and the lock."""
    return [entry.name for entry in folder.rglob(".dulian-*") if entry.name != ".dulian-lock"]
