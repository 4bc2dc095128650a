"""``dulian models``: what people and programs read, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.fake_registry import FakeRegistry
from typer.testing import CliRunner, Result

from dulian.cli.models import app, make_store, show_download
from dulian.errors import InputNotFoundError, MalformedInputError, UnknownNameError, WeightsError
from dulian.models import catalog

OK, BAD_INPUT, BACKEND = 0, 2, 3


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    fake = FakeRegistry(tmp_path)
    monkeypatch.setattr(catalog, "PROFILES", fake.profiles)
    monkeypatch.setattr(catalog, "SAMPLES", fake.samples)
    monkeypatch.setenv("DULIAN_MODEL_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("DULIAN_OFFLINE", "1")
    return fake


@pytest.fixture
def models(registry: FakeRegistry, tmp_path: Path) -> Path:
    """A model folder that holds everything."""
    folder = tmp_path / "models"
    assert models_command("import", str(registry.folder)).exit_code == OK
    return folder


def models_command(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("command", ["list", "pull", "verify", "convert", "import", "path"])
def test_every_command_explains_itself(command: str) -> None:
    done = models_command(command, "--help")
    assert done.exit_code == OK
    assert "Usage" in done.stdout


def test_list_shows_a_table(registry: FakeRegistry, models: Path) -> None:
    (models / "other.onnx").write_bytes(b"short")
    shown = models_command("list").stdout
    for word in ("tiny", "standard", "age", "MIT", "tiny-models==1.0", "ready", "damaged"):
        assert word in shown


def test_list_as_json_lines(registry: FakeRegistry, models: Path) -> None:
    (models / "other.onnx").unlink()
    tiny, other = map(json.loads, models_command("list", "--json").stdout.splitlines())
    assert (tiny["model"], tiny["state"], tiny["path"]) == ("tiny", "ready", str(models / "tiny.onnx"))
    assert tiny["sha256"] == registry.tiny.weights.sha256
    assert (tiny["profiles"], tiny["provides"], tiny["packages"]) == (["standard"], ["age"], ["tiny-models==1.0"])
    assert (other["model"], other["state"], other["path"]) == ("other", "missing", None)


def test_verify_passes_when_all_is_well(models: Path) -> None:
    done = models_command("verify", "all")
    assert done.exit_code == OK
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ready"] * 3


def test_verify_tells_missing_and_damaged_by_exit_code(models: Path) -> None:
    (models / "tiny.onnx").unlink()
    (models / "other.onnx").write_bytes(b"short")
    done = models_command("verify")
    assert done.exit_code == BACKEND
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["missing", "damaged"]
    assert "truncated: 5 of 4000 bytes" in done.stdout
    states = [json.loads(line)["state"] for line in models_command("verify", "--json").stdout.splitlines()]
    assert states == ["missing", "damaged"]


def test_path_prints_the_folder_or_the_files(registry: FakeRegistry, models: Path) -> None:
    assert models_command("path").stdout == f"{models}\n"
    assert models_command("path", "standard").stdout.splitlines() == [
        str(models / "tiny.onnx"),
        str(models / "other.onnx"),
    ]
    assert models_command("path", "samples").stdout == f"{models / 'samples'}\n"
    (models / "tiny.onnx").unlink()
    done = models_command("path", "standard")
    assert isinstance(done.exception, WeightsError)
    assert "dulian models pull standard" in str(done.exception)


def test_import_reports_what_is_still_missing(registry: FakeRegistry, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(registry.tiny_data)
    shown = models_command("import", str(tmp_path / "one")).stdout.splitlines()
    assert shown == [f"imported       {tmp_path / 'models' / 'tiny.onnx'}", "standard: still missing other.onnx"]
    assert "standard: complete" in models_command("import", str(registry.wheel)).stdout


def test_an_unknown_profile_is_named_with_those_that_exist(registry: FakeRegistry) -> None:
    done = models_command("pull", "nonsense")
    assert isinstance(done.exception, UnknownNameError)
    assert "unknown profile 'nonsense'; choose from standard" in str(done.exception)


def test_exit_codes_reach_the_shell(registry: FakeRegistry, tmp_path: Path) -> None:
    missing = registry.run("models", "import", "nothing-here")
    assert missing.returncode == BAD_INPUT
    assert missing.stderr.startswith("dulian: cannot read nothing-here")
    assert registry.run("models", "verify").returncode == BACKEND
    (tmp_path / "tiny.onnx").write_bytes(b"broken")
    refused = registry.run("models", "import", "tiny.onnx")
    assert refused.returncode == BACKEND
    assert len(refused.stderr.splitlines()) == 1


def test_a_remark_is_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path)
    store.notify("mind\nthe gap")
    store.notify("mind\nthe gap")
    assert capsys.readouterr().err == "dulian: mind\\nthe gap\n"


def test_a_download_shows_a_bar_on_a_terminal_and_one_line_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with show_download("tiny-models==1.0", 16_000_000) as advance:
        advance(1_000_000)
    assert capsys.readouterr().err == "fetching tiny-models==1.0 (16.0 MB)…\n"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with show_download("tiny-models==1.0", 16_000_000) as advance:
        advance(8_000_000)
    shown = capsys.readouterr()
    assert "fetching tiny-models==1.0" in shown.err
    assert "8.0/16.0 MB" in shown.err
    assert shown.out == ""


# ── convert ──────────────────────────────────────────────────────────────────────────────────────

PROTOTXT = """
input: "data" input_dim: 1 input_dim: 3 input_dim: 4 input_dim: 4
layer { name: "prob" type: "Softmax" bottom: "data" top: "prob" }
"""
# NetParameter.layer, with a name and a type and no blobs.
CAFFEMODEL = b"\xa2\x06\x0f" + b"\x0a\x04prob" + b"\x12\x07Softmax"


@pytest.fixture
def net(tmp_path: Path) -> list[str]:
    (tmp_path / "net.prototxt").write_text(PROTOTXT)
    (tmp_path / "net.caffemodel").write_bytes(CAFFEMODEL)
    return [str(tmp_path / name) for name in ("net.prototxt", "net.caffemodel", "net.onnx")]


def test_convert_writes_once_and_never_over_a_file_unasked(net: list[str]) -> None:
    output = Path(net[2])
    done = models_command("convert", *net)
    assert done.exit_code == OK, done.exception
    assert done.stdout.startswith(f"wrote {output}")
    first = output.read_bytes()
    again = models_command("convert", *net)
    assert isinstance(again.exception, MalformedInputError)
    assert "--force replaces it" in str(again.exception)
    assert models_command("convert", *net, "--force").exit_code == OK
    assert output.read_bytes() == first


def test_convert_check_prints_the_differences(net: list[str]) -> None:
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip(f"OpenCV {cv2.__version__} has no Caffe importer to compare with")
    done = models_command("convert", *net, "--check")
    assert done.exit_code == OK, done.exception
    assert "largest difference" in done.stdout
    assert "prob" in done.stdout


def test_convert_does_not_write_what_differs(net: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from dulian.convert import CheckReport, CheckRow

    report = CheckReport((CheckRow("prob", 0.5, 1e-5),), 1, "a reference")
    monkeypatch.setattr("dulian.convert.check_against_opencv", lambda *nets: report)
    done = models_command("convert", *net, "--check")
    assert isinstance(done.exception, WeightsError)
    assert "differs" in done.stdout
    assert not Path(net[2]).exists()


def test_convert_tells_of_the_old_text_and_repairs_it_when_asked(
    net: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    repaired: list[bytes] = []

    def repair(text: bytes) -> bytes:
        repaired.append(text)
        return text

    monkeypatch.setattr("dulian.convert.has_old_ssd_flaw", lambda text: True)
    monkeypatch.setattr("dulian.convert.repair_ssd_prototxt", repair)
    assert "--repair mends it" in models_command("convert", *net).stderr
    assert not repaired
    assert "repaired for this conversion" in models_command("convert", *net, "--force", "--repair").stderr
    assert repaired == [PROTOTXT.encode()]


def test_convert_of_a_missing_file_is_the_callers_mistake(net: list[str], tmp_path: Path) -> None:
    done = models_command("convert", str(tmp_path / "no.prototxt"), *net[1:])
    assert isinstance(done.exception, InputNotFoundError)
    assert "no.prototxt" in str(done.exception)
