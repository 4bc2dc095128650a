"""Every way in, with real photos and real networks behind it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect
from tests.service import streams
from tests.service.services import FakeAnalysis, fake_service
from tests.service.test_access import in_production
from tests.web.conftest import find_chromium
from tests.web.steps import (
    as_file,
    cards,
    choose_files,
    colour_share,
    dispatch,
    enlarged,
    next_dialog,
    states,
    visit,
    wait_for_state,
    wait_for_states,
    watch_dialogs,
)

import dulian
from dulian.keys import KeysFile
from dulian.messages import display_label

OK_COLOUR = (108, 224, 196)


@pytest.fixture
def portrait(samples: Path) -> bytes:
    return (samples / "astronaut.png").read_bytes()


@pytest.fixture(scope="module")
def label(service_url: str, samples: Path) -> str:
    """What the server says of the sample portrait, in its own words for drawn pictures."""
    answer = httpx.post(f"{service_url}/v1/analyze", content=(samples / "astronaut.png").read_bytes())
    return display_label(dulian.AnalysisResult.from_dict(answer.json()).faces[0])


def expect_portrait(page: Page, label: str | re.Pattern[str] = re.compile("^Female, ")) -> None:
    """The sample portrait was found, and is drawn."""
    wait_for_state(page, "done")
    expect(page.locator("#faces > li")).to_have_count(1)
    expect(page.locator(".face-label")).to_have_text(label)
    page.mouse.move(0, 0)
    assert 0.002 < colour_share(page.locator("#canvas").screenshot(), OK_COLOUR) < 0.2


def test_by_the_file_dialog(page: Page, service_url: str, portrait: bytes, label: str) -> None:
    dialogs = watch_dialogs(page)
    visit(page, service_url)
    page.click("#choose")
    chooser = next_dialog(page, dialogs)
    assert chooser.is_multiple()
    chooser.set_files({"name": "me.png", "mimeType": "image/png", "buffer": portrait})
    expect_portrait(page, label)
    expect(page.locator("#result-name")).to_have_text("me.png")


def test_the_same_file_can_be_chosen_again(page: Page, service_url: str, portrait: bytes) -> None:
    visit(page, service_url)
    for count in (1, 2):
        choose_files(page, ("me.png", portrait))
        expect(cards(page)).to_have_count(count)
    wait_for_states(page, ["done", "done"])


def test_by_dropping_files_anywhere(page: Page, service_url: str, portrait: bytes, label: str) -> None:
    visit(page, service_url)
    dispatch(page, [("me.png", portrait)], "dragenter", "dragover")
    expect(page.locator("#veil")).to_be_visible()
    dispatch(page, [("me.png", portrait)], "drop")
    expect(page.locator("#veil")).to_be_hidden()
    expect_portrait(page, label)


def drag(context: BrowserContext, page: Page, *paths: Path) -> None:
    """The browser's own drag of files from outside, folders among them."""
    session = context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})


def test_a_folder_that_is_dropped_gives_the_pictures_in_it(
    page: Page, context: BrowserContext, service_url: str, portrait: bytes, tmp_path: Path
) -> None:
    album = tmp_path / "album"
    (album / "2026").mkdir(parents=True)
    (album / "me.png").write_bytes(portrait)
    (album / "notes.txt").write_bytes(b"words")
    for number in range(3):
        (album / "2026" / f"{number}.png").write_bytes(portrait)
    (tmp_path / "beside.png").write_bytes(portrait)
    visit(page, service_url)
    drag(context, page, album, tmp_path / "beside.png")
    wait_for_states(page, ["done"] * 5)
    shown = page.locator(".card-name").evaluate_all("names => names.map((name) => name.textContent)")
    wanted = ["album/2026/0.png", "album/2026/1.png", "album/2026/2.png", "album/me.png", "beside.png"]
    assert sorted(shown) == wanted


def test_a_drag_that_leaves_again_takes_the_veil_along(page: Page, service_url: str, portrait: bytes) -> None:
    visit(page, service_url)
    dispatch(page, [("me.png", portrait)], "dragenter", "dragover")
    expect(page.locator("#veil")).to_be_visible()
    expect(page.locator("#veil")).to_be_hidden()
    page.evaluate("() => dispatchEvent(new DragEvent('dragover', { dataTransfer: new DataTransfer() }))")
    assert page.locator("#veil").is_hidden()  # a drag of text


