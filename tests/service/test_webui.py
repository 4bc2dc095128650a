"""The page's files over HTTP: what is there, how it may be kept, and that nothing else can be had that way."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from importlib import resources
from pathlib import Path

import httpx
import pytest
from tests.service.services import FakeAnalysis, client_of, fake_service

from dulian.service.webui import assets

TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def fetch(path: str, samples: Path | None = None, **headers: str) -> httpx.Response:
    async def get() -> httpx.Response:
        with fake_service(FakeAnalysis()) as service:
            if samples:
                service.samples = {"astronaut.png": samples / "astronaut.png"}
            async with client_of(service) as client:
                return await client.get(path, headers=headers)

    return asyncio.run(get())


def test_the_model_card_may_use_its_own_style_and_nothing_else() -> None:
    answer = fetch("/model-card")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    style = re.search(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; frame-ancestors 'none'"
    assert answer.headers["content-security-policy"] == policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"""(src|href)=["']|style=["']|https?:""", answer.text)
    assert fetch("/model-card", **{"If-None-Match": answer.headers["etag"]}).status_code == 304


def test_the_page_is_html_under_a_strict_policy() -> None:
    answer = fetch("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert answer.headers["permissions-policy"] == "camera=(self)"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_every_file_has_a_type_that_does_not_depend_on_the_system() -> None:
    folder = resources.files("dulian.service.webui") / "static"
    on_disk = {str(path.relative_to(str(folder))) for path in Path(str(folder)).rglob("*") if path.is_file()}
    assert set(assets()) == on_disk
    for name in assets():
        answer = fetch(f"/static/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(TYPES[name.rpartition(".")[2]])
        assert answer.content == assets()[name].body


def test_what_the_page_names_is_there_and_all_of_it_is_ours() -> None:
    html = assets()["index.html"].body.decode()
    named = set(re.findall(r'(?:src|href)="([^"#]+)"', html))
    assert {"/static/main.js", "/static/style/base.css", "/static/theme.js"} < named
    others = {"/docs", "/model-card"}
    assert all(name.startswith("/static/") or name in others for name in named)
    assert {name.removeprefix("/static/") for name in named - others} <= set(assets())
    for name, asset in assets().items():
        text = asset.body.decode()
        for module in re.findall(r'from "\./([\w./]+)"', text):
            assert module in assets(), f"{name} imports {module}"
        foreign = re.sub(r"https?://www\.w3\.org/(2000/svg|1999/xlink)", "", text)
        assert not re.search(r"https?://|//[a-z]+\.[a-z]", foreign), name
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=|<style", html)


def test_every_module_is_used() -> None:
    named = set(re.findall(r'"/static/([\w.]+\.js)"', assets()["index.html"].body.decode()))
    imported = {name for asset in assets().values() for name in re.findall(r'from "\./([\w./]+)"', asset.body.decode())}
    assert {name for name in assets() if name.endswith(".js")} == named | imported


def test_browsers_ask_again_and_hear_that_nothing_changed() -> None:
    first = fetch("/static/main.js")
    assert first.headers["cache-control"] == "no-cache"
    again = fetch("/static/main.js", **{"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert fetch("/static/main.js", **{"If-None-Match": '"other"'}).status_code == 200


def test_a_page_that_did_not_change_keeps_its_policy() -> None:
    """Headers of a 304 take the place of those that the browser kept: without a policy of pages it would stay blank."""
    first = fetch("/")
    again = fetch("/", **{"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    for name in ("content-security-policy", "permissions-policy", "cache-control"):
        assert again.headers[name] == first.headers[name]


@pytest.mark.parametrize(
    "path",
    [
        "/static/",
        "/static/../__init__.py",
        "/static/%2e%2e/__init__.py",
        "/static/..%2f..%2fhttp.py",
        "/static//etc/passwd",
        "/static/nothing.js",
        "/static/texts",
        "/static/samples/astronaut.png",
        "/static/samples/..%2fastronaut.png",
    ],
)
def test_nothing_else_can_be_had_that_way(path: str) -> None:
    answer = fetch(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_samples_are_served_where_they_were_pulled(samples: Path) -> None:
    answer = fetch("/static/samples/astronaut.png", samples)
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == (samples / "astronaut.png").read_bytes()
    assert "etag" in answer.headers


def test_a_sample_that_has_gone_since_is_not_found(tmp_path: Path) -> None:
    assert fetch("/static/samples/astronaut.png", tmp_path).status_code == 404
