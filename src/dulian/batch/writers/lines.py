"""JSON lines: every record as it is, one a line."""

from __future__ import annotations

import json
from typing import BinaryIO

from dulian.batch.job import Job
from dulian.batch.records import Input, Record
from dulian.batch.writers import Form


class LinesWriter:
    """``.jsonl``."""

    def __init__(self, stream: BinaryIO, job: Job, form: Form) -> None:
        self._stream = stream

    def write(self, record: Record, source: Input) -> None:
        self._stream.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass
