"""Small plots as SVG text: whiskers by group, and lines. Colours and fonts are the page's, by class names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 20, 12, 44

# Value, and the bounds of its interval.
Whisker = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values from ``low`` to ``high`` with a line every ``step``, and how a value is written."""

    low: float
    high: float
    step: float
    title: str = ""
    text: Callable[[float], str] = "{:g}".format

    def ticks(self) -> Iterator[float]:
        """The values that get a line."""
        count = round((self.high - self.low) / self.step)
        return (self.low + number * self.step for number in range(count + 1))

    def share(self, value: float) -> float:
        """Where a value lies between the ends; what lies beyond them is put at the end."""
        return (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)


def whiskers(title: str, groups: Sequence[str], series: Mapping[str, Sequence[Whisker | None]], axis: Axis) -> str:
    """A dot with its interval for each group and series, series beside each other, in their order."""
    width = (WIDTH - LEFT - RIGHT) / len(groups)
    marks = [*_horizontal_lines(axis)]
    for number, group in enumerate(groups):
        middle = LEFT + (number + 0.5) * width
        marks.append(
            f'<text class="tick" x="{middle:.1f}" y="{HEIGHT - 24}" text-anchor="middle">{escape(group)}</text>'
        )
    for place, (name, values) in enumerate(series.items()):
        for number, value in enumerate(values):
            if value is not None:
                x = LEFT + (number + (place + 1) / (len(series) + 1)) * width
                marks.append(_whisker(x, value, place, f"{name}, {groups[number]}", axis))
    return _figure(title, marks, axis.title)


def lines(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    x_axis: Axis,
    y_axis: Axis,
    *,
    diagonal: bool = False,
) -> str:
    """A line with dots for each series; ``diagonal`` shows where both axes are equal."""
    marks = [*_horizontal_lines(y_axis), *_vertical_lines(x_axis)]
    if diagonal:
        ends = [(value, value) for value in (max(x_axis.low, y_axis.low), min(x_axis.high, y_axis.high))]
        marks.append(f'<path class="diagonal" d="{_path(ends, x_axis, y_axis)}"/>')
    for place, (name, points) in enumerate(series.items()):
        if not points:
            continue
        marks.append(f'<path class="line s{place}" d="{_path(points, x_axis, y_axis)}"/>')
        for x, y in points:
            told = escape(f"{name}: {x_axis.text(x)} → {y_axis.text(y)}")
            at = f'cx="{_x(x, x_axis):.1f}" cy="{_y(y, y_axis):.1f}"'
            marks.append(f'<circle class="dot s{place}" {at} r="2.5"><title>{told}</title></circle>')
    return _figure(title, marks, y_axis.title, x_axis.title)


def _figure(title: str, marks: Sequence[str], y_title: str, x_title: str = "") -> str:
    below = f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(x_title)}</text>'
    beside = (
        f'<text class="axis" transform="translate(11 {TOP}) rotate(-90)" text-anchor="end">{escape(y_title)}</text>'
    )
    drawing = "".join((*marks, below if x_title else "", beside if y_title else ""))
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{drawing}</svg></figure>'
    )


def _whisker(x: float, value: Whisker, place: int, name: str, axis: Axis) -> str:
    middle, low, high = (_y(one, axis) for one in value)
    told = escape(f"{name}: {axis.text(value[0])} [{axis.text(value[1])}–{axis.text(value[2])}]")
    return (
        f'<g class="s{place}"><title>{told}</title>'
        f'<path class="whisker" d="M{x:.1f} {low:.1f}V{high:.1f}"/>'
        f'<circle class="dot" cx="{x:.1f}" cy="{middle:.1f}" r="4"/></g>'
    )


def _horizontal_lines(axis: Axis) -> Iterator[str]:
    for value in axis.ticks():
        y = _y(value, axis)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(axis.text(value))}</text>'


def _vertical_lines(axis: Axis) -> Iterator[str]:
    for value in axis.ticks():
        x = _x(value, axis)
        yield f'<path class="grid" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
        at = f'x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}"'
        yield f'<text class="tick" {at} text-anchor="middle">{escape(axis.text(value))}</text>'


def _path(points: Sequence[tuple[float, float]], x_axis: Axis, y_axis: Axis) -> str:
    return "M" + "L".join(f"{_x(x, x_axis):.1f} {_y(y, y_axis):.1f}" for x, y in points)


def _x(value: float, axis: Axis) -> float:
    return LEFT + axis.share(value) * (WIDTH - LEFT - RIGHT)


def _y(value: float, axis: Axis) -> float:
    return HEIGHT - BOTTOM - axis.share(value) * (HEIGHT - TOP - BOTTOM)
