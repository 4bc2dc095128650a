"""Labelled pictures as they lie in a folder: what is read, what is left out, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dulian.errors import DulianError, InputNotFoundError, MalformedInputError
from dulian.evaluate.dataset import CROP_BORDER, Person, Picture, read_dataset
from dulian.faces import BoundingBox

HEAD = "file,x,y,w,h,age,gender,source\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def one(folder: Path, *lines: str) -> Picture:
    (folder / "manifest.csv").write_text(HEAD + "\n".join(lines) + "\n")
    (picture,) = read_dataset(folder)
    return picture


def person(folder: Path, line: str) -> Person:
    (somebody,) = one(folder, line).people
    return somebody


# ── the manifest ─────────────────────────────────────────────────────────────────────────────────


def test_the_manifest_alone_suffices(folder: Path) -> None:
    picture = one(folder, "a.jpg,10,20,30,40.5,33,female,mine")
    assert picture == Picture(
        file="a.jpg",
        kind="photo",
        source="mine",
        people=(Person(BoundingBox(10, 20, 40, 60.5), 33, 33, "female"),),
        complete=False,
    )
    assert picture.border == 0
    assert picture.people[0].age == 33


def test_rows_of_a_file_belong_together_and_files_keep_their_order(folder: Path) -> None:
    lines = ["b.jpg,0,0,9,9,,male,m", "a.jpg,,,,,7,,m", "b.jpg,5,5,9,9,,female,m"]
    (folder / "manifest.csv").write_text(HEAD + "\n".join(lines))
    pictures = read_dataset(folder)
    assert [picture.file for picture in pictures] == ["b.jpg", "a.jpg"]
    assert [somebody.gender for somebody in pictures[0].people] == ["male", "female"]


def test_a_range_of_ages_is_no_exact_age(folder: Path) -> None:
    somebody = person(folder, "a.jpg,,,,,20-29,,m")
    assert (somebody.youngest, somebody.oldest, somebody.age) == (20, 29, None)
    assert person(folder, "a.jpg,,,,,0,,m").age == 0
    assert person(folder, "a.jpg,,,,,5-5,,m").age == 5


def test_blanks_are_unknown_and_a_row_of_blanks_is_nobody(folder: Path) -> None:
    somebody = person(folder, "a.jpg,,,,,,male,m")
    assert (somebody.box, somebody.youngest, somebody.oldest, somebody.age) == (None, None, None, None)
    assert person(folder, "a.jpg,1,2,3,4,,,m") == Person(BoundingBox(1, 2, 4, 6), None, None, None)
    assert one(folder, "a.jpg,,,,,,,m").people == ()


def test_a_short_row_and_an_extra_column_do_no_harm(folder: Path) -> None:
    (folder / "manifest.csv").write_text(HEAD.strip() + ",remark\na.jpg,,,,,30\nb.jpg,,,,,40,male,m,hello,more\n")
    short, long = read_dataset(folder)
    assert (short.people[0].age, short.source) == (30, "unnamed")
    assert (long.people[0].age, long.source) == (40, "m")


def test_a_byte_order_mark_as_excel_writes_it(folder: Path) -> None:
    (folder / "manifest.csv").write_bytes(
        b"\xef\xbb\xbf" + (HEAD + "图.jpg,,,,,30,,m\n").replace("\n", "\r\n").encode()
    )
    assert read_dataset(folder)[0].file == "图.jpg"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("fairface_train/x", "fairface"),
        ("wider/29--Students", "wider"),
        ("utkface", "utkface"),
        ("", "unnamed"),
        ("_x", "unnamed"),
    ],
)
def test_sources_are_shortened(folder: Path, written: str, read: str) -> None:
    assert one(folder, f"a.jpg,,,,,30,,{written}").source == read


# ── the other tables ─────────────────────────────────────────────────────────────────────────────


def test_what_is_known_of_pictures(folder: Path) -> None:
    (folder / "images.csv").write_text(
        "file,kind,boxes_complete,tags,notes\n"
        "a.jpg,face_crop,0,crop;race=3,\n"
        "b.jpg,detect_photo,1,,\n"
        "c.jpg,face_context,,,cut out; landmark box 10 20 110 140\n"
    )
    (folder / "manifest.csv").write_text(HEAD + "".join(f"{name}.jpg,,,,,30,,m\n" for name in "abcd"))
    a, b, c, d = read_dataset(folder)
    assert (a.kind, a.border, a.tags, a.group, a.complete) == ("face_crop", CROP_BORDER, ("crop", "race=3"), "3", False)
    assert (b.kind, b.border, b.tags, b.group, b.complete) == ("detect_photo", 0, (), None, True)
    assert c.centre == BoundingBox(10, 20, 110, 140)
    assert (a.centre, d.centre, d.kind) == (None, None, "photo")


def test_videos_and_bad_inputs_are_skipped(folder: Path) -> None:
    kinds = {"a": "video", "b": "bad_input", "c": "negative", "d": "hard_photo"}
    (folder / "images.csv").write_text("file,kind\n" + "".join(f"{name},{kind}\n" for name, kind in kinds.items()))
    (folder / "manifest.csv").write_text(HEAD + "".join(f"{name},,,,,,,m\n" for name in kinds))
    assert [picture.kind for picture in read_dataset(folder)] == ["negative", "hard_photo"]


def test_invalid_boxes_are_nobodys_fault(folder: Path) -> None:
    (folder / "wider_attrs.csv").write_text(
        "file,x,y,w,h,invalid\na.jpg,1,2,3,4,1\na.jpg,5,6,7,8,0\nb.jpg,1,1,1,1,1\na.jpg,9,9,0,0,1\n"
    )
    assert one(folder, "a.jpg,0,0,5,5,,,m").ignored == (BoundingBox(1, 2, 4, 6), BoundingBox(9, 9, 9, 9))


# ── mistakes ─────────────────────────────────────────────────────────────────────────────────────


def refused(folder: Path, kind: type[DulianError]) -> str:
    with pytest.raises(kind) as caught:
        read_dataset(folder)
    return str(caught.value)


def test_no_manifest(folder: Path) -> None:
    assert "manifest.csv: No such file" in refused(folder, InputNotFoundError)
    assert "gone" in refused(folder / "gone", InputNotFoundError)
    (folder / "manifest.csv").mkdir()
    assert "manifest.csv: Is a directory" in refused(folder, InputNotFoundError)


@pytest.mark.parametrize("column", HEAD.strip().split(","))
def test_a_missing_column_is_named(folder: Path, column: str) -> None:
    names = [name for name in HEAD.strip().split(",") if name != column]
    (folder / "manifest.csv").write_text(",".join(names) + "\n")
    message = refused(folder, MalformedInputError)
    assert "manifest.csv" in message
    assert repr(column) in message


@pytest.mark.parametrize(("table", "column"), [("images.csv", "kind"), ("wider_attrs.csv", "x")])
def test_a_missing_column_of_another_table_is_named(folder: Path, table: str, column: str) -> None:
    (folder / "manifest.csv").write_text(HEAD)
    (folder / table).write_text("file\n")
    message = refused(folder, MalformedInputError)
    assert table in message
    assert repr(column) in message


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00x", b'file,"' + b"x" * 200_000])
def test_what_is_no_table(folder: Path, content: bytes) -> None:
    (folder / "manifest.csv").write_bytes(content)
    assert "manifest.csv" in refused(folder, MalformedInputError)


@pytest.mark.parametrize("age", ["old", "20-", "-5", "29-20", "1-2-3", "20–29", "3.5"])
def test_an_age_that_is_none(folder: Path, age: str) -> None:
    (folder / "manifest.csv").write_text(HEAD + f"a.jpg,,,,,{age},,m\n")
    message = refused(folder, MalformedInputError)
    assert message.startswith("a.jpg")
    assert repr(age) in message


@pytest.mark.parametrize("corners", ["1,2,3,", "a,2,3,4", "1,,3,4", "nan,2,3,4", "1,2,inf,4"])
def test_a_box_that_is_none(folder: Path, corners: str) -> None:
    (folder / "manifest.csv").write_text(HEAD + f"a.jpg,{corners},,,m\n")
    assert refused(folder, MalformedInputError) == "a.jpg: a box that is no four numbers"


@pytest.mark.parametrize("gender", ["Female", "f", "0", "unknown"])
def test_a_gender_in_other_words_is_not_quietly_lost(folder: Path, gender: str) -> None:
    (folder / "manifest.csv").write_text(HEAD + f"a.jpg,,,,,30,{gender},m\n")
    message = refused(folder, MalformedInputError)
    assert message.startswith("a.jpg")
    assert repr(gender) in message
