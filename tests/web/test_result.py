"""What is shown of a result, how picture and list belong together, and what can be taken away."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Download, Page, expect
from tests.web.steps import cards, choose_files, colour_share, enlarged, visit, wait_for_state, wait_for_states

from dulian.serialize import FACE_COLUMNS

OK_COLOUR = (108, 224, 196)


@pytest.fixture
def portrait(samples: Path) -> bytes:
    return (samples / "astronaut.png").read_bytes()


def click_sample(page: Page, number: int) -> None:
    page.locator(".sample").nth(number).click()


def download(page: Page, name: str, *, among: str = "#downloads") -> Download:
    with page.expect_download() as started:
        page.locator(among).get_by_role("button", name=name).click()
    return started.value


def lightness(page: Page) -> float:
    """How light the drawn picture is on the whole."""
    image = Image.open(io.BytesIO(page.locator("#canvas").screenshot())).convert("L")
    return sum(value * count for value, count in enumerate(image.histogram())) / (image.width * image.height)


# ── cards ────────────────────────────────────────────────────────────────────────────────────────


def test_a_card_says_what_the_server_said(page: Page, service_url: str, portrait: bytes) -> None:
    face = httpx.post(f"{service_url}/v1/analyze", content=portrait).json()["faces"][0]
    visit(page, service_url)
    choose_files(page, ("me.png", portrait))
    wait_for_state(page, "done")
    card = page.locator(".face")
    age, gender = face["age"], face["gender"]
    low, high, value = (round(age[key]) for key in ("low", "high", "value"))
    expect(card.locator(".axis")).to_have_attribute(
        "aria-label", f"Age between {low} and {high}, most likely {value}, on a scale from 0 to 100"
    )
    assert round(gender["probability"] * 100) == int(
        re.findall(r"(\d+) % Female", card.inner_text())[0]  # this portrait's likelier gender
    )
    expect(card.locator(".badge")).to_have_text("clear")
    expect(card).to_contain_text(f"{face['quality']['size_px']} px wide")
    expect(card).to_contain_text("In 90 of 100 cases the true age is inside")
    band = card.locator(".axis .band")
    x, width = (float(band.get_attribute(name) or 0) for name in ("x", "width"))
    assert x == pytest.approx(6 + age["low"] * 2.88, abs=0.1)
    assert x + width == pytest.approx(6 + age["high"] * 2.88, abs=0.1)


def test_timings_engine_and_profile_are_told(page: Page, service_url: str) -> None:
    visit(page, service_url)
    click_sample(page, 0)
    wait_for_state(page, "done")
    facts = page.locator("#facts")
    expect(facts).to_contain_text("standard · onnxruntime")
    expect(facts).to_contain_text(re.compile(r"server [\d.]+ ms: decode [\d.]+, detect [\d.]+, attributes [\d.]+"))


@pytest.mark.parametrize("shrunk", [False, True])
def test_the_crop_shows_the_face(page: Page, service_url: str, portrait: bytes, shrunk: bool) -> None:
    visit(page, service_url)
    choose_files(page, ("me.jpg", enlarged(portrait) if shrunk else portrait))
    wait_for_state(page, "done")
    if shrunk:
        expect(page.locator("#facts")).to_contain_text("sent as 2048 × 2048")
    image = Image.open(io.BytesIO(page.locator(".crop").screenshot())).convert("RGB")
    face = Image.open(io.BytesIO(portrait)).convert("RGB").crop((160, 40, 290, 200))
    for part, (x, y) in {"forehead": (0.5, 0.3), "cheeks": (0.5, 0.6)}.items():
        seen, there = (one.resize((9, 9)).getpixel((round(x * 8), round(y * 8))) for one in (image, face))
        assert max(abs(a - b) for a, b in zip(seen, there, strict=True)) < 45, part  # type: ignore[arg-type]


# ── picture and list ─────────────────────────────────────────────────────────────────────────────


def test_a_card_that_is_looked_at_stands_out_in_the_picture(page: Page, service_url: str) -> None:
    visit(page, service_url)
    click_sample(page, 1)
    wait_for_state(page, "done")
    page.mouse.move(0, 0)
    before = lightness(page)
    page.locator(".face").nth(2).hover()
    assert lightness(page) < 0.75 * before
    page.mouse.move(0, 0)
    assert lightness(page) == pytest.approx(before, abs=1)
    page.locator(".face-head").nth(1).focus()
    assert lightness(page) < 0.75 * before


def test_a_face_that_is_pointed_at_stands_out_in_the_list(page: Page, service_url: str) -> None:
    visit(page, service_url)
    click_sample(page, 1)
    wait_for_state(page, "done")
    result = json.loads(download(page, "JSON").path().read_text())
    canvas = page.locator("#canvas").bounding_box()
    assert canvas
    scale = canvas["width"] / result["image"]["width"]
    x1, y1, x2, y2 = result["faces"][5]["bbox"]
    at = canvas["x"] + (x1 + x2) / 2 * scale, canvas["y"] + (y1 + y2) / 2 * scale
    page.mouse.move(*at)
    expect(page.locator(".face.pointed")).to_have_attribute("data-face", "5")
    page.mouse.click(*at)
    expect(page.locator(".face[data-face='5'] .face-head")).to_be_focused()
    expect(page.locator(".face[data-face='5']")).to_be_in_viewport()


def test_the_picture_is_drawn_at_the_screens_resolution(page: Page, service_url: str) -> None:
    visit(page, service_url)
    click_sample(page, 0)
    wait_for_state(page, "done")
    sizes = page.evaluate("() => [canvas.width, canvas.clientWidth, canvas.height, canvas.clientHeight]")
    assert sizes[0] == sizes[1]
    assert sizes[2] == sizes[3]
    page.set_viewport_size({"width": 420, "height": 800})
    expect(page.locator("#canvas")).to_be_visible()
    page.wait_for_function("(before) => canvas.width !== before", arg=sizes[0])
    assert page.evaluate("() => canvas.width === canvas.clientWidth")
    page.mouse.move(0, 0)
    assert colour_share(page.locator("#canvas").screenshot(), OK_COLOUR) > 0.002


class TestFineScreen:
    @pytest.fixture
    def context_options(self) -> dict[str, Any]:
        return {"viewport": {"width": 900, "height": 700}, "device_scale_factor": 2, "locale": "en-GB"}

    def test_two_pixels_for_one(self, page: Page, service_url: str) -> None:
        visit(page, service_url)
        click_sample(page, 0)
        wait_for_state(page, "done")
        width, shown = page.evaluate("() => [canvas.width, canvas.clientWidth]")
        assert width == 2 * shown


# ── downloads ────────────────────────────────────────────────────────────────────────────────────


def test_the_jpeg_has_the_pictures_size_and_its_boxes(page: Page, service_url: str, portrait: bytes) -> None:
    visit(page, service_url)
    choose_files(page, ("me.png", portrait))
    wait_for_state(page, "done")
    saved = download(page, "Annotated JPEG")
    assert saved.suggested_filename == "me-dulian.jpg"
    data = saved.path().read_bytes()
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.size) == ("JPEG", (512, 512))
    assert colour_share(data, OK_COLOUR, tolerance=30) > 0.003
    assert colour_share(portrait, OK_COLOUR, tolerance=30) < 0.0005


def test_a_picture_whose_file_has_gone_says_so(page: Page, service_url: str, portrait: bytes, tmp_path: Path) -> None:
    """Only the last few stay open; the others are opened again, where they still are."""
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for path in paths:
        path.write_bytes(portrait)
    visit(page, service_url)
    page.set_input_files("#file-input", paths)
    wait_for_states(page, ["done"] * 6)
    for other in (5, 4, 3, 2):
        cards(page).nth(other).locator(".card-show").click()
        expect(page.locator("#result-name")).to_have_text(f"{other}.png")
        expect(page.locator("#downloads button")).to_have_count(3)
    paths[0].unlink()
    cards(page).nth(0).locator(".card-show").click()
    expect(page.locator("#result-name")).to_have_text("0.png")
    expect(page.locator("#downloads button")).to_have_count(2)
    expect(page.locator(".face-label")).to_be_visible()
    expect(page.locator("#no-preview")).to_be_visible()


def test_the_json_is_the_servers_answer(page: Page, service_url: str, portrait: bytes) -> None:
    visit(page, service_url)
    choose_files(page, ("me.png", portrait))
    wait_for_state(page, "done")
    saved = json.loads(download(page, "JSON").path().read_text("utf-8"))
    answer = httpx.post(f"{service_url}/v1/analyze", content=portrait).json()
    assert saved.pop("source") == "me.png"
    assert saved.pop("timings_ms").keys() == answer.pop("timings_ms").keys()
    for one in (saved, answer):
        one.pop("request_id")
        one.pop("annotated_image", None)
    assert saved == answer


def test_the_table_has_a_row_for_every_face_and_for_every_picture_without(
    page: Page, service_url: str, samples: Path, portrait: bytes
) -> None:
    visit(page, service_url)
    files = [("=1+1.png", portrait), ('a,"b".png', portrait), ("cat.png", (samples / "chelsea.png").read_bytes())]
    choose_files(page, *files, ("note.png", b"words"))
    wait_for_states(page, ["done", "done", "empty", "refused"])
    data = download(page, "CSV", among="#save-all").path().read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    assert list(rows[0]) == ["picture", "error", "image_width", "image_height", *FACE_COLUMNS]
    assert [row["picture"] for row in rows] == ["'=1+1.png", 'a,"b".png', "cat.png", "note.png"]
    assert [row["error"] for row in rows] == ["", "", "", "unsupported_image"]
    answer = httpx.post(f"{service_url}/v1/analyze", content=portrait).json()["faces"][0]
    assert float(rows[0]["age"]) == answer["age"]["value"]
    assert rows[0]["gender"] == answer["gender"]["value"]
    assert [float(rows[0][name]) for name in ("x1", "y1", "x2", "y2")] == answer["bbox"]
    assert (rows[0]["image_width"], rows[0]["image_height"]) == ("512", "512")
    assert rows[2]["face"] == ""
    everything = json.loads(download(page, "JSON", among="#save-all").path().read_text("utf-8"))
    assert [one["source"] for one in everything] == [name for name, _ in files] + ["note.png"]
    assert everything[3]["error"]["code"] == "unsupported_image"


# ── the drawer, the dialog ───────────────────────────────────────────────────────────────────────


def test_the_drawer_shows_how_the_server_is_doing(page: Page, service_url: str) -> None:
    visit(page, service_url)
    click_sample(page, 0)
    wait_for_state(page, "done")
    page.click("#server-toggle")
    expect(page.locator("#server-state")).to_have_text("Ready")
    names = ["Queue", "Requests/s", "Latency, median", "Latency, slowest 1 %", "Processor", "Memory"]
    expect(page.locator(".trend dt")).to_have_text(names)
    expect(page.locator(".trend-value").nth(0)).to_have_text("0 of 64")
    expect(page.locator(".trend-value").nth(2)).to_contain_text("ms")
    expect(page.locator(".trend-value").nth(5)).to_contain_text(re.compile(r"MB of [\d.]+ GB"))
    page.wait_for_function(
        "() => (document.querySelector('.spark-line').getAttribute('d') ?? '').split('L').length > 2"
    )
    label = page.locator(".spark").nth(5).get_attribute("aria-label") or ""
    assert re.match(r"Memory: .* MB of .*; the last \d+ values, from .* MB to .* MB", label)
    page.keyboard.press("Escape")
    expect(page.locator("#server")).to_be_hidden()
    expect(page.locator("#server-toggle")).to_be_focused()


def test_what_was_measured_and_what_it_is_not_for(page: Page, service_url: str) -> None:
    visit(page, service_url)
    click_sample(page, 0)
    wait_for_state(page, "done")
    page.click("#about-open")
    dialog = page.locator("#about")
    expect(dialog).to_contain_text("Identification")
    expect(dialog.locator("th small")).to_have_text("answers here")
    expect(dialog.locator("tbody tr").first).to_contain_text(re.compile(r"\d\d\.\d %\d\d\.\d %\d\d\.\d %"))
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator("#about-open")).to_be_focused()


def test_many_faces_each_have_a_card(page: Page, service_url: str) -> None:
    visit(page, service_url)
    click_sample(page, 1)
    wait_for_state(page, "done")
    expect(page.locator("#faces-title")).to_have_text("8 faces")
    expect(page.locator(".face")).to_have_count(8)
    assert cards(page).count() == 1
