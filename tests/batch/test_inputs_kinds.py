"""The same album in every form: the same pictures, in an order that stays, byte for byte."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from dulian.batch.inputs import list_inputs, open_reader
from dulian.batch.records import Input
from dulian.errors import InputNotFoundError, InputTooLargeError
from tests.batch.input_kinds import ALBUM, BESIDE, KINDS, MAX_BYTES, Kind, listed, problems, put, read_all, write_folder


@pytest.fixture(autouse=True)
def empty_memory() -> Iterator[None]:
    fsspec.filesystem("memory").store.clear()
    yield
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    assert isinstance(request.param, Kind)
    return request.param


def test_every_picture_is_listed_once_and_read_whole(kind: Kind, tmp_path: Path) -> None:
    lister = list_inputs(kind.sources(tmp_path))
    inputs = list(lister)
    assert problems(inputs) == {}
    assert Counter(read_all(inputs)) == Counter(ALBUM.values())
    for one in inputs:
        assert any(one.source.endswith(name) for name in ALBUM), one.source
    assert lister.left_alone == kind.left_alone


def test_two_listings_agree_and_lines_of_manifests_read_back(kind: Kind, tmp_path: Path) -> None:
    sources = kind.sources(tmp_path)
    first = listed(*sources)
    assert first == listed(*sources)
    assert [Input.from_line(one.to_line()) for one in first] == first
    assert len({one.source for one in first}) == len(ALBUM)


def test_what_is_listed_says_sizes_and_versions(kind: Kind, tmp_path: Path) -> None:
    by_members = {"zip-members", "tar-members", "tar-gz-members", "memory-list"}
    for one in listed(*kind.sources(tmp_path)):
        size = next(len(data) for name, data in ALBUM.items() if one.source.endswith(name))
        assert (one.size, one.version is None) == ((None, True) if kind.name in by_members else (size, False))


def test_relative_names_stay_relative(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = kind.sources(tmp_path)
    monkeypatch.chdir(tmp_path)
    relative = [source.removeprefix(f"{tmp_path}/") for source in sources]
    inputs = listed(*relative)
    assert Counter(read_all(inputs, base=str(tmp_path))) == Counter(ALBUM.values())
    if relative != sources and not kind.name.endswith("members") and "list" not in relative[0]:
        assert all(one.source.startswith("album") and one.path is None for one in inputs)


def test_sources_and_names_in_lists_are_opened_with_another_base(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, base = tmp_path / "here", tmp_path / "base"
    here.mkdir()
    base.mkdir()
    sources = kind.sources(here)
    monkeypatch.chdir(here)
    inputs = listed(*(source.removeprefix(f"{here}/") for source in sources), base=str(base))
    assert Counter(read_all(inputs, base=str(base))) == Counter(ALBUM.values())


def test_more_than_the_limit_is_refused(kind: Kind, tmp_path: Path) -> None:
    reader = open_reader(base=".", max_bytes=1)
    outcomes = []
    for one in listed(*kind.sources(tmp_path)):
        try:
            outcomes.append(reader.read(one))
        except InputTooLargeError as error:
            outcomes.append(str(error))
    reader.close()
    assert Counter(outcomes) == Counter([b"x", b"", *["more than 1 bytes are not accepted"] * 3])


def test_many_threads_read_what_one_does(kind: Kind, tmp_path: Path) -> None:
    inputs = listed(*kind.sources(tmp_path)) * 20
    random.Random(5).shuffle(inputs)
    expected = read_all(inputs)
    reader = open_reader(base=".", max_bytes=MAX_BYTES)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(reader.read, inputs)) == expected
    reader.close()


def test_what_is_gone_is_not_found(kind: Kind, tmp_path: Path) -> None:
    inputs = listed(*kind.sources(tmp_path))
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    fsspec.filesystem("memory").store.clear()
    reader = open_reader(base=".", max_bytes=MAX_BYTES)
    for one in inputs:
        # What is listed as empty need not be asked for.
        if not (one.source.startswith("memory://") and "::" not in one.source and one.size == 0):
            with pytest.raises(InputNotFoundError, match="cannot read"):
                reader.read(one)
    reader.close()


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("s*", ["sub/b.PNG", "sub/deep/c c.webp", "sub/deep/读脸 😀.jpeg"]),
        ("*/deep", ["sub/deep/c c.webp", "sub/deep/读脸 😀.jpeg"]),
        ("*", [*ALBUM]),
        ("*.jpg", ["a.jpg"]),
        ("**/*.PNG", ["sub/b.PNG"]),
        ("?.[jt]*", ["a.jpg", "z.tif"]),
        ("su[!a]/*", ["sub/b.PNG", "sub/deep/c c.webp", "sub/deep/读脸 😀.jpeg"]),
        ("*/inner.zip/*", []),
    ],
)
def test_patterns_mean_the_same_in_folders_and_stores(pattern: str, found: list[str], tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    put({f"bucket/album/{name}": data for name, data in {**ALBUM, **BESIDE}.items()})
    for root in (str(folder), "memory://bucket/album"):
        names = [one.source.removeprefix(f"{root}/") for one in listed(f"{root}/{pattern}")]
        assert sorted(names) == sorted(found), root


def test_nothing_is_opened_before_it_is_iterated(tmp_path: Path) -> None:
    lister = list_inputs([str(tmp_path / "later"), "s3://bucket/later"])
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "a.jpg").write_bytes(b"x")
    assert next(iter(lister)).source == str(tmp_path / "later" / "a.jpg")
