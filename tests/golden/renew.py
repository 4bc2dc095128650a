"""Write the golden answers anew: ``DULIAN_DEV_DATA=… python -m tests.golden.renew``."""

from __future__ import annotations

import json
import os
from pathlib import Path

from dulian.api import load_analyzer
from dulian.faces import AnalysisResult
from dulian.models.catalog import PROFILES
from dulian.store import ModelStore
from tests.conftest import ROOT
from tests.golden.pictures import DEV_FACES, DEV_PHOTOS, sample_pictures


def main() -> None:
    store = ModelStore(model_dir=ROOT / ".cache" / "models")
    pictures: dict[str, bytes] = sample_pictures(store.pull_samples())
    dev = Path(os.environ["DULIAN_DEV_DATA"])
    pictures |= {name: (dev / name).read_bytes() for name in DEV_PHOTOS}
    for profile in PROFILES:
        analyzer = load_analyzer(profile, engine="onnxruntime", model_dir=store.write_dir)
        answers = {name: analyzer.analyze(data).to_dict()["faces"] for name, data in pictures.items()}
        target = Path(__file__).parent / "answers" / f"{profile}.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(answers, indent=1) + "\n")
        faces = {name: essence(analyzer.analyze(dev / name)) for name in DEV_FACES}
        lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(answer)}" for name, answer in faces.items())
        target.with_suffix(".faces.json").write_text(f"{{\n{lines}\n}}\n")


def essence(result: AnalysisResult) -> list[float]:
    """Of the largest face: age, its interval, and the probability of "female"; of a picture without one, nothing."""
    if not result.faces or result.faces[0].age is None or result.faces[0].gender is None:
        return []
    age, gender = result.faces[0].age, result.faces[0].gender
    return [round(value, 3) for value in (age.value, age.low, age.high, gender.female_probability)]


if __name__ == "__main__":
    main()
