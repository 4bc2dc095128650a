"""What listing many pictures costs, by python tools/measure_batch_listing.py [NAMES [KIND …]].

Every kind is listed in a process of its own, which then says how long it took and how much memory it has had at most.
The folder, the archives and the lists are made in a temporary folder; what S3 answers is made up page by page, at the
place where s3fs would ask for it.
"""

from __future__ import annotations

import io
import json
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = 1_000_000
ENDINGS = {
    "folder": "album",
    "folders": "albums",
    "zip": "album.zip",
    "tar": "album.tar",
    "tar.gz": "album.tar.gz",
    "lines": "list.txt",
    "csv": "list.csv",
    "jsonl": "list.jsonl",
    "parquet": "list.parquet",
    "s3": "s3://bucket/album",
}


def main() -> None:
    names = int(sys.argv[1]) if sys.argv[1:] else NAMES
    print(f"{'kind':<10}{'names':>12}{'seconds':>10}{'peak MiB':>10}")
    for kind in sys.argv[2:] or ENDINGS:
        folder = tempfile.mkdtemp()
        # The kernel counts what a process was before it became another program, so that this one stays small.
        run("--make", kind, folder, str(names))
        source = ENDINGS[kind] if kind == "s3" else str(Path(folder, ENDINGS[kind]))
        found, seconds, peak = json.loads(run("--list", source, str(names)))
        run("--remove", folder)
        print(f"{kind:<10}{found:>12,}{seconds:>10.1f}{peak:>10.0f}", flush=True)


def run(*arguments: str) -> bytes:
    return subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True).stdout


def name_of(number: int) -> str:
    return f"IMG_2026-11-29_{number:08}.jpg"


def make_folder(path: Path, names: int) -> None:
    path.mkdir()
    for number in range(names):
        (path / name_of(number)).touch()


def make_folders(path: Path, names: int) -> None:
    for number in range(names):
        below = path / f"{number // 1000:04}"
        below.mkdir(parents=True, exist_ok=True)
        (below / name_of(number)).touch()


def make_zip(path: Path, names: int) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(names):
            archive.writestr(name_of(number), b"")


def make_tar(path: Path, names: int) -> None:
    mode = "w:gz" if path.suffix == ".gz" else "w:"
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for number in range(names):
            archive.addfile(tarfile.TarInfo(name_of(number)), io.BytesIO())
            archive.members.clear()


def make_list(path: Path, names: int) -> None:
    """Names of files that are not there: to look for them is part of listing."""
    forms: dict[str, Callable[[str], str]] = {
        ".txt": str,
        ".csv": lambda name: f"1,{name}",
        ".jsonl": lambda name: json.dumps({"file": name}),
    }
    with open(path, "w") as file:
        if path.suffix == ".csv":
            file.write("id,file\n")
        file.writelines(f"{forms[path.suffix](f'/nowhere/{name_of(number)}')}\n" for number in range(names))


def make_parquet(path: Path, names: int) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"file": [f"/nowhere/{name_of(number)}" for number in range(names)]})
    pyarrow.parquet.write_table(table, path, row_group_size=names)


def make_nothing(path: Path, names: int) -> None:
    pass


MAKERS: dict[str, Callable[[Path, int], None]] = {
    "s3": make_nothing,
    "folder": make_folder,
    "folders": make_folders,
    "zip": make_zip,
    "tar": make_tar,
    "tar.gz": make_tar,
    "lines": make_list,
    "csv": make_list,
    "jsonl": make_list,
    "parquet": make_parquet,
}


def answer_for_s3(names: int) -> None:
    """Have s3fs list a bucket of so many keys without asking anybody."""
    import datetime

    import s3fs

    changed = datetime.datetime(2026, 11, 29, tzinfo=datetime.UTC)

    async def answer(self: Any, method: str, *akwarglist: Any, **asked: Any) -> dict[str, Any]:
        if method != "list_objects_v2":
            raise FileNotFoundError
        first = int(asked.get("ContinuationToken", 0))
        last = min(names, first + asked.get("MaxKeys", 1000))
        keys = [
            {"Key": f"album/{name_of(number)}", "Size": 1, "ETag": f'"{number:032x}"', "LastModified": changed}
            for number in range(first, last)
        ]
        return {"Contents": keys, "IsTruncated": last < names, "NextContinuationToken": str(last)}

    async def nothing(self: Any, path: str, **options: Any) -> dict[str, Any]:
        return {"name": path, "type": "directory", "size": 0}

    s3fs.S3FileSystem._call_s3 = answer
    s3fs.S3FileSystem.call_s3 = s3fs.core.sync_wrapper(answer)
    s3fs.S3FileSystem._info = nothing


def list_one(source: str, names: int) -> None:
    """List a source here, and write how many inputs there were, seconds, and the most memory ever used in MiB."""
    from dulian.batch.inputs import list_inputs

    if source.startswith("s3://"):
        answer_for_s3(names)
    began = time.perf_counter()
    found = sum(1 for _ in list_inputs([source]))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([found, seconds, peak]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--list"]:
        list_one(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1:2] == ["--make"]:
        MAKERS[sys.argv[2]](Path(sys.argv[3], ENDINGS[sys.argv[2]]), int(sys.argv[4]))
    elif sys.argv[1:2] == ["--remove"]:
        shutil.rmtree(sys.argv[2])
    else:
        main()
