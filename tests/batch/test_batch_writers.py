"""Files that come out: what every kind must do, and what each of them is."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dulian import load_analyzer, to_dataframe
from dulian.batch.analysis import ModelAnalysis
from dulian.batch.inputs import list_inputs
from dulian.batch.merge import merge
from dulian.batch.records import Input, Record, failed_record, ok_record
from dulian.batch.writers import WRITERS, Form, find_writer, open_writer
from dulian.batch.writers.columns import OF_A_FACE, OF_A_PICTURE
from dulian.batch.writers.parquet import face_schema, picture_schema
from dulian.batch.writers.pictures import MAX_STEM_BYTES, draw, picture_name
from dulian.errors import InputError, MalformedInputError, MissingDependencyError
from dulian.faces import AnalysisResult
from dulian.image import decode_image
from tests.batch.fakes import (
    MemoryDestination,
    MemoryReader,
    begin,
    commit,
    face,
    failed,
    finished_job,
    make_job,
    ok,
    same,
    some_records,
    with_reasons,
)

RECORDS = [
    ok("a.jpg", face(0, age=31.0), with_reasons(face(1, age=None, gender="undecided"), "blurred", "too_dark")),
    ok("nobody.jpg"),
    failed("broken.jpg", message="the file ends, too early"),
    same("copy.jpg", "a.jpg"),
    ok("drawn, 画.jpg", face(0, gender=None), annotated_image="pictures/000000/004_drawn.jpg"),
    ok("crowd.jpg", face(), truncated=True, skipped=7),
]


def written(suffix: str, records: list[Record] = RECORDS, **form: Any) -> bytes:
    stream = io.BytesIO()
    job = make_job([Input(source=record["source"]) for record in records])
    writer = open_writer(find_writer(suffix), stream, job=job, form=Form(**form))
    for record in records:
        writer.write(record, Input(source=record["source"]))
    writer.close()
    assert not stream.closed
    return stream.getvalue()


def rows(data: bytes) -> list[dict[str, str]]:
    return [*csv.DictReader(io.StringIO(data.decode(), newline=""))]


# ── every kind ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("per_face", [False, True])
def test_a_writer_takes_any_record(suffix: str, per_face: bool) -> None:
    assert written(suffix, some_records(300), per_face=per_face) != written(suffix, [], per_face=per_face)


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_writer_that_is_abandoned_finishes_nothing(suffix: str) -> None:
    stream = io.BytesIO()
    job = make_job([Input(source="a.jpg")])
    writer = open_writer(find_writer(suffix), stream, job=job, form=Form())
    writer.write(RECORDS[0], Input(source="a.jpg"))
    writer.abandon()
    held = stream.getvalue()
    stream.close()
    del writer  # what is collected now must not write either
    assert held == b"PAR1" or not held.endswith((b"PAR1", b"</html>\n"))


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_name_that_is_damaged_stops_nothing(suffix: str) -> None:
    assert written(suffix, [ok("\x00<b>\u202e.jpg"), failed("x" * 4096, message="\x1b[2J")])


@pytest.mark.parametrize("suffix", [".csv", ".html"])
def test_half_a_character_is_shown_where_people_read(suffix: str) -> None:
    assert "\\ud800" in written(suffix, [failed("\ud800.jpg", message="\udfff")]).decode()


def test_an_unknown_kind_lists_those_there_are() -> None:
    with pytest.raises(MalformedInputError, match=r"'\.xlsx'; choose from \.jsonl, \.csv, \.parquet"):
        find_writer(".xlsx")


def test_a_kind_whose_package_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'dulian\[parquet\]'"):
        find_writer(".parquet")
    assert find_writer(".csv").requires is None


def test_pyarrow_is_not_imported_for_other_kinds() -> None:
    import subprocess

    script = "import dulian.batch.merge, dulian.batch.writers.csv_table, dulian.batch.writers.report, sys; "
    check = "sys.exit(any(name in sys.modules for name in ('pyarrow', 'pandas', 'fsspec')))"
    assert subprocess.run([sys.executable, "-c", script + check]).returncode == 0


# ── JSON lines ───────────────────────────────────────────────────────────────────────────────────


def test_json_lines_are_the_records() -> None:
    data = written(".jsonl")
    assert [json.loads(line) for line in data.splitlines()] == RECORDS
    assert "drawn, 画.jpg" in data.decode()


# ── CSV ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_table_of_pictures_has_a_row_for_each() -> None:
    table = rows(written(".csv"))
    assert [row["source"] for row in table] == [record["source"] for record in RECORDS]
    assert [row["status"] for row in table] == ["ok", "ok", "error", "duplicate", "ok", "ok"]
    assert [row["faces"] for row in table] == ["2", "0", "", "", "1", "1"]
    assert [row["skipped"] for row in table] == ["0", "0", "", "", "0", "7"]
    first, nobody, broken, copy, drawn, _ = table
    assert json.loads(first["face_list"]) == RECORDS[0]["faces"]
    assert (first["width"], first["height"], first["total_ms"], first["bytes"]) == ("640", "480", "40.0", "12345")
    assert (nobody["hint"], nobody["face_list"]) == ("no_face", "[]")
    assert (broken["error_code"], broken["error_message"]) == ("image_truncated", "the file ends, too early")
    assert (broken["sha256"], broken["face_list"], broken["width"]) == ("0" * 64, "", "")
    assert (copy["same_as"], copy["sha256"]) == ("a.jpg", "")
    assert drawn["annotated_image"] == "pictures/000000/004_drawn.jpg"


def test_a_table_of_faces_has_a_row_for_each_and_one_for_who_has_none() -> None:
    table = rows(written(".csv", per_face=True))
    assert [*table[0]] == [*OF_A_PICTURE, *OF_A_FACE]
    assert [(row["source"], row["face"]) for row in table] == [
        *(("a.jpg", "0"), ("a.jpg", "1"), ("nobody.jpg", ""), ("broken.jpg", ""), ("copy.jpg", "")),
        *(("drawn, 画.jpg", "0"), ("crowd.jpg", "0")),
    ]
    first, second, nobody, *_ = table
    assert (first["age"], first["age_low"], first["gender"], first["x1"]) == ("31.0", "23.0", "female", "10.0")
    assert (second["age"], second["gender"], second["gender_probability"]) == ("", "", "0.52")
    assert (second["face_status"], second["reasons"]) == ("low_quality", "blurred,too_dark")
    assert {nobody[name] for name in OF_A_FACE} == {""}


def test_csv_ends_lines_and_quotes_as_the_rfc_says() -> None:
    header, *lines = written(".csv").decode().split("\r\n")
    assert header.startswith("source,status,error_code,error_message,same_as,width")
    assert lines[4].startswith('"drawn, 画.jpg",ok,')
    assert lines[-1] == ""
    assert len(lines) == len(RECORDS) + 1


@pytest.mark.parametrize("name", ["=1+1.jpg", "+a.jpg", "-a.jpg", "@a.jpg", "\ta.jpg", "\ra.jpg", "＝a.jpg", "－a.jpg"])
def test_no_cell_is_a_formula(name: str) -> None:
    plain, formula = rows(written(".csv", [ok("a.jpg"), failed(name, message=f"{name} is broken")]))
    assert formula["source"] == f"'{name}"
    # control characters in messages were made visible when the record was made
    assert formula["error_message"].startswith("\\" if name[0] in "\t\r" else "'")
    assert plain["source"] == "a.jpg"


def test_numbers_below_zero_stay_numbers() -> None:
    record = ok("a.jpg", face(bbox=[-3.5, -2.0, 40.0, 50.0]))
    (row,) = rows(written(".csv", [record], per_face=True))
    assert (row["x1"], row["y1"]) == ("-3.5", "-2.0")


# ── Parquet ──────────────────────────────────────────────────────────────────────────────────────


def read_parquet(data: bytes) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(io.BytesIO(data))


def test_parquet_holds_what_the_records_hold() -> None:
    table = read_parquet(written(".parquet"))
    assert table.schema.equals(picture_schema())
    shown = table.to_pylist()
    assert [row["source"] for row in shown] == [record["source"] for record in RECORDS]
    assert [row["faces"] for row in shown] == [2, 0, None, None, 1, 1]
    assert shown[0]["face_list"] == [
        {**one, "landmarks": None, "age": one["age"], "gender": one["gender"]} for one in RECORDS[0]["faces"]
    ]
    assert shown[1]["face_list"] == []
    assert shown[2]["face_list"] is None


def test_a_parquet_table_of_faces_has_lists_of_reasons() -> None:
    table = read_parquet(written(".parquet", per_face=True))
    assert table.schema.equals(face_schema())
    assert table.column("reasons").to_pylist()[:3] == [[], ["blurred", "too_dark"], None]
    assert table.column("age").to_pylist()[:3] == [31.0, None, None]


@pytest.mark.parametrize("per_face", [False, True])
def test_the_schema_does_not_hang_on_the_records(per_face: bool) -> None:
    none, some = (read_parquet(written(".parquet", records, per_face=per_face)) for records in ([], RECORDS))
    assert none.schema.equals(some.schema, check_metadata=False)
    assert none.num_rows == 0


def test_both_tables_agree_with_csv() -> None:
    for per_face, columns in ((False, OF_A_PICTURE), (True, (*OF_A_PICTURE, *OF_A_FACE))):
        frame = read_parquet(written(".parquet", per_face=per_face)).to_pylist()
        for row, cells in zip(frame, rows(written(".csv", per_face=per_face)), strict=True):
            for name in columns:
                value = ",".join(row[name]) if isinstance(row[name], list) else row[name]
                assert cells[name] == ("" if value is None else str(value))


def test_pandas_reads_it_and_the_file_says_whose_it_is(tmp_path: Path) -> None:
    import pandas as pd
    import pyarrow.parquet as pq

    destination, job = finished_job(some_records(30))
    merge(destination, job, tmp_path / "all.parquet", form=Form(per_face=True))
    frame = pd.read_parquet(tmp_path / "all.parquet")
    assert frame[frame.status == "ok"].groupby("source").face.count().max() == 2
    metadata = pq.ParquetFile(tmp_path / "all.parquet").metadata
    assert metadata.metadata[b"dulian.job"] == job.id.encode()
    assert metadata.metadata[b"dulian.digest"] == b"0123456789abcdef"
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_row_groups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    monkeypatch.setattr("dulian.batch.writers.parquet.BATCH_ROWS", 10)
    monkeypatch.setattr("dulian.batch.writers.parquet.GROUP_ROWS", 40)
    metadata = pq.ParquetFile(io.BytesIO(written(".parquet", some_records(205)))).metadata
    groups = [metadata.row_group(place).num_rows for place in range(metadata.num_row_groups)]
    assert groups == [40] * 5 + [5]

    monkeypatch.setattr("dulian.batch.writers.parquet.GROUP_BYTES", 1)
    assert pq.ParquetFile(io.BytesIO(written(".parquet", some_records(205)))).metadata.num_row_groups == 21


# ── lists of names ───────────────────────────────────────────────────────────────────────────────


def listed(tmp_path: Path, inputs: list[Input]) -> tuple[bytes, list[Input]]:
    """What the list of a job's names holds, and the inputs that it stands for."""
    destination = MemoryDestination()
    job = begin(destination, inputs)
    for shard in range(job.shards):
        some = inputs[shard * job.shard_size : (shard + 1) * job.shard_size]
        commit(destination, job, shard, [failed(one.source) for one in some])
    merge(destination, job, tmp_path / "again.txt")
    return (tmp_path / "again.txt").read_bytes(), [*list_inputs([str(tmp_path / "again.txt")], base=str(tmp_path))]


