"""What the documents say is held against the code: nothing is left out, and nothing is named that does not exist."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from tests.conftest import ROOT
from tests.docs.pages import anchors, code, links, names_of_tests, pages, python_blocks, row_of, rows, text_of
from tests.fakes import FakeSession

from dulian import runtimes
from dulian.cli import INTERRUPTED, TERMINATED
from dulian.cli.app import EXIT_CODES, app, exit_code
from dulian.convert.caffe import LAYERS
from dulian.errors import DulianError
from dulian.evaluate.card import read_reports
from dulian.factory import open_profile
from dulian.image import ImageLimits
from dulian.messages import HINTS, REASONS
from dulian.models import archives, catalog, networks
from dulian.models.catalog import PROFILES, SAMPLES, all_rows
from dulian.models.rows import ModelRow
from dulian.service.watchdog import EXIT_HUNG
from dulian.settings import OPENCV_WALL, Settings
from dulian.store import ModelStore
from dulian.store.model_store import SYSTEM_DIRS

PAGES = {str(page.relative_to(ROOT)): page for page in pages()}
LAST_ROWS = {"M": 17, "R": 24, "A": 16, "D": 10, "N": 8}
ROW_IDS = [f"{group}{number}" for group, last in LAST_ROWS.items() for number in range(1, last + 1)]
# Every name that the articles give to a file of the three networks; 003's joint net was never published.
ARTICLE_FILES = {
    *("deploy.prototxt", "res10_300x300_ssd_iter_140000.caffemodel"),
    *("face_detection.prototxt", "face_detection.caffemodel", "face_detector.prototxt", "face_detector.caffemodel"),
    *("deploy_gender.prototxt", "gender_deploy.prototxt", "gender_net.caffemodel"),
    *("gender_classification.prototxt", "gender_classification.caffemodel"),
    *("deploy_age.prototxt", "age_deploy.prototxt", "age_net.caffemodel"),
    *("age_prediction.prototxt", "age_prediction.caffemodel"),
}
FRAMEWORKS = {"torch", "tensorflow", "keras", "mxnet", "jax", "paddlepaddle", "dlib"}


# ── articles.md ──────────────────────────────────────────────────────────────────────────────────

MACHINE_PATHS = r"(?<![\w.~-])/(?:work|tmp|home|mnt|Users)(?:/|\b)|/root/(?!models\b)"
REGISTRY_HOSTS = r"pypi\.org|pythonhosted|npmjs|yarnpkg|anaconda\.org|artifactory|--(?:extra-)?index-url|/simple\b"


def article_rows() -> list[list[str]]:
    return [row for row in rows(text_of("articles.md")) if re.fullmatch(r"[A-Z]\d+", row[0])]


def test_every_row_of_the_articles_is_there_once() -> None:
    assert Counter(row[0] for row in article_rows()) == Counter(ROW_IDS)


@pytest.mark.parametrize("row", article_rows(), ids=lambda row: row[0])
def test_every_row_is_proved(row: list[str]) -> None:
    assert len(row) == 5
    _, described, stands, _, proof = row
    assert described
    assert stands
    assert not re.search(r"[Pp]lanned", stands)
    assert re.fullmatch(r"(`tests/\S+\.py::test_\w+`(, )?)+", proof)


@pytest.mark.parametrize("page", PAGES)
def test_every_cited_test_exists(page: str) -> None:
    for path, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", PAGES[page].read_text("utf-8")):
        assert name in names_of_tests(ROOT / path), f"{path}::{name}"


@pytest.mark.parametrize("page", PAGES)
def test_every_cited_path_exists(page: str) -> None:
    for path in re.findall(
        r"(?<![\w./-])((?:src|tests|tools|docs|examples)/[\w/.-]*\w)", PAGES[page].read_text("utf-8")
    ):
        assert (ROOT / path).exists(), path


def test_file_names_of_the_articles_are_known_to_the_catalog() -> None:
    known = {name for row in all_rows() for file in row.files for name in (file.name, *file.aliases)}
    assert known >= ARTICLE_FILES
    assert set(re.findall(r"`(\w+\.(?:prototxt|caffemodel))`", text_of("articles.md"))) <= ARTICLE_FILES


# ── models.md ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("row", all_rows(), ids=lambda row: row.name)
def test_every_model_is_described(row: ModelRow) -> None:
    text = text_of("models.md")
    assert any(f"`{row.name}`" in line for line in text.splitlines() if line.startswith("### "))
    for file in {*row.files, row.weights}:
        assert file.name in text
        assert f"`{file.sha256[:12]}…`" in text or f"sha256 `{file.sha256[:12]}…`" in text
    for file in row.files:
        assert all(f"`{source.package.requirement}`" in text for source in file.sources)
        assert f"{file.size:,} bytes" in text


def profile_rows(name: str) -> list[list[str]]:
    """What a profile consists of, and how often it was right."""
    return [cells for cells in rows(text_of("models.md")) if cells[0].split(" ")[0] == f"`{name}`"]


def test_every_profile_is_described() -> None:
    for name, profile in PROFILES.items():
        (networks, figures) = profile_rows(name)
        assert all(any(f"`{row.name}`" in cell for cell in networks) for row in profile.rows)
        assert re.match(r"\d\d\.\d % \(", figures[1])


def test_sizes_of_the_profiles_are_the_catalogs() -> None:
    for name, profile in PROFILES.items():
        size = sum(file.size for file in {file for row in profile.rows for file in row.files}) / 1e6
        said = profile_rows(name)[0][4]
        assert said == (f"{size:.0f} MB" if size >= 100 else f"{size:.1f} MB")
        assert said in row_of(text_of("articles.md"), "N2")[2]


# ── the model card, and who quotes it ────────────────────────────────────────────────────────────

CARD = ROOT / "src/dulian/data/model-card.html"
REPORTS = {report["profile"]: report for report in read_reports(CARD.read_text("utf-8"))}


@pytest.mark.weights
@pytest.mark.parametrize("name", PROFILES)
def test_the_card_is_of_the_profile_as_it_is(name: str, model_store: ModelStore) -> None:
    """After a change of weights, thresholds, crops or tables: make model-card DATA=folder."""
    opened = open_profile(PROFILES[name], model_store, engine="onnxruntime")
    assert REPORTS[name]["digest"] == opened.model.digest


def test_the_card_is_part_of_the_documents() -> None:
    assert (ROOT / "docs/model-card.html").read_bytes() == CARD.read_bytes()


def figures_of(name: str) -> dict[str, float]:
    """What documents quote, rounded as they do."""
    report, held_out = REPORTS[name], REPORTS[name]["held_out"]["by_tenths"]
    return {
        "gender": round(100 * held_out["gender"]["value"], 1),
        "adults": round(100 * held_out["gender_adults"]["value"], 1),
        "error": round(held_out["error"]["value"], 1),
        "coverage": round(100 * held_out["interval_holds"]["value"], 1),
        "width": round(held_out["interval_width"]["value"]),
        "found": round(100 * report["detection"]["recall_32"]["value"], 1),
        "precision": round(100 * report["detection"]["precision"]["value"], 1),
    }


@pytest.mark.parametrize(("column", "name"), [(1, "standard"), (2, "accurate"), (3, "classic")])
def test_figures_are_the_cards(column: int, name: str) -> None:
    figures = figures_of(name)
    readme = (ROOT / "README.md").read_text("utf-8")
    for row, names in {
        "gender right": ("gender",),
        "… of adults": ("adults",),
        "mean age error": ("error",),
        "90 % interval holds / mean width": ("coverage", "width"),
        "faces from 32 px found / precision": ("found", "precision"),
    }.items():
        written = [float(number) for number in re.findall(r"[\d.]+", row_of(readme, row)[column])]
        assert written == [figures[figure] for figure in names], row
    about = (ROOT / "src/dulian/service/webui/static/about.js").read_text("utf-8")
    shown = re.search(rf"{name}: {{(.*?)}}", about)
    assert shown
    on_page = {figure: float(value) for figure, value in re.findall(r"(\w+): ([\d.]+)", shown[1])}
    assert on_page == {figure: figures[figure] for figure in on_page}
    told = profile_rows(name)[1]
    assert float(told[1].partition(" ")[0]) == figures["gender"]
    assert round(float(told[4].partition(" ")[0]), 1) == figures["error"]


def test_known_layers_are_described() -> None:
    said = re.search(r"Known layers: (.*?); (BatchNorm) is", text_of("models.md"), flags=re.DOTALL)
    assert said
    assert set(re.findall(r"\w+", said[1])) == {*LAYERS, "LRN"} - {"Affine"}


def test_samples_are_described() -> None:
    assert all(f"`{sample.name}` (`{sample.sha256[:12]}…`)" in text_of("models.md") for sample in SAMPLES)


# ── configuration.md and errors.md ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_described(name: str) -> None:
    row = row_of(text_of("configuration.md"), f"`{name}`")
    default = Settings.model_fields[name].default
    assert row[1] == f"`DULIAN_{name.upper()}`"
    assert row[2] == ("none" if default in (None, ()) else f"`{str(default).lower()}`")


def test_no_setting_is_described_that_does_not_exist() -> None:
    known = {f"DULIAN_{name.upper()}" for name in Settings.model_fields} | {"DULIAN_DEV_DATA"}
    for name, page in PAGES.items():
        assert set(re.findall(r"DULIAN_\w+", page.read_text("utf-8"))) <= known, name


def test_choices_are_described() -> None:
    text = text_of("configuration.md")
    assert all(f"`{engine}`" in row_of(text, "`engine`")[3] for engine in ("auto", *runtimes.RUNTIMES))
    assert all(f"`{profile}`" in row_of(text, "`profile`")[3] for profile in PROFILES)
    assert all(f"`{variable}`" in text for variable in OPENCV_WALL)


def test_model_folders_are_described() -> None:
    listed = re.findall(r"^\d\. `(/[^`]+)`$", text_of("configuration.md"), flags=re.MULTILINE)
    assert [Path(folder) for folder in listed] == list(SYSTEM_DIRS)
    assert listed[0] == "/root/models"


def test_limits_are_described() -> None:
    limits, text = ImageLimits(), text_of("configuration.md")
    assert row_of(text, "bytes")[1] == f"{limits.max_bytes >> 20} MiB"
    assert row_of(text, "pixels")[1] == f"{limits.max_pixels:,}"
    assert row_of(text, "pixels along one side")[1] == f"{limits.max_side:,}"
    heavy = "pixels of a progressive, interlaced, transparent (PNG, WebP) or AVIF picture"
    assert row_of(text, heavy)[1] == f"{limits.max_fancy_pixels:,}"


def test_every_exit_code_is_described() -> None:
    section = text_of("configuration.md").split("## Exit codes")[1].split("\n## ")[0]
    described = {int(row[0]) for row in rows(section) if row[0].isdigit()}
    assert described == {0, INTERRUPTED, TERMINATED, EXIT_HUNG, *(code for _, code in EXIT_CODES)}


def all_errors(base: type[DulianError] = DulianError) -> list[type[DulianError]]:
    kinds = [base, *(kind for child in base.__subclasses__() for kind in all_errors(child))]
    return [kind for kind in kinds if kind.__module__.startswith("dulian")]


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.code)
def test_every_error_is_described(kind: type[DulianError]) -> None:
    row = row_of(text_of("errors.md"), f"`{kind.code}`")
    assert len(row) == 4
    assert row[2] == str(exit_code(kind("")))


@pytest.mark.parametrize("code", [*REASONS, *HINTS])
def test_every_reason_is_described(code: str) -> None:
    assert row_of(text_of("configuration.md"), f"`{code}`")[1]


# ── commands ─────────────────────────────────────────────────────────────────────────────────────


def commands(command: Any, name: str) -> list[str]:
    below = getattr(command, "commands", {})
    return [full for word, child in below.items() for full in commands(child, f"{name} {word}")] or [name]


COMMANDS = set(commands(typer.main.get_command(app), "dulian"))


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_described(command: str) -> None:
    assert any(re.search(rf"{command}\b", page.read_text("utf-8")) for page in PAGES.values())


@pytest.mark.parametrize("page", PAGES)
def test_no_command_is_described_that_does_not_exist(page: str) -> None:
    known = COMMANDS | {full.rpartition(" ")[0] for full in COMMANDS}
    shown = re.findall(r"(?<![\w./-])(dulian(?: models| batch)? [a-z]+)\b", code(PAGES[page].read_text("utf-8")))
    assert set(shown) <= known


# ── every page ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in links(PAGES[page].read_text("utf-8")):
        path, _, anchor = link.partition("#")
        target = PAGES[page].parent / path if path else PAGES[page]
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), link


@pytest.mark.parametrize("page", PAGES)
def test_no_machine_and_no_registry_is_named(page: str) -> None:
    """Every user's mirror and folders are their own."""
    assert not re.findall(f"{MACHINE_PATHS}|{REGISTRY_HOSTS}", PAGES[page].read_text("utf-8"))


