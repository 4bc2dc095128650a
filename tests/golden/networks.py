"""Write what every network answers to the fixed input anew: ``python -m tests.golden.networks``.

It is what ONNX Runtime answers in f32, and OpenCV 4 where an original has other outputs than the network made from it;
``tests/golden/test_networks.py`` holds every other engine against it.
"""

from __future__ import annotations

import json

from dulian.models.catalog import all_rows
from dulian.models.rows import ModelRow
from dulian.runtimes import Session, find_runtime, load_runtime
from dulian.service.golden import fixed_input, sample
from dulian.store import ModelStore
from tests.conftest import ROOT

TARGET = ROOT / "src/dulian/data/golden.json"


def main() -> None:
    store = ModelStore(model_dir=ROOT / ".cache" / "models")
    store.pull(all_rows())
    lines = []
    for row in {row.weights.sha256: row for row in all_rows()}.values():
        answers = answer(store, row, "onnxruntime")
        lines.append(f'"{row.weights.sha256}": {json.dumps(answers)}')
        if row.recipe == "caffe" and (of_original := answer(store, row, "opencv-caffe")).keys() != answers.keys():
            lines.append(f'"{row.originals[-1].sha256}": {json.dumps(of_original)}')
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def answer(store: ModelStore, row: ModelRow, engine: str) -> dict[str, list[float]]:
    outputs = open_session(store, row, engine).run(fixed_input(row))
    return {name: [float(f"{value:.7g}") for value in sample(output)] for name, output in outputs.items()}


def open_session(store: ModelStore, row: ModelRow, engine: str, **options: object) -> Session:
    runtime = find_runtime(engine)
    weights = store.load(row) if runtime.format == "onnx" else store.load_originals(row)
    return load_runtime(runtime).open_weights(weights, threads=1, **options).new_session()  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
