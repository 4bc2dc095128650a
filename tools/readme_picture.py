"""Draw ``docs/images/demo.svg``: what ``make demo`` prints. Run it after ``make demo``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent
WIDTH = 118


def main() -> None:
    command = [sys.executable, "-m", "dulian", "analyze", ".cache/demo"]
    environment = {**os.environ, "COLUMNS": str(WIDTH), "FORCE_COLOR": "1", "LANG": "C.UTF-8", "TERM": "xterm-256color"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(Text("$ make demo", style="bold"))
    console.print(Text.from_ansi(done.stdout))
    svg = console.export_svg(title="dulian 读脸")
    # The fonts of the reader's machine will do; a picture must not call home.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    (ROOT / "docs" / "images" / "demo.svg").write_text(re.sub(r"<!-- .*? -->\s*", "", svg))


if __name__ == "__main__":
    main()
