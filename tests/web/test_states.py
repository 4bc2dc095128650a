"""Every state of a picture, brought about by real servers that are slow, full, closed, dead, or want a key."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Page, expect
from tests.pictures import picture
from tests.service.processes import running
from tests.service.services import FakeAnalysis, fake_service, served, wait_until
from tests.service.test_access import asking_for_keys
from tests.web.steps import (
    as_file,
    cards,
    choose_files,
    enlarged,
    seen_texts,
    states,
    visit,
    wait_for_state,
    wait_for_states,
    watch_texts,
)

from dulian.keys import KeysFile
from dulian.service.http import create_app
from dulian.service.state import Service
from dulian.store import ModelStore

PNG = as_file(picture(), "PNG")


@contextmanager
def faked(analysis: FakeAnalysis, **limits: Any) -> Iterator[tuple[Service, str]]:
    with fake_service(analysis, **limits) as service, served(create_app(service)) as url:
        yield service, url


@contextmanager
def two_being_analysed(page: Page) -> Iterator[FakeAnalysis]:
    """Two pictures that stay at the server until they may leave."""
    analysis = FakeAnalysis()
    analysis.leave.clear()
    with faked(analysis, workers=2) as (_, url):
        visit(page, url)
        choose_files(page, ("a.png", PNG), ("b.png", PNG))
        wait_for_states(page, ["analysing", "analysing"])
        yield analysis


@pytest.fixture
def portrait(samples: Path) -> bytes:
    return (samples / "astronaut.png").read_bytes()


def slow_down(context: BrowserContext, page: Page, bytes_per_s: int) -> None:
    """A thin line from the browser to wherever."""
    conditions = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_per_s}
    context.new_cdp_session(page).send("Network.emulateNetworkConditions", conditions)


# ── underway ─────────────────────────────────────────────────────────────────────────────────────


def test_idle_offers_what_there_is(page: Page, service_url: str) -> None:
    visit(page, service_url)
    for part in ("#choose", "#camera", "#shrink", "#samples", ".foot"):
        expect(page.locator(part)).to_be_visible()
    for part in ("#result", "#pictures", "#live", "#server", "#clear"):
        expect(page.locator(part)).to_be_hidden()


def test_uploading_shows_how_far_it_is(page: Page, context: BrowserContext, service_url: str, portrait: bytes) -> None:
    visit(page, service_url)
    slow_down(context, page, 400_000)
    watch_texts(page, "#result-state-text")
    choose_files(page, ("me.png", portrait))
    wait_for_state(page, "done")
    shares = [int(found[1]) for text in seen_texts(page) if (found := re.fullmatch(r"Uploading, (\d+) %", text))]
    assert shares == sorted(shares)
    assert len([share for share in shares if 0 < share < 100]) >= 3
    assert "Analysing" in seen_texts(page) or "1 face" in seen_texts(page)


def test_who_waits_for_the_servers_queue_is_told(page: Page) -> None:
    analysis = FakeAnalysis()
    analysis.leave.clear()
    with faked(analysis) as (_, url):
        visit(page, url)
        choose_files(page, *((f"{number}.png", PNG) for number in range(4)))
        expect(cards(page).nth(1).locator(".card-state")).to_have_text("In the server's queue, 2 in it")
        assert states(page)[3] == "waiting"
        expect(page.locator("#result-state-text")).to_contain_text("In the server's queue")
        analysis.leave.set()
        wait_for_states(page, ["empty"] * 4)


def test_without_a_queue_it_is_being_analysed(page: Page) -> None:
    analysis = FakeAnalysis()
    analysis.leave.clear()
    with faked(analysis) as (_, url):
        visit(page, url)
        choose_files(page, ("me.png", PNG))
        expect(page.locator("#result-state-text")).to_have_text("Analysing")
        expect(page.locator("#result-progress")).to_be_visible()
        page.wait_for_timeout(1200)  # after looking at the queue, too
        expect(page.locator("#result-state-text")).to_have_text("Analysing")
        analysis.leave.set()
        wait_for_state(page, "empty")


# ── endings ──────────────────────────────────────────────────────────────────────────────────────


def refused(page: Page, name: str, data: bytes) -> str:
    choose_files(page, (name, data))
    wait_for_state(page, "refused")
    expect(page.locator("#result-state-text")).to_have_text("Not accepted")
    return page.locator("#result-reason").inner_text()


def test_what_is_no_picture_is_refused_whatever_its_name(page: Page, service_url: str) -> None:
    visit(page, service_url)
    assert "not a picture" in refused(page, "note.jpg", b"only words in here")


def test_a_cut_file_is_refused(page: Page, service_url: str, portrait: bytes) -> None:
    visit(page, service_url)
    assert "ends before the picture does" in refused(page, "cut.png", portrait[:300_000])


def test_a_damaged_file_is_refused(page: Page, service_url: str, portrait: bytes) -> None:
    visit(page, service_url)
    damaged = portrait[:200_000] + bytes(400_000) + portrait[600_000:]
    assert "damaged" in refused(page, "damaged.png", damaged)


def test_an_empty_file_is_refused(page: Page, service_url: str) -> None:
    visit(page, service_url)
    assert refused(page, "empty.jpg", b"") == "The file is empty."


def test_a_file_above_the_limit_is_refused_before_it_is_sent(page: Page, portrait: bytes) -> None:
    analysis = FakeAnalysis()
    with faked(analysis, max_body_bytes=200_000) as (_, url):
        visit(page, url)
        assert "too big" in refused(page, "me.png", portrait)
        expect(page.locator("#result-reason")).to_contain_text("It has 773 KB; this server takes 195 KB.")
    assert analysis.seen == []


def test_a_picture_that_is_too_big_can_be_shrunk_and_sent_again(page: Page) -> None:
    noise = Image.effect_noise((2600, 2600), 60).convert("RGB")
    large = as_file(noise, "JPEG", quality=95)
    analysis = FakeAnalysis()
    with faked(analysis, max_body_bytes=len(large) - 1) as (_, url):
        visit(page, url)
        page.uncheck("#shrink")
        assert "too big" in refused(page, "me.jpg", large)
        page.get_by_role("button", name="Shrink it and send again").click()
        wait_for_state(page, "empty")
    (sent, _), *_ = analysis.seen
    assert max(Image.open(io.BytesIO(sent)).size) == 2048


def test_a_failure_of_the_server_is_told_as_such_and_can_be_tried_again(page: Page) -> None:
    analysis = FakeAnalysis(error=RuntimeError("secret"))
    with faked(analysis) as (_, url):
        visit(page, url)
        choose_files(page, ("me.png", PNG))
        wait_for_state(page, "failed")
        expect(page.locator("#result-reason")).to_have_text("Something is wrong inside the server.")
        assert "secret" not in page.content()
        analysis.error = None
        page.get_by_role("button", name="Try again", exact=True).first.click()
        wait_for_state(page, "empty")


def test_a_deadline_that_passed_is_told(page: Page) -> None:
    with faked(FakeAnalysis(0.6), deadline_s=0.2) as (_, url):
        visit(page, url)
        choose_files(page, ("me.png", PNG))
        wait_for_state(page, "failed")
        expect(page.locator("#result-reason")).to_contain_text("took too long")


def test_a_file_that_went_away_is_told_as_such(page: Page, tmp_path: Path) -> None:
    analysis = FakeAnalysis()
    analysis.leave.clear()
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path in paths:
        path.write_bytes(PNG)
    with faked(analysis) as (_, url):
        visit(page, url)
        page.set_input_files("#file-input", paths)
        wait_until(lambda: states(page)[3:] == ["waiting"])
        paths[3].unlink()
        analysis.leave.set()
        wait_for_states(page, ["empty", "empty", "empty", "failed"])
        expect(cards(page).nth(3).locator(".card-reason")).to_contain_text("cannot be read any more")


# ── servers in trouble ───────────────────────────────────────────────────────────────────────────


def test_an_overloaded_server_is_asked_again_when_it_said(page: Page) -> None:
    """One is worked on, one waits, and there is no room for a third."""
    analysis = FakeAnalysis()
    analysis.leave.clear()
    with faked(analysis, max_queued=1) as (_, url):
        visit(page, url)
        with page.expect_response(lambda response: response.status == 503) as response:
            choose_files(page, *((f"{number}.png", PNG) for number in range(3)))
        assert int(response.value.headers["retry-after"]) >= 1
        page.wait_for_function("() => document.querySelector('.card[data-state=overloaded]') !== null")
        text = page.locator(".card[data-state=overloaded] .card-state").first.inner_text()
        assert re.fullmatch(r"The server is busy; trying again in \d+ s", text)
        analysis.leave.set()
        wait_for_states(page, ["empty"] * 3)
    assert len(analysis.seen) == 3


def test_a_server_that_died_is_waited_for(page: Page, model_store: ModelStore, portrait: bytes) -> None:
    with running(model_store) as (process, url, _):
        visit(page, url)
        choose_files(page, ("before.png", portrait))
        wait_for_state(page, "done")
        process.kill()
        process.wait(30)
        choose_files(page, ("after.png", portrait))
        wait_for_states(page, ["done", "away"])
        expect(page.locator("#result-state-text")).to_have_text("The server does not answer; waiting for it")
        page.locator("#server-toggle").click()
        expect(page.locator("#server-state")).to_have_text("Does not answer")
    with running(model_store, "--port", url.rpartition(":")[2]):
        wait_for_states(page, ["done", "done"])
        expect(page.locator("#server-state")).to_have_text("Ready")


def test_a_connection_that_always_breaks_is_given_up(page: Page) -> None:
    analysis = FakeAnalysis()
    with faked(analysis) as (_, url):
        visit(page, url)
        page.route("**/v1/analyze", lambda route: route.abort("connectionreset"))
        choose_files(page, ("me.png", PNG))
        wait_for_state(page, "failed")
        expect(page.locator("#result-reason")).to_have_text("The connection broke several times.")


def test_a_proxy_that_cannot_reach_the_server_is_no_answer(page: Page) -> None:
    """Its page of HTML, whatever status it has, is waited out like a server that is away."""
    with faked(FakeAnalysis()) as (_, url):
        visit(page, url)
        for path in ("**/analyze", "**/livez"):
            page.route(path, lambda route: route.fulfill(status=502, body="<h1>Bad Gateway</h1>"))
        choose_files(page, ("me.png", PNG))
        wait_for_state(page, "away")
        page.wait_for_timeout(1500)
        assert states(page) == ["away"]
        page.unroute("**/livez")
        page.unroute("**/analyze")
        wait_for_state(page, "empty")


@pytest.mark.parametrize(
    ("status", "state", "words"), [(413, "refused", "too big"), (403, "failed", "key"), (500, "failed", "Something")]
)
def test_what_a_proxy_says_by_its_status_is_heard(page: Page, status: int, state: str, words: str) -> None:
    with faked(FakeAnalysis()) as (_, url):
        visit(page, url)
        page.route("**/v1/analyze", lambda route: route.fulfill(status=status, body="<h1>No</h1>"))
        choose_files(page, ("me.png", PNG))
        wait_for_state(page, state)
        expect(page.locator("#result-reason")).to_contain_text(words)


@pytest.mark.parametrize("body", ["{}", "[]", '{"faces": []}', '"words"'])
def test_an_answer_that_is_no_result_is_a_failure(page: Page, body: str) -> None:
    with faked(FakeAnalysis()) as (_, url):
        visit(page, url)
        page.route("**/v1/analyze", lambda route: route.fulfill(status=200, body=body))
        choose_files(page, ("a.png", PNG), ("b.png", PNG))
        wait_for_states(page, ["failed", "failed"])
        expect(page.locator("#result-state-text")).to_have_text("That did not work")
        expect(page.locator("#pictures-summary")).to_have_text("2 of 2 done")


def test_a_server_that_hangs_does_not_count_as_ready(page: Page) -> None:
    with faked(FakeAnalysis()) as (_, url):
        visit(page, url)
        page.click("#server-toggle")
        expect(page.locator("#server-state")).to_have_text("Ready")
        page.route("**/v1/status", lambda route: None)
        expect(page.locator("#server-state")).to_have_text("Does not answer", timeout=15_000)
        page.unroute("**/v1/status")
        expect(page.locator("#server-state")).to_have_text("Ready", timeout=15_000)


def test_a_refusal_without_words_is_heard(page: Page) -> None:
    """The guard's own: a bare status and when to come back."""
    with faked(FakeAnalysis()) as (_, url):
        visit(page, url)
        page.route("**/v1/analyze", lambda route: route.fulfill(status=503, headers={"retry-after": "2"}))
        choose_files(page, ("me.png", PNG))
        wait_for_state(page, "overloaded")
        page.unroute("**/v1/analyze")
        wait_for_state(page, "empty")


