"""The page ``/docs``: valid, complete, safe whatever the document says, and without anything from elsewhere."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from tests.service.services import FakeAnalysis, fake_service
from tests.service.test_http import get

from dulian.markup import Html, element, join
from dulian.service import docs_page, schema
from dulian.service.docs_page import render
from dulian.service.examples import coloured, laid_out
from dulian.service.http import create_app

EMPTY = {"meta", "link", "br"}
# What a person may find in such a page; above all no script, style, form, frame, image or event handler.
TAGS = re.compile(
    "meta|link|html|head|title|body|header|main|nav|section|article|div|h[1-4]|p|ul|li|a|span|code|pre|dl|dt|dd"
    "|details|summary"
)
ATTRIBUTES = {"lang", "charset", "name", "content", "rel", "href", "id", "class", "tabindex", "aria-label"}


class Page(HTMLParser):
    """Reads a page as strictly as a validator would in these matters: every element closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.declaration = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_decl(self, decl: str) -> None:
        self.declaration = decl

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        self.elements.append((tag, dict(attrs), list(self.open)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes, _ in self.elements if tag in tags]

    @property
    def text(self) -> str:
        return "".join(data for _, data in self.texts)


@pytest.fixture(scope="module")
def answers() -> dict[str, httpx.Response]:
    with fake_service(FakeAnalysis()) as service:
        return {path: get(service, path) for path in ("/docs", "/docs/style.css", "/openapi.json")}


@pytest.fixture(scope="module")
def page(answers: dict[str, httpx.Response]) -> Page:
    return Page(answers["/docs"].text)


@pytest.fixture(scope="module")
def document(answers: dict[str, httpx.Response]) -> dict[str, Any]:
    read: dict[str, Any] = answers["/openapi.json"].json()
    return read


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, described in document["paths"].items():
        for method in described:
            if method != "head":
                yield method, path, described[method]


# ── as it is served ──────────────────────────────────────────────────────────────────────────────


def test_page_and_style_are_served_as_what_they_are(answers: dict[str, httpx.Response]) -> None:
    html, css = answers["/docs"], answers["/docs/style.css"]
    assert (html.status_code, html.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert (css.status_code, css.headers["content-type"]) == (200, "text/css; charset=utf-8")
    for answer in (html, css):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_needs_nothing_that_its_policy_forbids(answers: dict[str, httpx.Response], page: Page) -> None:
    policy = dict(part.split(" ", 1) for part in answers["/docs"].headers["content-security-policy"].split("; "))
    assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
    assert all(TAGS.fullmatch(tag) for tag, _, _ in page.elements)
    assert {name for _, attributes, _ in page.elements for name in attributes} <= ATTRIBUTES
    assert [link["href"] for link in page.all("link")] == ["data:,", "/docs/style.css"]
    targets = {str(link["href"]) for link in page.all("a")}
    assert {target for target in targets if not target.startswith("#")} == {"/openapi.json"}


def test_the_style_fetches_nothing(answers: dict[str, httpx.Response]) -> None:
    css = answers["/docs/style.css"].text
    assert not re.search(r"url\(|@import|@font-face|//", css)
    assert "prefers-color-scheme: dark" in css
    used = {name for _, attributes, _ in Page(answers["/docs"].text).elements for name in _classes(attributes)}
    assert used <= set(re.findall(r"\.([a-z]+)", css)) | {"introduction", "schema", "post"}


def _classes(attributes: dict[str, str | None]) -> list[str]:
    return (attributes.get("class") or "").split()


def test_the_page_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(docs_page, "render", lambda document: calls.append(1) or "page")
    with fake_service(FakeAnalysis()) as service:
        assert not calls
        app = create_app(service)

        async def twice() -> list[httpx.Response]:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return [await client.get("/docs") for _ in range(2)]

        assert [answer.text for answer in asyncio.run(twice())] == ["page", "page"]
    assert len(calls) == 1


# ── as it is read ────────────────────────────────────────────────────────────────────────────────


def test_the_page_is_well_formed(page: Page) -> None:
    assert page.declaration == "doctype html"
    assert len(page.all("h1", "main", "nav")) == 3
    identifiers = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    anchors = {str(link["href"])[1:] for link in page.all("a") if str(link["href"]).startswith("#")}
    assert anchors <= set(identifiers)
    for tag, _, around in page.elements:
        if tag in ("dt", "dd"):
            assert around[-2:] == ["dl", "div"]
        if tag == "li":
            assert around[-1] == "ul"
        assert not (tag in ("p", "div", "pre", "dl", "ul") and around[-1:] == ["p"])


def test_headings_go_down_one_at_a_time(page: Page) -> None:
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_both_languages_are_marked(page: Page) -> None:
    assert page.all("html")[0]["lang"] == "en"
    chinese = [attributes for _, attributes, _ in page.elements if attributes.get("lang") == "zh-CN"]
    assert len(chinese) > 20
    unmarked = Page(re.sub(r'<(\w+)[^>]*lang="zh-CN"[^>]*>.*?</\1>', "", page.source))
    assert not [data for tag, data in unmarked.texts if re.search("[\u4e00-\u9fff]", data) and tag != "title"]


def test_everything_in_the_document_is_on_the_page(page: Page, document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        assert path in page.text
        assert operation["summary"] in page.text
        assert path in docs_page._CHINESE, "one line in Chinese"
        assert any(path in group.paths for group in docs_page._GROUPS), "a group"
        for parameter in operation.get("parameters", []):
            assert parameter["name"] in page.text
        for status, answer in operation["responses"].items():
            assert status in page.text
            assert answer["description"].replace("`", "") in page.text, (method, path)
    for name, described in document["components"]["schemas"].items():
        assert f"schema-{name}" in [attributes.get("id") for _, attributes, _ in page.elements]
        assert set(described.get("properties", ())) <= set(page.text.replace('"', " ").split()) | {
            data for tag, data in page.texts if tag == "code"
        }


def test_commands_can_be_pasted(page: Page) -> None:
    commands = [data for tag, data in page.texts if tag == "code" and data.startswith(("curl ", "python "))]
    assert "curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8080/v1/analyze" in commands
    assert "curl -F image=@one.jpg -F image=@two.jpg http://127.0.0.1:8080/v1/batch" in commands
    assert "curl -F image=@photo.jpg http://127.0.0.1:8080/predict" in commands
    assert "python -m websockets ws://127.0.0.1:8080/v1/stream" in commands
    assert "curl http://127.0.0.1:8080/livez" in commands


@pytest.mark.parametrize("model", [schema.AnalysisResult, schema.StreamResult, schema.StreamWishes])
def test_examples_are_what_is_sent(model: type[schema.Wire], document: dict[str, Any]) -> None:
    (example,) = document["components"]["schemas"][model.__name__]["examples"]
    assert model.model_validate(example).model_dump(exclude_unset=True) == example


# ── whatever the document says ───────────────────────────────────────────────────────────────────

HOSTILE = """</pre><script>alert("1")</script><img src=x onerror='alert(2)'>&amp;`</code><b>`"""


def test_nothing_in_the_document_becomes_markup(document: dict[str, Any]) -> None:
    def spoil(value: Any) -> Any:
        if isinstance(value, dict):
            return {key if KEPT.fullmatch(key) else key + HOSTILE: spoil(part) for key, part in value.items()}
        if isinstance(value, list):
            return [spoil(part) for part in value]
        return value + HOSTILE if isinstance(value, str) and not value.startswith("#/") else value

    spoiled = Page(render(spoil(document)))
    assert all(TAGS.fullmatch(tag) for tag, _, _ in spoiled.elements)
    assert {name for _, attributes, _ in spoiled.elements for name in attributes} <= ATTRIBUTES
    assert "<script>" in spoiled.text


# Words of the format itself; all else is anybody's.
KEPT = re.compile(
    "openapi|info|title|summary|version|paths|parameters|requestBody|responses|content|schema|schemas|components"
    "|description|properties|required|items|anyOf|enum|const|examples?|type|name|default|minimum|maximum"
    "|exclusiveMinimum|exclusiveMaximum|contentMediaType|contentEncoding|minItems|in|get|post|head|[0-9]{3}|[A-Z][A-Za-z]+|\\$ref"
)


def test_an_empty_document_is_a_page_too() -> None:
    empty = Page(render({"info": {"title": "t", "version": "0"}, "paths": {}}))
    assert len(empty.all("h1")) == 1


def test_only_html_is_not_escaped() -> None:
    assert element("p", "<b>", Html("<i>"), None, class_='"') == '<p class="&quot;">&lt;b&gt;<i></p>'
    assert join(["&", element("br")]) == "&amp;<br>"


@pytest.mark.parametrize(
    "value",
    [None, [], {}, 'a " \\ \n <b>', 1.5e-7, [[], {}], {"a": {"b": list(range(100))}}, {"x" * 100: ["y" * 100] * 2}],
)
def test_laid_out_json_is_the_same_json(value: Any) -> None:
    text = laid_out(value)
    assert json.loads(text) == value
    assert json.loads(Page(element("pre", coloured(text))).text) == value


def test_what_fits_has_one_line() -> None:
    assert (
        laid_out({"box": [1, 2], "long": ["x" * 70]})
        == '{\n  "box": [1, 2],\n  "long": [\n    "' + "x" * 70 + '"\n  ]\n}'
    )
    assert coloured('{"a": "b", "c": -1.5, "d": null}') == (
        '{<span class="name">&quot;a&quot;</span>: <span class="text">&quot;b&quot;</span>, '
        '<span class="name">&quot;c&quot;</span>: <span class="value">-1.5</span>, '
        '<span class="name">&quot;d&quot;</span>: <span class="value">null</span>}'
    )
