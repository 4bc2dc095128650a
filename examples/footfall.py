"""How many faces a camera sees in each hour, by age and gender: python footfall.py FRAMES [START].

FRAMES is a folder of pictures, each with its file's time, or a film that began at START (2026-11-29T09:00). Counts are
all that is kept, in memory, until they are printed. What fewer than five faces make up is not told, and neither are
sums, from which it could be computed: nobody is to be found in these figures.

Faces are counted, not people: whoever stays in the picture is counted in every frame that is looked at.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cv2

import dulian

SUPPRESSED_BELOW = 5
# Of a film one frame is looked at in so many seconds.
EVERY_S = 10.0
AGES = {"under 18": 18, "18 to 39": 40, "40 to 64": 65, "65 and over": 200}
GENDERS = ("female", "male", "undecided")

Frame = tuple[datetime, Any]
Cell = tuple[datetime, str, str]


def main(place: Path, start: datetime) -> None:
    frames = of_folder(place) if place.is_dir() else of_film(place, start)
    counts = count_faces(frames, dulian.load_analyzer())
    for hour in sorted({hour for hour, _, _ in counts}):
        print(f"{hour:%Y-%m-%d %H:00}")
        for age in AGES:
            cells = [f"{gender} {told(counts[hour, age, gender])}" for gender in GENDERS]
            print(f"  {age:12}{'   '.join(cells)}")


def of_folder(folder: Path) -> Iterator[Frame]:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in {".jpg", ".jpeg", ".png"}:
            yield datetime.fromtimestamp(path.stat().st_mtime), path


def of_film(film: Path, start: datetime) -> Iterator[Frame]:
    capture = cv2.VideoCapture(str(film))
    wanted_s = 0.0
    while capture.grab():
        now_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if now_s >= wanted_s:
            readable, image = capture.retrieve()
            if readable:
                yield start + timedelta(seconds=now_s), image
            wanted_s = now_s + EVERY_S
    capture.release()


def count_faces(frames: Iterable[Frame], analyzer: dulian.FaceAnalyzer) -> Counter[Cell]:
    """Faces by hour, age and gender; those that can hardly be seen are left out, like frames that do not decode."""
    counts: Counter[Cell] = Counter()
    for moment, picture in frames:
        try:
            faces = analyzer.analyze(picture).faces
        except dulian.DulianError:
            continue
        hour = moment.replace(minute=0, second=0, microsecond=0)
        for face in faces:
            if face.status == "low_quality" or face.age is None or face.gender is None:
                continue
            age = next(name for name, end in AGES.items() if face.age.value < end)
            counts[hour, age, face.gender.value or "undecided"] += 1
    return counts


def told(count: int) -> str:
    return str(count) if count >= SUPPRESSED_BELOW else f"<{SUPPRESSED_BELOW}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), datetime.fromisoformat(sys.argv[2]) if len(sys.argv) > 2 else datetime.now())
