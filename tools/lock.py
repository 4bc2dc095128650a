"""Write ``requirements/*.txt``: every dependency with its version and hashes, and no index's address.

``run.txt`` runs dulian and builds it from a checkout, ``dev.txt`` adds what tests need, ``opencv5.txt``
is the other OpenCV that tests run under, ``release.txt`` looks for known vulnerabilities. For containers,
``serve.txt`` has what the service needs when its networks are there already, ``serve-….txt`` what each extra adds,
and ``sbom.txt`` lists it all.

With ``--keep`` what is pinned stays as it is, and only what is new is added.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
OPENCV4 = "opencv-python-headless>=4.14,<5"
OPENCV5 = "opencv-python-headless>=5,<6"
BUILD = ["hatchling", "editables"]
# Only the converter needs it, and a container comes with converted networks.
CONVERTER = "onnx"


def main() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, extras = pyproject["project"], pyproject["project"]["optional-dependencies"]
    dependencies = [*project["dependencies"], OPENCV4]
    run = [*dependencies, *BUILD]
    compile_lock("run.txt", run)
    of_extras = [need for needs in extras.values() for need in needs]
    compile_lock("dev.txt", [*run, *of_extras, *pyproject["dependency-groups"]["dev"]], constraint="run.txt")
    compile_lock("opencv5.txt", [OPENCV5], no_deps=True)
    compile_lock("release.txt", ["pip-audit"])
    serve = [need for need in dependencies if re.split(r"[^\w-]", need)[0] != CONVERTER]
    compile_lock("serve.txt", serve, constraint="dev.txt")
    for extra, needs in extras.items():
        compile_lock(f"serve-{extra}.txt", needs, constraint="dev.txt")
    compile_lock("sbom.txt", ["cyclonedx-bom"], constraint="dev.txt")


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
