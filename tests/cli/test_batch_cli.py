"""``dulian batch`` as people and schedulers use it: real processes, real weights, real pictures."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.golden.pictures import sample_pictures

from dulian import cli
from dulian.batch.shards import Range
from dulian.batch.tally import Tally
from dulian.cli.batch import progress
from dulian.cli.batch.asked import Crew, Drivers, choose_driver, make_crew, make_driver, parse_formats, parse_share
from dulian.cli.batch.progress import Pace, Watch
from dulian.cli.batch.texts import TEXTS, duration, size
from dulian.errors import DulianError, MalformedInputError
from dulian.store import ModelStore

PATIENCE_S = 90.0
HOSTILE = "a\x1b[31m\nb.png"
REFUSED = {"image_truncated": 1, "input_not_found": 1, "malformed_input": 1, "unsupported_image": 1}


@pytest.fixture(scope="module")
def pictures(samples: Path) -> dict[str, bytes]:
    return sample_pictures(samples)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, pictures: dict[str, bytes]) -> Path:
    """A folder with an album: good pictures, what is no picture, a link, and a name that a terminal would obey."""
    folder = tmp_path_factory.mktemp("home")
    album = folder / "album"
    (album / "summer").mkdir(parents=True)
    for name in ("summer/many.png", "summer/again.png"):
        (album / name).write_bytes(pictures["twelve astronauts"])
    (album / "astronaut.png").write_bytes(pictures["astronaut"])
    (album / HOSTILE).write_bytes(pictures["cat"])
    (album / "cut.jpg").write_bytes(pictures["astronaut jpeg"][:20_000])
    (album / "empty.jpg").touch()
    (album / "letter.jpg").write_text("no picture at all")
    (album / "link.jpg").symlink_to("/etc/passwd")
    (album / "notes.txt").write_text("not looked at")
    return folder


class Run:
    """One finished call of the command line."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code = code
        self.out, self.err = out.decode(errors="replace"), err.decode(errors="replace")
        assert "Traceback" not in self.err, self.err
        assert "\x1b" not in self.out + self.err

    @property
    def json(self) -> dict[str, Any]:
        (line,) = self.out.splitlines()
        return dict(json.loads(line))


