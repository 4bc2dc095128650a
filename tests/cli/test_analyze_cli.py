"""``dulian analyze`` as people and scripts use it: a real process, real weights, real pictures."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.golden.pictures import sample_pictures

from dulian.faces import AnalysisResult

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Path:
    """Good pictures, a picture without people, and three files that are no pictures."""
    folder = tmp_path_factory.mktemp("album")
    pictures = sample_pictures(samples)
    (folder / "astronaut.png").write_bytes(pictures["astronaut"])
    (folder / "many.png").write_bytes(pictures["twelve astronauts"])
    (folder / "cat.png").write_bytes(pictures["cat"])
    (folder / "cut.jpg").write_bytes(pictures["astronaut jpeg"][:20_000])
    (folder / "empty.jpg").touch()
    (folder / "letter.jpg").write_text("no picture at all")
    return folder


class Run:
    """One finished call of the command line."""

    def __init__(self, done: subprocess.CompletedProcess[bytes]) -> None:
        self.code = done.returncode
        self.out = done.stdout.decode(errors="replace")
        self.err = done.stderr.decode(errors="replace")

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def dulian(model_store):  # type: ignore[no-untyped-def]
    def run(*arguments: str | Path, stdin: bytes = b"", **environment: str) -> Run:
        command = [sys.executable, "-m", "dulian", "analyze", *map(os.fspath, arguments)]
        env = {**os.environ, "DULIAN_MODEL_DIR": str(model_store.write_dir), "DULIAN_OFFLINE": "1", "LANG": "C.UTF-8"}
        env.pop("LC_ALL", None)
        done = subprocess.run(command, input=stdin, capture_output=True, env=env | environment, timeout=120)
        assert b"Traceback" not in done.stderr
        return Run(done)

    return run


def test_one_picture_gives_a_table_and_success(dulian, album: Path) -> None:  # type: ignore[no-untyped-def]
    run = dulian(album / "astronaut.png")
    assert run.code == 0
    assert "Female" in run.out
    assert "pictures: 1, faces: 1, refused: 0" in run.out
    assert run.err == ""


def test_bad_files_are_one_line_each_and_the_rest_goes_on(dulian, album: Path) -> None:  # type: ignore[no-untyped-def]
    run = dulian(album)
    assert run.code == 2
    refused = run.err.splitlines()
    assert len(refused) == 3
    assert all(line.startswith("refused ") for line in refused)
    assert "pictures: 6, faces: 13, refused: 3" in run.out
    assert "No face was found" in run.out


def test_json_lines_are_the_contract(dulian, album: Path) -> None:  # type: ignore[no-untyped-def]
    run = dulian(album, "--json")
    assert run.code == 2
    by_name = {Path(str(line["source"])).name: line for line in run.lines}
    assert list(by_name) == sorted(by_name)
    assert {name: line["error"]["code"] for name, line in by_name.items() if "error" in line} == {
        "cut.jpg": "image_truncated",
        "empty.jpg": "malformed_input",
        "letter.jpg": "unsupported_image",
    }
    result = AnalysisResult.from_dict(by_name["astronaut.png"])
    assert result.faces[0].gender is not None
    assert result.faces[0].gender.value == "female"
    assert result.timings_ms.decode > 0
    assert result.to_dict() == {k: v for k, v in by_name["astronaut.png"].items() if k != "source"}


def test_options_reach_the_analysis(dulian, album: Path) -> None:  # type: ignore[no-untyped-def]
    (line,) = dulian(album / "many.png", "--json", "--max-faces", "2", "--attributes", "age", "--coverage", "0.5").lines
    assert len(line["faces"]) == 2
    assert line["truncated"] is True
    assert line["skipped"] == 10
    assert all(face["gender"] is None and face["age"]["coverage"] == 0.5 for face in line["faces"])
    (line,) = dulian(album / "many.png", "--json", "--attributes", "", "--order", "left_to_right").lines
    lefts = [face["bbox"][0] for face in line["faces"]]
    assert lefts == sorted(lefts)
    assert all(face["age"] is None and face["gender"] is None for face in line["faces"])
    (line,) = dulian(album / "astronaut.png", "--json", "--min-confidence", "1.0").lines
    assert line["faces"] == []
    assert line["hint"]["best_candidate"]["confidence"] > 0.5


@pytest.mark.parametrize("engine", ["opencv", "openvino", "onnxruntime"])
@pytest.mark.parametrize("profile", ["standard", "classic"])
def test_profiles_and_engines(dulian, album: Path, profile: str, engine: str) -> None:  # type: ignore[no-untyped-def]
    (line,) = dulian(album / "astronaut.png", "--json", "--profile", profile, "--engine", engine).lines
    assert (line["model"]["profile"], line["model"]["engine"]) == (profile, engine)
    assert len(line["faces"]) == 1


def test_bf16_is_for_openvino(dulian, album: Path) -> None:  # type: ignore[no-untyped-def]
    picture = album / "astronaut.png"
    plain, coarse = (
        dulian(picture, "--json", "--engine", "openvino", "--precision", precision).lines[0]
        for precision in ("f32", "bf16")
    )
    assert plain["model"]["digest"] != coarse["model"]["digest"]
    assert abs(plain["faces"][0]["age"]["value"] - coarse["faces"][0]["age"]["value"]) < 3
    refused = dulian(picture, "--engine", "onnxruntime", "--precision", "bf16")
    assert refused.code == 3
    assert "use engine 'openvino'" in refused.err
    assert dulian(picture, "--precision", "int8").code == 2


def test_copies_are_written_below_the_output_folder_only(  # type: ignore[no-untyped-def]
    dulian, album: Path, tmp_path: Path
) -> None:
    nested = tmp_path / "in" / "a" / "b"
    nested.mkdir(parents=True)
    for place in (nested, nested.parent):
        (place / "me.png").write_bytes((album / "astronaut.png").read_bytes())
    (nested / "me.jpg").write_bytes(cv2.imencode(".jpg", cv2.imread(str(album / "astronaut.png")))[1].tobytes())
    out = tmp_path / "out"
    assert dulian(tmp_path / "in", "--output", out).code == 0
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*.jpg"))
    assert written == ["a/b/me_2_faces.jpg", "a/b/me_faces.jpg", "a/me_faces.jpg"]
    before, after = cv2.imread(str(nested / "me.png")), cv2.imread(str(out / "a" / "me_faces.jpg"))
    assert before.shape == after.shape
    assert np.abs(before.astype(int) - after).max() > 100
    assert {path.name for path in (tmp_path / "in").rglob("*") if path.is_file()} == {"me.png", "me.jpg"}


def test_copies_never_replace_originals(dulian, album: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    original = tmp_path / "me.jpg"
    original.write_bytes(cv2.imencode(".jpg", cv2.imread(str(album / "astronaut.png")))[1].tobytes())
    kept = original.read_bytes()
    assert dulian(tmp_path, "--output", tmp_path).code == 0
    assert original.read_bytes() == kept
    assert (tmp_path / "me_faces.jpg").is_file()


def test_an_output_that_cannot_be_written_is_an_error_line(  # type: ignore[no-untyped-def]
    dulian, album: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    run = dulian(album / "astronaut.png", "--output", tmp_path / "file")
    assert run.code == 2
    assert "is a file; name a folder" in run.err
    assert run.out == ""


def test_copies_replace_only_copies(dulian, album: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    jpeg = cv2.imencode(".jpg", cv2.imread(str(album / "astronaut.png")))[1].tobytes()
    for name in ("me.jpg", "me_faces.jpg", "elsewhere.jpg"):
        (tmp_path / name).write_bytes(jpeg)
    (tmp_path / "me_2_faces.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    for _ in range(2):
        assert dulian(tmp_path / "me.jpg", "--output", tmp_path).code == 0
    assert (tmp_path / "me_faces.jpg").read_bytes() == (tmp_path / "elsewhere.jpg").read_bytes() == jpeg
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "elsewhere.jpg",
        "me.jpg",
        "me_2_faces.jpg",
        "me_3_faces.jpg",
        "me_faces.jpg",
    ]
    assert cv2.imread(str(tmp_path / "me_3_faces.jpg")).shape == (512, 512, 3)


def test_a_copy_that_fails_loses_no_answer(dulian, album: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk to fill: {mounted.stderr.decode().strip()}")
    try:
        run = dulian(album / "astronaut.png", "--json", "--output", disk)
        assert run.code == 2
        assert "cannot write" in run.err
        assert len(run.lines[0]["faces"]) == 1
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_long_names_have_copies_too(dulian, album: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / ("长" * 83 + ".png")).write_bytes((album / "astronaut.png").read_bytes())
    assert dulian(tmp_path, "--output", tmp_path / "out").code == 0
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_standard_input(dulian, album: Path) -> None:  # type: ignore[no-untyped-def]
    (line,) = dulian("-", "--json", stdin=(album / "astronaut.png").read_bytes()).lines
    assert line["source"] == "-"
    assert len(line["faces"]) == 1
    assert dulian("-", stdin=b"").code == 2


def test_names_of_every_kind(dulian, album: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    data = (album / "astronaut.png").read_bytes()
    names = [b"\xe5\x86\x99\xe7\x9c\x9f \xc3\xa9 (1).png", b"bad\xff\xfe.png", b"two\nlines.png", b"\x1b[31mred.png"]
    names += [b":dog:.png", b"-dash.png", b"[bold]markup[b].png", "\u202egnp.exe.png".encode()]
    for name in names:
        Path(tmp_path, os.fsdecode(name)).write_bytes(data)
    run = dulian(tmp_path, "--json", "--attributes", "")
    assert run.code == 0
    sources = [str(line["source"]) for line in run.lines]
    assert len(sources) == len(names)
    assert all(source.isprintable() for source in sources)
    table = dulian(tmp_path, "--attributes", "", COLUMNS="200")
    assert table.code == 0
    assert "[bold]markup[b].png" in table.out
    assert ":dog:.png" in table.out
    assert "\x1b" not in table.out
    broken = tmp_path / ":dog:.jpg"
    broken.touch()
    assert ":dog:.jpg" in dulian(broken).err


def test_a_picture_is_known_by_its_bytes_whatever_its_name(  # type: ignore[no-untyped-def]
    dulian, album: Path, tmp_path: Path
) -> None:
    for name in ("lie.jpg", "lie.gif", "lie.txt", "lie"):
        (tmp_path / name).write_bytes((album / "astronaut.png").read_bytes())
        (line,) = dulian(tmp_path / name, "--json").lines
        assert len(line["faces"]) == 1


def test_chinese(dulian, album: Path) -> None:  # type: ignore[no-untyped-def]
    for run in (
        dulian(album / "astronaut.png", "--language", "zh"),
        dulian(album / "astronaut.png", LANG="zh_CN.UTF-8"),
    ):
        assert "女" in run.out
        assert "图片 1 张" in run.out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["gone.jpg"], 2, "gone.jpg"),
        (["--profile", "best"], 3, "choose from standard, accurate, classic"),
        (["--engine", "tpu"], 3, "choose from auto, onnxruntime"),
        (["--attributes", "beauty"], 2, "choose from age, gender"),
        (["--order", "beauty"], 2, "left_to_right"),
        (["--max-faces", "0"], 2, "greater than or equal to 1"),
        (["--language", "fr"], 2, "language"),
        (["--engine", "opencv-caffe"], 3, ""),
    ],
)
def test_mistakes_have_their_exit_codes(  # type: ignore[no-untyped-def]
    dulian, album: Path, arguments: list[str], code: int, says: str
) -> None:
    picture = [] if arguments == ["gone.jpg"] else [album / "astronaut.png"]
    run = dulian(*picture, *arguments)
    assert run.code == code
    assert says in run.err.replace("\n", " ")


def test_a_folder_without_pictures_is_a_mistake(dulian, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = dulian(tmp_path)
    assert run.code == 2
    assert "no picture found" in run.err


def test_without_models_and_network_it_says_what_to_do(  # type: ignore[no-untyped-def]
    dulian, album: Path, tmp_path: Path
) -> None:
    run = dulian(album / "astronaut.png", DULIAN_MODEL_DIR=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert run.code == 3
    assert "dulian models pull standard" in run.err
    assert run.err.count("\n") == 1


@pytest.mark.parametrize("delay_s", [0.05, 0.2, 0.5, 0.9])
def test_an_interrupt_is_quiet_at_any_moment(model_store, delay_s: float) -> None:  # type: ignore[no-untyped-def]
    env = {**os.environ, "DULIAN_MODEL_DIR": str(model_store.write_dir), "DULIAN_OFFLINE": "1"}
    command = [sys.executable, "-c", "from dulian.cli import main; print(flush=True); main()", "analyze", "-"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        time.sleep(delay_s)
        run.send_signal(signal.SIGINT)
        try:
            _, err = run.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            run.kill()
            raise
    assert err == b""
    assert run.returncode == 130


@pytest.mark.parametrize(
    "arguments", [["analyze", "ALBUM"], ["analyze", "ALBUM", "--json"], ["models", "list"], ["--help"]]
)
def test_a_full_disk_for_output_is_one_line(album: Path, model_store, arguments: list[str]) -> None:  # type: ignore[no-untyped-def]
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    env = {**os.environ, "DULIAN_MODEL_DIR": str(model_store.write_dir), "DULIAN_OFFLINE": "1"}
    command = [
        sys.executable,
        "-m",
        "dulian",
        *(str(album / "astronaut.png") if a == "ALBUM" else a for a in arguments),
    ]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=env, timeout=60)
    assert done.returncode == 3
    assert done.stderr == "dulian: No space left on device\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_terminals_without_chinese(dulian, album: Path, encoding: str) -> None:  # type: ignore[no-untyped-def]
    run = dulian(album / "astronaut.png", "--language", "zh", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert run.code == 0
    assert re.search(r"\(\d+-\d+\)", run.out)


def test_many_pictures_show_how_far_it_is(album: Path, model_store, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pty = pytest.importorskip("pty")
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes((album / "astronaut.png").read_bytes())
    ours, theirs = pty.openpty()
    env = {**os.environ, "DULIAN_MODEL_DIR": str(model_store.write_dir), "TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-m", "dulian", "analyze", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=env) as run:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:  # how Linux says that the other end is closed
            pass
    os.close(ours)
    assert run.returncode == 0
    assert b"/12" in shown
    assert b"/s" in shown


def test_a_closed_pipe_is_no_catastrophe(album: Path, model_store) -> None:  # type: ignore[no-untyped-def]
    env = {**os.environ, "DULIAN_MODEL_DIR": str(model_store.write_dir)}
    command = f"{sys.executable} -m dulian analyze {album} --json | head -c 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=env, timeout=120, check=False)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
