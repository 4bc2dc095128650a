"""Lists of names: what each kind of them means, what is wrong in them, and how little of them is in memory."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from dulian.batch.inputs.lists import Entry, read_list
from dulian.batch.records import Input
from dulian.errors import MalformedInputError
from tests.batch.input_kinds import listed, parquet_bytes, problems, read_all, table_bytes


def entries(name: str, data: bytes, column: str | None = None) -> list[Entry]:
    return list(read_list(name, io.BytesIO(data), column))


def names(name: str, data: bytes, column: str | None = None) -> list[str]:
    found = entries(name, data, column)
    assert [one.problem for one in found] == [None] * len(found)
    return [one.name for one in found]


def test_lines() -> None:
    data = "\ufeff# comment\r\na.jpg\r\n\n   \n b c.jpg \nd#.jpg\n读.jpg".encode()
    assert names("list.txt", data) == ["a.jpg", " b c.jpg ", "d#.jpg", "读.jpg"]
    assert names("list.lst", b"\xff.jpg\n") == ["\udcff.jpg"]


def test_names_that_end_with_nul_hold_anything_else() -> None:
    assert names("list.txt", b"a\nb.jpg\0#c.jpg\0\0d\r\0") == ["a\nb.jpg", "#c.jpg", "d\r"]


def test_lines_longer_than_any_name_are_passed_over() -> None:
    data = b"a.jpg\n" + b"x" * 3_000_000 + b"\nb.jpg\n" + b"y" * 2_000_000
    found = entries("list.txt", data)
    assert [one.problem is None for one in found] == [True, False, True, False]
    assert [found[0].name, found[1].name, found[2].name] == ["a.jpg", "list.txt, line 2", "b.jpg"]


@pytest.mark.parametrize("size", [64 * 2**10 - 1, 64 * 2**10, 64 * 2**10 + 1])
def test_blocks_end_anywhere(size: int) -> None:
    wanted = [f"{number:07}.jpg" for number in range(size // 12 + 1)]
    assert names("list.txt", "\n".join(wanted).encode()[:size]) == "\n".join(wanted)[:size].split("\n")


def test_tables() -> None:
    assert names("list.csv", table_bytes(["a.jpg", 'q"uote,.jpg', "new\nline.jpg"], ",")) == [
        "a.jpg",
        'q"uote,.jpg',
        "new\nline.jpg",
    ]
    assert names("list.tsv", b"File\tother\na.jpg\t1\n") == ["a.jpg"]
    assert names("list.csv", "\ufeffurl,source\nx,a.jpg\n".encode()) == ["a.jpg"]
    assert names("list.csv", b"url,picture\nx,a.jpg\n", "picture") == ["a.jpg"]
    assert names("list.csv", b"source\n\xff.jpg\n") == ["\udcff.jpg"]


@pytest.mark.parametrize("column", [None, "nothing"])
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("list.csv", b"id,bild\n1,a.jpg\n"),
        ("list.tsv", b"id\tbild\n"),
        ("list.jsonl", b'{"id": 1, "bild": "a.jpg"}\n'),
        ("list.parquet", parquet_bytes(["a.jpg"], "bild")),
    ],
)
def test_a_table_without_the_column_says_which_ones_it_has(name: str, data: bytes, column: str | None) -> None:
    if name == "list.jsonl" and column:
        assert "nothing" in str(entries(name, data, column)[0].problem)
        return
    with pytest.raises(MalformedInputError, match=r"has no column .*it has: id, bild"):
        entries(name, data, column)


def test_bad_entries_are_named_by_their_place() -> None:
    found = entries("list.csv", b"id,file\n1,a.jpg\n2\n3,\n4,b.jpg\n")
    assert [(one.name, one.problem) for one in found] == [
        ("a.jpg", None),
        ("list.csv, line 3", "nothing in 'file'"),
        ("list.csv, line 4", "nothing in 'file'"),
        ("b.jpg", None),
    ]
    lines = ['{"file": "a.jpg"}', "{", "[1]", '{"file": 5}', '{"other": "x"}', "", "[" * 100_000, '{"file": "b.jpg"}']
    found = entries("list.jsonl", "\n".join(lines).encode())
    assert [one.name for one in found if one.problem is None] == ["a.jpg", "b.jpg"]
    bad = [one.name for one in found if one.problem is not None]
    assert bad == [f"list.jsonl, line {number}" for number in (2, 3, 4, 5, 7)]
    found = entries("list.parquet", parquet_bytes(["a.jpg", None, "b.jpg"]))
    assert [(one.name, one.problem) for one in found][1] == ("list.parquet, row 2", "nothing in 'image'")


def test_a_quote_that_is_never_closed_does_not_swallow_everything() -> None:
    data = b'file\n"a.jpg\n' + b"b.jpg\n" * 100_000
    found = entries("list.csv", data)
    assert any(one.problem and "field larger than field limit" in one.problem for one in found)
    assert ("b.jpg", None) in [(one.name, one.problem) for one in found]


def test_a_line_of_a_table_that_is_too_long_is_one_error_and_the_next_ones_count() -> None:
    data = b"file,note\na.jpg,1\n" + b"x.jpg,2," * 400_000 + b"\nb.jpg,3\n"
    found = entries("list.csv", data)
    assert [one.name for one in found if one.problem is None] == ["a.jpg", "b.jpg"]
    assert [one.problem for one in found if one.problem] == ["a line of more than 1 MiB"]


def test_what_is_no_list_takes_no_memory() -> None:
    class Endless(io.RawIOBase):
        left = 60_000_000

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray, /) -> int:  # type: ignore[override]
            size = min(len(buffer), self.left)
            buffer[:size] = b"z" * size
            self.left -= size
            return size

    for name in ("list.txt", "list.csv", "list.jsonl"):
        tracemalloc.start()
        try:
            found = list(read_list(name, io.BufferedReader(Endless()), "file"))
        except MalformedInputError:
            found = []
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert all(one.problem for one in found)
        assert peak < 20_000_000, name


def test_entries_become_inputs_whatever_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(b"abc")
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.chdir(tmp_path)
    lines = [
        *("a.jpg", "link.jpg", "folder", "pipe.jpg", "gone.jpg", "b.zip::c.jpg", "s3://bucket/key.jpg"),
        *("http://host/a.jpg", "s3://user:password@bucket/key", "./a.jpg"),
    ]
    Path("list.txt").write_text("\n".join(lines))
    inputs = listed("list.txt")
    assert [one.source for one in inputs] == lines
    good = [one.source for one in inputs if one.problem is None]
    assert good == ["a.jpg", "b.zip::c.jpg", "s3://bucket/key.jpg", "./a.jpg"]
    codes = [one.problem[0] for one in inputs if one.problem]
    assert codes == ["input_not_found"] * 4 + ["malformed_input"] * 2
    assert (inputs[0].size, inputs[5].size, inputs[6].size) == (3, None, None)
    assert "s3://" in problems(inputs)["http://host/a.jpg"]


def test_a_file_that_is_called_like_a_member_is_found_with_another_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / "a.zip::b.jpg").write_bytes(b"abc")
    monkeypatch.chdir(tmp_path)
    inputs = listed("album", base="/")
    assert [one.source for one in inputs] == ["album/a.zip::b.jpg"]
    assert read_all(inputs, base="/") == [b"abc"]


def test_names_in_lists_are_below_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"abc")
    (tmp_path / "list.txt").write_text("a.jpg\n")
    monkeypatch.chdir(tmp_path)
    (one,) = listed("list.txt", base="photos")
    assert (one.source, one.path, one.size) == ("a.jpg", None, 3)


def test_standard_input_is_a_list(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"abc")
    script = (
        "import sys; from dulian.batch.inputs import list_inputs\n"
        "sys.stdout.buffer.writelines(one.to_line() for one in list_inputs(['-']))"
    )
    for data in (b"a.jpg\n", b"a.jpg\0"):
        run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, input=data, capture_output=True, check=True)
        assert Input.from_line(run.stdout).size == 3


def test_a_list_that_is_gone_or_damaged_is_an_input_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "cut.parquet").write_bytes(parquet_bytes(["a.jpg"])[:-9])
    found = listed(str(tmp_path / "cut.parquet"), str(tmp_path / "gone.csv"))
    assert [one.source for one in found if one.problem] == [f"{tmp_path}/cut.parquet", f"{tmp_path}/gone.csv"]


def test_the_patterns_of_lists_and_archives_open_them(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"abc")
    (tmp_path / "1.jsonl").write_text(json.dumps({"image": f"{tmp_path}/a.jpg"}))
    (tmp_path / "x.dat").write_bytes(b"")
    assert [one.size for one in listed(f"{tmp_path}/*.jsonl")] == [3]
    assert [one.source for one in listed(f"{tmp_path}/*.dat")] == [f"{tmp_path}/x.dat"]
    assert [one.source for one in listed(f"{tmp_path}/*")] == [f"{tmp_path}/a.jpg"]


@pytest.mark.parametrize("source", ["", "http://host/a.jpg", "ftp://host/x", "s3://", "s3://key:secret@bucket/x"])
def test_sources_that_make_no_sense_are_refused_at_once(source: str) -> None:
    with pytest.raises(MalformedInputError) as failure:
        listed(source)
    assert "secret" not in str(failure.value)


def test_a_pattern_that_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(MalformedInputError, match="stands alone"):
        listed(f"{tmp_path}/a**b/*.jpg")