@pytest.mark.parametrize(
    "names",
    [
        [b"plain.jpg", "照片/一.png".encode(), b"with blank.jpg"],
        [b"plain.jpg", b"line\nend.jpg", b" blank.jpg", b"end "],
        [b"not\xff text.jpg", b"plain.jpg"],
        [b"#1.jpg", b"IMG[1].jpg", b"*.jpg", b"-dash.jpg"],
        [b"not\xfe\ntext.jpg", b"\n#2.jpg", b"a\rb.jpg"],
    ],
)
def test_a_list_of_names_reads_back_as_the_same_files(tmp_path: Path, names: list[bytes]) -> None:
    for number, name in enumerate(names):
        target = tmp_path / os.fsdecode(name)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(bytes([number]))
    inputs = []
    for name in names:
        text = os.fsdecode(name)
        shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
        inputs.append(Input(source=shown, path=None if shown == text else text))
    data, found = listed(tmp_path, inputs)
    assert [one.problem for one in found] == [None] * len(names)
    assert [(tmp_path / one.location).read_bytes() for one in found] == [bytes([n]) for n in range(len(names))]
    assert (b"\0" in data) == any(b"\n" in name or b"\r" in name or name != name.strip() for name in names)


def test_a_list_has_only_the_names_asked_for(tmp_path: Path) -> None:
    merge(*finished_job(RECORDS), tmp_path / "again.txt", where=["error"])
    assert (tmp_path / "again.txt").read_bytes() == b"broken.jpg\n"
    merge(*finished_job(RECORDS), tmp_path / "again.txt", where=["age>150"])
    assert (tmp_path / "again.txt").read_bytes() == b""