def test_by_pasting_from_the_clipboard(page: Page, context: BrowserContext, service_url: str, label: str) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit(page, service_url)
    page.evaluate(
        """async () => {
          const blob = await (await fetch("/static/samples/astronaut.png")).blob();
          await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }"""
    )
    page.click("#shrink")  # the box that has the focus now takes no pastes
    page.keyboard.press("Control+V")
    expect_portrait(page, label)


def test_a_paste_without_a_picture_says_what_to_do(page: Page, service_url: str) -> None:
    visit(page, service_url)
    dispatch(page, [], "paste")
    expect(page.locator("#intake-note")).to_contain_text("no file")
    assert cards(page).count() == 0


@pytest.mark.parametrize(
    ("number", "state", "faces"), [(0, "done", 1), (1, "done", 8), (2, "done", 1), (3, "empty", 0)]
)
def test_by_a_sample(page: Page, service_url: str, number: int, state: str, faces: int) -> None:
    visit(page, service_url)
    page.locator(".sample").nth(number).click()
    wait_for_state(page, state)
    expect(page.locator("#faces > li")).to_have_count(faces)
    if number == 2:
        expect(page.locator(".face.low_quality .reason")).to_have_text("The face is too dark; add light.")
        expect(page.locator(".face .badge")).to_have_text("poor picture")
    if number == 3:
        expect(page.locator("#hint")).to_contain_text("Nobody was found")


# ── orientation and size ─────────────────────────────────────────────────────────────────────────


def sideways(portrait: bytes, side: int = 0) -> bytes:
    """The portrait as a camera that was held on its side would store it: turned, with a tag that says so."""
    image = Image.open(io.BytesIO(portrait)).convert("RGB")
    if side:
        image = image.resize((side, side))
    exif = Image.Exif()
    exif[0x0112] = 6
    return as_file(image.rotate(90, expand=True), "JPEG", quality=95, exif=exif)


def result_of(page: Page) -> dict[str, Any]:
    with page.expect_download() as download:
        page.locator("#downloads button", has_text="JSON").click()
    result: dict[str, Any] = json.loads(download.value.path().read_text())
    return result


@pytest.mark.parametrize("side", [0, 3000])
def test_orientation_is_respected_shrunk_or_not(page: Page, service_url: str, portrait: bytes, side: int) -> None:
    visit(page, service_url)
    choose_files(page, ("upright.png", portrait))
    expect_portrait(page)
    upright = result_of(page)
    page.click("#clear")
    choose_files(page, ("held.jpg", sideways(portrait, side)))
    expect_portrait(page)
    turned = result_of(page)
    expected = 2048 if side else 512
    assert (turned["image"]["width"], turned["image"]["height"]) == (expected, expected)
    scale = 512 / expected
    for a, b in zip(upright["faces"][0]["bbox"], turned["faces"][0]["bbox"], strict=True):
        assert b * scale == pytest.approx(a, abs=6)


def test_large_photos_are_shrunk_only_if_one_lets_them(page: Page, service_url: str, portrait: bytes) -> None:
    large = enlarged(portrait)
    visit(page, service_url)
    assert page.locator("#shrink").is_checked()
    choose_files(page, ("large.jpg", large))
    wait_for_state(page, "done")
    expect(page.locator("#facts")).to_contain_text("sent as 2048 × 2048")
    page.click("#clear")
    page.uncheck("#shrink")
    choose_files(page, ("large.jpg", large))
    wait_for_state(page, "done")
    expect(page.locator("#facts")).to_contain_text("sent as 2600 × 2600")


def test_small_files_are_sent_as_they_are(page: Page, service_url: str) -> None:
    """However many pixels they have: shrinking would take longer than it saves."""
    flat = as_file(Image.new("RGB", (3000, 2000), "gray"), "JPEG")
    visit(page, service_url)
    choose_files(page, ("wall.jpg", flat))
    wait_for_state(page, "empty")
    expect(page.locator("#facts")).to_contain_text("sent as 3000 × 2000")


