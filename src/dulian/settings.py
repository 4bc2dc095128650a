"""Settings: ``DULIAN_*`` environment variables over defaults, read once at an entry point and passed on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic_settings import BaseSettings, SettingsConfigDict

from dulian.models.catalog import DEFAULT_PROFILE


class Settings(BaseSettings):
    """Every setting, its default, and by its name its environment variable."""

    model_config = SettingsConfigDict(env_prefix="DULIAN_", extra="forbid", frozen=True, env_ignore_empty=True)

    profile: str = DEFAULT_PROFILE
    engine: str = "auto"
    model_dir: Path | None = None
    offline: bool = False
    precision: Literal["f32", "bf16"] = "f32"
    language: Literal["en", "zh", "auto"] = "auto"


def choose_language(setting: Literal["en", "zh", "auto"]) -> Literal["en", "zh"]:
    """The language for people: as set, else the locale's."""
    if setting != "auto":
        return setting
    locale = next((value for key in ("LC_ALL", "LC_MESSAGES", "LANG") if (value := os.environ.get(key))), "")
    return "zh" if locale.lower().startswith("zh") else "en"


# A wall behind the gate of dulian.image, which holds these limits too and explains itself better.
OPENCV_WALL = {
    "OPENCV_IO_MAX_IMAGE_PIXELS": "40000000",
    "OPENCV_IO_MAX_IMAGE_WIDTH": "16384",
    "OPENCV_IO_MAX_IMAGE_HEIGHT": "16384",
    "OPENCV_LOG_LEVEL": "FATAL",
}


def guard_opencv() -> None:
    """Limit OpenCV's own decoders and silence its log; programs call it before cv2 is first imported.

    What the user has set already stays.
    """
    for name, value in OPENCV_WALL.items():
        os.environ.setdefault(name, value)
