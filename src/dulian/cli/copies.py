"""Annotated copies of analysed pictures, as ``NAME_faces.jpg`` below one folder.

Never over anything that is not such a copy itself, never through a link, never half-written.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dulian.errors import MalformedInputError
from dulian.faces import AnalysisResult
from dulian.files import write_atomically
from dulian.sources import STDIN, Source, printable

if TYPE_CHECKING:
    from dulian.image import Image
    from dulian.messages import Language

SUFFIX = "_faces.jpg"
# File systems hold names of 255 bytes; the suffix and a number need some of them.
MAX_STEM_BYTES = 200
# A JPEG comment (marker FFFE, length, text) right behind the start of the file, by which we know our own.
MARK = b"\xff\xfe" + (2 + len(b"annotated by dulian")).to_bytes(2, "big") + b"annotated by dulian"


class Copies:
    """Where each source's copy goes, decided once, and the writing of it."""

    def __init__(self, folder: Path, sources: Sequence[Source], language: Language) -> None:
        _make_folder(folder)
        self._language: Language = language
        self._targets: dict[Path, Path] = {}
        taken = {os.path.abspath(source.path) for source in sources}
        for source in sources:
            target = _free_name(folder / source.relative.parent, _stem(source), taken)
            taken.add(os.path.abspath(target))
            self._targets[source.path] = target

    def write(self, source: Source, image: Image, result: AnalysisResult) -> None:
        """Draw and write one copy.

        Raises:
            MalformedInputError: The folder does not take it.
        """
        from dulian.image import encode_jpeg
        from dulian.render import annotate

        data = encode_jpeg(annotate(image, result, language=self._language))
        target = self._targets[source.path]
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, data[:2] + MARK + data[2:])
        except OSError as error:
            raise MalformedInputError(f"cannot write {printable(str(target))}: {error.strerror}") from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FileExistsError as error:
        raise MalformedInputError(f"--output {printable(str(folder))} is a file; name a folder") from error
    except OSError as error:
        raise MalformedInputError(
            f"cannot write into {printable(str(folder))}: {error.strerror}; choose another --output"
        ) from error


def _stem(source: Source) -> str:
    if str(source.path) == STDIN:
        return "stdin"
    raw = os.fsencode(source.relative.stem)
    return os.fsdecode(raw[:MAX_STEM_BYTES]) if len(raw) > MAX_STEM_BYTES else source.relative.stem


def _free_name(folder: Path, stem: str, taken: set[str]) -> Path:
    target = folder / f"{stem}{SUFFIX}"
    number = 2
    while os.path.abspath(target) in taken or not _may_replace(target):
        target = folder / f"{stem}_{number}{SUFFIX}"
        number += 1
    return target


def _may_replace(target: Path) -> bool:
    """Whether nothing is there, or an earlier copy of ours."""
    if not os.path.lexists(target):
        return True
    if target.is_symlink() or not target.is_file():
        return False
    try:
        with target.open("rb") as file:
            return file.read(2 + len(MARK))[2:] == MARK
    except OSError:
        return False
