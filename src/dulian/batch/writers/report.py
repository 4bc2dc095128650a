"""The report: one HTML page for people, which needs no other file, holds no script and loads nothing."""

from __future__ import annotations

import base64
import hashlib
from itertools import chain, zip_longest
from typing import BinaryIO

from dulian import __version__
from dulian.batch.job import Job
from dulian.batch.records import Input, Record
from dulian.batch.writers import Form
from dulian.batch.writers.charts import name
from dulian.batch.writers.page import Looks, Page
from dulian.batch.writers.people import people
from dulian.batch.writers.sections import failures, figures, identity, notes, pictures, quality, times
from dulian.batch.writers.summary import Summary
from dulian.batch.writers.texts import Words
from dulian.batch.writers.thumbnails import Wanted, thumbnails
from dulian.markup import Html, element, stylesheet


class ReportWriter:
    """``.html``."""

    def __init__(self, stream: BinaryIO, job: Job, form: Form) -> None:
        self._stream, self._job, self._form = stream, job, form
        self._summary = Summary()

    def write(self, record: Record, source: Input) -> None:
        self._summary.add(record, source)

    def close(self) -> None:
        self._stream.write(render(self._job, self._summary, self._form).encode(errors="backslashreplace"))

    def abandon(self) -> None:
        pass


def render(job: Job, summary: Summary, form: Form) -> str:
    """The page of a job."""
    page = Page(job, summary, Words(form.language), _looks(summary, form))
    words = page.words
    sections = (figures, people, quality, pictures, failures, times, identity, notes)
    main = element("main", _header(page, form), *(section(page) for section in sections), _footer(words))
    style = stylesheet("paper.css", "report.css")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="robots", content="noindex"),
        element("title", f"dulian · {words('title')} · {job.id}"),
        element("style", Html(style)),
    )
    language = {"en": "en", "zh": "zh-Hans"}[form.language]
    return f"<!doctype html>\n{element('html', head, element('body', main), lang=language)}\n"


def _policy(style: str) -> str:
    """What a browser lets the page do: show its own style and the pictures inside it, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def _header(page: Page, form: Form) -> Html:
    words, model = page.words, page.job.model
    told = words(
        "headline", inputs=f"{page.summary.inputs:,}", profile=model.get("profile"), engine=model.get("engine")
    )
    filters = [*chain.from_iterable((name(text), " ") for text in form.filters)]
    return element(
        "header",
        element("h1", element("span", "读脸", class_="seal"), words("title")),
        element("p", told),
        element("p", words("filtered"), *filters, class_="filters") if filters else None,
        element("p", words("perceived"), class_="quiet"),
    )


def _footer(words: Words) -> Html:
    return element("footer", element("p", words("made_by", version=__version__)))


def _looks(summary: Summary, form: Form) -> Looks:
    """Small pictures, if asked for: of doubtful faces, of slow pictures and of failures by turns."""
    if form.reader is None or form.thumbnails <= 0:
        return {}
    doubtful: list[Wanted] = [(one.source, one.box) for _, one in summary.doubtful.members()]
    slow: list[Wanted] = [(source, None) for _, (source, _) in summary.slowest.members()]
    failed: list[Wanted] = [(one.source, None) for ones in summary.examples.values() for one in ones if one.may_decode]
    wanted = (one for ones in zip_longest(doubtful, slow, failed) for one in ones if one is not None)
    return thumbnails(wanted, form.reader, at_most=form.thumbnails)
