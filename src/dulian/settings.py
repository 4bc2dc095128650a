"""Settings: ``DULIAN_*`` environment variables over a file over defaults, read once at an entry point and passed on."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from dulian.errors import MalformedInputError
from dulian.models.catalog import DEFAULT_PROFILE
from dulian.origins import parse_host, parse_origin

PREFIX = "DULIAN_"
MAX_WORKERS = 1024
MEGAPIXEL = 1_000_000
HIDDEN = "(hidden)"
MIN_SECRET_CHARS = 32
MAX_SECRET_BYTES = 4096
# A setting that is a secret has a twin of this name, which is a file with its value.
OF_FILE = "_file"
REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


class Settings(BaseSettings):
    """Every setting, its default, and by its name its environment variable; only :func:`read_settings` reads that."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, env_ignore_empty=True)

    config: Path | None = None
    profile: str = DEFAULT_PROFILE
    engine: str = "auto"
    model_dir: Path | None = None
    offline: bool = False
    precision: Literal["f32", "bf16"] = "f32"
    tiles: bool = False
    language: Literal["en", "zh", "auto"] = "auto"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    grpc_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    grpc_reflection: bool = False
    workers: int | Literal["auto"] = 1
    threads: int | Literal["auto"] = "auto"
    mode: Literal["auto", "latency", "throughput"] = "auto"
    insecure: bool = False
    keys_file: Path | None = None
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    grace_s: Annotated[float, Field(ge=0, le=20)] = 5.0
    max_body_mb: Annotated[int, Field(ge=1, le=100)] = 10
    max_pixels_mp: Annotated[int, Field(ge=1, le=80)] = 40
    deadline_s: Annotated[float, Field(ge=0.05, le=20)] = 5.0
    body_timeout_s: Annotated[float, Field(ge=0.5, le=20)] = 10.0
    max_queued: Annotated[int, Field(ge=1, le=10_000)] = 64
    max_bytes_in_flight_mb: Annotated[int, Field(ge=1, le=10_000)] = 64
    max_connections: Annotated[int, Field(ge=1, le=10_000)] = 512
    max_head_kb: Annotated[int, Field(ge=4, le=256)] = 32
    max_headers: Annotated[int, Field(ge=20, le=1000)] = 100
    head_timeout_s: Annotated[float, Field(ge=0.5, le=20)] = 3.0
    max_streams: Annotated[int, Field(ge=1, le=10_000)] = 32
    max_frame_kb: Annotated[int, Field(ge=16, le=10_240)] = 1024
    stream_idle_s: Annotated[float, Field(ge=1, le=600)] = 30.0
    cache_mb: Annotated[int, Field(ge=0, le=10_000)] = 0
    cache_ttl_s: Annotated[float, Field(ge=1, le=600)] = 60.0
    redis_url: SecretStr | None = None
    redis_url_file: Path | None = None
    cache_secret: SecretStr | None = None
    cache_secret_file: Path | None = None
    idle_unload_s: Annotated[float, Field(ge=0, le=604_800)] = 0.0
    otel_endpoint: str | None = None
    otel_sample_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *others: Any, **named: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is passed and nothing else: settings that were read stay as they are, in whatever process."""
        del settings_cls, others, named
        return (init_settings,)

    @field_validator("workers", "threads", mode="before")
    @classmethod
    def _check_count(cls, value: object) -> object:
        text = str(value)
        if text == "auto" or (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_WORKERS):
            return value
        raise ValueError(f"{text!r} is neither auto nor a number from 1 to {MAX_WORKERS}")

    def in_full(self) -> dict[str, Any]:
        """Every value in a form that JSON has, secrets included: for another process of the same service."""
        return {name: _plain(value, secret=None) for name, value in self}

    @field_validator("cors_origins", "allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """A list, or as text either a JSON list or words separated by commas."""
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return json.loads(value)
        return [word.strip() for word in value.split(",") if word.strip()]

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(parse_origin, value)))

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(parse_host, value)))

    @field_validator("otel_endpoint")
    @classmethod
    def _check_endpoint(cls, value: str | None) -> str | None:
        if value is None or re.fullmatch(r"https?://(\w[\w.-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[\w./-]*)?", value):
            return value
        raise ValueError("it is no address of a collector, as in http://127.0.0.1:4318 (no user, query or fragment)")

    @field_validator("redis_url")
    @classmethod
    def _check_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(REDIS_SCHEMES):
            raise ValueError(f"it begins with none of {', '.join(REDIS_SCHEMES)}")
        return value

    @field_validator("cache_secret")
    @classmethod
    def _check_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value) < MIN_SECRET_CHARS:
            raise ValueError(
                f"it has {len(value)} characters, and at least {MIN_SECRET_CHARS} are needed; 'openssl rand -hex 32'"
                " makes a good one"
            )
        return value

    @model_validator(mode="after")
    def _check_sharing(self) -> Self:
        shares = self.redis_url is not None or self.redis_url_file is not None
        if shares and self.cache_secret is None and self.cache_secret_file is None:
            raise ValueError(
                "redis_url needs a cache_secret, the same for all instances: with it they sign what they share; put"
                " what 'openssl rand -hex 32' prints into a file, and name that as cache_secret_file"
            )
        return self

    @model_validator(mode="after")
    def _check_room(self) -> Self:
        if self.max_bytes_in_flight_mb < self.max_body_mb:
            raise ValueError(
                f"max_bytes_in_flight_mb ({self.max_bytes_in_flight_mb}) is less than one body may have"
                f" (max_body_mb, {self.max_body_mb})"
            )
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was read: the settings, None if a value is wrong; all that is wrong; and where each value comes from."""

    settings: Settings | None
    problems: tuple[str, ...]
    origins: Mapping[str, str]

    def shown(self) -> dict[str, Any]:
        """Every value in a form that JSON has, without secrets."""
        return {name: _plain(value, secret=HIDDEN) for name, value in self.settings or ()}


