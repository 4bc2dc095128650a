"""The parts of the report's page, each from what the summary counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, get_args

from dulian.batch.records import Record
from dulian.batch.writers.charts import (
    Part,
    Row,
    bar,
    chart,
    counted,
    data_size,
    legend,
    name,
    share,
)
from dulian.batch.writers.page import Page, listed, pair, quiet, section
from dulian.batch.writers.summary import FACE_SIZES_PX, MEGAPIXELS, SCORE_BINS, UNDECIDED, Doubtful, Failed
from dulian.batch.writers.texts import Words
from dulian.faces import Status
from dulian.markup import Html, element, join

_STEPS = ("decode", "detect", "attributes")


# ── figures ──────────────────────────────────────────────────────────────────────────────────────


def figures(page: Page) -> Html:
    """The numbers that one looks for first."""
    words, seen = page.words, page.summary
    failed = seen.errors.total()
    mean = words("per_picture", mean=f"{seen.faces / seen.with_faces:.1f}") if seen.with_faces else ""
    unlisted = words("unlisted", count=f"{seen.unlisted_faces:,}") if seen.unlisted_faces else ""
    tiles = (
        (seen.inputs, "inputs", data_size(seen.bytes)),
        (seen.answered, "answered", share(seen.answered, seen.inputs)),
        (failed, "errors", share(failed, seen.inputs)),
        (seen.duplicates, "duplicates", share(seen.duplicates, seen.inputs)),
        (seen.with_faces, "with_faces", f"{share(seen.with_faces, seen.answered)} {words('of_answered')}"),
        (seen.faces, "faces", unlisted or mean),
    )
    shown = (
        element("div", element("dt", words(key)), element("dd", element("b", f"{number:,}"), element("small", note)))
        for number, key, note in tiles
    )
    parts = {
        "good": (seen.with_faces, "with_faces"),
        "plain": (seen.answered - seen.with_faces, "without_faces"),
        "idle": (seen.duplicates, "duplicates"),
        "bad": (failed, "errors"),
    }
    whole = bar([Part(kind, number) for kind, (number, _) in parts.items()], max(seen.inputs, 1))
    return element(
        "section",
        element("h2", words("outcome"), class_="aside"),
        element("dl", *shown, class_="tiles"),
        element("div", whole, class_="whole"),
        legend({kind: words(key) for kind, (_, key) in parts.items()}),
    )


# ── quality ──────────────────────────────────────────────────────────────────────────────────────


def quality(page: Page) -> Html | None:
    """Scores, statuses, reasons and sizes of faces, and those most in doubt."""
    words, seen = page.words, page.summary
    if not seen.faces:
        return None
    statuses = {status: words.of_code("status", status) for status in get_args(Status)}
    scores = [
        Row(
            f"{place / SCORE_BINS:.1f}–{(place + 1) / SCORE_BINS:.1f}",
            [Part(status, seen.scores[place, status]) for status in statuses],
            f"{sum(seen.scores[place, status] for status in statuses):,}",
        )
        for place in reversed(range(SCORE_BINS))
    ]
    by_status = [_counted_row(told, status, seen.statuses[status], seen.faces) for status, told in statuses.items()]
    reasons = [
        _counted_row(words.of_code("reason", code), "low_quality", number, seen.faces)
        for code, number in seen.reasons.most_common()
    ]
    sizes = _grouped(seen.face_sizes, FACE_SIZES_PX, seen.faces, "px")
    doubts = join((chart(words("reasons"), reasons), quiet(words("reasons_note"))))
    return section(
        words("quality"),
        pair(
            join((legend(statuses), chart(words("score"), scores))),
            join((chart(words("statuses"), by_status, whole=seen.faces), chart(words("face_size"), sizes))),
        ),
        doubts if reasons else quiet(words("no_reasons")),
        _doubtful(page),
    )


def _counted_row(label: str, kind: str, number: int, whole: int) -> Row:
    return Row(label, [Part(kind, number)], counted(number, whole))


def _grouped(counts: Mapping[int, int], ends: Sequence[float], whole: int, unit: str) -> list[Row]:
    """A row for each group between two ends, without the empty ones at either side."""
    labels = [
        f"< {ends[0]:g} {unit}",
        *(f"{low:g}–{high:g} {unit}" for low, high in pairwise(ends)),
        f"≥ {ends[-1]:g} {unit}",
    ]
    held = [place for place in range(len(labels)) if counts.get(place)]
    shown = range(held[0], held[-1] + 1) if held else range(0)
    return [_counted_row(labels[place], "plain", counts.get(place, 0), whole) for place in shown]


def _doubtful(page: Page) -> Html | None:
    words, shown = page.words, [one for _, one in page.summary.doubtful.members()]
    if not shown:
        return None
    rows = [(name(one.source.source), *_told_of_face(one, words)) for one in shown]
    heads = [words(key) for key in ("picture", "face", "status", "why")]
    return listed(page, words("doubtful"), heads, rows, [(one.source.source, one.box) for one in shown], texts=4)


def _told_of_face(one: Doubtful, words: Words) -> tuple[str, str, str]:
    face, parts = one.face, []
    if face["gender"] is not None:
        value = face["gender"]["value"] or UNDECIDED
        parts.append(f"{words(value)} ({share(face['gender']['probability'], 1)})")
    if face["age"] is not None:
        parts.append(f"{face['age']['value']:.0f} ({face['age']['low']:.0f}–{face['age']['high']:.0f})")
    why = [words.of_code("reason", code) for code in face["quality"]["reasons"]]
    comma = "、" if words.language == "zh" else ", "
    return comma.join(parts) or f"#{face['id']}", words.of_code("status", face["status"]), comma.join(why)


# ── pictures and failures ────────────────────────────────────────────────────────────────────────


def pictures(page: Page) -> Html | None:
    """How large pictures are, and why some have no face."""
    words, seen = page.words, page.summary
    if not seen.answered:
        return None
    sizes = _grouped(seen.picture_sizes, MEGAPIXELS, seen.answered, "MP")
    without = seen.answered - seen.with_faces
    hints = [
        _counted_row(words.of_code("hint", code), "plain", number, without) for code, number in seen.hints.most_common()
    ]
    pixels = f"{seen.megapixels:,.{0 if seen.megapixels >= 10 else 1}f}"
    told = words("sizes_note", bytes=data_size(seen.bytes), pixels=pixels)
    return section(
        words("pictures"),
        pair(chart(words("picture_size"), sizes), chart(words("hints"), hints) if hints else None),
        quiet(told),
    )


def failures(page: Page) -> Html:
    """Errors by their code, with some examples of each."""
    words, seen = page.words, page.summary
    if not seen.errors:
        return section(words("failures"), quiet(words("no_failures")))
    codes = seen.errors.most_common()
    rows = [_counted_row(_code(code, words), "bad", number, seen.inputs) for code, number in codes]
    return section(
        words("failures"),
        chart(words("by_code"), rows),
        *(_examples(page, code, number, seen.examples[code]) for code, number in codes),
    )


def _code(code: str, words: Words) -> Html:
    told = words.of_code("error", code)
    known = told != code.replace("_", " ")
    return join((element("code", code), element("small", told) if known else None))


def _examples(page: Page, code: str, number: int, shown: Sequence[Failed]) -> Html:
    words = page.words
    caption = words("examples", shown=f"{len(shown):,}", count=f"{number:,}")
    rows = [(name(one.source.source), name(one.message)) for one in shown]
    heads = [words("picture"), words("message")]
    examples = listed(page, caption, heads, rows, [(one.source.source, None) for one in shown], texts=2)
    return element("details", element("summary", element("code", code), element("small", f"{number:,}")), examples)


# ── time ─────────────────────────────────────────────────────────────────────────────────────────


def times(page: Page) -> Html:
    """How long pictures took, and which took longest."""
    words, seen = page.words, page.summary
    spent = seen.durations
    if not spent.count:
        return section(words("time"), quiet(words("no_times")))
    told = words(
        "time_note",
        half=f"{spent.within(0.5):,.0f}",
        tenth=f"{spent.within(0.9):,.0f}",
        hundredth=f"{spent.within(0.99):,.0f}",
        slowest=f"{spent.slowest_ms:,.0f}",
        total=_spell(spent.total_ms / 1000),
    )
    steps = {step: seen.steps_ms[step] for step in _STEPS}
    steps["other"] = max(spent.total_ms - sum(steps.values()), 0.0)
    rows = [
        Row(words(f"step.{step}"), [Part("plain", total)], words("ms", number=f"{total / spent.count:,.1f}"))
        for step, total in steps.items()
    ]
    return section(words("time"), element("p", told), chart(words("steps"), rows), _slowest(page))


def _slowest(page: Page) -> Html:
    words = page.words
    found = [member for _, member in page.summary.slowest.members()]
    heads = [
        words("picture"),
        words("size"),
        words("faces"),
        *(words(f"step.{step}") for step in _STEPS),
        words("total"),
    ]
    rows = [(name(source.source), *_told_of_time(record)) for source, record in found]
    return listed(page, words("slowest"), heads, rows, [(source.source, None) for source, _ in found], texts=1)


def _told_of_time(record: Record) -> Iterable[str]:
    image, timings = record["image"], record["timings_ms"]
    yield f"{image['width']} × {image['height']}"
    yield f"{len(record['faces']) + record.get('skipped', 0):,}"
    yield from (f"{timings[step]:,.0f}" for step in (*_STEPS, "total"))


def _spell(seconds: float) -> str:
    """A length of time in the largest unit of which there are two."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.1f} s"


# ── the job ──────────────────────────────────────────────────────────────────────────────────────


def identity(page: Page) -> Html:
    """What the job is: networks, options, list."""
    words, job = page.words, page.job
    known: dict[str, Any] = {
        words("job.id"): job.id,
        words("job.inputs"): f"{job.inputs:,}",
        words("job.shards"): words("job.shards_of", shards=f"{job.shards:,}", size=f"{job.shard_size:,}"),
        words("job.manifest"): job.manifest,
        words("job.base"): job.base,
    }
    rows = [*known.items(), *job.model.items(), *job.options.items()]
    shown = (element("div", element("dt", key), element("dd", name(_plain(value, words)))) for key, value in rows)
    return section(words("job"), element("dl", *shown, class_="identity"))


def _plain(value: Any, words: Words) -> str:
    if isinstance(value, bool):
        return words("yes" if value else "no")
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "–" if value is None else str(value)


def notes(page: Page) -> Html:
    """What to keep in mind."""
    words = page.words
    keys = ("note.interval", "note.use", "note.duplicates")
    return section(words("notes"), element("ul", *(element("li", words(key)) for key in keys)))
