"""Renew the README's pictures in ``docs/images``: what ``make demo`` prints, and two of the web page's scenes.

Run it after ``make demo`` and ``pytest tests/web/test_screenshots.py``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent
WIDTH = 118
IMAGES = ROOT / "docs" / "images"
SCENES = {"portrait-desktop-light": "page", "doubt-phone-dark": "page-phone"}


def main() -> None:
    draw_table()
    for scene, name in SCENES.items():
        picture = Image.open(ROOT / "build" / "screenshots" / f"{scene}.png").convert("RGB")
        picture.save(IMAGES / f"{name}.webp", quality=85, method=6)


def draw_table() -> None:
    command = [sys.executable, "-m", "dulian", "analyze", ".cache/demo"]
    environment = {**os.environ, "COLUMNS": str(WIDTH), "FORCE_COLOR": "1", "LANG": "C.UTF-8", "TERM": "xterm-256color"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(Text("$ make demo", style="bold"))
    console.print(Text.from_ansi(done.stdout))
    svg = console.export_svg(title="dulian 读脸")
    # The fonts of the reader's machine will do; a picture must not call home.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    (IMAGES / "demo.svg").write_text(re.sub(r"<!-- .*? -->\s*", "", svg))


if __name__ == "__main__":
    main()