def read_settings(**given: Any) -> Settings:
    """The settings: those that a command was given, then the environment, then the file, then defaults.

    None is not given.

    Raises:
        MalformedInputError: A value that is not allowed or a name that does not exist, wherever it came from.
    """
    reading = examine_settings(**given)
    if reading.problems or reading.settings is None:
        raise MalformedInputError(reading.problems[0])
    return reading.settings


def examine_settings(**given: Any) -> Reading:
    """All that :func:`read_settings` would say, and where each value comes from."""
    given = {name: value for name, value in given.items() if value is not None}
    problems = list(_unknown_variables(os.environ))
    environment: dict[str, Any] = {}
    file: dict[str, Any] = {}
    path = None
    try:
        environment = _environment()
        if path := given.get("config") or environment.get("config"):
            file = read_file(Path(path))
    except (MalformedInputError, SettingsError) as error:
        problems.append(str(error))
    origins = dict.fromkeys(Settings.model_fields, "default")
    origins |= dict.fromkeys(file, f"file {path}")
    origins |= {name: f"{PREFIX}{name.upper()}" for name in environment} | dict.fromkeys(given, "option")
    values = {**file, **environment, **given}
    problems += _take_in_secrets(values, origins)
    settings = None
    try:
        settings = Settings(**values)
    except ValidationError as error:
        problems += [_told(problem, origins) for problem in error.errors()]
    return Reading(settings=settings, problems=tuple(problems), origins=origins)


