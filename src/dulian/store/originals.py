"""Judges a file's bytes by its catalog row, and makes of the originals what a session loads.

Nothing here reads or writes a disk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dulian.errors import ConversionError, WeightsError
from dulian.models import catalog
from dulian.models.rows import ModelRow, Recipe, WeightsFile
from dulian.store.files import sha256_hex

MAX_WEIGHTS_BYTES = 256 << 20
# A prototxt may be the old one, which is larger than the file made from it; none is near this size.
MAX_TEXT_BYTES = 1 << 20

# The nodes of Human's faceres-deep that tell age and gender, and the side of the picture it takes.
_FACERES_OUTPUTS = {"age_pred/Softmax": "age", "gender_pred/Sigmoid": "gender"}
_FACERES_SIDE = 224

# Told one line at a time what a person should know.
Notify = Callable[[str], None]


def tell_nobody(line: str) -> None:
    """For a second look at what was already reported."""
    del line


def is_text(file: WeightsFile) -> bool:
    """Whether the file is a network description, which exists in spellings of different length."""
    return file.name.endswith(".prototxt")


def max_bytes(file: WeightsFile) -> int:
    """More than this is never read under the file's name, right or wrong."""
    return MAX_TEXT_BYTES if is_text(file) else MAX_WEIGHTS_BYTES


def accepted(file: WeightsFile, data: bytes, *, where: str, notify: Notify) -> bytes:
    """The bytes as the row wants them; the old detector prototxt is repaired, with a warning.

    Raises:
        WeightsError: They are not that file; the message gives both hashes but no cure.
    """
    found = sha256_hex(data)
    if found == file.sha256 or found in file.equivalents:
        return data
    if is_text(file) and (repaired := _repaired(data)) is not None and sha256_hex(repaired) == file.sha256:
        flaw = "two pads are wrong, boxes are not clipped"
        notify(f"{where} is the old res10 text: {flaw}; repaired")
        return repaired
    raise WeightsError(f"{where} is not the expected file: {_difference(file, data, found)}")


def _repaired(prototxt: bytes) -> bytes | None:
    from dulian.convert import repair_ssd_prototxt

    try:
        return repair_ssd_prototxt(prototxt)
    except ConversionError:
        return None


def _difference(file: WeightsFile, data: bytes, found: str) -> str:
    hashes = f"expected sha256 {file.sha256}, found {found}"
    if len(data) < file.size:
        return f"truncated: {len(data)} of {file.size} bytes, {hashes}"
    twin = next((other.name for other in catalog_files() if other.sha256 == found), None)
    return f"{hashes}, which is {twin}" if twin else hashes


def catalog_files() -> tuple[WeightsFile, ...]:
    """Every file of every network, originals before what is made from them, then the samples."""
    of_rows = (file for row in catalog.all_rows() for file in (*row.originals, row.weights))
    return tuple(dict.fromkeys((*of_rows, *catalog.SAMPLES)))


def profile_of(file: WeightsFile) -> str:
    """What to pull to get the file: the first profile that uses it, else everything."""
    if file in catalog.SAMPLES:
        return "samples"
    for profile in catalog.PROFILES.values():
        if any(file in (*row.originals, row.weights) for row in profile.rows):
            return profile.name
    return "all"


def converted(row: ModelRow, originals: tuple[bytes, ...]) -> bytes:
    """What a session loads, made from the row's originals in their order.

    Raises:
        ConversionError: The originals hold something the converter does not support.
        WeightsError: The result is not the pinned one.
    """
    from dulian.convert import (
        convert_caffe,
        convert_face_api,
        convert_tfjs_graph,
        flush_subnormals,
        make_yunet_symbolic,
    )

    recipes: dict[Recipe | None, Callable[..., bytes]] = {
        "caffe": partial(convert_caffe, convolution="winograd"),
        "yunet_symbolic": make_yunet_symbolic,
        "flush_subnormals": flush_subnormals,
        "face_api": convert_face_api,
        "faceres": partial(convert_tfjs_graph, outputs=_FACERES_OUTPUTS, side=_FACERES_SIDE),
    }
    data = recipes[row.recipe](*originals)
    found = sha256_hex(data)
    if found != row.weights.sha256:
        raise WeightsError(
            f"converting {row.name} gave sha256 {found}, expected {row.weights.sha256}: "
            "the numpy or onnx installed here converts differently; install the versions dulian was locked with"
        )
    return data
