"""Fonts for labels: which files the system has, opened once per size. What is written is not known here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

from dulian.errors import MissingDependencyError

Font = ImageFont.FreeTypeFont

# Characters that a font must really have before Chinese is written with it.
_CJK_PROBE = "女男岁性别人脸模糊过暗侧 31 (26–37)"

# By name, best first: drawn for screens and a little heavier than book text, where there is a choice.
_LATIN_FILES = (
    "NotoSans-Medium.ttf", "NotoSans-Regular.ttf", "NotoSans[wght].ttf", "OpenSans-Regular.ttf", "DejaVuSans.ttf",
    "LiberationSans-Regular.ttf", "SFNS.ttf", "Helvetica.ttc", "segoeui.ttf", "arial.ttf",
)  # fmt: skip
_CJK_FILES = (
    "NotoSansCJK-Medium.ttc", "NotoSansCJK-Regular.ttc", "NotoSansCJK-VF.otf.ttc", "NotoSansCJKsc-Regular.otf",
    "NotoSansSC-Regular.otf", "NotoSansSC-Regular.ttf", "NotoSansSC[wght].ttf", "NotoSansSC-VF.ttf",
    "SourceHanSansCN-Regular.otf", "SourceHanSansSC-Regular.otf", "SourceHanSans-Regular.ttc", "SourceHanSans.ttc",
    "PingFang.ttc", "Hiragino Sans GB.ttc", "STHeiti Medium.ttc", "msyh.ttc", "msyh.ttf", "simhei.ttf",
    "wqy-microhei.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "DroidSansFallback.ttf", "uming.ttc",
)  # fmt: skip
# Some collections start with another script's shapes of the same characters.
_SIMPLIFIED_SUFFIXES = (" SC", " CN", " GB")


@lru_cache(maxsize=1)
def find_cjk_font() -> Path | None:
    """The best font file of the system that has Chinese glyphs; None without one. Looked for once."""
    return _first_with(_CJK_FILES, _CJK_PROBE)


@lru_cache(maxsize=1)
def find_latin_font() -> Path | None:
    """The best known font file for English; None when only Pillow's own font is there. Looked for once."""
    return _first_with(_LATIN_FILES, "Female, 31 (26–37)")


@lru_cache(maxsize=64)
def open_font(path: Path | None, size_px: int) -> Font:
    """A font at a size; without a path the one that Pillow carries, which has few glyphs beyond ASCII."""
    if path is None:
        font = ImageFont.load_default(size=size_px)
        if not isinstance(font, ImageFont.FreeTypeFont):
            raise MissingDependencyError("Pillow was built without FreeType; pip install --force-reinstall pillow")
        return font
    return ImageFont.truetype(path, size_px, index=_face_index(path), layout_engine=ImageFont.Layout.BASIC)


def has_glyphs(font: Font, text: str) -> bool:
    """Whether the font has a shape of its own for every character, instead of the box for unknown ones."""
    unknown = _shape(font, "\U0010ffff")
    return all(_shape(font, character) != unknown for character in set(text) if not character.isspace())


def font_folders() -> list[Path]:
    """Where the fonts of this machine and this user are, whether the folders exist or not."""
    folders = (
        "/usr/share/fonts",
        "/usr/local/share/fonts",
        "~/.local/share/fonts",
        "~/.fonts",
        "/System/Library/Fonts",
        "/Library/Fonts",
        "~/Library/Fonts",
        "C:/Windows/Fonts",
        "~/AppData/Local/Microsoft/Windows/Fonts",
    )
    return [Path(os.path.expanduser(folder)) for folder in folders]


def _first_with(names: Iterable[str], probe: str) -> Path | None:
    present = dict(_walk(font_folders(), frozenset(names)))
    for name in names:
        path = present.get(name)
        if path is not None and _opens_with(path, probe):
            return path
    return None


def _walk(folders: Iterable[Path], names: frozenset[str]) -> Iterator[tuple[str, Path]]:
    """Every wanted file below the folders, in an order that is the same each time."""
    for folder in folders:
        for parent, subfolders, files in os.walk(folder):
            subfolders.sort()
            yield from ((file, Path(parent, file)) for file in sorted(names.intersection(files)))


def _opens_with(path: Path, probe: str) -> bool:
    try:
        return has_glyphs(open_font(path, 16), probe)
    except OSError:  # damaged, or a kind that FreeType does not read
        return False


@lru_cache(maxsize=16)
def _face_index(path: Path) -> int:
    """Which font of a collection has simplified Chinese shapes; the first one when none says so."""
    if path.suffix.lower() != ".ttc":
        return 0
    for index in range(32):
        try:
            family = ImageFont.truetype(path, 16, index=index).getname()[0] or ""
        except OSError:  # past the last one
            break
        if family.endswith(_SIMPLIFIED_SUFFIXES):
            return index
    return 0


def _shape(font: Font, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)
