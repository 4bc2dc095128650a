"""Make the Python modules of the ``.proto`` files, which are committed beside them.

``python tools/generate_protos.py`` writes them into the source. The names of the files begin at ``src``, so that the
modules import each other as any other module does.
"""

from __future__ import annotations

import importlib.resources
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src"
PROTOS = ("dulian/service/rpc/dulian.proto", "dulian/service/rpc/open_inference.proto")


def generate(output: Path) -> None:
    """Write ``*_pb2.py``, ``*_pb2.pyi`` and ``*_pb2_grpc.py`` below a folder."""
    from grpc_tools import protoc  # needs grpcio-tools, which only developers have

    well_known = str(importlib.resources.files("grpc_tools") / "_proto")
    outputs = [f"--{kind}_out={output}" for kind in ("python", "pyi", "grpc_python")]
    code = protoc.main(["protoc", f"-I{SOURCE}", f"-I{well_known}", *outputs, *PROTOS])
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE)
