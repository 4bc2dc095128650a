"""Tables with bars, as HTML: each bar stands beside its number, so that nothing is said by a drawing alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dulian.markup import Html, element, join
from dulian.sources import printable

# Of a longer name the beginning and the end are shown.
MAX_NAME = 160
_LEAST_BAR = 0.4  # percent of the width, so that one in a million is still seen


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a bar: the class that gives its colour, and how many it stands for."""

    kind: str
    number: float


@dataclass(frozen=True, slots=True)
class Row:
    """One bar of a chart, with its words before and its figure behind it."""

    label: str | Html
    parts: Sequence[Part]
    figure: str | Html

    @property
    def number(self) -> float:
        """What the bar stands for altogether."""
        return sum(part.number for part in self.parts)


def chart(caption: str, rows: Sequence[Row], *, whole: float | None = None) -> Html:
    """Bars below each other; the longest one fills its column, or ``whole`` would."""
    most = whole or max((row.number for row in rows), default=0) or 1
    body = [
        element(
            "tr",
            element("th", row.label, scope="row"),
            element("td", bar(row.parts, most), class_="bar"),
            element("td", row.figure, class_="figure"),
        )
        for row in rows
    ]
    return element("table", element("caption", caption), element("tbody", *body), class_="chart")


def bar(parts: Sequence[Part], most: float, *, leftwards: bool = False) -> Html:
    """A bar as SVG, for eyes only."""
    drawn, begin = [], 0.0
    for part in parts:
        if part.number:
            width = max(100 * part.number / most, _LEAST_BAR)
            x = 100 - begin - width if leftwards else begin
            at = {"x": f"{x:.2f}%", "width": f"{width:.2f}%", "height": "100%"}
            drawn.append(element("rect", class_=part.kind, **at))
            begin += width
    return element("svg", *drawn, aria_hidden="true", focusable="false")


def legend(items: Mapping[str, str]) -> Html:
    """What the colours of a chart stand for: classes and words."""
    return element("ul", *(element("li", swatch(kind), words) for kind, words in items.items()), class_="legend")


def swatch(kind: str) -> Html:
    """A spot of a class's colour."""
    return element(
        "svg", element("rect", class_=kind, width="100%", height="100%"), aria_hidden="true", class_="swatch"
    )


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str | Html | None]], *, texts: int = 1) -> Html:
    """A plain table; the first ``texts`` columns are words, the others numbers."""
    kinds = ["words" if place < texts else "figure" for place in range(len(heads))]
    head = element(
        "tr", *(element("th", name, scope="col", class_=kind) for name, kind in zip(heads, kinds, strict=True))
    )
    body = [
        element("tr", *(element("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)))
        for row in rows
    ]
    inner = element("table", element("caption", caption), element("thead", head), element("tbody", *body))
    return element("div", inner, class_="wide", tabindex="0", role="region", aria_label=caption)


# ── words and figures ────────────────────────────────────────────────────────────────────────────


def name(text: str) -> Html:
    """A name that may hold anything: no control characters, of bounded length, its direction its own."""
    shown = printable(text)
    if len(shown) > MAX_NAME:
        shown = f"{shown[: MAX_NAME // 2]}…{shown[-(MAX_NAME // 2) :]}"
    return element("bdi", shown, class_="name")


def share(number: float, whole: float) -> str:
    """A share in percent; 0 % and 100 % are only what is exactly so."""
    if not whole:
        return "–"
    percent = 100 * number / whole
    if 0 < percent < 1:
        return "<1 %"
    if 99 < percent < 100:
        return ">99 %"
    return f"{percent:.0f} %"


def counted(number: float, whole: float) -> Html:
    """A number and its share of a whole."""
    return join((f"{number:,}", element("small", share(number, whole))))


def data_size(count: float) -> str:
    """Bytes as people say them."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.3g} {unit}"
