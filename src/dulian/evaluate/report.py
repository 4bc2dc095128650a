"""What a profile is worth on a set of labelled pictures, as one JSON-ready dictionary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from dulian.calibration import BUCKET_LABELS, BUCKETS, nearest_bucket
from dulian.evaluate.answers import Answer, Subject, match
from dulian.evaluate.evidence import Evidence, Floats, Judgement
from dulian.evaluate.metrics import (
    Figure,
    calibration_bins,
    calibration_error,
    mean,
    ratio,
    right_when_answering,
    risk_coverage,
)
from dulian.faces import BoundingBox, Face

AGE_BANDS = ((0, 2), (3, 9), (10, 19), (20, 39), (40, 59), (60, 200))
ADULT = 13
HEIGHTS = ((0, 16), (16, 32), (32, 64), (64, 128), (128, 100_000))
# Faces smaller than this are neither missed nor wrongly found.
SMALLEST = 16
SIZES = ((0, 40), (40, 80), (80, 160), (160, 100_000))
SHARPNESSES = ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.01))
# The share of answers at which the accuracy of abstaining answers is told.
ANSWERED = 0.85


def describe(answers: Sequence[Answer]) -> dict[str, Any]:
    """Everything that is measured of one profile."""
    subjects = [subject for answer in answers for subject in answer.subjects]
    # Faces in crowds are labelled from afar: their genders stand apart.
    near = [subject for subject in subjects if subject.picture.kind != "detect_photo"]
    return {
        "detection": detection(answers),
        "negatives": negatives(answers),
        "hard": hard(answers),
        "gender": genders(near),
        "gender_in_crowds": _gender_row([s for s in subjects if s.picture.kind == "detect_photo"]),
        "gender_probability": probabilities(near),
        "age": ages(near),
        "age_ranges": age_ranges(near),
        "status": statuses(near),
        "errors": sorted(f"{answer.picture.file}: {answer.error}" for answer in answers if answer.error),
    }


# ── finding faces ────────────────────────────────────────────────────────────────────────────────


def detection(answers: Iterable[Answer]) -> dict[str, Any]:
    """Recall by face height, and precision, where all faces of a picture are boxed."""
    rows = [_found_and_missed(answer) for answer in answers if answer.picture.complete and answer.picture.people]
    counts = np.array([[hits, faces, wrong] for _, hits, faces, wrong in rows], np.float64).reshape(-1, 3)
    heights = [pair for pairs, *_ in rows for pair in pairs]
    hits, faces, wrong = counts.T
    return {
        "pictures": len(rows),
        "recall": _dict(ratio(hits, faces)),
        "recall_32": _dict(mean([hit for height, hit in heights if height >= 32])),
        "precision": _dict(ratio(hits, hits + wrong)),
        "by_height": {
            _span(low, high): _dict(mean([hit for height, hit in heights if low <= height < high]))
            for low, high in HEIGHTS
        },
    }


def _found_and_missed(answer: Answer) -> tuple[list[tuple[float, bool]], int, int, int]:
    """Height and fate of each true face; how many of at least 16 px were found, are there, and are not there."""
    truth = [person.box for person in answer.picture.people if person.box]
    pairs = match(truth, answer.faces)
    heights = [(box.height, index in pairs.values()) for index, box in enumerate(truth)]
    counted = [hit for height, hit in heights if height >= SMALLEST]
    small = [box for box in truth if box.height < SMALLEST]
    strangers = [face for index, face in enumerate(answer.faces) if index not in pairs]
    wrong = [face for face in strangers if not _excused(face, small, answer.picture.ignored)]
    return heights, sum(counted), len(counted), len(wrong)


def _excused(face: Face, small: Sequence[BoundingBox], ignored: Sequence[BoundingBox]) -> bool:
    """Whether a face that matches nobody is too small to count, or lies where nobody was labelled."""
    if face.box.height < SMALLEST or match(small, [face]):
        return True
    return any(_overlap(face.box, region) >= 0.5 * face.box.area for region in ignored)


def _overlap(a: BoundingBox, b: BoundingBox) -> float:
    return max(0.0, min(a.x2, b.x2) - max(a.x1, b.x1)) * max(0.0, min(a.y2, b.y2) - max(a.y1, b.y1))


def negatives(answers: Iterable[Answer]) -> dict[str, Any]:
    """Pictures without a face in which one was found; drawings apart, for they show faces of a kind."""
    groups: dict[str, list[bool]] = {"photos": [], "drawings": []}
    for answer in answers:
        if answer.picture.kind == "negative":
            groups["drawings" if "drawing" in answer.picture.tags else "photos"].append(bool(answer.faces))
    return {name: {"with_a_face": sum(found), "pictures": len(found)} for name, found in groups.items()}


def hard(answers: Iterable[Answer]) -> dict[str, Any]:
    """Pictures that were made or chosen to be difficult, by their first tag: in how many any face was found."""
    groups: dict[str, list[bool]] = {}
    for answer in answers:
        if answer.picture.kind == "hard_photo" and answer.picture.tags:
            tag = "exif orientation" if answer.picture.tags[0].startswith("exif") else answer.picture.tags[0]
            groups.setdefault(tag, []).append(bool(answer.faces))
    return {tag: {"with_a_face": sum(found), "pictures": len(found)} for tag, found in sorted(groups.items())}


# ── who is seen ──────────────────────────────────────────────────────────────────────────────────


def groups_of(subjects: Sequence[Subject]) -> dict[str, list[Subject]]:
    """The groups that are told apart; empty ones are left out."""
    parts: dict[str, Callable[[Subject], bool]] = {
        "all": lambda s: True,
        "adults": lambda s: s.person.youngest is not None and s.person.youngest >= ADULT,
        "women": lambda s: s.person.gender == "female",
        "men": lambda s: s.person.gender == "male",
    }
    parts |= {f"age {_span(low, high + 1, 200)}": _in_band(low, high) for low, high in AGE_BANDS}
    sources = sorted({subject.picture.source for subject in subjects})
    parts |= {f"source {source}": _equals("source", source) for source in sources}
    groups = sorted({subject.picture.group for subject in subjects if subject.picture.group})
    parts |= {f"group {group}": _equals("group", group) for group in groups}
    parts |= {f"size {_span(*bounds)} px": _in_quality("size_px", *bounds) for bounds in SIZES}
    parts |= {f"sharpness {low:g}–{min(high, 1):g}": _in_quality("sharpness", low, high) for low, high in SHARPNESSES}
    chosen = {name: [subject for subject in subjects if belongs(subject)] for name, belongs in parts.items()}
    return {name: found for name, found in chosen.items() if found}


def _in_band(low: int, high: int) -> Callable[[Subject], bool]:
    def belongs(subject: Subject) -> bool:
        youngest, oldest = subject.person.youngest, subject.person.oldest
        return youngest is not None and oldest is not None and low <= youngest and oldest <= high

    return belongs


def _equals(name: str, value: str) -> Callable[[Subject], bool]:
    return lambda subject: getattr(subject.picture, name) == value


def _in_quality(name: str, low: float, high: float) -> Callable[[Subject], bool]:
    return lambda subject: subject.face is not None and low <= getattr(subject.face.quality, name) < high


def genders(subjects: Sequence[Subject]) -> dict[str, Any]:
    """How often genders are right, for every group; and how much more often for women than for men."""
    rows = {name: row for name, group in groups_of(subjects).items() if (row := _gender_row(group))}
    women, men = rows.get("women"), rows.get("men")
    if women and men and women["right"] and men["right"]:
        rows["all"]["women_minus_men"] = round(women["right"]["value"] - men["right"]["value"], 4)
    return rows


def _gender_row(subjects: Sequence[Subject]) -> dict[str, Any] | None:
    """``right`` takes the likelier gender of every face; ``when_answering`` only of those that are not undecided."""
    labelled = [s for s in subjects if s.person.gender]
    if not labelled:
        return None
    seen = [s for s in labelled if s.face and s.face.gender]
    decided = [s for s in seen if s.face and s.face.gender and s.face.gender.value]
    return {
        "n": len(labelled),
        "missed": len(labelled) - len(seen),
        "right": _dict(mean([_is_right(s) for s in seen])),
        "answered": round(len(decided) / len(labelled), 4),
        "when_answering": _dict(mean([_is_right(s) for s in decided])),
    }


def _is_right(subject: Subject) -> bool:
    gender = subject.face.gender if subject.face else None
    return gender is not None and (gender.female_probability >= 0.5) == (subject.person.gender == "female")


def probabilities(subjects: Sequence[Subject]) -> dict[str, Any]:
    """Whether a probability means what it says, and how abstaining pays."""
    seen = [s for s in subjects if s.person.gender and s.face and s.face.gender]
    sure = np.array([s.face.gender.probability for s in seen if s.face and s.face.gender])
    right = np.array([_is_right(s) for s in seen], bool)
    return _probability_row(sure, right)


def _probability_row(sure: Floats, right: Any) -> dict[str, Any]:
    if not len(sure):
        return {}
    return {
        "calibration_error": round(calibration_error(sure, right), 4),
        "bins": calibration_bins(sure, right),
        "risk_coverage": risk_coverage(sure, right),
        "right_at_85": _dict(right_when_answering(sure, right, ANSWERED)),
    }


def ages(subjects: Sequence[Subject]) -> dict[str, Any]:
    """Errors, buckets and intervals, for every group; only ages that are known exactly."""
    rows = {}
    for name, group in groups_of(subjects).items():
        exact = [s for s in group if s.person.age is not None]
        seen = [s for s in exact if s.face and s.face.age]
        truth = np.array([s.person.age for s in seen], np.float64)
        if exact:
            told = _age_row([s.face.age for s in seen if s.face], truth) if seen else {}
            rows[name] = {"n": len(exact), "missed": len(exact) - len(seen), **told}
    return rows


def _age_row(estimates: Sequence[Any], truth: Floats) -> dict[str, Any]:
    values, lows, highs = np.array([(age.value, age.low, age.high) for age in estimates], np.float64).T
    inside = [(BUCKET_LABELS.index(age.bucket), _true_bucket(true)) for age, true in zip(estimates, truth, strict=True)]
    steps = np.array([abs(said - true) for said, true in inside if true is not None])
    return {
        "error": _dict(mean(np.abs(values - truth))),
        "bias": round(float((values - truth).mean()), 2),
        "bucket_exact": _dict(mean(steps == 0)),
        "bucket_one_off": _dict(mean(steps <= 1)),
        "interval_holds": _dict(mean((lows <= truth) & (truth <= highs))),
        "interval_width": _dict(mean(highs - lows)),
    }


def _true_bucket(age: float) -> int | None:
    """The bucket that holds an age; None in a gap between two."""
    bucket = nearest_bucket(age)
    return bucket if BUCKETS[bucket][0] <= age <= BUCKETS[bucket][1] else None


def age_ranges(subjects: Sequence[Subject]) -> dict[str, Any]:
    """Where only a range of ages is known: how often the value lies in it."""
    rows: dict[str, list[bool]] = {}
    for subject in subjects:
        youngest, oldest = subject.person.youngest, subject.person.oldest
        if youngest is not None and oldest is not None and youngest != oldest and subject.face and subject.face.age:
            hit = youngest <= subject.face.age.value < oldest + 1
            rows.setdefault(subject.picture.source, []).append(hit)
    return {source: _dict(mean(hits)) for source, hits in sorted(rows.items())}


def statuses(subjects: Sequence[Subject]) -> dict[str, Any]:
    """How many faces are published as ok, uncertain and low_quality, by age: no age is a fault of the picture."""
    return {
        name: {
            status: sum(1 for s in group if s.face and s.face.status == status)
            for status in ("ok", "uncertain", "low_quality")
        }
        for name, group in groups_of(subjects).items()
        if name == "all" or name.startswith("age ")
    }


# ── on faces that were not learned from ──────────────────────────────────────────────────────────


def held_out(evidence: Evidence, judgement: Judgement, decisions: Floats, adults: Any) -> dict[str, Any]:
    """The headline figures of judgements by tables that were fitted without the face in question."""
    known = np.isfinite(evidence.genders)
    female = judgement.female[known]
    right = (female >= 0.5) == (evidence.genders[known] == 1)
    sure = np.maximum(female, 1 - female)
    decided = sure >= decisions[known]
    women = evidence.genders[known] == 1
    both = women.any() and not women.all()
    aged = np.flatnonzero(np.isfinite(evidence.ages))
    return {
        "gender": _dict(mean(right)),
        "gender_adults": _dict(mean(right[adults[known]])),
        "women_minus_men": round(float(right[women].mean() - right[~women].mean()), 4) if both else None,
        "answered": round(float(decided.mean()), 4),
        "when_answering": _dict(mean(right[decided])),
        **_probability_row(sure, right),
        **_age_row([judgement.ages[index] for index in aged], evidence.ages[aged]),
        "by_source": {
            str(source): _source_row(evidence, judgement, evidence.sources == source)
            for source in np.unique(evidence.sources)
        },
    }


def _source_row(evidence: Evidence, judgement: Judgement, theirs: Any) -> dict[str, Any]:
    known = theirs & np.isfinite(evidence.genders)
    aged = np.flatnonzero(theirs & np.isfinite(evidence.ages))
    row: dict[str, Any] = {"gender": _dict(mean((judgement.female[known] >= 0.5) == (evidence.genders[known] == 1)))}
    if len(aged):
        row |= _age_row([judgement.ages[index] for index in aged], evidence.ages[aged])
    return row


def _dict(figure: Figure | None) -> dict[str, Any] | None:
    return None if figure is None else figure.as_dict()


def _span(low: float, high: float, endless: float = 100_000) -> str:
    return f"{low:g}+" if high >= endless else f"{low:g}–{high - 1:g}"
