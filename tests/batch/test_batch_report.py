"""The report: it counts rightly, holds nothing that runs or loads, and no name becomes part of it as more than text."""

from __future__ import annotations

import base64
import hashlib
import re
import tracemalloc
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dulian.batch.merge import merge
from dulian.batch.records import Input, Record
from dulian.batch.writers import Form, find_writer, open_writer
from dulian.batch.writers.charts import MAX_NAME, data_size, share
from dulian.batch.writers.summary import DOUBTFUL, EXAMPLES, Durations, Summary, Top
from dulian.batch.writers.texts import TEXTS, Words
from dulian.errors import DulianError
from dulian.faces import Status
from dulian.image import decode_image
from dulian.messages import HINTS, REASONS
from tests.batch.fakes import (
    MemoryReader,
    face,
    failed,
    finished_job,
    make_job,
    ok,
    same,
    some_records,
    with_reasons,
)
from tests.pictures import picture, save

SOURCES = Path(__file__).parents[2] / "src" / "dulian" / "batch" / "writers"
VOID = {"meta", "link", "br", "img"}
LANGUAGES = ("en", "zh")
LARGE = {"width": 4000, "height": 3000, "rotated": 0}


class Parsed(HTMLParser):
    """Tags with attributes, all text, and whether every element is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(records: list[Record], tmp_path: Path, **form: Any) -> str:
    destination, job = finished_job(records)
    merge(destination, job, tmp_path / "report.html", form=Form(**form))
    return (tmp_path / "report.html").read_text("utf-8")


def cells(text: str) -> str:
    """The page's text in one line, tags as blanks."""
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", text, flags=re.DOTALL))


# ── what it says ─────────────────────────────────────────────────────────────────────────────────


RECORDS = [
    ok("a.jpg", face(0, age=31.0), face(1, age=33.0, gender="male"), total_ms=80.0),
    ok("b.jpg", face(0, age=7.0, gender="undecided", status="uncertain", quality=0.4), total_ms=20.0),
    ok("c.jpg", with_reasons(face(0, age=104.0), "blurred", "too_dark"), face(1, age=None, gender=None)),
    ok("sea.jpg", image=LARGE),
    failed("cut.jpg"),
    failed("cut2.jpg"),
    failed("gone.jpg", "input_not_found", "there is no such file"),
    same("copy.jpg", "a.jpg"),
]


def test_figures(tmp_path: Path) -> None:
    told = cells(page(RECORDS, tmp_path))
    assert (
        "inputs 8 49.7 kB answered 4 50 % failed 3 38 % duplicates 1 12 % with a face 3 75 % of those answered" in told
    )
    assert "faces 5 1.7 per picture with a face" in told


def test_ages_and_genders(tmp_path: Path) -> None:
    text = page(RECORDS, tmp_path)
    body = re.search(r'<table class="pyramid">(.*?)</table>', text, re.DOTALL)
    assert body is not None
    rows = [re.sub(r"<[^>]+>", " ", row).split() for row in re.findall(r"<tr>(.*?)</tr>", body[1], re.DOTALL)]
    by_age = {row[-2] if len(row) > 1 else row[0]: row for row in rows}
    assert rows[0] == ["male", "age", "female", "undecided", "not", "asked"]
    assert ["1", "30–34", "1"] in rows
    assert ["5–9", "1"] in rows
    assert ["100+", "1"] in rows
    assert ["not", "asked", "1"] in rows
    assert ["10–14"] in rows, by_age
    assert "0–4" not in by_age
    assert rows[-1] == ["1", "20", "%", "all", "2", "40", "%", "1", "20", "%", "1", "20", "%"]


def test_doubt_failures_and_time(tmp_path: Path) -> None:
    told = cells(page(RECORDS, tmp_path))
    assert "clear 3 60 % uncertain 1 20 % poor picture 1 20 %" in told
    assert "blurred 1 20 % too dark 1 20 %" in told
    assert "image_truncated the file ends too early 2 25 % input_not_found" in told
    assert "undecided (52 %), 7 (0–15)" in told
    assert "the slowest 80 ms" in told
    assert "8–16 MP 1 25 %" in told
    assert re.search(r"Slowest pictures .*? a\.jpg 640 × 480 2 5 10 20 80 ", told)


