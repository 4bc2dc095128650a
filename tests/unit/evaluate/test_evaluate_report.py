"""The report on a few hand-made answers, every figure of which was computed by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from labelled_faces import answer, asked, box, face, person, picture, subject

from dulian.calibration import BUCKET_LABELS, nearest_bucket
from dulian.evaluate.answers import Answer, Subject
from dulian.evaluate.evidence import Evidence, Judgement
from dulian.evaluate.report import (
    age_ranges,
    ages,
    describe,
    detection,
    genders,
    groups_of,
    hard,
    held_out,
    negatives,
    probabilities,
    statuses,
)
from dulian.faces import AgeEstimate

HERE = box(0, 0, 100)


def value(figure: Any) -> float:
    return float(figure["value"])


def strict(report: Any) -> Any:
    """As it comes back from JSON, in which there is no NaN."""
    return json.loads(json.dumps(report, allow_nan=False))


# ── finding faces ────────────────────────────────────────────────────────────────────────────────


def street() -> Answer:
    """Four people, of 8, 20, 40 and 200 pixels, and a poster that is nobody; two of them are found, and much else."""
    people = [person(box(x, 0, 20, height)) for x, height in ((0, 8), (50, 20), (100, 40), (200, 200))]
    return answer(
        picture("street", *people, complete=True, ignored=(box(500, 0, 100),)),
        face(box(100, 1, 20, 40)),  # the third
        face(box(200, 5, 20, 200)),  # the fourth
        face(box(0, 1, 20, 9)),  # the first, who is too small to count
        face(box(300, 0, 15)),  # nobody, yet too small to count
        face(box(530, 10, 50)),  # on the poster
        face(box(590, 0, 40)),  # only a quarter of it on the poster: wrong
        face(box(700, 0, 50)),  # wrong
    )


def test_recall_and_precision_by_hand() -> None:
    found = detection([street()])
    assert found["pictures"] == 1
    assert found["recall"] == {"value": 0.6667, "low": 0.6667, "high": 0.6667, "n": 3}
    assert (value(found["recall_32"]), found["recall_32"]["n"]) == (1.0, 2)
    assert (value(found["precision"]), found["precision"]["n"]) == (0.5, 4)
    by_height = {span: row and (row["value"], row["n"]) for span, row in found["by_height"].items()}
    assert by_height == {
        "0–15": (1.0, 1),
        "16–31": (0.0, 1),
        "32–63": (1.0, 1),
        "64–127": None,
        "128+": (1.0, 1),
    }


def test_the_least_heights_count() -> None:
    people = [person(box(100 * x, 0, height)) for x, height in enumerate((15.9, 16, 31.9, 32))]
    found = detection([answer(picture("a", *people, complete=True))])
    assert (found["recall"]["n"], found["recall_32"]["n"]) == (3, 1)


def test_a_second_face_on_the_same_person_is_wrong_unless_the_person_is_small() -> None:
    people = person(box(0, 0, 100)), person(box(200, 0, 15))
    twice = [face(box(0, 0, 100)), face(box(1, 0, 100)), face(box(200, 0, 15)), face(box(199, 0, 16))]
    found = detection([answer(picture("a", *people, complete=True), *twice)])
    assert (value(found["precision"]), found["precision"]["n"]) == (0.5, 2)
    assert (value(found["recall"]), found["recall"]["n"]) == (1.0, 1)


def test_half_of_a_face_in_an_ignored_region_excuses_it() -> None:
    of = picture("a", person(box(0, 0, 50)), complete=True, ignored=(box(100, 0, 100),))
    for x, wrong in ((175, 0), (176, 1)):
        found = detection([answer(of, face(box(0, 0, 50)), face(box(x, 0, 50)))])
        assert found["precision"]["n"] == 1 + wrong


def test_only_pictures_with_all_faces_boxed_tell_of_detection() -> None:
    partly, nobody = picture("a", person(HERE)), picture("b", complete=True)
    found = detection([answer(partly, face(HERE)), answer(nobody, face(HERE))])
    assert found["pictures"] == 0
    assert (found["recall"], found["precision"], found["recall_32"]) == (None, None, None)
    unread = answer(picture("c", person(HERE), complete=True), error="image_truncated")
    assert value(detection([unread])["recall"]) == 0
    assert detection([unread])["precision"] is None


def test_pictures_and_not_faces_are_drawn_for_the_interval() -> None:
    crowd = [person(box(100 * x, 0, 50)) for x in range(4)]
    seen = [face(box(100 * x, 0, 50)) for x in range(4)]
    found = detection([answer(picture("a", *crowd, complete=True), *seen), answer(picture("b", *crowd, complete=True))])
    assert found["recall"] == {"value": 0.5, "low": 0.0, "high": 1.0, "n": 8}


def test_drawings_stand_apart_from_photos_without_a_face() -> None:
    def nobody(*tags: str) -> Any:
        return picture("a", kind="negative", tags=tags)

    answers = [
        answer(nobody(), face(HERE)),
        answer(nobody("cat")),
        answer(nobody("dog"), face(HERE), face(HERE)),
        answer(nobody("art", "drawing"), face(HERE)),
        answer(picture("b"), face(HERE)),
    ]
    assert negatives(answers) == {
        "photos": {"with_a_face": 2, "pictures": 3},
        "drawings": {"with_a_face": 1, "pictures": 1},
    }


def test_hard_pictures_by_what_makes_them_so() -> None:
    def difficult(*tags: str) -> Any:
        return picture("a", kind="hard_photo", tags=tags)

    answers = [
        answer(difficult("exif6"), face(HERE)),
        answer(difficult("exif3")),
        answer(difficult("dark", "blur"), face(HERE)),
        answer(difficult()),
        answer(picture("b", tags=("dark",))),
    ]
    assert hard(answers) == {
        "dark": {"with_a_face": 1, "pictures": 1},
        "exif orientation": {"with_a_face": 1, "pictures": 2},
    }


# ── genders ──────────────────────────────────────────────────────────────────────────────────────


def who(gender: str, female: float | None, *, age: int | None = None, **more: Any) -> Subject:
    """Somebody of that gender, and how female they seem; None: not found. Below 0.6 it is undecided."""
    of = picture("a", person(gender=gender, age=age), **more)
    return subject(of, None if female is None else face(HERE, female=female))


def six_people() -> list[Subject]:
    return [
        who("female", 0.9),
        who("female", 0.55),  # right, yet undecided
        who("female", 0.3),  # wrong
        who("male", 0.1),
        who("male", 0.58),  # wrong, yet undecided
        who("male", None),  # missed
    ]


def test_genders_right_and_right_when_answering() -> None:
    rows = genders(six_people())
    everybody = rows["all"]
    assert (everybody["n"], everybody["missed"]) == (6, 1)
    assert (value(everybody["right"]), everybody["right"]["n"]) == (0.6, 5)
    assert everybody["answered"] == 0.5
    assert (value(everybody["when_answering"]), everybody["when_answering"]["n"]) == (0.6667, 3)
    assert (value(rows["women"]["right"]), value(rows["men"]["right"])) == (0.6667, 0.5)
    assert (rows["women"]["missed"], rows["men"]["missed"]) == (0, 1)
    assert everybody["women_minus_men"] == 0.1667
    assert everybody["right"]["low"] < 0.6 < everybody["right"]["high"]


def test_one_half_is_female_to_the_report_as_it_is_to_the_table() -> None:
    assert value(genders([who("female", 0.5)])["all"]["right"]) == 1
    assert value(genders([who("male", 0.5)])["all"]["right"]) == 0


def test_of_one_gender_alone_there_is_no_difference() -> None:
    for rows in (genders([who("female", 0.9)]), genders([who("female", 0.9), who("male", None)])):
        assert "women_minus_men" not in rows["all"]
    assert genders([]) == {}
    assert genders([who("", 0.9)]) == {}


def test_probabilities_by_hand() -> None:
    row = probabilities(six_people())
    # 0.55 and 0.58, one of them right; 0.7, wrong; two times 0.9, both right
    assert row["bins"] == [
        {"probability": 0.565, "right": 0.5, "n": 2},
        {"probability": 0.7, "right": 0.0, "n": 1},
        {"probability": 0.9, "right": 1.0, "n": 2},
    ]
    assert row["calibration_error"] == round((2 * 0.065 + 0.7 + 2 * 0.1) / 5, 4)
    curve = {step["answered"]: step["right"] for step in row["risk_coverage"]}
    assert (curve[0.4], curve[0.6], curve[0.8], curve[1.0]) == (1.0, 0.6667, 0.5, 0.6)
    # 85 % of five are five
    assert (value(row["right_at_85"]), row["right_at_85"]["n"]) == (0.6, 5)
    assert probabilities([who("male", None)]) == {}


# ── ages ─────────────────────────────────────────────────────────────────────────────────────────


def aged(true: int, said: float | None, half: float = 5.0, **more: Any) -> Subject:
    of = picture("a", person(age=true), **more)
    return subject(of, None if said is None else face(HERE, age=said, half=half))


def test_ages_by_hand() -> None:
    row = ages(
        [
            aged(30, 28),  # the same bucket, inside
            aged(1, 10, half=20),  # two buckets off, inside
            aged(50, 40, half=10),  # the next bucket, just inside
            aged(45, 41, half=2),  # between two buckets: judged by the error alone; outside
            aged(80, None),  # missed
        ]
    )["all"]
    assert (row["n"], row["missed"]) == (5, 1)
    assert (value(row["error"]), row["error"]["n"]) == ((2 + 9 + 10 + 4) / 4, 4)
    assert row["bias"] == round((-2 + 9 - 10 - 4) / 4, 2)
    assert (value(row["bucket_exact"]), row["bucket_exact"]["n"]) == (0.3333, 3)
    assert (value(row["bucket_one_off"]), row["bucket_one_off"]["n"]) == (0.6667, 3)
    assert (value(row["interval_holds"]), row["interval_holds"]["n"]) == (0.75, 4)
    assert value(row["interval_width"]) == (10 + 40 + 20 + 4) / 4


@pytest.mark.parametrize("age", [3, 7, 13, 14, 21, 24, 33, 37, 44, 47, 54, 59, 101])
def test_ages_between_buckets_belong_to_none(age: int) -> None:
    row = ages([aged(age, 30)])["all"]
    assert (row["bucket_exact"], row["bucket_one_off"]) == (None, None)
    assert row["error"]["n"] == 1


@pytest.mark.parametrize("age", [0, 2, 4, 6, 8, 12, 15, 20, 25, 32, 38, 43, 48, 53, 60, 100])
def test_the_ends_of_a_bucket_belong_to_it(age: int) -> None:
    row = ages([aged(age, age)])["all"]
    assert value(row["bucket_exact"]) == value(row["bucket_one_off"]) == 1


def test_only_exact_ages_have_an_error_and_only_ranges_are_hit() -> None:
    exact = aged(30, 28)
    ranged = [
        subject(picture("a", person(age=20, oldest=29), source=source), face(HERE, age=said))
        for source, said in (("x", 20.0), ("x", 29.9), ("x", 30.0), ("y", 19.9))
    ]
    missed = subject(picture("a", person(age=20, oldest=29), source="y"), None)
    assert ages([exact, *ranged])["all"]["n"] == 1
    assert ages(ranged) == {}
    rows = age_ranges([exact, *ranged, missed])
    assert {source: (row["value"], row["n"]) for source, row in rows.items()} == {"x": (0.6667, 3), "y": (0.0, 1)}


# ── groups ───────────────────────────────────────────────────────────────────────────────────────


def test_groups_by_hand() -> None:
    def one(file: str, age: int, oldest: int = 0, *, gender: str = "", size: int = 100, **more: Any) -> Subject:
        sharpness = more.pop("sharpness", 0.8)
        found = face(HERE, size=size, sharpness=sharpness)
        return subject(picture(file, person(age=age, oldest=oldest, gender=gender), **more), found)

    subjects = [
        one("child", 12, gender="female", size=39, sharpness=0.0),
        one("youth", 13, gender="male", size=40, sharpness=0.25, group="1"),
        one("ranged", 20, 39, size=160, sharpness=1.0, source="other"),
        one("wide", 15, 25, size=159, sharpness=0.74),
        one("old", 95),
        replace(one("gone", 0), face=None),
    ]
    names = {group: [s.picture.file for s in found] for group, found in groups_of(subjects).items()}
    assert names == {
        "all": ["child", "youth", "ranged", "wide", "old", "gone"],
        "adults": ["youth", "ranged", "wide", "old"],
        "women": ["child"],
        "men": ["youth"],
        "age 0–2": ["gone"],
        "age 10–19": ["child", "youth"],
        "age 20–39": ["ranged"],
        "age 60+": ["old"],
        "source album": ["child", "youth", "wide", "old", "gone"],
        "source other": ["ranged"],
        "group 1": ["youth"],
        "size 0–39 px": ["child"],
        "size 40–79 px": ["youth"],
        "size 80–159 px": ["wide", "old"],
        "size 160+ px": ["ranged"],
        "sharpness 0–0.25": ["child"],
        "sharpness 0.25–0.5": ["youth"],
        "sharpness 0.5–0.75": ["wide"],
        "sharpness 0.75–1": ["ranged", "old"],
    }
    assert groups_of([]) == {}


def test_groups_have_figures_of_their_own() -> None:
    rows = genders(
        [
            who("female", 0.9, age=30, source="x"),
            who("male", 0.9, age=30, source="y"),
            who("male", 0.2, age=1, source="y", group="2"),
        ]
    )
    assert {name: value(rows[name]["right"]) for name in ("source x", "source y", "group 2", "adults", "age 0–2")} == {
        "source x": 1.0,
        "source y": 0.5,
        "group 2": 1.0,
        "adults": 0.5,
        "age 0–2": 1.0,
    }


def test_statuses_are_counted_by_age() -> None:
    def judged(age: int, status: Any) -> Subject:
        return subject(picture("a", person(age=age)), face(HERE, status=status))

    subjects = [judged(1, "ok"), judged(1, "uncertain"), judged(70, "low_quality"), judged(70, "ok"), aged(70, None)]
    assert statuses(subjects) == {
        "all": {"ok": 2, "uncertain": 1, "low_quality": 1},
        "age 0–2": {"ok": 1, "uncertain": 1, "low_quality": 0},
        "age 60+": {"ok": 1, "uncertain": 0, "low_quality": 1},
    }


# ── everything ───────────────────────────────────────────────────────────────────────────────────


def test_a_whole_report() -> None:
    crowd = picture("crowd", person(HERE, gender="female"), kind="detect_photo", complete=True)
    in_crowd = subject(crowd, face(HERE, female=0.1))
    answers = [
        *asked(*six_people(), aged(30, 28), in_crowd),
        street(),
        answer(picture("z.jpg", kind="negative"), error="image_truncated"),
        answer(picture("b.jpg"), error="unreadable"),
    ]
    report = strict(describe(answers))
    assert report["errors"] == ["b.jpg: unreadable", "z.jpg: image_truncated"]
    assert report["detection"]["pictures"] == 2
    assert report["detection"]["recall"]["value"] == 0.75
    assert report["negatives"]["photos"] == {"with_a_face": 0, "pictures": 1}
    assert report["gender"]["all"]["n"] == 6
    assert value(report["gender"]["all"]["right"]) == 0.6
    assert (report["gender_in_crowds"]["n"], value(report["gender_in_crowds"]["right"])) == (1, 0.0)
    assert report["gender_probability"] == strict(probabilities(six_people()))
    assert value(report["age"]["all"]["error"]) == 2
    assert report["status"]["all"]["ok"] == 6


def test_a_report_on_nothing_and_on_nobody_found() -> None:
    empty = strict(describe([]))
    assert (empty["gender"], empty["age"], empty["gender_probability"], empty["gender_in_crowds"]) == ({}, {}, {}, None)
    missed = strict(describe(asked(who("female", None, age=30), who("male", None, age=30))))
    everybody = missed["gender"]["all"]
    assert (everybody["right"], everybody["when_answering"], everybody["answered"]) == (None, None, 0.0)
    assert (everybody["n"], everybody["missed"]) == (2, 2)
    unaware = strict(describe(asked(subject(picture("a", person(age=30, gender="male")), face(HERE)))))
    assert (unaware["age"]["all"], unaware["gender"]["all"]["missed"]) == ({"n": 1, "missed": 1}, 1)
    assert missed["age"]["all"] == {"n": 2, "missed": 2}


# ── on faces that were not learned from ──────────────────────────────────────────────────────────


def evidence(ages: list[float], genders: list[float], sources: list[str]) -> Evidence:
    count = len(ages)
    files = np.array([str(number) for number in range(count)])
    return Evidence(np.array(ages), np.array(genders), files, np.array(sources), np.ones(count), {}, {})


def estimate(age: float, half: float = 5.0) -> AgeEstimate:
    return AgeEstimate(age, age - half, age + half, 0.9, BUCKET_LABELS[nearest_bucket(age)], 0.5)


def test_held_out_by_hand() -> None:
    unknown = float("nan")
    people = evidence([70, 30, unknown, 50, 5], [unknown, 1, 1, 0, 0], ["y", "x", "x", "y", "y"])
    judgement = Judgement(
        (estimate(61, half=9), estimate(28), estimate(99), estimate(40), estimate(5)),
        np.array([0.99, 0.9, 0.3, 0.2, 0.62]),
    )
    decisions = np.array([0.6, 0.6, 0.6, 0.85, 0.6])
    adults = np.array([True, True, False, True, False])
    report = strict(held_out(people, judgement, decisions, adults))
    # right, wrong, right, wrong; each decided by its own tables, so the third is undecided
    assert (value(report["gender"]), report["gender"]["n"]) == (0.5, 4)
    assert (value(report["gender_adults"]), report["gender_adults"]["n"]) == (1.0, 2)
    assert report["women_minus_men"] == 0.0
    assert report["answered"] == 0.75
    assert value(report["when_answering"]) == 0.3333
    assert report["calibration_error"] == round((0.1 + 0.7 + 0.2 + 0.62) / 4, 4)
    assert len(report["risk_coverage"]) == 20
    assert (value(report["error"]), report["error"]["n"]) == ((2 + 10 + 0 + 9) / 4, 4)
    assert report["bias"] == round((-2 - 10 + 0 - 9) / 4, 2)
    assert value(report["interval_holds"]) == 0.75
    assert (value(report["bucket_exact"]), value(report["bucket_one_off"])) == (0.75, 1.0)
    x, y = report["by_source"]["x"], report["by_source"]["y"]
    assert (value(x["gender"]), x["gender"]["n"], value(x["error"]), x["error"]["n"]) == (0.5, 2, 2.0, 1)
    assert (value(y["gender"]), y["gender"]["n"], y["error"]["n"]) == (0.5, 2, 3)


@pytest.mark.parametrize("gender", [0.0, 1.0])
def test_held_out_people_of_one_gender_have_no_difference(gender: float) -> None:
    people = evidence([30, 40], [gender, gender], ["x", "y"])
    judgement = Judgement((estimate(30), estimate(40)), np.array([0.9, 0.1]))
    report = strict(held_out(people, judgement, np.full(2, 0.6), np.array([True, True])))
    assert report["women_minus_men"] is None
    assert value(report["gender"]) == 0.5


def test_a_source_without_exact_ages_has_genders_alone() -> None:
    people = evidence([30, float("nan")], [1, 0], ["x", "y"])
    judgement = Judgement((estimate(30), estimate(40)), np.array([0.9, 0.1]))
    rows = strict(held_out(people, judgement, np.full(2, 0.6), np.array([True, True])))["by_source"]
    assert "error" in rows["x"]
    assert list(rows["y"]) == ["gender"]
