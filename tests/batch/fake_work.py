"""Analyses without networks, and places that fail: real enough to drive whole batches."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dulian.batch.records import Input
from dulian.errors import DestinationError, ImageDecodeError, InputNotFoundError, InputUnavailableError
from dulian.faces import AnalysisResult, ImageInfo, ModelInfo
from dulian.image import Image
from tests.batch.fakes import MemoryDestination

KILLS, HANGS, RAISES, BAD = b"kills", b"hangs", b"raises", b"bad"


class FailingDestination(MemoryDestination):
    """In memory; ``fails`` is asked before anything is written."""

    fails: Callable[[str], bool] = staticmethod(lambda name: False)

    def create(self, name: str, data: bytes) -> bool:
        self._check(name)
        return super().create(name, data)

    def replace(self, name: str, data: bytes) -> None:
        self._check(name)
        super().replace(name, data)

    def _check(self, name: str) -> None:
        if self.fails(name):
            raise DestinationError(f"cannot write {name}: no space left")


class StoreReader:
    """Bytes by location; what is not there is not found, and None is a store that does not answer."""

    def __init__(self, files: dict[str, bytes | None]) -> None:
        self.files = files
        self.reads: list[str] = []

    def read(self, wanted: Input) -> bytes:
        self.reads.append(wanted.location)
        if wanted.location not in self.files:
            raise InputNotFoundError(f"no {wanted.location}")
        data = self.files[wanted.location]
        if data is None:
            raise InputUnavailableError(f"{wanted.location} does not come")
        return data

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class FakeAnalysis:
    """Answers any bytes without faces. What begins with ``kills``, ``hangs``, ``raises`` or ``bad`` does so.

    ``log`` gets the bytes of every picture as a line, from whatever process; ``seconds`` is what each takes.
    """

    log: Path | None = None
    seconds: float = 0.0
    digest: str = "fake"

    def model(self) -> Mapping[str, Any]:
        return {"profile": "fake", "engine": "none", "digest": self.digest}

    def options(self) -> Mapping[str, Any]:
        return {}

    def open(self, threads: int) -> Callable[[bytes], tuple[AnalysisResult, Callable[[], Image]]]:
        return self.analyze

    def analyze(self, data: bytes) -> tuple[AnalysisResult, Callable[[], Image]]:
        if self.log is not None:
            with self.log.open("ab", buffering=0) as file:
                file.write(data + b"\n")
        if data.startswith(KILLS):
            os.kill(os.getpid(), signal.SIGKILL)
        if data.startswith(HANGS):
            time.sleep(600)
        if data.startswith(RAISES):
            raise RuntimeError("a library lets something out")
        if data.startswith(BAD):
            raise ImageDecodeError("this picture is bad")
        time.sleep(self.seconds)
        result = AnalysisResult(image=ImageInfo(1, 1), model=ModelInfo("fake", "none", self.digest))
        return result, lambda: np.zeros((1, 1, 3), np.uint8)