def test_the_job_is_named(tmp_path: Path) -> None:
    _, job = finished_job(RECORDS)
    told = cells(page(RECORDS, tmp_path))
    assert job.id in told
    assert job.manifest in told
    assert "profile standard engine onnxruntime digest 0123456789abcdef" in told
    assert "max_faces 300 attributes age, gender dedupe no pictures –" in told


def test_what_was_asked_for_is_said(tmp_path: Path) -> None:
    destination, job = finished_job(RECORDS)
    merge(destination, job, tmp_path / "r.html", where=["age<18"], form=Form(filters=("age<18", "source=<b>")))
    told = cells((tmp_path / "r.html").read_text("utf-8"))
    assert "Only records that meet: age&lt;18 source=&lt;b&gt;" in told
    assert "inputs 1 " in told


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("records", [[], [failed("a.jpg")], [ok("sea.jpg")], [same("a.jpg", "b.jpg")]])
def test_a_job_with_little_in_it_has_a_page(records: list[Record], language: str, tmp_path: Path) -> None:
    Parsed(page(records, tmp_path, language=language))


def test_few_megapixels_are_not_none(tmp_path: Path) -> None:
    assert "0.3 megapixels decoded" in cells(page([ok("a.jpg")], tmp_path))
    assert " 12 megapixels decoded" in cells(page([ok("sea.jpg", image=LARGE)], tmp_path))


# ── languages ────────────────────────────────────────────────────────────────────────────────────


def test_every_text_is_there_twice_with_the_same_blanks() -> None:
    for key, (english, chinese) in TEXTS.items():
        blanks = [sorted(re.findall(r"{(\w+)}", text)) for text in (english, chinese)]
        assert blanks[0] == blanks[1], key
        # units and names of fields are the same in both
        assert re.search("[\u4e00-\u9fff]", chinese), key
        assert not re.search("[\u4e00-\u9fff]", english), key


def test_every_text_is_used_and_every_code_has_words() -> None:
    sources = "".join(path.read_text("utf-8") for path in SOURCES.glob("*.py") if path.name != "texts.py")
    by_code = {"status", "reason", "hint", "error", "step"}
    used = {*re.findall(r"""["']([\w.]+)["']""", sources)}
    assert [key for key in TEXTS if key not in used and key.partition(".")[0] not in by_code] == []
    wanted = {f"status.{code}" for code in Status.__args__} | {f"reason.{code}" for code in REASONS}  # type: ignore[attr-defined]
    wanted |= {f"hint.{code}" for code in HINTS}
    assert wanted <= {*TEXTS}
    known = {kind.code for kind in _subclasses(DulianError)}
    assert {key.partition(".")[2] for key in TEXTS if key.startswith("error.")} <= known


