"""``dulian evaluate`` on a small folder of labelled pictures: a real process, real weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from dulian.calibration import Calibration
from dulian.evaluate.headline import headline
from dulian.image import decode_image
from dulian.store import ModelStore

pytestmark = pytest.mark.weights

HEAD = "file,x,y,w,h,age,gender,source\n"
ASTRONAUT = "astronaut.png,180,75,90,125,40,female,nasa/portraits\n"
CAT = "chelsea.png,,,,,,,cats\n"


class Run:
    """One finished call of the command line."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    @property
    def told(self) -> list[str]:
        return self.err.splitlines()

    def cells(self, label: str) -> list[str]:
        """What the table says beside a label."""
        (line,) = [line for line in self.out.splitlines() if line.startswith(label + "  ")]
        return [cell.strip() for cell in line.removeprefix(label).split("  ") if cell]


Dulian = Callable[..., Run]


@pytest.fixture
def evaluate(model_store: ModelStore) -> Dulian:
    def run(*arguments: str | Path, code: int = 0) -> Run:
        environment = {**os.environ, "DULIAN_MODEL_DIR": str(model_store.write_dir), "LANG": "C.UTF-8"}
        environment.pop("LC_ALL", None)
        done = subprocess.run(
            [sys.executable, "-m", "dulian", "evaluate", *map(os.fspath, arguments)],
            capture_output=True,
            encoding="utf-8",
            env=environment,
            timeout=300,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, done.stderr
        return Run(done)

    return run


@pytest.fixture
def folder(tmp_path: Path, samples: Path) -> Path:
    """A portrait with a face, labelled, and a cat."""
    data = tmp_path / "data"
    data.mkdir()
    for name in ("astronaut.png", "chelsea.png"):
        shutil.copy(samples / name, data / name)
    (data / "manifest.csv").write_text(HEAD + ASTRONAUT + CAT)
    (data / "images.csv").write_text("file,kind,boxes_complete\nastronaut.png,photo,1\nchelsea.png,negative,1\n")
    return data


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_table_for_people(evaluate: Dulian, folder: Path) -> None:
    before = contents(folder)
    run = evaluate("--data", folder)
    assert run.cells("faces found, at least 32 px high") == ["100.0 [100.0–100.0]"]
    assert run.cells("detections that are faces") == ["100.0 [100.0–100.0]"]
    assert run.cells("photos without a face in which one is found") == ["0 of 1"]
    assert run.cells("gender right") == ["100.0 [100.0–100.0]"]
    assert run.cells("women minus men") == ["–"]
    assert "2 pictures, 1 boxed faces, 1 genders, 1 exact ages" in run.out
    assert run.told == ["standard (2)…"]
    assert contents(folder) == before


def test_json_has_the_figures_of_the_table(evaluate: Dulian, folder: Path) -> None:
    table, run = evaluate("--data", folder), evaluate("--data", folder, "--json")
    (report,) = json.loads(run.out)
    rows = headline(report)
    assert len(rows) == 15
    for label, figure in rows.items():
        assert table.cells(label) == [figure]
    assert run.told == ["standard (2)…"]
    assert (report["profile"], report["data"]["sources"]) == ("standard", {"cats": 1, "nasa": 1})
    assert (report["errors"], report["detection"]["recall"]["n"]) == ([], 1)
    assert report["networks"][0]["name"]
    assert "held_out" not in report
    assert "calibration" not in report
    json.dumps(report, allow_nan=False)


def test_the_manifest_alone_and_several_profiles(evaluate: Dulian, folder: Path) -> None:
    (folder / "images.csv").unlink()
    options = "--data", folder, "--profile", " standard, classic ", "--engine", "onnxruntime"
    run, reports = evaluate(*options), json.loads(evaluate(*options, "--json").out)
    assert [report["profile"] for report in reports] == ["standard", "classic"]
    assert run.told == ["standard (2)…", "classic (2)…"]
    assert run.cells("age error, years") == [headline(report)["age error, years"] for report in reports]
    assert run.cells("faces found, at least 32 px high") == ["–", "–"]
    assert "standard on onnxruntime" in run.out
    assert "classic on onnxruntime" in run.out


def test_output_holds_the_report_and_a_card(evaluate: Dulian, folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    output = tmp_path / "new" / "report"
    run = evaluate("--data", folder, "--output", output, "--json")
    assert sorted(contents(output)) == ["evaluation.json", "model-card.html"]
    assert json.loads((output / "evaluation.json").read_text("utf-8")) == json.loads(run.out)
    assert contents(folder) == before


def test_a_limit_is_of_each_kind_and_source(evaluate: Dulian, folder: Path) -> None:
    shutil.copy(folder / "astronaut.png", folder / "again.png")
    (folder / "manifest.csv").write_text(HEAD + ASTRONAUT + CAT + ASTRONAUT.replace("astronaut", "again"))
    kinds = "file,kind\nastronaut.png,photo\nagain.png,photo\nchelsea.png,negative\n"
    (folder / "images.csv").write_text(kinds)
    (report,) = json.loads(evaluate("--data", folder, "--limit", "1", "--json").out)
    assert report["data"]["pictures"] == 2
    assert report["gender"]["all"]["n"] == 1


def test_pictures_that_cannot_be_read_are_told(evaluate: Dulian, folder: Path) -> None:
    (folder / "letter.jpg").write_text("no picture")
    with (folder / "manifest.csv").open("a") as manifest:
        manifest.write("letter.jpg,,,,,30,male,m\ngone.jpg,,,,,30,male,m\n")
    run = evaluate("--data", folder, "--json")
    (report,) = json.loads(run.out)
    assert report["errors"] == ["gone.jpg: No such file or directory", "letter.jpg: unsupported_image"]
    assert run.told[1:] == [
        "dulian: 2 pictures could not be read; the first is gone.jpg: No such file or directory",
    ]


# ── mistakes ─────────────────────────────────────────────────────────────────────────────────────


def complaint(run: Run) -> str:
    """The one line that tells what is wrong; nothing else is said but what was under way."""
    assert run.out == ""
    *_, last = run.told
    assert [line for line in run.told if line.startswith("dulian: ")] == [last]
    return last


def test_fitting_needs_a_place_for_the_tables(evaluate: Dulian, folder: Path) -> None:
    assert "--output" in complaint(evaluate("--data", folder, "--fit", code=2))


@pytest.mark.parametrize("kind", ["photo", "face_context"])
def test_too_few_faces_to_fit_to(evaluate: Dulian, folder: Path, tmp_path: Path, kind: str) -> None:
    (folder / "images.csv").write_text(f"file,kind\nastronaut.png,{kind}\n")
    run = evaluate("--data", folder, "--fit", "--output", tmp_path / "report", code=2)
    telling = {"photo": "no labelled face was found in pictures of the kinds", "face_context": "1 exact ages"}
    assert telling[kind] in complaint(run)
    assert not (tmp_path / "report").exists()


def test_names_that_are_none(evaluate: Dulian, folder: Path) -> None:
    assert "'fast'" in complaint(evaluate("--data", folder, "--profile", "fast", code=3))
    assert "'quick'" in complaint(evaluate("--data", folder, "--profile", "standard,quick", code=3))
    assert "unknown profile ','" in complaint(evaluate("--data", folder, "--profile", ",", code=3))
    assert "'tpu'" in complaint(evaluate("--data", folder, "--engine", "tpu", code=3))


def test_tables_that_are_none(evaluate: Dulian, folder: Path) -> None:
    assert "manifest.csv" in complaint(evaluate("--data", folder / "gone", code=2))
    (folder / "manifest.csv").write_text(HEAD + ASTRONAUT.replace("180", "left"))
    assert "astronaut.png: a box" in complaint(evaluate("--data", folder, code=2))
    (folder / "manifest.csv").write_text("file,x,y\n")
    assert "no column 'w'" in complaint(evaluate("--data", folder, code=2))


def test_a_folder_without_a_picture(evaluate: Dulian, folder: Path) -> None:
    (folder / "manifest.csv").write_text(HEAD)
    assert "0 pictures, 0 boxed faces" in evaluate("--data", folder).out


# ── fitting ──────────────────────────────────────────────────────────────────────────────────────


def test_tables_are_fitted_judged_and_written(
    evaluate: Dulian, folder: Path, tmp_path: Path, model_store: ModelStore
) -> None:
    """A hundred and forty crops of one face, labelled by chance: what is fitted is of no use, yet complete."""
    face = decode_image((folder / "astronaut.png").read_bytes()).image[60:210, 160:290]
    rng = np.random.default_rng(0)
    rows, kinds = [], ["file,kind"]
    for number in range(140):
        name = f"{number}.jpg"
        assert cv2.imwrite(str(folder / name), np.clip(face * rng.uniform(0.6, 1.1), 0, 255).astype(np.uint8))
        source = "ab"[number % 2]
        rows.append(f"{name},,,,,{rng.integers(1, 80)},{rng.choice(['female', 'male'])},{source}\n")
        kinds.append(f"{name},face_crop")
    (folder / "manifest.csv").write_text(HEAD + "".join(rows))
    (folder / "images.csv").write_text("\n".join(kinds))
    before = contents(folder)
    output = tmp_path / "report"
    run = evaluate("--data", folder, "--fit", "--cross-validate", "--output", output, "--engine", "onnxruntime")
    assert run.told == [
        "standard (140)…",
        "standard: faces of 36 pixels (140)…",
        "standard: faces of 26 pixels (140)…",
        "standard: cross-validation (1)…",
    ]
    (report,) = json.loads((output / "evaluation.json").read_text("utf-8"))
    written = json.loads((output / "calibration" / "standard.json").read_text())
    assert written == report["calibration"]
    assert Calibration.from_dict(written).age.quantiles
    assert (written["age"]["faces"], written["gender"]["faces"]) == (140, 140)
    # without one of the sources too few are left to learn from
    assert list(report["held_out"]) == ["by_tenths"]
    assert report["held_out"]["by_tenths"]["error"]["n"] == 140
    label = "cross-validated: gender answered"
    assert run.cells(label) == [headline(report)[label]]
    assert contents(folder) == before
