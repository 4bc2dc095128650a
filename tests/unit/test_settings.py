from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dulian.errors import MalformedInputError
from dulian.image import ImageLimits
from dulian.settings import (
    OPENCV_WALL,
    Settings,
    choose_language,
    examine_settings,
    guard_opencv,
    raise_opencv_wall,
    read_settings,
)


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DULIAN_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of settings, named by the environment."""
    path = tmp_path / "dulian.toml"
    monkeypatch.setenv("DULIAN_CONFIG", str(path))
    return path


def test_what_is_given_counts_before_the_environment_that_before_the_file_and_that_before_defaults(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('port = 1\nworkers = 2\ndeadline_s = 3\nmodel_dir = "models"\nthreads = "auto"\n', "utf-8")
    monkeypatch.setenv("DULIAN_PORT", "4")
    monkeypatch.setenv("DULIAN_WORKERS", "5")
    monkeypatch.setenv("DULIAN_OFFLINE", "false")
    monkeypatch.setenv("DULIAN_THREADS", "")
    reading = examine_settings(port=6, host=None)
    settings = read_settings(port=6, host=None)
    assert settings == reading.settings
    expected = {
        "port": (6, "option"),
        "workers": (5, "DULIAN_WORKERS"),
        "offline": (False, "DULIAN_OFFLINE"),
        "deadline_s": (3.0, f"file {file}"),
        "model_dir": (Path("models"), f"file {file}"),
        "threads": ("auto", f"file {file}"),
        "config": (file, "DULIAN_CONFIG"),
        "host": ("127.0.0.1", "default"),
    }
    assert {name: (getattr(settings, name), reading.origins[name]) for name in expected} == expected
    assert set(reading.origins) == set(Settings.model_fields)


def test_a_file_given_counts_before_one_that_the_environment_names(file: Path, tmp_path: Path) -> None:
    file.write_text("port = 1", "utf-8")
    (other := tmp_path / "other.toml").write_text("port = 2", "utf-8")
    assert (read_settings().port, read_settings(config=other).port) == (1, 2)


def test_settings_that_were_read_look_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DULIAN_PORT", "99")
    assert Settings().port == 8080
    there_and_back = Settings(**json.loads(json.dumps(read_settings(model_dir="a b", workers="auto").in_full())))
    assert there_and_back == read_settings(model_dir="a b", workers="auto")


def test_unknown_settings_are_errors() -> None:
    with pytest.raises(ValidationError):
        Settings(colour="blue")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 1", "unknown setting 'prot' in file {}; did you mean 'port'?"),
        ("nonsense = 1", "unknown setting 'nonsense' in file {}"),
        ("[limits]\nport = 1", "unknown setting 'limits' in file {}"),
        ("config = 'x'", "config file {}: it cannot name another config file"),
        ("port = 70000", "setting port: Input should be less than or equal to 65535 (from file {})"),
        ("port = [1]", "setting port: Input should be a valid integer (from file {})"),
        ("threads = 0", "setting threads: '0' is neither auto nor a number from 1 to 1024 (from file {})"),
        ("threads = true", "setting threads: 'True' is neither auto nor a number from 1 to 1024 (from file {})"),
        ("port = ", "config file {} is not TOML: Invalid value (at end of document)"),
        ("port = 1\nport = 2", "config file {} is not TOML: Cannot overwrite a value (at end of document)"),
        (
            "\udcff",
            "config file {} is not TOML: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        ),
        (None, "config file {}: No such file or directory"),
    ],
)
def test_mistakes_in_a_file_are_told(file: Path, text: str | None, said: str) -> None:
    if text is not None:
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(MalformedInputError) as caught:
        read_settings()
    assert str(caught.value) == said.format(file)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"workers": "many"}, "setting workers: 'many' is neither auto nor a number from 1 to 1024"),
        ({"workers": "0"}, "setting workers"),
        ({"workers": "²"}, "setting workers"),
        ({"threads": "1025"}, "setting threads"),
        ({"port": 70000}, "setting port"),
        ({"grace_s": 100}, "setting grace_s"),
        ({"deadline_s": "nan"}, "setting deadline_s"),
        ({"max_queued": 0}, "setting max_queued"),
        ({"max_body_mb": 65}, r"settings: max_bytes_in_flight_mb \(64\) is less than one body may have"),
    ],
)
def test_values_that_make_no_sense(given: dict[str, Any], said: str) -> None:
    with pytest.raises(MalformedInputError, match=said):
        read_settings(**given)


def test_unknown_variables_are_errors_and_every_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DULIAN_PROT", "dulian_max_bodymb", "DULIAN_X"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("DULIAN_MODE", "fast")
    monkeypatch.setenv("DULIAN_EMPTY", "")
    assert examine_settings().problems == (
        "unknown variable DULIAN_PROT; did you mean DULIAN_PORT?",
        "unknown variable DULIAN_X",
        "unknown variable dulian_max_bodymb; did you mean DULIAN_MAX_BODY_MB?",
        "setting mode: Input should be 'auto', 'latency' or 'throughput' (from DULIAN_MODE)",
    )
    with pytest.raises(MalformedInputError, match="DULIAN_PROT"):
        read_settings()


# What Kubernetes puts into every pod of a namespace that has services named dulian, dulian-metrics and dulian-redis.
KUBERNETES = {
    "DULIAN_SERVICE_HOST": "10.0.0.1",
    "DULIAN_SERVICE_PORT": "80",
    "DULIAN_SERVICE_PORT_HTTP": "80",
    "DULIAN_PORT": "tcp://10.0.0.1:80",
    "DULIAN_PORT_80_TCP": "tcp://10.0.0.1:80",
    "DULIAN_PORT_80_TCP_PROTO": "tcp",
    "DULIAN_PORT_80_TCP_PORT": "80",
    "DULIAN_PORT_80_TCP_ADDR": "10.0.0.1",
    "DULIAN_METRICS_SERVICE_HOST": "10.0.0.2",
    "DULIAN_METRICS_SERVICE_PORT": "9180",
    "DULIAN_METRICS_PORT": "tcp://10.0.0.2:9180",
    "DULIAN_METRICS_PORT_9180_TCP_ADDR": "10.0.0.2",
    "DULIAN_REDIS_PORT_53_UDP": "udp://10.0.0.3:53",
}


def test_what_kubernetes_and_developers_put_into_the_environment_means_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**KUBERNETES, "DULIAN_DEV_DATA": "/photos"}.items():
        monkeypatch.setenv(name, value)
    file.write_text("port = 1", "utf-8")
    assert (read_settings().port, read_settings().metrics_port) == (1, None)
    monkeypatch.setenv("DULIAN_PORT", "99")
    assert read_settings().port == 99


@pytest.mark.parametrize(
    ("environment", "language"),
    [({}, "en"), ({"LANG": "zh_CN.UTF-8"}, "zh"), ({"LANG": "zh_CN", "LC_ALL": "C"}, "en"), ({"LANG": "de_DE"}, "en")],
)
def test_language_follows_the_locale(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], language: str
) -> None:
    for key in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(key, raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert choose_language("auto") == language
    assert choose_language("zh") == "zh"


def test_opencvs_wall_stands_where_the_gate_stands() -> None:
    limits = ImageLimits()
    assert OPENCV_WALL["OPENCV_IO_MAX_IMAGE_PIXELS"] == str(limits.max_pixels)
    assert OPENCV_WALL["OPENCV_IO_MAX_IMAGE_WIDTH"] == str(limits.max_side)
    assert OPENCV_WALL["OPENCV_IO_MAX_IMAGE_HEIGHT"] == str(limits.max_side)


def test_the_wall_is_raised_with_the_gate_but_never_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    guard_opencv()
    for max_pixels, wall in ((1_000_000, "40000000"), (80_000_000, "80000000")):
        raise_opencv_wall(max_pixels)
        assert os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] == wall
    monkeypatch.setattr(os, "environ", {"OPENCV_IO_MAX_IMAGE_PIXELS": "5"})
    raise_opencv_wall(80_000_000)
    assert os.environ == {"OPENCV_IO_MAX_IMAGE_PIXELS": "5"}


def test_the_program_builds_the_wall_before_opencv_is_loaded() -> None:
    code = (
        "import sys, dulian.cli; assert 'cv2' not in sys.modules\n"
        "from dulian.settings import guard_opencv; guard_opencv()\n"
        "import cv2, numpy as np\n"
        "data = cv2.imencode('.png', np.zeros((8, 8, 3), np.uint8))[1]\n"
        "data[16:24] = [0, 0, 117, 48, 0, 0, 117, 48]\n"
        "import zlib; data[29:33] = np.frombuffer(zlib.crc32(data[12:29].tobytes()).to_bytes(4, 'big'), np.uint8)\n"
        "try: print(cv2.imdecode(data, 1) is None)\n"
        "except cv2.error as error: print('refused')\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENCV_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True, timeout=60
    )
    assert done.stdout.split()[-1] in ("refused", "True")


def test_the_wall_keeps_what_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"OPENCV_LOG_LEVEL": "DEBUG"})
    guard_opencv()
    assert os.environ == OPENCV_WALL | {"OPENCV_LOG_LEVEL": "DEBUG"}
    assert OPENCV_WALL["OPENCV_LOG_LEVEL"] == "FATAL"
