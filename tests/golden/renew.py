"""Write the golden answers anew: ``DULIAN_DEV_DATA=… python -m tests.golden.renew``."""

from __future__ import annotations

import json
import os
from pathlib import Path

from dulian.api import load_analyzer
from dulian.models.catalog import PROFILES
from dulian.store import ModelStore
from tests.conftest import ROOT
from tests.golden.pictures import DEV_PHOTOS, sample_pictures


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


if __name__ == "__main__":
    main()