def _subclasses(kind: type[DulianError]) -> Iterator[type[DulianError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _subclasses(below)


def test_a_page_is_in_one_language(tmp_path: Path) -> None:
    english, chinese = (page(RECORDS, tmp_path, language=language) for language in LANGUAGES)
    assert '<html lang="en">' in english
    assert '<html lang="zh-Hans">' in chinese
    assert {*re.findall("[\u4e00-\u9fff]+", cells(english))} == {"读脸"}
    words = {*re.findall("[a-z]{4,}", cells(re.sub(r"<(bdi|code|dt)\b.*?</\1>", " ", chinese)))}
    assert not words & {"inputs", "faces", "failed", "picture", "quality", "undecided", "slowest", "clear"}


def test_codes_without_words_are_shown_as_they_are() -> None:
    assert Words("zh").of_code("reason", "quite_new") == "quite new"


# ── harmless ─────────────────────────────────────────────────────────────────────────────────────

HOSTILE = [
    "<script>alert(1)</script>.jpg",
    '"><img src=x onerror=alert(1)>.jpg',
    "</style><script>alert(1)</script>",
    "'; --<!-- ]]> &lt;script&gt; &amp;.jpg",
    "\u202egpj.exe \u2066photo\u2069.jpg",
    "שלום/مرحبا.jpg",
    "a" * 4096,
    "\x00\x1b[31m\n\r\t.jpg",
    "{inputs}{0.__class__}%s$(id)`.jpg",
]


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_are_text_and_nothing_else(tmp_path: Path, language: str) -> None:
    usual = [*RECORDS, *(ok(f"{n}.jpg", face(status="uncertain"), total_ms=500.0) for n in range(len(HOSTILE)))]
    usual += [failed(f"{n}.png", f"code_{n}", "message") for n in range(len(HOSTILE))]
    odd = [*RECORDS, *(ok(name, face(status="uncertain"), total_ms=500.0) for name in HOSTILE)]
    odd += [failed(f"{name}.png", f"code_{n}", name) for n, name in enumerate(HOSTILE)]
    plain, hostile = (Parsed(page(records, tmp_path, language=language)) for records in (usual, odd))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert [{*attributes} for _, attributes in hostile.tags] == [{*attributes} for _, attributes in plain.tags]
    words = "".join(hostile.words)
    assert HOSTILE[0] in words
    assert HOSTILE[5] in words
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b]", words)
    assert max(map(len, hostile.words[hostile.words.index("\n") :])) < 30_000
    assert "a" * (MAX_NAME + 1) not in words


def test_names_keep_their_direction_to_themselves(tmp_path: Path) -> None:
    text = page([failed("שלום.jpg")], tmp_path)
    assert '<bdi class="name">שלום.jpg</bdi>' in text


@pytest.mark.parametrize("thumbnails", [0, 5])
def test_nothing_runs_and_nothing_is_loaded(tmp_path: Path, thumbnails: int) -> None:
    reader = MemoryReader({"a.jpg": save(picture(), "JPEG")})
    text = page(RECORDS, tmp_path, thumbnails=thumbnails, reader=reader)
    parsed = Parsed(text)
    assert not {tag for tag, _ in parsed.tags} & {"script", "link", "iframe", "object", "embed", "base", "form", "a"}
    for tag, attributes in parsed.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "href", "srcset")], tag
        assert (attributes.get("src") or "data:image/jpeg;").startswith("data:image/jpeg;")
    assert not re.search(r"url\(|@import|https?:", text)


def test_the_policy_allows_the_page_s_own_style_alone(tmp_path: Path) -> None:
    text = page(RECORDS, tmp_path)
    (policy,) = (one["content"] for one in Parsed(text).all("meta") if "http-equiv" in one)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def test_every_bar_stands_beside_its_number_and_every_table_is_named(tmp_path: Path) -> None:
    text = page(RECORDS, tmp_path)
    parsed = Parsed(text)
    assert parsed.all("svg")
    assert {svg["aria-hidden"] for svg in parsed.all("svg")} == {"true"}
    assert len(parsed.all("caption")) == len(parsed.all("table"))
    assert all(head.get("scope") in ("row", "col") for head in parsed.all("th"))
    for bar in re.findall(r'<td class="bar">.*?</td>(.*?)</t[dh]>', text):
        assert re.search(r">\S*", bar)


# ── small pictures ───────────────────────────────────────────────────────────────────────────────


def with_reader(count: int) -> tuple[list[Record], MemoryReader]:
    data = save(picture(), "JPEG")
    records = [ok(f"{n}.jpg", face(status="uncertain", gender="undecided"), total_ms=n) for n in range(count)]
    records.append(failed("slow.jpg", "input_unavailable", "the store did not give it"))
    records.append(failed("deadly.jpg", "process_died", "the process ended"))
    return records, MemoryReader({record["source"]: data for record in records})


def test_no_picture_is_read_unless_asked_for(tmp_path: Path) -> None:
    records, reader = with_reader(5)
    assert "<img" not in page(records, tmp_path, reader=reader)
    assert reader.read_names == []
    assert "<img" not in page(records, tmp_path, thumbnails=9)


