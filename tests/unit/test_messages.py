from __future__ import annotations

import re

import pytest

from dulian.faces import AgeEstimate, BoundingBox, Face, GenderEstimate, Quality
from dulian.messages import HINTS, REASONS, article_label, display_label, hint_message, reason_message

AGE = AgeEstimate(31.4, 26.0, 37.0, 0.9, "(25-32)", 0.71)
FEMALE, UNDECIDED = GenderEstimate("female", 0.97, 0.97), GenderEstimate(None, 0.52, 0.48)


def face(age: AgeEstimate | None, gender: GenderEstimate | None) -> Face:
    quality = Quality(0.8, 0.7, 0.5, 143)
    return Face(0, BoundingBox(0, 0, 10, 10), 0.9, None, age, gender, quality, "ok", "")


@pytest.mark.parametrize("code", REASONS)
def test_every_reason_speaks_both_languages(code: str) -> None:
    message = reason_message(code, size_px=20, min_size_px=28)
    assert message.code == code
    assert re.search(r"[\u4e00-\u9fff]", message.zh)
    assert message.en.isascii()
    assert "{" not in message.en + message.zh


@pytest.mark.parametrize("code", HINTS)
def test_every_hint_speaks_both_languages(code: str) -> None:
    message = hint_message(code, score=0.41, threshold=0.6)
    assert re.search(r"[\u4e00-\u9fff]", message.zh)
    assert "{" not in message.en + message.zh


@pytest.mark.parametrize(
    ("age", "gender", "label"),
    [
        (AGE, FEMALE, "Female, (25-32)"),
        (AGE, UNDECIDED, "Unknown, (25-32)"),
        (AGE, None, "(25-32)"),
        (None, FEMALE, "Female"),
        (None, None, "Face"),
    ],
)
def test_article_labels(age: AgeEstimate | None, gender: GenderEstimate | None, label: str) -> None:
    assert article_label(age, gender) == label


def test_display_labels_show_the_interval() -> None:
    assert display_label(face(AGE, FEMALE)) == "Female, 31 (26–37)"
    assert display_label(face(AGE, FEMALE), "zh") == "女 31岁 (26–37)"
    assert display_label(face(AGE, UNDECIDED), "zh") == "性别不定 31岁 (26–37)"
    assert display_label(face(None, None), "zh") == "人脸"
