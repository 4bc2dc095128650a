"""Write a software bill of materials (CycloneDX 1.6, JSON) to standard output: Python's packages, networks, Debian's.

Python's packages are those that ``cyclonedx-py environment`` has found; the networks, with their sha256 and licences,
are those that ``dulian models list --json`` says are ready; Debian's are read from a folder of control files, as an
image without a package manager has them.

    python tools/sbom.py PYTHON.cdx.json MODELS.jsonl [STATUS.D]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

Component = dict[str, Any]
OURS = "dulian"
# What the catalog says in words, and not as a licence of SPDX, has a space in it.
WORDS = " "


def main(python: str, models: str, debian: str | None = None) -> None:
    bom = json.loads(Path(python).read_text("utf-8"))
    lines = Path(models).read_text("utf-8").splitlines()
    networks = [network(model) for line in lines if (model := json.loads(line))["state"] == "ready"]
    packages = list(debian_packages(Path(debian))) if debian else []
    (own,) = [one for one in bom["components"] if one["name"] == OURS]
    own.pop("externalReferences", None)  # a path of the machine that built it
    bom["metadata"]["component"] = own | {"type": "application"}
    bom["components"] = [*(one for one in bom["components"] if one is not own), *networks, *packages]
    depend(bom, own["bom-ref"], [one["bom-ref"] for one in networks])
    json.dump(bom, sys.stdout, ensure_ascii=False, indent=1)
    sys.stdout.write("\n")


def network(model: dict[str, Any]) -> Component:
    """One network; its licence is that of the weights, that of the code which trained it stands beside."""
    about = {name: model[name] for name in ("file", "bytes", "licence_code", "trained_on", "origin")}
    about |= {"packages": ", ".join(model["packages"]), "provides": ", ".join(model["provides"])}
    return {
        "type": "machine-learning-model",
        "bom-ref": f"network:{model['model']}",
        "name": model["model"],
        "version": model["sha256"][:12],
        "hashes": [{"alg": "SHA-256", "content": model["sha256"]}],
        "licenses": [licence(model["licence_weights"])],
        "properties": [{"name": f"dulian:{name}", "value": str(value)} for name, value in about.items()],
    }


def licence(said: str) -> dict[str, Any]:
    return {"license": {"name": said} if WORDS in said else {"id": said}}


def debian_packages(folder: Path) -> Iterator[Component]:
    for file in sorted(folder.iterdir()):
        fields = HeaderParser().parsestr(file.read_text("utf-8"))
        name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
        purl = f"pkg:deb/debian/{name}@{quote(version, safe='')}?arch={architecture}"
        yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def depend(bom: dict[str, Any], whole: str, parts: list[str]) -> None:
    """Say that the whole needs the parts."""
    needs = next((one for one in bom["dependencies"] if one["ref"] == whole), None)
    if needs is None:
        bom["dependencies"].append(needs := {"ref": whole})
    needs["dependsOn"] = sorted({*needs.get("dependsOn", ()), *parts})
    bom["dependencies"] += [{"ref": part} for part in parts]


if __name__ == "__main__":
    main(*sys.argv[1:])