# ── annotated pictures ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("trip/beach.jpg", "034_beach.jpg"),
        ("s3://bucket/a/b.c.png", "034_b.c.jpg"),
        ("album.zip::2019/IMG_1.JPG", "034_IMG_1.jpg"),
        (r"C:\photos\me.bmp", "034_me.jpg"),
        ("照片/全家福 (1).jpg", "034_全家福__1_.jpg"),
        ("नमस्ते.png", "034_नमस्ते.jpg"),
        (".hidden", "034_hidden.jpg"),
        ("../../etc/passwd", "034_passwd.jpg"),
        ("a/..", "034_picture.jpg"),
        ("a\\n\x00<b>.jpg", "034_n__b_.jpg"),
        ("no-suffix", "034_no-suffix.jpg"),
        ("", "034_picture.jpg"),
    ],
)
def test_a_picture_is_named_by_its_place(source: str, name: str) -> None:
    assert picture_name(12, 34, source) == f"pictures/000012/{name}"


@pytest.mark.parametrize("character", ["x", "é", "照", "😀", "e\u0301"])
def test_names_of_pictures_are_short(character: str) -> None:
    stem = picture_name(0, 0, character * 4000 + ".jpg").removeprefix("pictures/000000/000_").removesuffix(".jpg")
    assert 0 < len(stem.encode()) <= MAX_STEM_BYTES


