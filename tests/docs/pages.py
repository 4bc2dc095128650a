"""Reading Markdown the way the tests of the documents need it: tables, links, anchors, code."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tests.conftest import ROOT

DOCS = ROOT / "docs"


def pages() -> list[Path]:
    """Every Markdown page of the repository."""
    return sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


def text_of(name: str) -> str:
    """A page of docs/."""
    return (DOCS / name).read_text("utf-8")


def rows(text: str) -> list[list[str]]:
    """The cells of every table row, head and rule included."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]


def row_of(text: str, first_cell: str) -> list[str]:
    """The only row that starts with a cell."""
    found = [row for row in rows(text) if row[0] == first_cell]
    assert len(found) == 1, f"{len(found)} rows start with {first_cell}"
    return found[0]


def prose(text: str) -> str:
    """A page without its fenced code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def python_blocks(text: str) -> list[str]:
    """Fenced Python that starts at the margin; a line with only an ellipsis stands for what is there already."""
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [re.sub(r"^ *…\n", "", block, flags=re.MULTILINE) for block in blocks]


def code(text: str) -> str:
    """What a page shows as code, one piece per line."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return "\n".join([*fenced, *re.findall(r"`([^`\n]+)`", prose(text))])


def links(text: str) -> list[str]:
    """Targets of links and pictures that lead to a file or an anchor, not to the web."""
    without_code = re.sub(r"`[^`]*`", "", prose(text))
    targets = re.findall(r"\]\(\s*<?([^)\s>]+)", without_code) + re.findall(r"(?:src|href)=\"([^\"]+)\"", without_code)
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(text: str) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.*?) *$", prose(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def names_of_tests(path: Path) -> frozenset[str]:
    """Names of the test functions and methods of a file."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"))
