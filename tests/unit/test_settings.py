from __future__ import annotations

import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from dulian.image import ImageLimits
from dulian.settings import OPENCV_WALL, Settings, choose_language, guard_opencv


def test_environment_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DULIAN_PROFILE", "classic")
    monkeypatch.setenv("DULIAN_OFFLINE", "false")
    monkeypatch.setenv("DULIAN_MODEL_DIR", "")
    settings = Settings()
    assert (settings.profile, settings.offline, settings.model_dir) == ("classic", False, None)
    assert Settings(profile="standard").profile == "standard"


def test_unknown_settings_are_errors() -> None:
    with pytest.raises(ValidationError):
        Settings(colour="blue")  # type: ignore[call-arg]


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