def read_file(path: Path) -> dict[str, Any]:
    """A TOML file of settings, their names and values not yet checked.

    Raises:
        MalformedInputError: It cannot be read, is not TOML, or names another file.
    """
    import tomllib

    try:
        data = tomllib.loads(path.expanduser().read_text("utf-8"))
    except OSError as error:
        raise MalformedInputError(f"config file {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise MalformedInputError(f"config file {path} is not TOML: {error}") from error
    if "config" in data:
        raise MalformedInputError(f"config file {path}: it cannot name another config file")
    return data


def names_of_secrets() -> tuple[str, ...]:
    """Settings that are never shown; each may be in a file that the setting of the same name with ``_file`` names."""
    return tuple(name for name, field in Settings.model_fields.items() if SecretStr in get_args(field.annotation))


def read_secret(path: Path) -> str:
    """The one line that a file holds.

    Raises:
        MalformedInputError: It cannot be read, is empty, too large or no text; nothing of it is told.
    """
    try:
        path = path.expanduser()
        if path.exists() and not path.is_file():  # a pipe would keep the reader waiting
            raise OSError(errno.EINVAL, "not a regular file")
        with path.open("rb") as stream:
            data = stream.read(MAX_SECRET_BYTES + 1)
    except (OSError, RuntimeError) as error:
        raise MalformedInputError(f"file {path}: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > MAX_SECRET_BYTES:
        raise MalformedInputError(f"file {path}: more than the {MAX_SECRET_BYTES} bytes that a secret may have")
    try:
        text = data.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedInputError(f"file {path}: no text in UTF-8") from None
    if not text:
        raise MalformedInputError(f"file {path}: it is empty")
    return text


def _take_in_secrets(values: dict[str, Any], origins: dict[str, str]) -> Iterator[str]:
    """Put the values of secrets that are in files beside those files' names; yields what is wrong with them."""
    for name in names_of_secrets():
        path = values.get(name + OF_FILE)
        if not isinstance(path, str | Path) or not str(path):  # of another kind: pydantic tells
            continue
        if values.get(name) is not None:
            yield (
                f"settings {name} and {name}{OF_FILE} are both set (from {origins[name]} and"
                f" {origins[name + OF_FILE]}): leave one out"
            )
            continue
        try:
            values[name] = read_secret(Path(path))
            origins[name] = f"file {path}"
        except MalformedInputError as error:
            yield f"setting {name}{OF_FILE}: {error} (from {origins[name + OF_FILE]})"


def _environment() -> dict[str, Any]:
    source = EnvSettingsSource(Settings)
    source.env_vars = {name: value for name, value in source.env_vars.items() if not _is_foreign(name, value or "")}
    return source()


# Kubernetes gives every pod variables for each service of its namespace, one named dulian or dulian-… included.
_OF_KUBERNETES = re.compile(r"(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
_OF_DEVELOPERS = "DEV_"


def _is_foreign(name: str, value: str) -> bool:
    """Whether a variable with our prefix means something else."""
    rest = name.upper().removeprefix(PREFIX)
    is_address = rest.endswith("PORT") and _ADDRESS.match(value)
    return rest.startswith(_OF_DEVELOPERS) or bool(is_address or _OF_KUBERNETES.fullmatch(rest))


def _unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    for name, value in sorted(environment.items()):
        if name.upper().startswith(PREFIX) and value and not _is_foreign(name, value):
            setting = name.upper().removeprefix(PREFIX).lower()
            if setting not in Settings.model_fields:
                yield f"unknown variable {name}{_suggestion(setting, upper=True)}"


def _told(problem: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"unknown setting {name!r} in {origins.get(name, 'the settings')}{_suggestion(name)}"
    reason = problem["msg"].removeprefix("Value error, ")
    if not name:
        return f"settings: {reason}"
    setting, _, _ = name.partition(".")  # what follows is the place within a list
    return f"setting {name}: {reason} (from {origins[setting]})"


def _suggestion(name: str, *, upper: bool = False) -> str:
    from difflib import get_close_matches

    for match in get_close_matches(name, Settings.model_fields, 1):
        return f"; did you mean {PREFIX}{match.upper()}?" if upper else f"; did you mean {match!r}?"
    return ""


def _plain(value: object, *, secret: str | None) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value() if secret is None else secret
    return str(value) if isinstance(value, Path) else value


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


def raise_opencv_wall(max_pixels: int) -> None:
    """Let OpenCV decode so many pixels where that is more than :func:`guard_opencv` has it decode."""
    name = "OPENCV_IO_MAX_IMAGE_PIXELS"
    if os.environ.get(name) == OPENCV_WALL[name]:
        os.environ[name] = str(max(max_pixels, int(OPENCV_WALL[name])))