def test_a_server_that_wants_a_key_gets_one_and_keeps_it_to_itself(page: Page, tmp_path: Path) -> None:
    file = KeysFile(tmp_path / "keys.json")
    secret, _ = file.create()
    with asking_for_keys(file) as (_, url):
        visit(page, url)
        choose_files(page, ("me.png", PNG))
        wait_for_state(page, "locked")
        expect(page.locator("#server-state")).to_have_text("Wants a key")
        expect(page.locator("#key")).to_be_focused()
        page.fill("#key", "ｇｏｏｄ”钥")
        page.keyboard.press("Enter")
        expect(page.locator("#key-note")).to_have_text("This key is not valid.")
        page.focus("#key")
        page.keyboard.type("dl_wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#key-note")).to_have_text("This key is not valid.")
        wait_for_state(page, "locked")
        page.fill("#key", secret)
        page.click("#key-form button")
        wait_for_state(page, "empty")
        expect(page.locator("#server-state")).to_have_text("Ready")
        assert page.locator("#key").input_value() == ""
        kept = page.evaluate("() => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert kept == '[{},{},""]'
        assert secret not in page.url
        assert secret not in page.content()
        page.reload()
        page.locator("#server-toggle").click()
        expect(page.locator("#server-state")).to_have_text("Wants a key")


# ── cancelling ───────────────────────────────────────────────────────────────────────────────────


def test_an_upload_can_be_cancelled_and_tried_again(
    page: Page, context: BrowserContext, service_url: str, portrait: bytes
) -> None:
    visit(page, service_url)
    slow_down(context, page, 100_000)
    choose_files(page, ("me.png", portrait))
    page.wait_for_function("() => /Uploading, [1-9]/.test(document.querySelector('#result-state-text').textContent)")
    page.locator("#result-offers").get_by_role("button", name="Cancel").click()
    wait_for_state(page, "cancelled")
    slow_down(context, page, -1)
    page.locator("#result-offers").get_by_role("button", name="Try again").click()
    wait_for_state(page, "done")


def test_a_cancelled_analysis_leaves_the_servers_queue(page: Page) -> None:
    analysis = FakeAnalysis()
    analysis.leave.clear()
    with faked(analysis) as (service, url):
        visit(page, url)
        choose_files(page, *((f"{number}.png", PNG) for number in range(3)))
        wait_until(lambda: service.pool.queued == 2)
        page.click("#cancel-all")
        wait_for_states(page, ["cancelled"] * 3)
        wait_until(lambda: service.pool.queued == 0)
        analysis.leave.set()
        wait_until(lambda: service.pool.busy == 0)
    assert len(analysis.seen) == 1


def test_cancelling_in_the_large_view_is_about_the_picture_that_is_shown(page: Page) -> None:
    with two_being_analysed(page) as analysis:
        cards(page).nth(1).locator(".card-show").click()
        page.locator("#result-offers").get_by_role("button", name="Cancel").click()
        wait_for_states(page, ["analysing", "cancelled"])
        analysis.leave.set()
        wait_for_states(page, ["empty", "cancelled"])


def test_cancelling_all_begins_nothing(page: Page) -> None:
    analysis = FakeAnalysis()
    analysis.leave.clear()
    page.add_init_script(
        """window.opened = 0;
           const open = window.createImageBitmap;
           window.createImageBitmap = (...given) => { window.opened += 1; return open(...given); };"""
    )
    with faked(analysis) as (_, url):
        visit(page, url)
        choose_files(page, *((f"{number}.png", PNG) for number in range(30)))
        page.wait_for_function("() => window.opened >= 3")
        page.wait_for_timeout(300)
        before = page.evaluate("() => window.opened")
        page.click("#cancel-all")
        wait_for_states(page, ["cancelled"] * 30)
        expect(page.locator("#pictures-title")).to_be_focused()
        assert page.evaluate("() => window.opened") == before


def test_cancelled_while_it_is_prepared_and_tried_again_is_sent_once(page: Page, portrait: bytes) -> None:
    analysis = FakeAnalysis()
    page.add_init_script(
        """const open = window.createImageBitmap;
           window.createImageBitmap = async (...given) => {
             await new Promise((resolve) => setTimeout(resolve, 600));
             return open(...given);
           };"""
    )
    with faked(analysis) as (_, url):
        page.goto(url)
        choose_files(page, ("large.jpg", enlarged(portrait)))
        wait_for_state(page, "preparing")
        offers = page.locator("#result-offers")
        offers.get_by_role("button", name="Cancel").click()
        offers.get_by_role("button", name="Try again").click()
        wait_for_state(page, "empty")
        page.wait_for_timeout(1500)
        assert len(analysis.seen) == 1


def test_a_double_click_on_cancel_does_not_try_again(page: Page) -> None:
    with two_being_analysed(page) as analysis:
        cards(page).nth(0).locator(".card-actions button").dblclick()
        page.wait_for_timeout(200)
        assert states(page) == ["cancelled", "analysing"]
        analysis.leave.set()


def test_clearing_forgets_what_is_underway(page: Page) -> None:
    analysis = FakeAnalysis()
    analysis.leave.clear()
    with faked(analysis) as (service, url):
        visit(page, url)
        choose_files(page, ("a.png", PNG), ("b.png", PNG))
        wait_until(lambda: service.pool.queued == 1)
        page.click("#clear")
        assert cards(page).count() == 0
        expect(page.locator("#result")).to_be_hidden()
        expect(page.locator("#choose")).to_be_focused()
        wait_until(lambda: service.pool.queued == 0)
        analysis.leave.set()


# ── many, and odd ────────────────────────────────────────────────────────────────────────────────


def test_twenty_pictures_at_once_and_one_failure_is_one_card(
    page: Page, service_url: str, samples: Path, portrait: bytes
) -> None:
    cat = (samples / "chelsea.png").read_bytes()
    kinds = {"done": ("face.png", portrait), "empty": ("cat.png", cat), "refused": ("note.png", b"words")}
    wanted = ["done", "done", "empty", "done"] * 5
    wanted[13] = "refused"
    visit(page, service_url)
    choose_files(page, *((f"{number} {kinds[kind][0]}", kinds[kind][1]) for number, kind in enumerate(wanted)))
    wait_for_states(page, wanted)
    expect(page.locator("#pictures-summary")).to_have_text("20 of 20 done")
    expect(cards(page).nth(13).locator(".card-reason")).to_contain_text("not a picture")
    cards(page).nth(18).locator(".card-show").click()
    expect(page.locator("#result-name")).to_be_in_viewport()
    cards(page).nth(2).locator(".card-show").click()
    expect(page.locator("#result-name")).to_have_text("2 cat.png")
    expect(page.locator("#hint")).to_be_visible()


HOSTILE = [
    "<img src=x onerror=alert(1)>.png",
    "'\"><script>alert(1)</script>.png",
    "{name} & &amp; %s.png",
    "rtl \u202egnp.exe.png",
    "../../../etc/passwd",
    "=cmd|' /C calc'!A0.png",
    "very " * 60 + "long.png",
    "换行\n与\t制表.png",
]


def test_names_of_files_are_shown_as_text_and_nothing_else(page: Page, service_url: str, portrait: bytes) -> None:
    visit(page, service_url)
    choose_files(page, *((name, portrait) for name in HOSTILE))
    wait_for_states(page, ["done"] * len(HOSTILE))
    shown = page.locator(".card-name").evaluate_all("names => names.map((name) => name.textContent)")
    assert shown == HOSTILE
    assert page.locator("#pictures-list img, #pictures-list script, #result img, #result script").count() == 0
    widths = page.locator(".card").evaluate_all("cards => cards.map((card) => card.scrollWidth - card.clientWidth)")
    assert max(widths) <= 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
