"""The examples do what they say, with real networks on the sample pictures."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.conftest import ROOT

from dulian.store import ModelStore

pytestmark = pytest.mark.weights


def run_example(name: str, store: ModelStore, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "DULIAN_OFFLINE": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    models = folder / "cache/dulian"
    if not models.exists():
        models.mkdir(parents=True)
        (models / "models").symlink_to(store.write_dir)
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def files_below(folder: Path) -> set[str]:
    """What lies there, the models apart."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "cache" not in path.parts}


def test_an_album_is_summed_up_and_doubts_are_listed(tmp_path: Path, samples: Path, model_store: ModelStore) -> None:
    album = tmp_path / "album"
    subprocess.run([sys.executable, ROOT / "examples/derive_samples.py", samples, album], check=True, timeout=120)
    (album / "letter.jpg").write_text("no picture")
    first = run_example("album.py", model_store, tmp_path, "album", "out")
    assert re.search(r"^ +\d pictures, faces in each: 1$", first, re.MULTILINE)
    assert re.search(r"^ +1 pictures, faces in each: 8$", first, re.MULTILINE)
    assert re.search(r"^ +1 not answered: unsupported_image$", first, re.MULTILINE)
    doubtful = (tmp_path / "out/to-look-at.txt").read_text().splitlines()
    assert "album/2-dark.png" in doubtful
    assert "album/1-portrait.png" not in doubtful
    assert f"{len(doubtful):6,} with a face in doubt: out/to-look-at.txt" in first
    records = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/records").iterdir()}
    assert run_example("album.py", model_store, tmp_path, "album", "out") == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out/records").iterdir()} == records


@pytest.fixture
def portrait(samples: Path) -> np.ndarray:  # type: ignore[type-arg]
    image = cv2.imread(str(samples / "astronaut.png"))
    assert image is not None
    return image


def test_faces_are_counted_by_the_hour_and_small_counts_are_not_told(
    tmp_path: Path,
    portrait: np.ndarray,
    model_store: ModelStore,  # type: ignore[type-arg]
) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    morning = datetime(2026, 11, 29, 9, 30)
    for number in range(9):
        frame = frames / f"{number}.png"
        cv2.imwrite(str(frame), portrait)
        moment = (morning + timedelta(hours=number // 6)).timestamp()
        os.utime(frame, (moment, moment))
    (frames / "broken.png").write_text("no picture")
    before = files_below(tmp_path)
    out = run_example("footfall.py", model_store, tmp_path, "frames")
    hours = re.split(r"^(?=2026)", out, flags=re.MULTILINE)[1:]
    assert [hour.splitlines()[0] for hour in hours] == ["2026-11-29 09:00", "2026-11-29 10:00"]
    assert "  18 to 39    female 6   male <5   undecided <5" in hours[0]
    assert set(re.findall(r"(?:female|male|undecided) (\S+)", hours[1])) == {"<5"}
    assert files_below(tmp_path) == before


def test_a_film_is_looked_at_now_and_then(
    tmp_path: Path,
    portrait: np.ndarray,
    model_store: ModelStore,  # type: ignore[type-arg]
) -> None:
    film = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 1.0, (512, 512))
    if not writer.isOpened():
        pytest.skip("this build of OpenCV writes no films")
    for _ in range(60):
        writer.write(portrait)
    writer.release()
    out = run_example("footfall.py", model_store, tmp_path, "film.avi", "2026-11-29T09:59:30")
    # Six frames of a minute, on both sides of ten o'clock: three each, which is not told.
    assert re.findall(r"^2026.*", out, re.MULTILINE) == ["2026-11-29 09:00", "2026-11-29 10:00"]
    assert "female 3" not in out
    assert "female 6" in run_example("footfall.py", model_store, tmp_path, "film.avi", "2026-11-29T09:00")