@pytest.mark.parametrize("pattern", ["requirements/*.txt", "src/**/*.py", "Makefile", "pyproject.toml", ".ci/run"])
def test_no_registry_stands_in_locks_or_code(pattern: str) -> None:
    files = list(ROOT.glob(pattern))
    assert files
    for file in files:
        assert not re.findall(REGISTRY_HOSTS, file.read_text("utf-8")), file


def test_documents_that_the_code_cites_exist() -> None:
    for module in (ROOT / "src").rglob("*.py"):
        for name, heading in re.findall(r"docs/([\w-]+\.md)(?:, \"([^\"]+)\")?", module.read_text("utf-8")):
            assert not heading or re.search(rf"^#+ .*{re.escape(heading)}", text_of(name), flags=re.MULTILINE), module


def test_requirements_stay_light() -> None:
    """No deep-learning framework, and OpenCV without windows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = {re.split(r"[^\w-]", requirement)[0].lower() for requirement in project["dependencies"]}
    assert "opencv-python-headless" in needed
    assert not needed & (FRAMEWORKS | {"opencv-python", "opencv-contrib-python"})


def test_examples_of_add_a_model_run() -> None:
    names: dict[str, Any] = {**vars(archives), **vars(networks), **vars(catalog), **vars(runtimes)}
    blocks = python_blocks(text_of("add-a-model.md"))
    for number, block in enumerate(blocks):
        exec(compile(block, f"<add-a-model.md, example {number + 1}>", "exec"), names)
    assert names["MY_JOINT"].provides == {"age", "gender"}
    assert names["PROFILES"]["joint"].estimators == (names["MY_JOINT"],)
    session = FakeSession(age=np.float32([[1, 1, 0.75, 0.5, 0, 0, 0], [1, 0.5, 0.75, 0, 0, 0, 0]]))
    scores = names["OrdinalAge"](names["MY_JOINT"], session).estimate([np.zeros((112, 112, 3), np.uint8)] * 2)
    assert scores.age.probabilities.tolist() == [[0, 0, 0.25, 0.25, 0.5, 0, 0, 0], [0, 0.5, 0, 0.5, 0, 0, 0, 0]]
    assert callable(names["open_weights"])
