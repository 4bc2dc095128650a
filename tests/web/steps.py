"""What a person does on the page, and what there is to see of it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from typing import Any

from PIL import Image
from playwright.sync_api import FileChooser, Locator, Page, expect

File = tuple[str, bytes]
ENDED = ("done", "empty", "refused", "failed", "cancelled")

DROP = """([files, events]) => {
  const transfer = new DataTransfer();
  for (const [name, content] of files) {
    transfer.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name));
  }
  for (const name of events) {
    const event = name === "paste"
      ? new ClipboardEvent(name, { clipboardData: transfer, bubbles: true, cancelable: true })
      : new DragEvent(name, { dataTransfer: transfer, bubbles: true, cancelable: true });
    document.body.dispatchEvent(event);
  }
}"""


def visit(page: Page, url: str, query: str = "") -> None:
    """Open the page, and wait until its words and its samples, where there are any, are there."""
    with page.expect_response(lambda response: response.url.endswith("chelsea.png")):
        page.goto(f"{url}/{query}")
    expect(page.locator("#choose")).not_to_have_text("")


def choose_files(page: Page, *files: File) -> None:
    payload = [{"name": name, "mimeType": "application/octet-stream", "buffer": data} for name, data in files]
    page.set_input_files("#file-input", payload)  # type: ignore[arg-type]


def watch_dialogs(page: Page) -> list[FileChooser]:
    """File dialogs from now on. Before :func:`visit`: the browser is told to hand them over without waiting for its
    answer, and one that opens before that is lost."""
    dialogs: list[FileChooser] = []
    page.on("filechooser", lambda dialog: dialogs.append(dialog))
    return dialogs


def next_dialog(page: Page, dialogs: list[FileChooser]) -> FileChooser:
    """The dialog that opens, or has opened."""
    if not dialogs:
        page.wait_for_event("filechooser")
    return dialogs.pop(0)


def dispatch(page: Page, files: Iterable[File], *events: str) -> None:
    """Drag or paste files: the events a browser would send."""
    encoded = [(name, base64.b64encode(data).decode()) for name, data in files]
    page.evaluate(DROP, [encoded, events])


def cards(page: Page) -> Locator:
    return page.locator("#pictures-list > li")


def states(page: Page) -> list[str]:
    return [str(state) for state in cards(page).evaluate_all("cards => cards.map((card) => card.dataset.state)")]


def wait_for_states(page: Page, wanted: Sequence[str]) -> None:
    page.wait_for_function(
        """(wanted) => JSON.stringify(
             [...document.querySelectorAll("#pictures-list > li")].map((card) => card.dataset.state)
           ) === JSON.stringify(wanted)""",
        arg=list(wanted),
    )


def wait_for_state(page: Page, *wanted: str) -> None:
    """Wait until the first picture is in one of these states."""
    page.wait_for_function(
        "(wanted) => wanted.includes(document.querySelector('#pictures-list > li')?.dataset.state)", arg=list(wanted)
    )


def watch_texts(page: Page, selector: str) -> None:
    """Remember every text that an element has from now on; :func:`seen_texts` tells them."""
    page.evaluate(
        """(selector) => {
          window.seenTexts = [];
          const note = () => window.seenTexts.push(document.querySelector(selector).textContent);
          new MutationObserver(note).observe(document.querySelector(selector),
                                             { childList: true, characterData: true, subtree: true });
          note();
        }""",
        selector,
    )


def seen_texts(page: Page) -> list[str]:
    texts: list[str] = page.evaluate("window.seenTexts")
    return texts


def as_file(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def enlarged(portrait: bytes) -> bytes:
    """A JPEG of 2600 × 2600, as large as photos are that are worth shrinking."""
    data = as_file(Image.open(io.BytesIO(portrait)).convert("RGB").resize((2600, 2600)), "JPEG", quality=99)
    assert len(data) > 1.5 * 2**20
    return data


def colour_share(png: bytes, colour: tuple[int, int, int], tolerance: int = 12) -> float:
    """How much of a picture has nearly this colour."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    close = sum(
        count
        for count, pixel in image.getcolors(image.width * image.height) or ()
        if max(abs(a - b) for a, b in zip(pixel, colour, strict=True)) <= tolerance  # type: ignore[arg-type]
    )
    return close / (image.width * image.height)
