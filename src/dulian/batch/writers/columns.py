"""Records as rows of a table: one a picture, or one a face."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dulian.batch.records import Record
from dulian.serialize import FACE_COLUMNS, face_row

# The face's own status; the picture's is the one that every record has.
_FACE_STATUS = "face_status"
OF_A_FACE = tuple(_FACE_STATUS if name == "status" else name for name in FACE_COLUMNS)
OF_A_PICTURE = (
    *("source", "status", "error_code", "error_message", "same_as"),
    *("width", "height", "rotated", "bytes", "sha256"),
    *("faces", "skipped", "hint"),
    *("decode_ms", "detect_ms", "attributes_ms", "total_ms", "annotated_image"),
)
FACES = "face_list"
"""The column of a picture's faces, in the table with a row a picture; all that the record says of them."""

_NO_FACE = (None,) * len(OF_A_FACE)


def picture_row(record: Record) -> tuple[Any, ...]:
    """The values of a record in the order of :data:`OF_A_PICTURE`."""
    error, image, timings = record.get("error") or {}, record.get("image") or {}, record.get("timings_ms") or {}
    faces, hint = record.get("faces"), record.get("hint") or {}
    return (
        *(record["source"], record["status"], error.get("code"), error.get("message"), record.get("same_as")),
        *(image.get("width"), image.get("height"), image.get("rotated"), record.get("bytes"), record.get("sha256")),
        None if faces is None else len(faces),
        None if faces is None else record.get("skipped", 0),
        hint.get("message", {}).get("code"),
        *(timings.get(name) for name in ("decode", "detect", "attributes", "total")),
        record.get("annotated_image"),
    )


def face_rows(record: Record) -> Iterator[tuple[Any, ...]]:
    """Rows of :data:`OF_A_PICTURE` and :data:`OF_A_FACE`: one for each face, one without for inputs that have none."""
    picture = picture_row(record)
    for face in record.get("faces") or ():
        yield (*picture, *face_row(face))
    if not record.get("faces"):
        yield (*picture, *_NO_FACE)