def test_what_may_be_damaged_is_sent_as_it_is(page: Page, service_url: str, portrait: bytes) -> None:
    """A browser may show a cut file, filled up with grey; shrunk, the server would take it for a whole one."""
    large = enlarged(portrait)
    visit(page, service_url)
    choose_files(page, ("odd.jpg", large + bytes(8)), ("cut.jpg", large[: len(large) * 9 // 10]))
    wait_for_states(page, ["done", "refused"])
    expect(page.locator("#facts")).to_contain_text("sent as 2600 × 2600")
    expect(cards(page).nth(1).locator(".card-reason")).to_contain_text("ends before the picture does")


def test_a_kind_that_the_browser_cannot_show_is_drawn_by_the_server(
    page: Page, service_url: str, portrait: bytes, label: str
) -> None:
    visit(page, service_url)
    tiff = as_file(Image.open(io.BytesIO(portrait)).convert("RGB"), "TIFF")
    choose_files(page, ("scan.tiff", tiff))
    expect_portrait(page, label)
    expect(page.locator("#facts")).to_contain_text("drawn by the server")
    assert "annotated_image" not in result_of(page)


# ── the camera ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def camera_video(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw video of the sample portrait, swaying a little, as a camera would see it."""
    portrait = cv2.imread(str(samples / "astronaut.png"))
    assert portrait is not None
    path = tmp_path_factory.mktemp("camera") / "portrait.y4m"
    with path.open("wb") as file:
        file.write(b"YUV4MPEG2 W640 H480 F15:1 Ip A1:1 C420jpeg\n")
        for step in range(30):
            shift = round(40 * np.sin(step / 30 * 2 * np.pi))
            frame = np.full((480, 640, 3), 110, np.uint8)
            frame[:, 64 + shift : 64 + shift + 512] = portrait[:480]
            file.write(b"FRAME\n" + cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420).tobytes())
    return path


@pytest.fixture(scope="module")
def camera_browser(playwright: Playwright, camera_video: Path) -> Iterator[Browser]:
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    browser = playwright.chromium.launch(
        executable_path=find_chromium(), args=[*fake, f"--use-file-for-fake-video-capture={camera_video}"]
    )
    yield browser
    browser.close()


class TestCamera:
    """Live mode: frames by WebSocket, boxes over the video, and the camera off again."""

    @pytest.fixture
    def browser(self, camera_browser: Browser) -> Browser:
        return camera_browser

    def test_faces_are_followed_and_the_camera_goes_off(self, page: Page, service_url: str) -> None:
        visit(page, service_url)
        page.click("#camera")
        expect(page.locator("#live-faces > li").first).to_contain_text("Female")
        expect(page.locator("#live-rate")).to_contain_text("pictures/s")
        expect(page.locator("#live-latency")).to_contain_text("ms behind")
        assert colour_share(page.locator(".live-stage").screenshot(), OK_COLOUR) > 0.0005
        tracks = page.evaluate_handle("document.querySelector('#video').srcObject.getTracks()")
        page.click("#live-stop")
        expect(page.locator("#live")).to_be_hidden()
        assert tracks.evaluate("tracks => tracks.map((track) => track.readyState)") == ["ended"]
        expect(page.locator("#camera")).to_be_focused()

    def test_boxes_lie_on_the_face_mirrored_or_not(self, page: Page, service_url: str) -> None:
        """The portrait is left of the middle in the camera's picture, and so right of it in a mirror."""
        visit(page, service_url)
        page.click("#camera")
        expect(page.locator("#live-faces > li").first).to_contain_text("Female")
        middles = {}
        for mirrored in (True, False):
            page.set_checked("#live-mirror", mirrored)
            page.wait_for_timeout(300)
            middles[mirrored] = page.evaluate(
                """() => {
                  const { width, height } = document.querySelector("#overlay");
                  const pixels = document.querySelector("#overlay").getContext("2d").getImageData(0, 0, width, height);
                  let [sum, count] = [0, 0];
                  for (let i = 3; i < pixels.data.length; i += 4) {
                    if (pixels.data[i] > 200) { sum += ((i - 3) / 4) % width; count += 1; }
                  }
                  return sum / count / width;
                }"""
            )
        assert middles[False] < 0.5 < middles[True]

    def test_a_server_that_wants_a_key_is_given_one(self, page: Page, tmp_path: Path) -> None:
        file = KeysFile(tmp_path / "keys.json")
        secret, _ = file.create()
        analysis = FakeAnalysis()
        with in_production(file, analysis) as url:
            visit(page, url)
            page.click("#camera")
            expect(page.locator("#live-note")).to_have_text("The server wants a key")
            expect(page.locator("#key")).to_be_focused()
            before = len(analysis.seen)
            page.keyboard.type(secret)
            page.keyboard.press("Enter")
            expect(page.locator("#live-note")).to_be_empty()
            expect(page.locator("#live-latency")).to_contain_text("ms behind")
            assert len(analysis.seen) > before
            page.locator("#server-close").click()
            page.click("#live-stop")

    def test_a_camera_that_is_lost_is_told(self, page: Page, service_url: str) -> None:
        visit(page, service_url)
        page.click("#camera")
        expect(page.locator("#live-faces > li").first).to_contain_text("Female")
        page.evaluate("() => video.srcObject.getTracks()[0].dispatchEvent(new Event('ended'))")
        expect(page.locator("#live-note")).to_contain_text("The camera is gone")
        page.click("#language")
        expect(page.locator("#live-note")).to_contain_text("摄像头断开了")
        page.click("#live-stop")
        expect(page.locator("#live")).to_be_hidden()

    def test_a_picture_can_be_kept(self, page: Page, service_url: str) -> None:
        visit(page, service_url)
        page.click("#camera")
        expect(page.locator("#live-faces > li").first).to_contain_text("Female")
        page.click("#live-snap")
        wait_for_state(page, "done")
        expect(page.locator("#result-name")).to_contain_text("camera")
        expect(page.locator("#facts")).to_contain_text("sent as 640 × 480")

    def test_frames_never_pile_up(self, page: Page) -> None:
        """At most two frames are on their way, however slow the server is."""
        page.add_init_script(
            """const send = WebSocket.prototype.send;
               window.unanswered = 0; window.most = 0; window.answers = 0;
               WebSocket.prototype.send = function (data) {
                 if (data instanceof Blob) window.most = Math.max(window.most, ++window.unanswered);
                 if (!this.heard) {
                   this.heard = true;
                   this.addEventListener("message", ({ data }) => {
                     const { id, dropped = [] } = JSON.parse(data);
                     window.unanswered -= dropped.length + (id === undefined ? 0 : 1);
                     window.answers += 1;
                   });
                 }
                 return send.call(this, data);
               };"""
        )
        with fake_service(FakeAnalysis(0.4)) as service, streams.running(service) as server:
            visit(page, f"http://{server.host}")
            page.click("#camera")
            page.wait_for_function("() => window.answers >= 4")
            assert page.evaluate("() => window.most") == 2
            page.click("#live-stop")

    def test_the_camera_goes_off_however_often_it_was_asked_for(self, page: Page, service_url: str) -> None:
        page.add_init_script(
            """window.streams = [];
               const open = MediaDevices.prototype.getUserMedia;
               MediaDevices.prototype.getUserMedia = async function (wanted) {
                 const stream = await open.call(this, wanted);
                 window.streams.push(stream);
                 return stream;
               };"""
        )
        visit(page, service_url)
        page.evaluate("() => { camera.click(); camera.click(); camera.click(); }")
        page.wait_for_function("() => window.streams.length === 3")
        expect(page.locator("#live-faces > li").first).to_contain_text("Female")
        alive = "() => window.streams.flatMap((s) => s.getTracks()).filter((t) => t.readyState === 'live').length"
        assert page.evaluate(alive) == 1
        page.click("#live-stop")
        assert page.evaluate(alive) == 0
        page.evaluate("() => { camera.click(); document.querySelector('#live-stop').click(); }")
        page.wait_for_function("() => window.streams.length === 4")
        page.wait_for_timeout(200)
        assert page.evaluate(alive) == 0
        expect(page.locator("#live")).to_be_hidden()


class TestWithoutCamera:
    def test_it_says_why_there_is_no_camera(self, page: Page, service_url: str) -> None:
        visit(page, service_url)
        page.click("#camera")
        expect(page.locator("#live-note")).to_have_text("There is no camera.")
        page.click("#live-stop")
        expect(page.locator("#live")).to_be_hidden()

    def test_it_says_that_it_was_not_allowed(self, page: Page, service_url: str) -> None:
        page.add_init_script(
            """navigator.mediaDevices.getUserMedia = () =>
                 Promise.reject(new DOMException("no", "NotAllowedError"));"""
        )
        visit(page, service_url)
        page.click("#camera")
        expect(page.locator("#live-note")).to_contain_text("was not allowed")
        assert states(page) == []
