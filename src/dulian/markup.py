"""HTML as values: what is not HTML already is escaped wherever it becomes part of such."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib import resources


class Html(str):
    """Text that is HTML already; any other text is escaped before it becomes part of such."""

    __slots__ = ()


_EMPTY = frozenset({"meta", "link", "br", "img"})


def element(tag: str, /, *content: str | None, **attributes: str) -> Html:
    """An element; ``class_`` is an attribute that Python would not have, and None is no content."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    if tag in _EMPTY:
        return Html(f"<{tag}{given}>")
    return Html(f"<{tag}{given}>{join(content)}</{tag}>")


def join(parts: Iterable[str | None]) -> Html:
    """One piece of HTML out of several; what is none is escaped."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts if part is not None))


def stylesheet(*names: str) -> str:
    """Stylesheets of the package, one after the other."""
    data = resources.files("dulian") / "data"
    return "\n".join((data / name).read_text("utf-8") for name in names)
