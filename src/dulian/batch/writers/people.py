"""The part of the report's page about ages and genders."""

from __future__ import annotations

from collections.abc import Sequence

from dulian.batch.writers.charts import Part, bar, counted, share, swatch
from dulian.batch.writers.page import Page, quiet, section
from dulian.batch.writers.summary import AGE_YEARS, LAST_AGE, NOT_ASKED, UNDECIDED, Summary
from dulian.batch.writers.texts import Words
from dulian.markup import Html, element

_LEFT, _RIGHT = "male", "female"


def people(page: Page) -> Html:
    """Ages on both sides of a middle, one for each gender, and beside them whom neither counts."""
    words, seen = page.words, page.summary
    if not seen.faces:
        return section(words("people"), quiet(words("no_faces")))
    beside = [kind for kind in (UNDECIDED, NOT_ASKED) if seen.genders[kind]]
    heads = [
        element("th", f"{words(_LEFT)} ", swatch(_LEFT), scope="col", colspan="2", class_="left"),
        element("th", words("age"), scope="col", class_="middle"),
        element("th", swatch(_RIGHT), f" {words(_RIGHT)}", scope="col", colspan="2"),
        *(element("th", swatch(kind), f" {words(kind)}", scope="col", colspan="2") for kind in beside),
    ]
    most = max(seen.ages.values())
    rows = [_age_row(page, place, beside, most) for place in _ages_shown(seen)]
    foot = [
        element("td", counted(seen.genders[_LEFT], seen.faces), class_="figure left"),
        element("td"),
        element("th", words("all"), scope="row", class_="middle"),
        *(cell for kind in (_RIGHT, *beside) for cell in _total(seen, kind)),
    ]
    notes = []
    if seen.aged_faces:
        years = f"{seen.interval_years / seen.aged_faces:.0f}"
        notes.append(quiet(words("people_note", years=years, coverage=share(seen.coverage, 1))))
    if seen.genders[UNDECIDED]:
        notes.append(quiet(words("undecided_note")))
    pyramid = element(
        "table",
        element("caption", words("people_caption")),
        element("thead", element("tr", *heads)),
        element("tbody", *rows),
        element("tfoot", element("tr", *foot)),
        class_="pyramid",
    )
    return section(words("people"), pyramid, *notes)


def _ages_shown(seen: Summary) -> list[int | None]:
    """Groups from the first to the last one that has a face, and None for faces without an age."""
    places = [place for place, _ in seen.ages if place is not None]
    shown: list[int | None] = [*range(min(places), max(places) + 1)] if places else []
    return [*shown, None] if any(place is None for place, _ in seen.ages) else shown


def _age_row(page: Page, place: int | None, beside: Sequence[str], most: int) -> Html:
    numbers = {kind: page.summary.ages[place, kind] for kind in (_LEFT, _RIGHT, *beside)}

    def drawn(kind: str) -> Html:
        return element("td", bar([Part(kind, numbers[kind])], most, leftwards=kind == _LEFT), class_="bar")

    def told(kind: str, side: str = "") -> Html:
        number = numbers[kind]
        return element("td", f"{number:,}" if number else "", class_=f"figure{side}")

    return element(
        "tr",
        told(_LEFT, " left"),
        drawn(_LEFT),
        element("th", _years(place, page.words), scope="row", class_="middle"),
        *(cell for kind in (_RIGHT, *beside) for cell in (drawn(kind), told(kind))),
    )


def _years(place: int | None, words: Words) -> str:
    if place is None:
        return words(NOT_ASKED)
    first = place * AGE_YEARS
    return f"{first}+" if place == LAST_AGE else f"{first}–{first + AGE_YEARS - 1}"


def _total(seen: Summary, kind: str) -> tuple[Html, Html]:
    return element("td"), element("td", counted(seen.genders[kind], seen.faces), class_="figure")
