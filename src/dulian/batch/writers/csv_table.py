"""CSV as RFC 4180 has it, in UTF-8, with a header; safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from typing import Any, BinaryIO

from dulian.batch.job import Job
from dulian.batch.records import Input, Record
from dulian.batch.writers import Form
from dulian.batch.writers.columns import FACES, OF_A_FACE, OF_A_PICTURE, face_rows, picture_row

# What spreadsheets take for the beginning of a formula; some also in the width of Chinese characters.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


class CsvWriter:
    """``.csv``: one row a picture with its faces as JSON text, or one row a face."""

    def __init__(self, stream: BinaryIO, job: Job, form: Form) -> None:
        self._per_face = form.per_face
        # Names are printable; what else a damaged one may hold is shown and stops nothing.
        self._text = io.TextIOWrapper(stream, "utf-8", errors="backslashreplace", newline="")
        self._rows = csv.writer(self._text)
        self._rows.writerow((*OF_A_PICTURE, *(OF_A_FACE if form.per_face else (FACES,))))

    def write(self, record: Record, source: Input) -> None:
        if self._per_face:
            self._rows.writerows(map(_safe, face_rows(record)))
            return
        faces = record.get("faces")
        listed = None if faces is None else json.dumps(faces, ensure_ascii=False)
        self._rows.writerow((*_safe(picture_row(record)), listed))

    def close(self) -> None:
        self._text.flush()
        self._text.detach()

    def abandon(self) -> None:
        self._text.detach()


def _safe(cells: Iterable[Any]) -> list[Any]:
    """An apostrophe before texts that a spreadsheet would compute; numbers stay numbers."""
    return [f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell for cell in cells]
