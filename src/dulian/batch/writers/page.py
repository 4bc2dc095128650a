"""What all parts of the report's page have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dulian.batch.job import Job
from dulian.batch.writers.charts import table
from dulian.batch.writers.summary import Summary
from dulian.batch.writers.texts import Words
from dulian.batch.writers.thumbnails import Box
from dulian.markup import Html, element

Looks = Mapping[tuple[str, Box | None], Html]
"""Small pictures by source and face."""


@dataclass(frozen=True, slots=True)
class Page:
    """What the sections are made from."""

    job: Job
    summary: Summary
    words: Words
    looks: Looks


def section(title: str, *content: str | None) -> Html:
    """A part of the page with a title of its own."""
    return element("section", element("h2", title), *content)


def pair(*blocks: Html | None) -> Html:
    """Blocks beside each other where there is room."""
    return element("div", *(element("div", block) for block in blocks if block is not None), class_="pair")


def quiet(text: str) -> Html:
    """A remark."""
    return element("p", text, class_="quiet")


def listed(
    page: Page,
    caption: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str | Html]],
    keys: Sequence[tuple[str, Box | None]],
    *,
    texts: int,
) -> Html:
    """A table of pictures; with a column of small ones if there is one for any of them."""
    looks = [page.looks.get(key) for key in keys]
    if any(looks):
        heads = [page.words("look"), *heads]
        rows = [(look or "", *row) for look, row in zip(looks, rows, strict=True)]
        texts += 1
    return table(caption, heads, rows, texts=texts)
