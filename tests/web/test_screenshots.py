"""Pictures of the page for people to look at, in build/screenshots: three sizes, two themes, what matters most.

They are not compared with anything: fonts differ from machine to machine. What is checked is that nothing is cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from tests.conftest import ROOT
from tests.web.steps import choose_files, visit, wait_for_state, wait_for_states

FOLDER = ROOT / "build" / "screenshots"
SIZES = {
    "phone": {"width": 390, "height": 844},
    "tablet": {"width": 820, "height": 1180},
    "desktop": {"width": 1440, "height": 900},
}


def idle(page: Page, samples: Path) -> None:
    pass


def portrait(page: Page, samples: Path) -> None:
    page.locator(".sample").nth(0).click()
    wait_for_state(page, "done")


def group(page: Page, samples: Path) -> None:
    page.locator(".sample").nth(1).click()
    wait_for_state(page, "done")


def doubt(page: Page, samples: Path) -> None:
    page.locator(".sample").nth(2).click()
    wait_for_state(page, "done")


def nobody(page: Page, samples: Path) -> None:
    page.locator(".sample").nth(3).click()
    wait_for_state(page, "empty")


def refused(page: Page, samples: Path) -> None:
    face = (samples / "astronaut.png").read_bytes()
    choose_files(page, ("cut.png", face[:300_000]))
    wait_for_state(page, "refused")


def grid(page: Page, samples: Path) -> None:
    face, cat = ((samples / name).read_bytes() for name in ("astronaut.png", "chelsea.png"))
    files = [("holiday 1.png", face), ("cat.png", cat), ("cut.png", face[:300_000]), ("notes.txt", b"words")]
    choose_files(page, *files, *((f"holiday {number}.png", face) for number in range(2, 6)))
    wait_for_states(page, ["done", "empty", "refused", "refused", "done", "done", "done", "done"])


def drawer(page: Page, samples: Path) -> None:
    group(page, samples)
    page.click("#server-toggle")
    page.wait_for_function(
        "() => (document.querySelector('.spark-line').getAttribute('d') ?? '').split('L').length > 4"
    )


def about(page: Page, samples: Path) -> None:
    portrait(page, samples)
    page.locator("#about-open").press("Enter")


SCENES = (idle, portrait, group, doubt, nobody, refused, grid, drawer, about)


@pytest.fixture(params=list(SIZES))
def context_options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"viewport": SIZES[request.param], "locale": "en-GB"}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_picture(
    page: Page,
    service_url: str,
    samples: Path,
    scene: Callable[[Page, Path], None],
    theme: str,
    request: pytest.FixtureRequest,
) -> None:
    # Chinese for one half and English for the other: both scripts in every scene.
    language = "zh" if (theme == "dark") else "en"
    visit(page, service_url, f"?theme={theme}&lang={language}")
    scene(page, samples)
    page.mouse.move(0, 0)
    expect(page.locator("html")).to_have_attribute("data-theme", theme)
    page.wait_for_timeout(250)
    size = request.node.callspec.params["context_options"]
    FOLDER.mkdir(parents=True, exist_ok=True)
    whole = scene not in (drawer, about)
    page.screenshot(path=FOLDER / f"{scene.__name__}-{size}-{theme}.png", full_page=whole)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    cut = page.locator("button:visible, h2:visible, .badge:visible").evaluate_all(
        """all => all.filter((one) => one.scrollWidth > one.clientWidth + 1
                                      && getComputedStyle(one).textOverflow !== "ellipsis")
             .map((one) => one.textContent)"""
    )
    assert cut == []
