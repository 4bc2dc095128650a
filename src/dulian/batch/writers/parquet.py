"""Parquet with a fixed schema, so that files of different jobs fit together: one row a picture, or one row a face."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

from dulian.batch.job import Job
from dulian.batch.records import Input, Record
from dulian.batch.writers import Form
from dulian.batch.writers.columns import FACES, OF_A_FACE, OF_A_PICTURE, face_rows, picture_row
from dulian.faces import LANDMARK_NAMES

if TYPE_CHECKING:
    import pyarrow as pa

# Rows become Arrow's after so many, and a group of the file after so many, or so many bytes: what is held in memory.
BATCH_ROWS = 1024
GROUP_ROWS = 64 * BATCH_ROWS
GROUP_BYTES = 64 * 2**20

_WHOLE = {"width", "height", "rotated", "faces", "skipped", "face", "size_px"}
_TEXTS = {
    *("source", "status", "error_code", "error_message", "same_as", "sha256", "hint", "annotated_image"),
    *("age_bucket", "gender", "face_status", "label"),
}


class ParquetWriter:
    """``.parquet``, compressed with zstd."""

    def __init__(self, stream: BinaryIO, job: Job, form: Form) -> None:
        from pyarrow.parquet import ParquetWriter as Target

        self._per_face = form.per_face
        told = {"dulian.job": job.id, **{f"dulian.{name}": str(value) for name, value in job.model.items()}}
        self._schema = (face_schema() if form.per_face else picture_schema()).with_metadata(told)
        self._names = self._schema.names
        self._target = Target(stream, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._batches: list[pa.RecordBatch] = []

    def write(self, record: Record, source: Input) -> None:
        if self._per_face:
            self._rows.extend(self._face(row) for row in face_rows(record))
        else:
            self._rows.append(dict(zip(self._names, (*picture_row(record), record.get("faces")), strict=True)))
        if len(self._rows) >= BATCH_ROWS:
            self._pack()

    def close(self) -> None:
        self._pack()
        self._flush()
        self._target.close()

    def abandon(self) -> None:
        # Arrow would otherwise end the file when this is collected, into a stream that is closed by then.
        self._target.is_open = False

    def _face(self, row: tuple[Any, ...]) -> dict[str, Any]:
        cells = dict(zip(self._names, row, strict=True))
        if cells["reasons"] is not None:
            cells["reasons"] = [code for code in cells["reasons"].split(",") if code]
        return cells

    def _pack(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._batches.append(pa.RecordBatch.from_pylist(self._rows, schema=self._schema))
            self._rows.clear()
        held = sum(batch.num_rows for batch in self._batches)
        if held >= GROUP_ROWS or sum(batch.nbytes for batch in self._batches) >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._batches:
            table = pa.Table.from_batches(self._batches, schema=self._schema)
            self._target.write_table(table, row_group_size=max(table.num_rows, 1))
            self._batches.clear()


# ── schemas ──────────────────────────────────────────────────────────────────────────────────────


def picture_schema() -> pa.Schema:
    """One row a picture; its faces are a list with the fields that the record has."""
    import pyarrow as pa

    return pa.schema([*map(_column, OF_A_PICTURE), pa.field(FACES, pa.list_(_face_type()))])


def face_schema() -> pa.Schema:
    """One row a face, and one for each input without a face."""
    import pyarrow as pa

    return pa.schema([_column(name) for name in (*OF_A_PICTURE, *OF_A_FACE)])


def _column(name: str) -> pa.Field:
    import pyarrow as pa

    if name in _TEXTS:
        kind: pa.DataType = pa.string()
    elif name in _WHOLE:
        kind = pa.int32()
    elif name == "bytes":
        kind = pa.int64()
    else:
        kind = pa.list_(pa.string()) if name == "reasons" else pa.float64()
    return pa.field(name, kind, nullable=name not in ("source", "status"))


def _face_type() -> pa.DataType:
    import pyarrow as pa

    def numbers(*names: str) -> pa.DataType:
        return pa.struct({name: pa.float64() for name in names})

    text, number, point = pa.string(), pa.float64(), pa.list_(pa.float64())
    quality = {**dict.fromkeys(("score", "sharpness", "brightness"), number), "size_px": pa.int32()}
    age = {**dict.fromkeys(("value", "low", "high", "coverage"), number), "bucket": text, "bucket_probability": number}
    return pa.struct(
        {
            "id": pa.int32(),
            "bbox": point,
            "confidence": number,
            "landmarks": pa.struct(dict.fromkeys(LANDMARK_NAMES, point)),
            "age": pa.struct(age),
            "gender": pa.struct({"value": text, "probability": number, "female_probability": number}),
            "quality": pa.struct({**quality, "pose": numbers("yaw", "pitch", "roll"), "reasons": pa.list_(text)}),
            "status": text,
            "label": text,
            "message": pa.struct(dict.fromkeys(("code", "en", "zh"), text)),
        }
    )