@pytest.mark.parametrize("at_most", [1, 4, 9])
def test_there_are_no_more_pictures_than_asked_for(tmp_path: Path, at_most: int) -> None:
    records, reader = with_reader(20)
    images = Parsed(page(records, tmp_path, reader=reader, thumbnails=at_most)).all("img")
    assert len(images) == at_most
    for image in images:
        data = base64.b64decode((image["src"] or "").partition(",")[2])
        shown = decode_image(data).image
        assert max(shown.shape) <= 160
        assert len(data) < 20_000


def test_pictures_are_of_doubt_slowness_and_failures_by_turns(tmp_path: Path) -> None:
    records, reader = with_reader(20)
    page(records, tmp_path, reader=reader, thumbnails=3)
    assert reader.read_names == ["0.jpg", "19.jpg", "slow.jpg"]


def test_what_ended_processes_is_not_looked_at_again(tmp_path: Path) -> None:
    records, reader = with_reader(3)
    page(records, tmp_path, reader=reader, thumbnails=99)
    assert "deadly.jpg" not in reader.read_names
    assert "slow.jpg" in reader.read_names


def test_pictures_that_have_gone_or_do_not_decode_are_left_out(tmp_path: Path) -> None:
    records, reader = with_reader(3)
    reader.pictures = {"0.jpg": b"no picture", "1.jpg": reader.pictures["1.jpg"]}
    images = Parsed(page(records, tmp_path, reader=reader, thumbnails=99)).all("img")
    assert len(images) == 2  # the face in doubt, and the picture among the slowest


# ── counting ─────────────────────────────────────────────────────────────────────────────────────


def test_top_keeps_the_highest_and_of_equals_the_first() -> None:
    top: Top[str] = Top(3)
    for value, member in [(1, "a"), (5, "b"), (3, "c"), (5, "d"), (0, "e"), (3, "f"), (3, "g")]:
        top.add(value, member)
    assert top.members() == [(5, "b"), (5, "d"), (3, "c")]


def test_durations_know_shares_within_three_percent() -> None:
    spent = Durations()
    values = [1.02**n for n in range(400)]
    for value in values:
        spent.add(value)
    for part in (0.01, 0.5, 0.9, 0.99):
        assert spent.within(part) == pytest.approx(values[int(part * 400) - 1], rel=0.05)
    assert spent.within(1.0) == pytest.approx(max(values), rel=0.03)
    assert Durations().within(0.5) == 0
    spent.add(0.0)


def test_a_summary_does_not_grow_with_the_job() -> None:
    names = [Input(source=f"{number:06d}.jpg") for number in range(9_000)]
    made = [
        ok("x", face(status="uncertain"), face(1, gender="undecided", status="uncertain"), total_ms=float(n))
        for n in range(50)
    ]
    summary = Summary()

    def feed(some: list[Input]) -> int:
        for number, one in enumerate(some):
            summary.add(failed(one.source) if number % 5 == 0 else {**made[number % 50], "source": one.source}, one)
        return tracemalloc.get_traced_memory()[0]

    some, rest = names[:2_000], names[2_000:]
    tracemalloc.start()
    first = feed(some)
    last = feed(rest)
    tracemalloc.stop()
    assert last - first < 10_000
    assert summary.inputs == 9_000
    assert len(summary.doubtful.members()) == DOUBTFUL
    assert len(summary.examples["image_truncated"]) == EXAMPLES


def test_shares_are_only_none_and_all_when_they_are() -> None:
    assert [share(n, 1000) for n in (0, 1, 5, 10, 500, 990, 995, 999, 1000)] == [
        *("0 %", "<1 %", "<1 %", "1 %", "50 %", "99 %", ">99 %", ">99 %", "100 %"),
    ]
    assert share(0, 0) == "–"
    assert [data_size(n) for n in (0, 999, 1234, 250_000, 1.5e9, 3e15)] == [
        *("0 bytes", "999 bytes", "1.23 kB", "250 kB", "1.5 GB", "3,000 TB"),
    ]


def test_a_report_of_very_many_codes_stays_readable() -> None:
    import io

    stream = io.BytesIO()
    writer = open_writer(find_writer(".html"), stream, job=make_job([]), form=Form())
    for record in some_records(500):
        writer.write(record, Input(source=record["source"]))
    writer.close()
    assert len(stream.getvalue()) < 100_000
