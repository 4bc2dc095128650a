"""Every file of the labelled photos through real networks, in processes: all of them answered or refused, once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dulian.batch.analysis import Analyze, ModelAnalysis
from dulian.batch.destinations import open_destination
from dulian.batch.drivers.local import LocalDriver
from dulian.batch.merge import merged
from dulian.batch.run import Wish, prepare, run
from dulian.batch.verify import verify
from dulian.errors import DulianError
from dulian.sources import PICTURE_SUFFIXES
from dulian.store import ModelStore

# The photos that are answered once more by the library, one after the other.
EVERY = 20


@pytest.mark.dev_data
@pytest.mark.weights
def test_every_labelled_photo_has_one_record(dev_data: Path, model_store: ModelStore, tmp_path: Path) -> None:
    analysis = ModelAnalysis(profile="standard", engine="onnxruntime", model_dir=model_store.write_dir, offline=True)
    destination = open_destination(tmp_path / "out")
    job, left_alone = prepare(Wish(sources=[str(dev_data)], analysis=analysis), destination)
    tally = run(job, destination, analysis, driver=LocalDriver(processes=2))

    files = [path for path in dev_data.rglob("*") if path.is_file() and not path.name.startswith(".")]
    pictures = {str(path) for path in files if path.suffix.lower() in PICTURE_SUFFIXES}
    records = [*merged(destination, job)]
    assert Counter(record["source"] for record in records) == Counter(pictures)
    assert left_alone == len(files) - len(pictures)
    assert (tally.deaths, tally.quarantined) == (0, 0)
    assert verify(destination).state == "complete"

    analyze = analysis.open(1)
    for record in records[::EVERY]:
        assert record == record | alone(analyze, Path(record["source"])) | timings(record)
    again = run(job, destination, analysis, driver=LocalDriver(processes=2))
    assert (again.before, again.computed) == (len(pictures), 0)


def alone(analyze: Analyze, picture: Path) -> dict[str, object]:
    """What the library says of it."""
    try:
        return {"status": "ok", **analyze(picture.read_bytes())[0].to_dict()}
    except DulianError as error:
        return {"status": "error", "error": {"code": error.code, "message": str(error)}}


def timings(record: dict[str, object]) -> dict[str, object]:
    """The one thing that differs between two answers."""
    return {"timings_ms": record["timings_ms"]} if "timings_ms" in record else {}
