from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dulian.errors import InputNotFoundError, InputTooLargeError, MalformedInputError
from dulian.sources import find_sources, printable, read_file, read_source


def names(folder: Path, *arguments: str) -> list[str]:
    return [str(source.relative) for source in find_sources([str(folder / argument) for argument in arguments])]


@pytest.fixture
def album(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "sub/c.webp", "sub/deep/d.tiff"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_a_folder_is_walked_in_order_and_other_files_are_left_alone(album: Path) -> None:
    assert names(album, "") == ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.tiff"]


def test_a_named_file_is_taken_whatever_its_name(album: Path) -> None:
    assert names(album, "notes.txt") == ["notes.txt"]


def test_globs_and_repeated_names(album: Path) -> None:
    assert names(album, "*.jpg", "b.jpg", "**/*.webp") == ["b.jpg", "c.webp"]


def test_a_missing_file_is_kept_and_fails_when_read(album: Path) -> None:
    (source,) = find_sources([str(album / "gone.jpg")])
    with pytest.raises(InputNotFoundError, match=r"gone\.jpg"):
        read_source(source, max_bytes=10)


def test_a_name_with_glob_characters_is_a_name_first(tmp_path: Path) -> None:
    (tmp_path / "me[1].jpg").write_bytes(b"x")
    assert names(tmp_path, "me[1].jpg") == ["me[1].jpg"]


def test_links_to_folders_are_not_followed(album: Path) -> None:
    (album / "loop").symlink_to(album)
    assert "loop/b.jpg" not in names(album, "")


def test_files_over_the_limit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"12345")
    assert read_file(tmp_path / "big", max_bytes=5) == b"12345"
    with pytest.raises(InputTooLargeError):
        read_file(tmp_path / "big", max_bytes=4)


def test_pipes_devices_and_folders_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(InputNotFoundError):
            read_file(path, max_bytes=10)


def test_names_with_nul_are_refused() -> None:
    with pytest.raises(InputNotFoundError):
        read_file(Path("a\0b"), max_bytes=10)


def test_files_that_fail_while_being_read_are_refused() -> None:
    with pytest.raises(InputNotFoundError, match="cannot read"):
        read_file(Path("/proc/self/mem"), max_bytes=10)


def test_closed_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputNotFoundError, match="closed"):
        read_source(find_sources(["-"])[0], max_bytes=10)


def test_an_empty_name_is_no_folder() -> None:
    with pytest.raises(MalformedInputError, match="empty name"):
        find_sources([""])


def test_two_names_of_one_file_are_one_picture(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(album)
    assert len(find_sources(["b.jpg", str(album / "b.jpg"), "./b.jpg"])) == 1


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"picture")))
    (source,) = find_sources(["-"])
    assert read_source(source, max_bytes=10) == b"picture"


@given(st.binary(min_size=1, max_size=40))
def test_any_file_name_becomes_printable_text(raw: bytes) -> None:
    text = printable(os.fsdecode(raw))
    text.encode("utf-8")
    assert text.isprintable()


@given(st.text(max_size=20))
def test_any_text_becomes_printable(text: str) -> None:
    assert printable(text + "\ud800").isprintable()


def test_ordinary_names_stay_as_they_are() -> None:
    assert printable("фото é 写真 (1).jpg") == "фото é 写真 (1).jpg"
