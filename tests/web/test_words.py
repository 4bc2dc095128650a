"""Both languages say everything, about everything that the server can say; by the browser's choice, or by switch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from playwright.sync_api import Page, expect
from tests.web.steps import visit, wait_for_state

from dulian.errors import DulianError
from dulian.faces import Status
from dulian.messages import GENDERS, HINTS, REASONS
from dulian.models.catalog import PROFILES
from dulian.service.status import ROUTING
from dulian.service.webui import assets

CJK = re.compile("[\u4e00-\u9fff]")


def texts(language: str) -> dict[str, str]:
    source = assets()[f"texts/{language}.js"].body.decode()
    pairs = re.findall(r'^  "([\w.]+)": "((?:[^"\\]|\\.)*)",$', source, re.M)
    assert len(pairs) == source.count('": "')
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


ENGLISH, CHINESE = texts("en"), texts("zh")


def blanks(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text))


def error_codes(kind: type[DulianError] = DulianError) -> Iterator[str]:
    yield kind.code
    for child in kind.__subclasses__():
        yield from error_codes(child)


def test_both_languages_have_the_same_texts_with_the_same_blanks() -> None:
    assert list(ENGLISH) == list(CHINESE)
    for key, text in ENGLISH.items():
        assert text.strip(), key
        assert blanks(text) == blanks(CHINESE[key]), key


def test_each_language_is_written_in_its_own_script() -> None:
    assert [key for key, text in ENGLISH.items() if CJK.search(text)] == ["page.language", "page.language.label"]
    latin = {key for key, text in CHINESE.items() if not CJK.search(re.sub(r"\{\w+\}", "", text))}
    names = {"page.language", "page.language.label", "result.json", "result.csv", "result.engine", "result.picture"}
    signs = {"label.join", "list.join", "label.unknown", "server.of", "face.gender.bar"}
    assert latin - names - signs == {key for key in latin if key.startswith("unit.")}


def test_every_code_of_the_server_has_words() -> None:
    codes = {*error_codes(), *(code for code, _ in ROUTING.values())} - {"not_found", "method_not_allowed"}
    assert {f"error.{code}" for code in codes if code != "upgrade_required"} <= set(ENGLISH)
    assert {f"reason.{code}" for code in REASONS} <= set(ENGLISH)
    assert {f"status.{status}" for status in get_args(Status)} <= set(ENGLISH)
    assert {f"gender.{value or 'unknown'}" for value in GENDERS} <= set(ENGLISH)
    # Hints and messages come from the server in both languages.
    assert all(CJK.search(chinese) for _, chinese in (*REASONS.values(), *HINTS.values()))


def test_the_labels_words_are_the_servers() -> None:
    for value, (english, chinese) in GENDERS.items():
        key = f"gender.{value}" if value else "label.gender.unknown"
        assert (ENGLISH[key], CHINESE[key]) == (english, chinese)


def test_every_text_is_used_and_every_text_that_is_used_is_there() -> None:
    sources = {
        name: asset.body.decode()
        for name, asset in assets().items()
        if name.endswith((".js", ".html")) and not name.startswith("texts/")
    }
    everything = "\n".join(sources.values())
    named = set(re.findall(r'["`]((?:[a-z]+)(?:\.[a-z_]+)+)["`]', everything))
    named = {name for name in named if name.partition(".")[0] in {key.partition(".")[0] for key in ENGLISH}}
    plural = {key.removesuffix(".one") for key in ENGLISH if key.endswith(".one")}
    assert named <= set(ENGLISH) | plural
    # t(`state.${state}`): whatever begins so may be meant.
    made = tuple(re.findall(r"`([a-z]+(?:\.[a-z]+)*\.)\$\{", everything))
    unused = {
        key
        for key in ENGLISH
        if key not in named and key.rpartition(".")[0] not in named & plural and not key.startswith(made)
    }
    assert unused == set()


# ── in the browser ───────────────────────────────────────────────────────────────────────────────


class TestChineseBrowser:
    @pytest.fixture
    def context_options(self) -> dict[str, Any]:
        return {"viewport": {"width": 1280, "height": 800}, "locale": "zh-CN"}

    def test_everything_is_chinese_down_to_the_reason(self, page: Page, service_url: str) -> None:
        visit(page, service_url)
        expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
        expect(page).to_have_title("读脸 · 诚实地读一张脸")
        page.locator(".sample").nth(2).click()
        wait_for_state(page, "done")
        expect(page.locator(".face .reason")).to_have_text("人脸太暗;请增加光线。")
        expect(page.locator(".face-label")).to_have_text(re.compile(r"^女 \d+岁 \(\d+–\d+\)$"))
        page.locator("#server-toggle").click()
        page.locator("#about-open").press("Enter")  # the drawer may lie over it
        words = page.locator("body").inner_text()
        english = set(re.findall(r"[A-Za-z]{4,}", words))
        names = {"dulian", "English", "standard", "classic", "onnxruntime", "JPEG", "JSON", "UTKFace", "FairFace"}
        assert english - names <= {"Faces", "WIDER", "FACE", *PROFILES}, words


class TestBrowserOfAnotherLanguage:
    @pytest.fixture
    def context_options(self) -> dict[str, Any]:
        return {"locale": "fr-FR"}

    def test_it_gets_english(self, page: Page, service_url: str) -> None:
        visit(page, service_url)
        expect(page.locator("#choose")).to_have_text("Choose photos")


def test_the_switch_changes_everything_that_stands_there(page: Page, service_url: str) -> None:
    visit(page, service_url)
    page.locator(".sample").nth(0).click()
    wait_for_state(page, "done")
    english = page.locator(".face-label").inner_text()
    page.click("#language")
    expect(page.locator("#choose")).to_have_text("选择照片")
    expect(page.locator(".face-label")).to_have_text(re.compile("^女 "))
    expect(page.locator("#facts")).to_contain_text("服务器")
    assert "lang=zh" in page.url
    page.click("#language")
    expect(page.locator(".face-label")).to_have_text(english)


def test_the_address_remembers_the_language_and_nothing_else_does(page: Page, service_url: str) -> None:
    visit(page, service_url, "?lang=zh")
    expect(page.locator("#choose")).to_have_text("选择照片")
    page.reload()
    expect(page.locator("#choose")).to_have_text("选择照片")
    assert page.evaluate("() => localStorage.length + sessionStorage.length + document.cookie.length") == 0
    visit(page, service_url, "?lang=__proto__&theme=evil")
    expect(page.locator("#choose")).to_have_text("Choose photos")


def test_every_word_on_the_page_is_a_text(page: Page, service_url: str) -> None:
    """No key is shown in place of its text, and no blank is left open."""
    for language in ("en", "zh"):
        visit(page, service_url, f"?lang={language}")
        for number in (1, 2, 3):
            page.locator("#samples-list button").nth(number).evaluate("button => button.click()")
        page.wait_for_function("() => document.querySelectorAll('.card[data-state=done]').length === 2")
        page.locator("#server-toggle").click()
        page.locator("#about-open").press("Enter")  # the drawer may lie over it
        names = page.locator("[aria-label], [title]").evaluate_all(
            "all => all.flatMap((one) => [one.getAttribute('aria-label'), one.title])"
        )
        shown = "\n".join([page.locator("body").inner_text(), *filter(None, names)])
        assert not re.search(r"\{\w+\}|undefined|null|NaN", shown)
        keys = {key for key in ENGLISH if re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", shown)}
        assert keys == set()
