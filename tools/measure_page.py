"""From the choice of a photo to its drawn faces, as a browser sees it, beside the server's own time.

    python tools/measure_page.py http://127.0.0.1:8080 PHOTO…

Each photo is chosen through the page's file dialog again and again, one at a time, by Chromium without a window;
medians in milliseconds. "sent" is when the upload began, "answered" when the answer was there, "drawn" the frame in
which the faces were painted, all since the file was chosen. The first, which also starts the page's machinery, is left
out.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

LAST = """() => {
  const { startTime, duration, detail } = performance.getEntriesByName("dulian:picture").at(-1);
  const [sent, answered] = [detail.sending - startTime, detail.answered - startTime];
  return { server: detail.server, sent, answered, drawn: duration };
}"""
COUNT = "(count) => performance.getEntriesByName('dulian:picture').length === count"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    print(f"{'photo':<28}{'server':>8}{'sent':>8}{'answered':>10}{'drawn':>8}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        for photo in options.photos:
            page.goto(options.url)
            page.wait_for_selector(".sample")
            rounds = [measured(page, photo, number + 1) for number in range(options.rounds + 1)][1:]
            medians = [statistics.median(one[key] for one in rounds) for key in ("server", "sent", "answered", "drawn")]
            print(f"{photo.name:<28}{medians[0]:>8.1f}{medians[1]:>8.1f}{medians[2]:>10.1f}{medians[3]:>8.1f}")
        browser.close()


def measured(page: Page, photo: Path, number: int) -> dict[str, Any]:
    page.set_input_files("#file-input", photo)
    page.wait_for_function(COUNT, arg=number)
    found: dict[str, Any] = page.evaluate(LAST)
    page.click("#clear")
    page.wait_for_timeout(100)
    return found


if __name__ == "__main__":
    main()
