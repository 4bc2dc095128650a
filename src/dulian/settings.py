"""Settings: ``DULIAN_*`` environment variables over defaults, read once at an entry point and passed on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from dulian.errors import MalformedInputError
from dulian.models.catalog import DEFAULT_PROFILE

DEFAULT_PORT = 8080
MAX_WORKERS = 1024


class Settings(BaseSettings):
    """Every setting, its default, and by its name its environment variable."""

    model_config = SettingsConfigDict(env_prefix="DULIAN_", extra="forbid", frozen=True, env_ignore_empty=True)

    profile: str = DEFAULT_PROFILE
    engine: str = "auto"
    model_dir: Path | None = None
    offline: bool = False
    precision: Literal["f32", "bf16"] = "f32"
    language: Literal["en", "zh", "auto"] = "auto"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = DEFAULT_PORT
    workers: int | Literal["auto"] = "auto"
    threads: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = 1
    mode: Literal["auto", "latency", "throughput"] = "auto"
    insecure: bool = False
    grace_s: Annotated[float, Field(ge=0, le=20)] = 5.0

    @field_validator("port", mode="before")
    @classmethod
    def _pass_over_kubernetes(cls, value: object) -> object:
        """A Kubernetes service named dulian gives every pod a DULIAN_PORT of its own, and means an address by it."""
        return DEFAULT_PORT if isinstance(value, str) and value.startswith("tcp://") else value

    @field_validator("workers", mode="before")
    @classmethod
    def _check_workers(cls, value: object) -> object:
        text = str(value)
        if text == "auto" or (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_WORKERS):
            return value
        raise ValueError(f"{text!r} is neither auto nor a number from 1 to {MAX_WORKERS}")


def read_settings(**given: Any) -> Settings:
    """The settings, with those that a command was given before all others; None is not given.

    Raises:
        MalformedInputError: A value that is not allowed, wherever it came from.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        raise MalformedInputError(f"setting {'.'.join(map(str, first['loc']))}: {reason}") from error


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
