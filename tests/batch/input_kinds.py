"""One album in every form that inputs are read from."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dulian.batch.inputs import list_inputs, open_reader
from dulian.batch.records import Input

ALBUM = {
    "a.jpg": b"\xff\xd8 one" * 1000,
    "sub/b.PNG": bytes(range(256)) * 300,
    "sub/deep/c c.webp": b"",
    "sub/deep/读脸 😀.jpeg": b"\0" * 70_000,
    "z.tif": b"x",
}
BESIDE = {"notes.txt": b"no picture", "sub/inner.zip": b"PK", "sub/.hidden.jpg": b"hidden", ".dot/d.jpg": b"hidden"}
LEFT_ALONE = 2
MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Kind:
    """``sources`` makes the album below a folder, and tells what to list; ``base`` is where its names begin."""

    name: str
    sources: Callable[[Path], list[str]]
    left_alone: int = 0


def write_folder(folder: Path) -> Path:
    for name, data in {**ALBUM, **BESIDE}.items():
        path = folder / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / "album"


def zip_bytes(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def tar_bytes(files: dict[str, bytes], compression: str = "") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{compression}") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def table_bytes(names: list[str], delimiter: str) -> bytes:
    stream = io.StringIO()
    rows = csv.writer(stream, delimiter=delimiter)
    rows.writerow(["id", "image", "note"])
    rows.writerows([number, name, "x, y"] for number, name in enumerate(names))
    return stream.getvalue().encode()


def parquet_bytes(names: list[str | None], column: str = "image") -> bytes:
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    table = pyarrow.table({"id": list(range(len(names))), column: names})
    pyarrow.parquet.write_table(table, stream, row_group_size=2)
    return stream.getvalue()


def read_all(inputs: Iterator[Input] | list[Input], base: str = ".", max_bytes: int = MAX_BYTES) -> list[bytes]:
    reader = open_reader(base=base, max_bytes=max_bytes)
    try:
        return [reader.read(one) for one in inputs]
    finally:
        reader.close()


def listed(*sources: str, column: str | None = None, base: str | None = None) -> list[Input]:
    return list(list_inputs(sources, column=column, base=base))


def problems(inputs: list[Input]) -> dict[str, str]:
    return {one.source: one.problem[1] for one in inputs if one.problem is not None}


def put(files: dict[str, bytes]) -> None:
    """Objects for ``memory://``, which is emptied by the fixture that asks for this."""
    import fsspec

    memory = fsspec.filesystem("memory")
    for name, data in files.items():
        memory.pipe_file(f"/{name}", data)


def _file(name: str, data: Callable[[], bytes]) -> Callable[[Path], list[str]]:
    def sources(folder: Path) -> list[str]:
        (folder / name).write_bytes(data())
        return [str(folder / name)]

    return sources


def _list(name: str, data: Callable[[list[str]], bytes]) -> Callable[[Path], list[str]]:
    def sources(folder: Path) -> list[str]:
        album = write_folder(folder)
        (folder / name).write_bytes(data([str(album / one) for one in ALBUM]))
        return [str(folder / name)]

    return sources


def _stored(sources: list[str], files: Callable[[], dict[str, bytes]]) -> Callable[[Path], list[str]]:
    def made(folder: Path) -> list[str]:
        put(files())
        return sources

    return made


def _members(folder: Path, archive: str, data: bytes) -> list[str]:
    (folder / archive).write_bytes(data)
    (folder / "members.txt").write_text("".join(f"{folder / archive}::{name}\n" for name in reversed(ALBUM)))
    return [str(folder / "members.txt")]


_ALL = {**ALBUM, **BESIDE}

KINDS = [
    Kind("folder", lambda folder: [str(write_folder(folder))], LEFT_ALONE),
    Kind("glob", lambda folder: [f"{write_folder(folder)}/**"], LEFT_ALONE),
    Kind("file-address", lambda folder: [f"file://{write_folder(folder)}"], LEFT_ALONE),
    Kind("files", lambda folder: [str(write_folder(folder) / name) for name in ALBUM]),
    Kind("zip", _file("album.zip", lambda: zip_bytes(_ALL)), LEFT_ALONE),
    Kind("zip-stored", _file("album.CBZ", lambda: zip_bytes(_ALL, zipfile.ZIP_STORED)), LEFT_ALONE),
    Kind("zip-prefixed", _file("album.zip", lambda: b"#!/bin/sh\n" + zip_bytes(_ALL)), LEFT_ALONE),
    Kind("tar", _file("album.tar", lambda: tar_bytes(_ALL)), LEFT_ALONE),
    Kind("tar-gz", _file("album.tar.gz", lambda: tar_bytes(_ALL, "gz")), LEFT_ALONE),
    Kind("tar-bz2", _file("album.tar.bz2", lambda: tar_bytes(_ALL, "bz2")), LEFT_ALONE),
    Kind("tar-xz", _file("album.txz", lambda: tar_bytes(_ALL, "xz")), LEFT_ALONE),
    Kind("lines", _list("list.txt", lambda names: "\r\n".join(["# an album", "", *names]).encode())),
    Kind("nul", _list("list.lst", lambda names: b"".join(name.encode() + b"\0" for name in names))),
    Kind("csv", _list("list.csv", lambda names: table_bytes(names, ","))),
    Kind("tsv", _list("list.tsv", lambda names: table_bytes(names, "\t"))),
    Kind("parquet", _list("list.parquet", lambda names: parquet_bytes([*names]))),
    Kind("jsonl", _list("list.jsonl", lambda names: b"".join(json.dumps({"file": n}).encode() + b"\n" for n in names))),
    Kind("zip-members", lambda folder: _members(folder, "album.zip", zip_bytes(_ALL))),
    Kind("tar-members", lambda folder: _members(folder, "album.tar", tar_bytes(_ALL))),
    Kind("tar-gz-members", lambda folder: _members(folder, "album.tgz", tar_bytes(_ALL, "gz"))),
    Kind("memory", _stored(["memory://bucket/album"], lambda: {f"bucket/album/{k}": v for k, v in _ALL.items()}), 2),
    Kind(
        "memory-glob", _stored(["memory://bucket/al*/**"], lambda: {f"bucket/album/{k}": v for k, v in _ALL.items()}), 2
    ),
    Kind("memory-zip", _stored(["memory://bucket/a.zip"], lambda: {"bucket/a.zip": zip_bytes(_ALL)}), LEFT_ALONE),
    Kind("memory-tar", _stored(["memory://bucket/a.tar"], lambda: {"bucket/a.tar": tar_bytes(_ALL)}), LEFT_ALONE),
    Kind("memory-tgz", _stored(["memory://bucket/a.tgz"], lambda: {"bucket/a.tgz": tar_bytes(_ALL, "gz")}), LEFT_ALONE),
    Kind(
        "memory-list",
        _stored(
            ["memory://bucket/list.csv"],
            lambda: {
                "bucket/list.csv": table_bytes([f"memory://bucket/{name}" for name in ALBUM], ","),
                **{f"bucket/{name}": data for name, data in ALBUM.items()},
            },
        ),
    ),
]
