"""A real browser over real services: Chromium without a window, one context for each test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright
from tests.service.processes import running
from tests.service.services import PATIENCE_S

from dulian.store import ModelStore

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    """The browser of the system; nothing is downloaded for the tests."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


# While it runs, its loop is the thread's own: not for longer than a module, for tests elsewhere have loops of theirs.
@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    if find_chromium() is None:
        pytest.skip(f"no Chromium here (looked for {', '.join(NAMES)}): apt-get install chromium-headless-shell")
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=find_chromium())
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def service_url(model_store: ModelStore, samples: Path) -> Iterator[str]:
    """The real program with real networks."""
    with running(model_store) as (_, url, _):
        yield url


@pytest.fixture
def context_options() -> dict[str, Any]:
    """What a test's browser is like; tests override this."""
    return {"viewport": {"width": 1280, "height": 800}, "locale": "en-GB"}


@pytest.fixture
def context(browser: Browser, context_options: dict[str, Any]) -> Iterator[BrowserContext]:
    context = browser.new_context(**context_options)
    context.set_default_timeout(PATIENCE_S * 1000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that may neither break, nor break its policy, nor speak to anybody but its server."""
    page = context.new_page()
    troubles: list[str] = []
    origins: set[str] = set()
    page.add_init_script(REPORT_VIOLATIONS)
    page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
    page.on("dialog", lambda dialog: troubles.append(f"dialog: {dialog.message}"))
    page.on("console", lambda message: troubles.append(message.text) if message.text.startswith("CSP:") else None)
    page.on("request", lambda request: origins.add(origin_of(request.url)))
    page.on("websocket", lambda socket: origins.add(origin_of(socket.url)))
    yield page
    page.close()
    assert troubles == []
    assert {origin for origin in origins if not origin.startswith(("blob:", "data:"))} <= {origin_of(page.url)}


REPORT_VIOLATIONS = """addEventListener("securitypolicyviolation",
  ({ violatedDirective, blockedURI }) => console.error(`CSP: ${violatedDirective} ${blockedURI}`))"""


def origin_of(url: str) -> str:
    """Host and port; of a blob or of data just that."""
    parts = urlsplit(url)
    return parts.netloc or f"{parts.scheme}:"
