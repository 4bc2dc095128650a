"""Write ``requirements/*.txt``: every dependency with its version and hashes, and no index's address.

``run.txt`` runs dulian and builds it from a checkout, ``dev.txt`` adds what tests need, ``opencv5.txt``
is the other OpenCV that tests run under, ``release.txt`` looks for known vulnerabilities.

With ``--keep`` what is pinned stays as it is, and only what is new is added.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
OPENCV4 = "opencv-python-headless>=4.14,<5"
OPENCV5 = "opencv-python-headless>=5,<6"
BUILD = ["hatchling", "editables"]


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = [need for needs in project["project"]["optional-dependencies"].values() for need in needs]
    run = [*project["project"]["dependencies"], *BUILD, OPENCV4]
    compile_lock("run.txt", run)
    compile_lock("dev.txt", [*run, *extras, *project["dependency-groups"]["dev"]], constraint="run.txt")
    compile_lock("opencv5.txt", [OPENCV5], no_deps=True)
    compile_lock("release.txt", ["pip-audit"])


def compile_lock(name: str, requirements: list[str], *, constraint: str | None = None, no_deps: bool = False) -> None:
    target = ROOT / "requirements" / name
    command = [sys.executable, "-m", "uv", "pip", "compile", "-", "--output-file", str(target)]
    command += ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url"]
    command += ["--no-annotate", "--custom-compile-command", "make lock", "--quiet"]
    if "--keep" not in sys.argv[1:]:
        command += ["--upgrade"]
    if constraint:
        command += ["--constraint", str(ROOT / "requirements" / constraint)]
    if no_deps:
        command += ["--no-deps"]
    subprocess.run(command, input="\n".join(requirements), text=True, check=True)


if __name__ == "__main__":
    main()
