"""The model card in a browser: drawn in its colours, readable by everybody, on any width."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from dulian.models.catalog import PROFILES


def test_the_card_shows_every_profile_and_draws_its_plots(page: Page, service_url: str) -> None:
    page.goto(f"{service_url}/model-card")
    heads = page.locator("section").first.locator("thead th").all_text_contents()
    assert heads == list(PROFILES)
    plots = page.locator("figure svg")
    assert plots.count() == 6
    for index in range(plots.count()):
        assert plots.nth(index).locator(".dot").count() >= 4 * len(PROFILES)
    # the policy lets the page's own style through
    colours = {page.locator(f".legend .s{place}").evaluate(DOT_COLOUR) for place in range(len(PROFILES))}
    assert len(colours) == len(PROFILES)
    assert "rgba(0, 0, 0, 0)" not in colours


DOT_COLOUR = "item => getComputedStyle(item, '::before').backgroundColor"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_card_is_readable_in_any_light(page: Page, service_url: str, theme: str) -> None:
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    page.goto(f"{service_url}/model-card")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (theme == "light")
    found = Axe().run(page).response["violations"]
    assert [rule["id"] for rule in found if rule["impact"] in {"serious", "critical"}] == []


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_card_is_no_wider_than_the_window(page: Page, service_url: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{service_url}/model-card")
    for details in page.locator("summary").all():
        details.click()
    assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0


def test_the_page_leads_to_the_card(page: Page, service_url: str) -> None:
    page.goto(service_url)
    page.click("#about-open")
    with page.expect_popup() as opened:
        page.locator("#about a").click()
    expect(opened.value).to_have_url(f"{service_url}/model-card")