class Processes:
    """``dulian batch`` as processes in a folder of their own, with the weights at hand."""

    def __init__(self, home: Path, store: ModelStore) -> None:
        self.home = home
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("DULIAN_", "LC_"))}
        self.environment = {**clean, "DULIAN_MODEL_DIR": str(store.write_dir), "DULIAN_OFFLINE": "1", "LANG": "C.UTF-8"}

    def command(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-m", "dulian", "batch", *map(os.fspath, words)]

    def run(self, *words: str | Path) -> Run:
        done = subprocess.run(
            self.command(*words), cwd=self.home, env=self.environment, capture_output=True, timeout=PATIENCE_S
        )
        return Run(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str | Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(*words),
            cwd=self.home,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def processes(home: Path, model_store: ModelStore) -> Processes:
    return Processes(home, model_store)


class Dulian:
    """The same in this process, which spares starting one each time."""

    def __init__(self, home: Path, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[bytes]) -> None:
        self.home = home
        self._patch, self._captured = patch, captured

    def __call__(self, *words: str | Path) -> Run:
        self._captured.readouterr()
        self._patch.setattr(sys, "argv", ["dulian", "batch", *map(os.fspath, words)])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with pytest.raises(SystemExit) as leaving:
                cli._run()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        code = leaving.value.code
        return Run(code if isinstance(code, int) else 1, *self._captured.readouterr())


@pytest.fixture
def dulian(processes: Processes, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Dulian:
    for name in os.environ.keys() - processes.environment.keys():
        monkeypatch.delenv(name)
    for name, value in processes.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(processes.home)
    return Dulian(processes.home, monkeypatch, capfdbinary)


@pytest.fixture(scope="module")
def first(processes: Processes) -> Run:
    """A whole batch, by two processes, in ``out``."""
    return processes.run(
        *("run", "album", "--output", "out", "--processes", "2", "--shard-size", "3", "--json"),
        *("--format", "jsonl,html", "--pictures"),
    )


def records(file: Path) -> dict[str, dict[str, Any]]:
    """Records by their source, without what differs from run to run."""
    found = {}
    for line in file.read_text("utf-8").splitlines():
        record = json.loads(line)
        record.pop("timings_ms", None)
        assert record["source"] not in found
        found[record["source"]] = record
    return found


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """All files, what they hold, and when that was written."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


# ── a whole batch ────────────────────────────────────────────────────────────────────────────────


def test_every_input_is_answered_or_refused_once(dulian: Dulian, first: Run) -> None:
    assert first.code == 2, first.err
    told = first.json
    assert (told["inputs"], told["computed"], told["before"], told["left_alone"]) == (8, 8, 0, 1)
    assert (told["ok"], told["duplicates"], told["errors"]) == (4, 0, REFUSED)
    assert (told["faces"], told["deaths"], told["quarantined"]) == (25, 0, 0)
    assert told["files"] == ["out/records.jsonl", "out/report.html"]
    assert set(records(dulian.home / "out/records.jsonl")) == {
        *("album/astronaut.png", r"album/a\x1b[31m\nb.png", "album/cut.jpg", "album/empty.jpg", "album/letter.jpg"),
        *("album/link.jpg", "album/summer/again.png", "album/summer/many.png"),
    }
    assert (dulian.home / "out/report.html").read_text("utf-8").startswith("<!doctype html>")


def test_answers_are_those_of_analyze(processes: Processes, first: Run) -> None:
    alone = subprocess.run(
        [sys.executable, "-m", "dulian", "analyze", "album/astronaut.png", "album/summer/many.png", "--json"],
        cwd=processes.home,
        env=processes.environment,
        capture_output=True,
        check=True,
        timeout=PATIENCE_S,
    )
    of_batch = records(processes.home / "out/records.jsonl")
    for line in map(json.loads, alone.stdout.splitlines()):
        record = of_batch[line["source"]]
        assert record["annotated_image"].startswith("pictures/")
        assert (processes.home / "out" / record["annotated_image"]).read_bytes().startswith(b"\xff\xd8\xff")
        assert all(record[name] == line[name] for name in ("image", "model", "faces"))


@pytest.mark.parametrize("again", [("album",), ()], ids=["with the sources", "without"])
def test_a_second_run_computes_nothing(dulian: Dulian, first: Run, again: tuple[str, ...]) -> None:
    before = tree(dulian.home / "out/records") | tree(dulian.home / "out/pictures")
    options = ("--shard-size", "3", "--pictures") if again else ()
    run = dulian("run", *again, "--output", "out", "--json", *options)
    assert run.code == 2, run.err
    assert (run.json["computed"], run.json["before"]) == (0, 8)
    same = ("job", "inputs", "ok", "errors", "faces", "files")
    assert {name: run.json[name] for name in same} == {name: first.json[name] for name in same}
    assert tree(dulian.home / "out/records") | tree(dulian.home / "out/pictures") == before


def test_a_whole_album_is_success(dulian: Dulian, tmp_path: Path) -> None:
    place = tmp_path / "one\x1b[31m"  # a name that no terminal may obey
    run = dulian("run", "album/astronaut.png", "-o", place, "--driver", "inline", "--language", "en")
    assert (run.code, run.err) == (0, "")
    assert re.search(r"^answered +1 \(faces: 1\)$", run.out, re.MULTILINE)
    assert re.search(r"^errors +none$", run.out, re.MULTILINE)


def test_the_summary_is_for_people(dulian: Dulian, first: Run) -> None:
    english, chinese = (dulian("run", "-o", "out", "--language", language) for language in ("en", "zh"))
    assert english.code == chinese.code == 2
    assert "errors    4: image_truncated 1, input_not_found 1, malformed_input 1, unsupported_image 1" in english.out
    assert "\nwhat was refused: dulian batch merge out --where error --output failures.csv\n" in english.out
    assert "输入    8 个,分 3 片,每片 3 个;其中 8 个早已完成" in chinese.out
    assert "\n查看被拒绝的: dulian batch merge out --where error --output failures.csv" in chinese.out


def test_the_files_of_the_end_are_filtered(dulian: Dulian, first: Run) -> None:
    run = dulian("run", "-o", "out", "--format", "txt,csv", "--where", "error", "--where", "source=*.jpg", "--json")
    assert run.json["files"] == ["out/records.txt", "out/records.csv"]
    names = (dulian.home / "out/records.txt").read_text().splitlines()
    assert names == ["album/cut.jpg", "album/empty.jpg", "album/letter.jpg", "album/link.jpg"]
    follow_up = dulian("run", "out/records.txt", "-o", "again", "--driver", "inline", "--format", "none", "--json")
    assert follow_up.json["errors"] == REFUSED
    assert follow_up.json["files"] == []


# ── before it begins ─────────────────────────────────────────────────────────────────────────────


def test_a_dry_run_writes_nothing(dulian: Dulian, first: Run) -> None:
    before = tree(dulian.home)
    fresh = dulian("run", "album", "--output", "nowhere", "--dry-run", "--dedupe", "--json")
    assert fresh.code == 0, fresh.err
    told = fresh.json
    assert (told["inputs"], told["problems"], told["duplicates"]) == (8, {"input_not_found": 1}, 1)
    assert (told["begun"], told["committed"], told["shards"], told["left_alone"]) == ("nothing", 0, 1, 1)
    assert told["pictures_per_s"] > 0
    assert told["seconds"] == pytest.approx(8 / told["pictures_per_s"], rel=0.01)
    begun = dulian("run", "album", "-o", "out", "--dry-run", "--shard-size", "3", "--pictures", "--language", "en")
    assert "in out      this job: 8 of its inputs have their records" in begun.out
    other = dulian("run", "album", "-o", "out", "--dry-run", "--shard-size", "4")
    assert "another job, so that this one would be refused" in other.out
    assert tree(dulian.home) == before


def test_another_job_is_refused(dulian: Dulian, first: Run) -> None:
    before = tree(dulian.home / "out")
    run = dulian("run", "album", "-o", "out", "--shard-size", "3", "--pictures", "--max-faces", "1", "--dedupe")
    assert run.code == 2
    assert "begun with other pictures" in run.err
    assert "max_faces (50 then, 1 now)" in run.err
    assert tree(dulian.home / "out") == before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("album", "--shard", "8/8"), 2, "shares are counted from 0; of 8 shares the first is 0/8 and the last 7/8"),
        (("album", "--shard", "1"), 2, "the first of eight is 0/8"),
        (("album", "--format", "docx"), 2, "choose from .jsonl, .csv"),
        (("album", "--where", "agee>3"), 2, "did you mean 'age'?"),
        (("album", "--profile", "none"), 3, "unknown profile"),
        (("album", "--attributes", "mood"), 2, "unknown attribute"),
        (("album", "--ray-address", "auto", "--driver", "local"), 2, "--ray-address is for --driver ray"),
        (("memory://pictures", "--driver", "local"), 2, "use --driver inline"),
        (("nowhere/*.jpg", "albm"), 2, "nothing of nowhere/*.jpg, albm can be read"),
        (("--dedupe",), 2, "--dedupe needs the sources to be named too"),
        ((), 2, "there is no batch in"),
    ],
)
def test_what_makes_no_sense_is_one_line(dulian: Dulian, words: tuple[str, ...], code: int, said: str) -> None:
    run = dulian("run", *words, "--output", "refused")
    assert run.code == code
    assert run.out == ""
    (line,) = run.err.splitlines()
    assert line.startswith("dulian: ")
    assert said in line
    assert not (dulian.home / "refused/job.json").exists()


def test_a_destination_that_is_no_folder(dulian: Dulian) -> None:
    run = dulian("run", "album", "--output", "album/letter.jpg")
    assert run.code == 3
    assert "letter.jpg" in run.err


def test_a_place_in_memory_is_computed_by_this_process(dulian: Dulian) -> None:
    run = dulian("run", "album/astronaut.png", "--output", "memory://batch", "--json")
    assert run.code == 0, run.err
    assert run.json["files"] == ["memory://batch/records.jsonl", "memory://batch/report.html"]


# ── shares ───────────────────────────────────────────────────────────────────────────────────────


def test_shares_make_a_whole(dulian: Dulian, first: Run) -> None:
    listed = dulian("run", "album", "-o", "shared", "--shard-size", "3", "--pictures", "--list-only", "--json")
    assert listed.code == 0, listed.err
    assert listed.json == {"destination": "shared", "job": first.json["job"], "inputs": 8, "shards": 3}
    halves = [dulian("run", "-o", "shared", "--shard", "0/2", "--driver", "inline", "--json")]
    early = dulian("merge", "shared", "--output", "shared.jsonl")
    assert early.code == 3
    assert "1 of 3 shards are missing" in early.err
    assert dulian("verify", "shared").code == 4
    halves.append(dulian("run", "-o", "shared", "--shard", "1/2", "--driver", "inline"))
    # What a share refuses is told by its records: a scheduler that tried it again would get no further.
    assert [half.code for half in halves] == [0, 0]
    assert (halves[0].json["inputs"], halves[0].json["share"], halves[0].json["files"]) == (5, [0, 2], [])
    assert "dulian batch merge shared --output records.jsonl" in halves[1].out
    assert not (dulian.home / "shared/records.jsonl").exists()
    assert dulian("verify", "shared").code == 0
    for _ in range(2):
        assert dulian("merge", "shared", "--output", "shared.jsonl").code == 0
        assert records(dulian.home / "shared.jsonl") == records(dulian.home / "out/records.jsonl")


# ── interrupted ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def many(tmp_path: Path, pictures: dict[str, bytes]) -> Path:
    """Enough work to be interrupted in."""
    (tmp_path / "many").mkdir()
    for number in range(90):
        (tmp_path / f"many/{number:03d}.png").write_bytes(pictures["astronaut"])
    return tmp_path / "many"


def ended(process: subprocess.Popen[bytes]) -> Run:
    out, err = process.communicate(timeout=PATIENCE_S)
    return Run(process.returncode, out, err)


def session_of(pid: int) -> list[int]:
    """Processes that are left of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[3]) == pid and entry.name != str(pid):
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="processes are counted in /proc")
@pytest.mark.parametrize(
    ("number", "code"),
    [
        # A terminal sends it to all processes of the group, and so do Slurm and systemd.
        pytest.param(signal.SIGINT, 130, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, 143, id="SIGTERM"),
    ],
)
def test_interrupted_it_ends_in_order_and_goes_on(
    processes: Processes, dulian: Dulian, many: Path, tmp_path: Path, number: int, code: int
) -> None:
    out = tmp_path / "out"
    options = ("--shard-size", "2", "--processes", "2", "--format", "none")
    process = processes.start("run", many, "--output", out, *options)
    wait_until(lambda: process.poll() is not None or len([*out.glob("records/*")]) >= 2)
    os.killpg(process.pid, number)
    run = ended(process)
    assert run.code == code, run.err
    assert "dulian: stopped; what is committed stays, and this goes on with it: dulian batch run --output" in run.err
    wait_until(lambda: not session_of(process.pid))
    assert [*out.glob("staging/*")] == []
    before = tree(out / "records")
    assert 2 <= len(before) < 45
    rest = dulian("run", "--output", out, "--processes", "2", "--format", "none", "--json")
    assert rest.code == 0, rest.err
    assert (rest.json["before"], rest.json["computed"]) == (2 * len(before), 90 - 2 * len(before))
    assert rest.json["faces"] == 90
    assert before.items() <= tree(out / "records").items()
    assert dulian("verify", out).code == 0


def test_two_at_once_are_no_harm(processes: Processes, dulian: Dulian, many: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    one = processes.start("run", many, "-o", out, "--shard-size", "2", "--processes", "1", "--limit", "60", "--json")

    def is_caught_at_work() -> bool:
        os.killpg(one.pid, signal.SIGSTOP)
        if [*out.glob("records/*")] and [*out.glob("staging/attempt_*")]:
            return True
        os.killpg(one.pid, signal.SIGCONT)
        return one.poll() is not None

    wait_until(is_caught_at_work)
    committed = len([*out.glob("records/*")])
    other = processes.start("run", "-o", out, "--processes", "1", "--json")
    wait_until(lambda: other.poll() is not None or len([*out.glob("records/*")]) > committed)
    os.killpg(one.pid, signal.SIGCONT)
    first, second = ended(one), ended(other)
    assert re.search(rf"^dulian: process {one.pid} of this machine is at work here too", second.err)
    assert first.code == second.code == 0
    assert second.json["ok"] == 60
    assert dulian("verify", out).code == 0
    assert len(records(out / "records.jsonl")) == 60


# ── what comes out of it ─────────────────────────────────────────────────────────────────────────


def test_status_tells_how_far_it_is(dulian: Dulian, first: Run) -> None:
    run = dulian("status", "out", "--json")
    assert run.code == 0
    told = run.json
    assert (told["inputs_done"], told["inputs"], told["shards_done"], told["finished"]) == (8, 8, 3, True)
    assert told["details"]["errors"] == REFUSED
    assert dulian("status", "out", "--quick", "--json").json["details"] is None
    english, chinese = (dulian("status", "out", "--language", language).out for language in ("en", "zh"))
    assert "done      8 of 8 inputs, 3 of 3 shards (100 %)" in english
    assert "完成    8 个输入中 8 个,3 片中 3 片(100 %)" in chinese
    assert "--details reads all records" in dulian("status", "out", "--quick", "--language", "en").out
    missing = dulian("status", "nowhere")
    assert missing.code == 2
    assert "there is no batch in" in missing.err


@pytest.fixture
def copy(dulian: Dulian, first: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dulian.home / "out", tmp_path / "copy"))


def test_verify_finds_what_is_missing_and_what_is_damaged(dulian: Dulian, copy: Path) -> None:
    assert dulian("verify", copy, "--json").json["state"] == "complete"
    shard = copy / "records/000001.jsonl"
    whole = shard.read_bytes()
    shard.unlink()
    run = dulian("verify", copy, "--language", "en")
    assert run.code == 4
    assert run.out.startswith("incomplete: 1 of 3 shards are missing\n")
    assert "missing  records/000001.jsonl" in run.out
    assert "\ngo on: dulian batch run --output " in run.out
    shard.write_bytes(whole.replace(b'": "', b'":  "', 1))
    run = dulian("verify", copy, "--language", "zh")
    assert run.code == 3
    assert run.out.startswith("已损坏:1 处")
    assert dulian("merge", copy, "-o", "-", "--format", "jsonl").code == 3
    shard.write_bytes(whole)
    assert dulian("verify", copy).code == 0


def test_verify_finds_pictures_that_have_changed(dulian: Dulian, tmp_path: Path, pictures: dict[str, bytes]) -> None:
    picture = tmp_path / "astronaut.png"
    picture.write_bytes(pictures["astronaut"])
    assert dulian("run", picture, "-o", tmp_path / "out", "--driver", "inline", "--format", "none").code == 0
    assert dulian("verify", tmp_path / "out", "--reread").code == 0
    picture.write_bytes(pictures["cat"])
    run = dulian("verify", tmp_path / "out", "--reread", "--language", "en")
    assert run.code == 2
    assert "read again  1, of which 1 are not what was analysed" in run.out


def test_merge_writes_what_is_asked_for(dulian: Dulian, first: Run, tmp_path: Path) -> None:
    run = dulian("merge", "out", "--output", "-", "--format", "csv", "--where", "faces>0")
    rows = [*csv.DictReader(io.StringIO(run.out))]
    assert [(row["source"], row["faces"]) for row in rows] == [
        ("album/astronaut.png", "1"),
        ("album/summer/again.png", "12"),
        ("album/summer/many.png", "12"),
    ]
    run = dulian("merge", "out", "-o", tmp_path / "faces.csv", "--per-face", "--where", "gender=female")
    assert run.code == 0
    assert "3 of 8 records" in run.err
    assert len([*csv.DictReader(io.StringIO((tmp_path / "faces.csv").read_text("utf-8")))]) == 25
    assert dulian("merge", "out", "-o", tmp_path / "report.html", "--thumbnails", "2", "--language", "zh").code == 0
    assert 'lang="zh' in (tmp_path / "report.html").read_text("utf-8")
    for output, said in {"faces.docx": "unknown kind of output", "-": "standard output has no suffix"}.items():
        refused = dulian("merge", "out", "-o", output)
        assert refused.code == 2
        assert said in refused.err


# ── on a terminal, and elsewhere ─────────────────────────────────────────────────────────────────


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_a_terminal_gets_a_bar_and_is_left_as_it_was(processes: Processes, tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        processes.command("run", "album", "-o", tmp_path / "out", "--driver", "inline", "--format", "none"),
        cwd=processes.home,
        env={**processes.environment, "TERM": "xterm-256color", "COLUMNS": "60"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    with suppress(OSError):  # that is how the end is told
        while block := os.read(ours, 65536):
            seen += block
    os.close(ours)
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert "━".encode() in seen
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")
    assert b"\x1b" not in out


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_elsewhere_there_is_a_line_every_ten_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Watch("en") as watch:
        tally = Tally(changed=watch.tally, inputs=2000, before=1000)
        for number in range(600):
            clock.now += 0.125
            tally.told(Range(0, 0, 600), ("image_truncated" if number % 100 == 7 else "ok", 2))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 7
    assert lines[0] == "dulian: 1,080/2,000   8.0/s   1 min 55 s left   errors: 1   faces: 160"
    assert lines[-1] == "dulian: 1,560/2,000   8.0/s   55 s left   errors: 6   faces: 1,120"


def test_the_rate_is_that_of_the_last_seconds() -> None:
    pace = Pace()
    assert pace.add(0.0, 0) is None
    assert pace.add(10.0, 100) == 10.0
    assert pace.add(40.0, 400) == 10.0
    for second in range(41, 80):
        rate = pace.add(float(second), 400 + 2 * (second - 40))
    assert rate == pytest.approx(2.0)


# ── words ────────────────────────────────────────────────────────────────────────────────────────


def test_both_languages_say_the_same_things() -> None:
    english, chinese = TEXTS["en"], TEXTS["zh"]
    assert english.keys() == chinese.keys()
    for name, text in english.items():
        assert set(re.findall(r"{(\w+)", text)) == set(re.findall(r"{(\w+)", chinese[name])), name


@pytest.mark.parametrize(
    ("seconds", "english", "chinese"),
    [
        (0.34, "0.3 s", "0.3 秒"),
        (9.98, "10 s", "10 秒"),
        (59.6, "1 min 0 s", "1 分 0 秒"),
        (3723, "1 h 2 min", "1 小时 2 分"),
        (200_000, "2 d 7 h", "2 天 7 小时"),
    ],
)
def test_durations(seconds: float, english: str, chinese: str) -> None:
    assert (duration(seconds, "en"), duration(seconds, "zh")) == (english, chinese)


def test_sizes() -> None:
    assert [size(count) for count in (0, 999, 1000, 20_240_000, 3 * 10**15)] == [
        *("0 B", "999 B", "1.0 kB", "20.2 MB", "3.0 PB")
    ]


def test_shares_are_counted_from_nought() -> None:
    assert parse_share(None) is None
    assert parse_share("0/1") == (0, 1)
    assert parse_share("7/8") == (7, 8)
    for text in ("8/8", "1/0", "-1/8", "a/b", "1/8/9", "١/٨", ""):
        with pytest.raises(MalformedInputError, match="share"):
            parse_share(text)


def test_formats() -> None:
    assert parse_formats("jsonl, .CSV,csv") == ("jsonl", "csv")
    assert parse_formats("none") == parse_formats("") == ()
    with pytest.raises(DulianError):
        parse_formats("none,csv")


def test_the_crew_fits_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dulian.machine.effective_cores", lambda: 8)
    asked = ((2, None), (None, 3), (16, None), (5, 7))
    assert [make_crew(Drivers.local, *numbers) for numbers in asked] == [
        Crew(2, 4),
        Crew(2, 3),
        Crew(16, 1),
        Crew(5, 7),
    ]
    # One process has all cores; a task of Ray has one, on whatever machine.
    assert [make_crew(kind, None, None) for kind in (Drivers.inline, Drivers.ray)] == [Crew(1, 8), Crew(1, 1)]


def test_who_computes_sees_the_places() -> None:
    def of(asked: Drivers | None, *places: str, address: str | None = None) -> str:
        kind = choose_driver(asked, places, address)
        return type(make_driver(kind, Crew(2, 1), tasks=None, address=address, stall_s=1.0)).__name__

    assert of(None, "out", "album") == "LocalDriver"
    assert of(None, "out", "memory://album") == "InlineDriver"
    assert of(Drivers.inline, "out") == "InlineDriver"
    assert of(None, "out", address="auto") == of(Drivers.ray, "out") == "RayDriver"
    for kind in (Drivers.local, Drivers.ray):
        with pytest.raises(MalformedInputError, match="use --driver inline"):
            of(kind, "memory://out")
    with pytest.raises(MalformedInputError, match="use --driver inline"):
        of(None, "memory://out", address="auto")


def test_the_command_line_loads_nothing_heavy_for_its_help() -> None:
    code = "import sys, dulian.cli.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    loaded = set(done.stdout.split())
    assert not loaded & {"numpy", "cv2", "fsspec", "pyarrow", "ray", "rich.progress", "dulian.batch.run"}
