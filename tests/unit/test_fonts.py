"""Finding fonts: a file counts only when it has the glyphs."""

from __future__ import annotations

from pathlib import Path

import pytest

from dulian import fonts


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """An otherwise empty machine with one font folder."""
    monkeypatch.setattr(fonts, "font_folders", lambda: [tmp_path / "absent", tmp_path])
    for search in (fonts.find_cjk_font, fonts.find_latin_font):
        search.cache_clear()
    yield tmp_path
    for search in (fonts.find_cjk_font, fonts.find_latin_font):
        search.cache_clear()


def test_a_machine_without_fonts_has_none(folder):
    assert fonts.find_cjk_font() is None
    assert fonts.find_latin_font() is None


def test_a_file_without_the_glyphs_does_not_count(folder):
    builtin = fonts.open_font(None, 16)
    (folder / "wqy-microhei.ttc").write_bytes(builtin.font_bytes)
    assert fonts.find_cjk_font() is None


def test_a_damaged_file_does_not_count(folder):
    (folder / "msyh.ttc").write_bytes(b"not a font")
    assert fonts.find_cjk_font() is None


def test_a_font_is_found_in_a_sub_folder(folder):
    source = _system_font(fonts.find_cjk_font)
    target = folder / "deep" / source.name
    target.parent.mkdir()
    target.write_bytes(source.read_bytes())
    fonts.find_cjk_font.cache_clear()
    assert fonts.find_cjk_font() == target


def test_chinese_is_written_in_simplified_shapes():
    font = fonts.open_font(_system_font(fonts.find_cjk_font), 20)
    assert fonts.has_glyphs(font, "女男岁")
    assert not fonts.has_glyphs(font, "\U0010fffe")


def test_pillows_own_font_lacks_chinese_and_dash():
    font = fonts.open_font(None, 20)
    assert fonts.has_glyphs(font, "Female, 31 (26-37)?#")
    assert not fonts.has_glyphs(font, "女")
    assert not fonts.has_glyphs(font, "–")


def test_fonts_are_opened_once():
    assert fonts.open_font(None, 21) is fonts.open_font(None, 21)


def _system_font(search) -> Path:
    """The font that the machine really has, whatever the fixture pretends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fonts, "font_folders", _REAL_FOLDERS)
        search.cache_clear()
        path = search()
        search.cache_clear()
    if path is None:
        pytest.skip("no Chinese font on this system")
    return path


_REAL_FOLDERS = fonts.font_folders