def test_different_inputs_have_different_pictures() -> None:
    names = {picture_name(shard, place, "a.jpg").lower() for shard in range(3) for place in range(1200)}
    assert len(names) == 3600


@pytest.mark.weights
def test_real_results_come_out_as_they_went_in(samples: Path, tmp_path: Path) -> None:
    """The sample pictures with real networks, through a job, into every kind of file."""
    analyze = ModelAnalysis(profile="standard", model_dir=samples.parent, offline=True).open(1)
    reader = MemoryReader({path.name: path.read_bytes() for path in sorted(samples.iterdir())})
    reader.pictures["text.jpg"] = b"no picture at all"
    records, results = [], []
    for name, data in reader.pictures.items():
        try:
            result, image = analyze(data)
        except InputError as error:
            records.append(failed_record(name, error, sha256="0" * 64, size=len(data)))
            continue
        results.append(result)
        record = ok_record(name, "1" * 64, len(data), result.to_dict())
        drawn = decode_image(draw(image(), result, "en")).image
        assert drawn.shape == image().shape
        assert bool(np.abs(drawn.astype(int) - image()).max() > 60) == bool(result.faces)
        records.append(record)
    destination, job = finished_job(records)

    merge(destination, job, tmp_path / "all.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_bytes().splitlines()]
    again = [AnalysisResult.from_dict(line) for line in lines if line["status"] == "ok"]
    assert [one.to_dict() for one in again] == [one.to_dict() for one in results]

    merge(destination, job, tmp_path / "faces.csv", where=["faces>0"], form=Form(per_face=True))
    table = rows((tmp_path / "faces.csv").read_bytes())
    for column, cells in to_dataframe(results).drop(columns="image").items():
        name = "face_status" if column == "status" else str(column)
        assert [row[name] for row in table] == [str(cell) for cell in cells]

    for kind in ("parquet", "html", "txt"):
        merge(destination, job, tmp_path / f"all.{kind}", form=Form(thumbnails=3, reader=reader))
        assert (tmp_path / f"all.{kind}").stat().st_size


def test_the_library_s_own_table_still_has_its_columns(model_store: Any, samples: Path) -> None:
    analyzer = load_analyzer(model_dir=model_store.write_dir, offline=True)
    frame = to_dataframe(analyzer.analyze(samples / "astronaut.png"))
    assert [*frame.columns] == ["image", *("status" if name == "face_status" else name for name in OF_A_FACE)]
    assert len(frame) == 1
