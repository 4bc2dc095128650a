"""A batch's report in a browser: drawn in its colours under its own policy, readable by everybody, on any width."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page
from tests.batch.fakes import MemoryReader, face, failed, finished_job, ok, some_records, with_reasons
from tests.pictures import picture, save

from dulian.batch.merge import merge
from dulian.batch.writers import Form
from dulian.messages import Language

PAPER = {"light": "rgb(251, 250, 248)", "dark": "rgb(23, 24, 27)"}
NAMES = ["<script>alert(1)</script>.jpg", "שלום/مرحبا.jpg", "長" * 400 + ".jpg", "a" * 4000]


@pytest.fixture(params=["en", "zh"])
def report(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    language: Language = request.param
    records = some_records(60)
    records += [ok(name, with_reasons(face(gender="undecided"), "blurred"), total_ms=900) for name in NAMES]
    records += [failed(f"{name}.png", message=name) for name in NAMES]
    reader = MemoryReader({name: save(picture(), "JPEG") for name in NAMES})
    form = Form(language=language, thumbnails=4, reader=reader)
    merge(*finished_job(records), tmp_path / "report.html", form=form)
    return (tmp_path / "report.html").as_uri()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_report_is_readable_in_any_light(page: Page, report: str, theme: str) -> None:
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    page.goto(report)
    # the policy lets the page's own style and pictures through
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == PAPER[theme]
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    bars = page.locator(".pyramid rect.female").evaluate_all("all => all.map(one => getComputedStyle(one).fill)")
    assert bars
    assert "rgb(0, 0, 0)" not in bars
    for summary in page.locator("summary").all():
        summary.click()
    found = Axe().run(page).response["violations"]
    assert [(rule["id"], [node["html"] for node in rule["nodes"]][:3]) for rule in found] == []


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_report_is_no_wider_than_the_window(page: Page, report: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(report)
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0


def test_the_report_is_printed_dark_on_light(page: Page, report: str) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    page.goto(report)
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(36, 38, 42)"
