"""For everybody: by keyboard alone, by a screen reader's names, in any light, without motion where none is wanted."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from tests.service.test_access import asking_for_keys
from tests.web.steps import choose_files, next_dialog, visit, wait_for_state, wait_for_states, watch_dialogs

from dulian.keys import KeysFile

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 800}
SERIOUS = {"serious", "critical"}


def violations(page: Page) -> list[str]:
    """What axe-core holds to be a serious hindrance, as rule and element."""
    page.wait_for_timeout(300)  # things that slide in are see-through on their way
    found = Axe().run(page).response["violations"]
    return [
        f"{rule['id']}: {node['html'][:160]} {node.get('failureSummary', '')[:200]}"
        for rule in found
        if rule["impact"] in SERIOUS
        for node in rule["nodes"]
    ]


def show_nothing(page: Page) -> None:
    pass


def show_result(page: Page) -> None:
    page.locator(".sample").nth(1).click()
    wait_for_state(page, "done")


def show_doubt(page: Page) -> None:
    page.locator(".sample").nth(2).click()
    wait_for_state(page, "done")


def show_no_face(page: Page) -> None:
    page.locator(".sample").nth(3).click()
    wait_for_state(page, "empty")


def show_grid(page: Page) -> None:
    choose_files(page, ("note.png", b"words"), ("other.png", b"words"))
    wait_for_states(page, ["refused", "refused"])


def show_drawer(page: Page) -> None:
    page.click("#server-toggle")
    expect(page.locator(".trend-value").first).not_to_be_empty()


def show_about(page: Page) -> None:
    page.click("#about-open")


def show_camera(page: Page) -> None:
    page.click("#camera")
    expect(page.locator("#live-note")).not_to_be_empty()


def show_veil(page: Page) -> None:
    page.evaluate("() => { veil.hidden = false; }")


SCENES = (
    show_nothing,
    show_result,
    show_doubt,
    show_no_face,
    show_grid,
    show_drawer,
    show_about,
    show_camera,
    show_veil,
)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("scene", SCENES)
def test_axe_finds_nothing_serious(page: Page, service_url: str, scene: Callable[[Page], None], theme: str) -> None:
    visit(page, service_url, f"?theme={theme}")
    scene(page)
    assert violations(page) == []


def test_axe_would_find_something(page: Page, service_url: str) -> None:
    """The control of the test above."""
    visit(page, service_url)
    page.evaluate("() => { choose.replaceChildren(); }")
    assert any(found.startswith("button-name") for found in violations(page))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_axe_on_a_phone(page: Page, service_url: str, language: str) -> None:
    page.set_viewport_size(PHONE)
    visit(page, service_url, f"?lang={language}")
    show_result(page)
    assert violations(page) == []
    show_drawer(page)
    assert violations(page) == []


def test_axe_on_the_key_form(page: Page, tmp_path: Path) -> None:
    file = KeysFile(tmp_path / "keys.json")
    file.create()
    with asking_for_keys(file) as (_, url):
        visit(page, url)
        page.click("#server-toggle")
        expect(page.locator("#key-form")).to_be_visible()
        assert violations(page) == []


# ── the keyboard ─────────────────────────────────────────────────────────────────────────────────


def focused(page: Page) -> str:
    """The id of what has the focus, or its class."""
    found: str = page.evaluate("() => document.activeElement.id || document.activeElement.className")
    return found


def tab_to(page: Page, wanted: str, *, most: int = 40, key: str = "Tab") -> list[str]:
    """Press Tab until the wanted element has the focus; what was passed on the way."""
    passed = []
    for _ in range(most):
        page.keyboard.press(key)
        passed.append(focused(page))
        outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", passed
        if passed[-1] == wanted:
            return passed
    raise AssertionError(f"no way to {wanted}: {passed}")


def test_everything_can_be_done_by_keyboard_alone(page: Page, service_url: str) -> None:
    visit(page, service_url)
    tab_to(page, "skip")
    expect(page.locator(".skip")).to_be_in_viewport()
    page.keyboard.press("Enter")
    assert focused(page) == "content"
    assert tab_to(page, "sample") == ["choose", "camera", "shrink", "sample"]
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    wait_for_state(page, "done")
    tab_to(page, "face-head")
    expect(page.locator(".face").first).to_have_css("box-shadow", page.locator(".face").first.evaluate(SHADOW))
    tab_to(page, "about-open", most=60)
    page.keyboard.press("Enter")
    expect(page.locator("#about")).to_be_visible()
    page.keyboard.press("Escape")
    assert focused(page) == "about-open"
    tab_to(page, "server-toggle", most=60, key="Shift+Tab")
    page.keyboard.press("Enter")
    assert focused(page) == "server-close"
    page.keyboard.press("Escape")
    assert focused(page) == "server-toggle"
    tab_to(page, "language", key="Shift+Tab")
    page.keyboard.press("Space")
    expect(page.locator("#choose")).to_have_text("选择照片")


SHADOW = "face => getComputedStyle(face).boxShadow"


def test_the_file_dialog_opens_by_keyboard(page: Page, service_url: str) -> None:
    dialogs = watch_dialogs(page)
    visit(page, service_url)
    tab_to(page, "choose")
    page.keyboard.press("Enter")
    assert next_dialog(page, dialogs).is_multiple()


def test_pictures_of_a_grid_are_chosen_by_keyboard(page: Page, service_url: str, samples: Path) -> None:
    visit(page, service_url)
    cat = (samples / "chelsea.png").read_bytes()
    choose_files(page, ("me.png", (samples / "astronaut.png").read_bytes()), ("cat.png", cat), ("note.png", b"words"))
    wait_for_states(page, ["done", "empty", "refused"])
    tab_to(page, "card-show", most=60)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#result-name")).to_have_text("cat.png")
    expect(page.locator(".card-show").nth(1)).to_have_attribute("aria-pressed", "true")


# ── a screen reader's names ──────────────────────────────────────────────────────────────────────


def test_everything_has_a_name_and_changes_are_announced(page: Page, service_url: str) -> None:
    visit(page, service_url)
    show_result(page)
    expect(page.get_by_role("img", name="Group.png: 8 faces")).to_be_visible()
    expect(page.get_by_role("button", name="Face #0: Female").first).to_be_visible()
    expect(page.get_by_role("img", name="Age between").first).to_be_visible()
    expect(page.get_by_role("img", name="% Female").first).to_be_visible()
    expect(page.get_by_role("button", name="Theme: as the system")).to_be_visible()
    expect(page.get_by_role("button", name="Server Ready")).to_be_visible()
    announcer = page.locator("#announcer")
    expect(announcer).to_have_attribute("role", "status")
    expect(announcer).to_have_text("Group.png: 8 faces")
    outline = page.locator("h1, h2, h3").evaluate_all(
        "all => all.filter((one) => one.checkVisibility()).map(({ tagName }) => Number(tagName[1]))"
    )
    assert outline[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(outline))


# ── light, motion, size ──────────────────────────────────────────────────────────────────────────


def ground(page: Page) -> int:
    colour = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    return int(colour.removeprefix("rgb(").partition(",")[0])


def test_the_theme_follows_the_system_until_it_is_chosen(page: Page, service_url: str) -> None:
    page.emulate_media(color_scheme="dark")
    visit(page, service_url)
    assert ground(page) < 60
    page.emulate_media(color_scheme="light")
    page.wait_for_function("() => document.documentElement.dataset.theme === 'light'")
    assert ground(page) > 200
    page.click("#theme")
    page.click("#theme")
    assert ground(page) < 60
    page.reload()
    assert ground(page) < 60
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()


def test_nothing_moves_where_motion_is_not_wanted(page: Page, service_url: str) -> None:
    page.emulate_media(reduced_motion="reduce")
    visit(page, service_url)
    page.click("#server-toggle")
    durations = page.evaluate(
        """() => [...document.querySelectorAll("*")].map((one) => getComputedStyle(one))
             .flatMap(({ animationDuration, transitionDuration }) => [animationDuration, transitionDuration])
             .map(parseFloat)"""
    )
    assert max(durations) <= 0.001
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate("() => parseFloat(getComputedStyle(server).animationDuration)") > 0.1


@pytest.mark.parametrize("width", [320, 390, 600, 768, 1024, 1280, 1920])
def test_nothing_is_wider_than_the_window(page: Page, service_url: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    visit(page, service_url)
    overflow = "() => document.documentElement.scrollWidth - innerWidth"
    assert page.evaluate(overflow) <= 0
    show_result(page)
    show_grid_beside(page)
    assert page.evaluate(overflow) <= 0
    page.click("#server-toggle")
    assert page.evaluate(overflow) <= 0


def show_grid_beside(page: Page) -> None:
    choose_files(page, ("note.png", b"words"))
    wait_for_states(page, ["done", "refused"])


def test_what_is_touched_is_large_enough(page: Page, service_url: str) -> None:
    """24 CSS pixels at least (WCAG 2.2, 2.5.8), but for links within text."""
    page.set_viewport_size(PHONE)
    visit(page, service_url)
    show_result(page)
    sizes: list[dict[str, Any]] = page.locator("button:visible, input:visible, select:visible").evaluate_all(
        """all => all.filter((one) => !one.classList.contains("link") && one.type !== "checkbox")
             .map((one) => ({ name: one.id || one.className, ...one.getBoundingClientRect().toJSON() }))"""
    )
    assert len(sizes) > 10
    assert [one["name"] for one in sizes if min(one["width"], one["height"]) < 24] == []
