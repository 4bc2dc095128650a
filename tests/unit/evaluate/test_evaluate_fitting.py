"""Tables fitted to invented people whose truth is known: what comes out is near it, on others too."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from labelled_faces import box, face, person, picture, subject
from numpy.typing import NDArray

from dulian.calibration import Calibration
from dulian.errors import MalformedInputError
from dulian.evaluate import fitting
from dulian.evaluate.evidence import Evidence, collect, fit_to_learn_from, judge
from dulian.evaluate.fitting import (
    BAND_STARTS,
    COVERAGES,
    ENOUGH,
    KNOTS,
    MIN_ANSWERED,
    MIN_FACES,
    POOR_BELOW,
    Splits,
    by_source,
    by_tenths,
    conformal_quantile,
    cross_validate,
    fit,
)
from dulian.models import AgeScores, AttributeScores

Floats = NDArray[np.float64]
YEARS = np.arange(0, 101, dtype=np.float64)


def in_years(said: Floats) -> AgeScores:
    """What a network says that answers in years."""
    return AgeScores(np.ones((len(said), 1), np.float32), said[:, None])


def sigmoid(odds: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-odds)))


def spread_at(ages: Floats) -> Floats:
    return 1.5 + 0.08 * ages


def plus_five_in_the_middle(ages: Floats) -> Floats:
    return np.where((ages >= 30) & (ages <= 50), 5.0, 0.0)


def never(ages: Floats) -> Floats:
    return np.zeros(len(ages))


def people(
    count: int = 3000,
    *,
    seed: int = 0,
    youngest: float = 0,
    oldest: float = 80,
    bias: Callable[[Floats], Floats] = never,
    spread: Callable[[Floats], Floats] = spread_at,
    sureness: float = 2.0,
    child_sureness: float = 1.0,
    shown: float = 2.0,
    useless: bool = False,
) -> Evidence:
    """One network for ages, and one for genders whose log odds are ``sureness`` times what they should be.

    ``shown`` is how widely those spread that the faces really give.
    """
    rng = np.random.default_rng(seed)
    ages = rng.uniform(youngest, oldest, count).round()
    said = ages + bias(ages) + rng.normal(0, 1, count) * spread(ages)
    odds = rng.normal(0, shown, count)
    grown = child_sureness + (1 - child_sureness) * np.clip(ages / 25, 0, 1)
    genders = (rng.random(count) < sigmoid(odds * grown)).astype(np.float64)
    age_scores, female = {"age": in_years(said)}, {"gender": sigmoid(sureness * odds)}
    if useless:
        age_scores["useless age"] = in_years(rng.uniform(0, 80, count))
        female["useless gender"] = rng.uniform(0.02, 0.98, count)
    return Evidence(
        ages=ages,
        genders=genders,
        files=np.array([f"{number}.jpg" for number in range(count)]),
        sources=np.array(["a", "b", "c"])[rng.integers(0, 3, count)],
        qualities=np.full(count, 0.8),
        age_scores=age_scores,
        female=female,
    )


def table_of(evidence: Evidence, small: Evidence | None = None, *, article: bool = False) -> Calibration:
    return Calibration.from_dict(fit(evidence, small, article=article))


def values(evidence: Evidence, table: Calibration) -> Floats:
    return np.array([age.value for age in judge(evidence, table).ages])


def coverage(evidence: Evidence, table: Calibration, asked: float = 0.9) -> float:
    ages = judge(evidence, table, asked).ages
    return float(np.mean([age.low <= true <= age.high for age, true in zip(ages, evidence.ages, strict=True)]))


# ── ages ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_bias_is_taken_back_where_it_is_and_nowhere_else() -> None:
    biased, fresh = (people(seed=seed, bias=plus_five_in_the_middle) for seed in (0, 1))
    table = table_of(biased)
    shifts = dict(zip(table.age.knots, table.age.shifts, strict=True))
    # from 28 to 65 one knot must do, so it takes back a little less
    assert shifts[45.0] == pytest.approx(-4, abs=0.8)
    assert all(abs(shifts[knot]) < 1 for knot in (6.0, 15.0, 65.0))
    error = values(fresh, table) - fresh.ages
    middle = (fresh.ages >= 38) & (fresh.ages <= 47)
    assert abs(np.median(error[middle])) < 2.5
    bare = fresh.age_scores["age"].years[:, 0] - fresh.ages
    assert np.median(bare[middle]) == pytest.approx(5, abs=0.6)
    assert abs(np.median(error[fresh.ages < 20])) < 0.5


def test_who_errs_nowhere_is_not_corrected() -> None:
    """But at the ends, where nobody is younger or older, who seems so is rightly drawn inwards."""
    first, *shifts, last = table_of(people()).age.shifts
    assert max(map(abs, shifts)) < 1
    assert first > 0 > last


def test_what_is_usual_is_learned_and_not_what_is_far_off() -> None:
    """A tenth of wild errors moves no shift."""
    evidence = people()
    said = evidence.age_scores["age"].years.copy()
    said[::10] += 40
    shifts = table_of(replace(evidence, age_scores={"age": in_years(said[:, 0])})).age.shifts
    assert max(map(abs, shifts[:-1])) < 1.5


def test_a_useless_network_has_next_to_no_weight() -> None:
    table = table_of(people(useless=True))
    assert table.age.sources["age"].weight == pytest.approx(1, abs=0.04)
    assert table.age.sources["useless age"].weight == pytest.approx(0, abs=0.04)
    assert table.gender.sources["useless gender"] == pytest.approx(0, abs=0.04)
    assert table.gender.sources["gender"] == pytest.approx(0.5, abs=0.05)


def test_twins_share_the_weight() -> None:
    evidence = people()
    twins = {"age": evidence.age_scores["age"], "twin": evidence.age_scores["age"]}
    weights = [source.weight for source in table_of(replace(evidence, age_scores=twins)).age.sources.values()]
    assert weights == pytest.approx([0.5, 0.5], abs=1e-3)


def test_a_temperature_is_chosen_that_helps() -> None:
    """A network whose mean is right only when its answers are spread a good deal."""
    rng = np.random.default_rng(0)
    evidence = people(600, oldest=70)
    means = evidence.ages[:, None]
    # two modes 20 years apart: the nearer one is believed 4 times as much as it should be in log odds
    true_share = rng.uniform(0.2, 0.8, 600)[:, None]
    low, high = means - 20 * (1 - true_share), means + 20 * true_share
    odds = 2 * np.log(true_share / (1 - true_share))
    share = 1 / (1 + np.exp(-odds))
    scores = AgeScores(np.hstack([share, 1 - share]).astype(np.float32), np.hstack([low, high]))
    table = table_of(replace(evidence, age_scores={"age": scores})).age
    assert table.sources["age"].temperature == 2.0


@pytest.mark.parametrize("asked", [0.5, 0.8, 0.9, 0.95])
def test_intervals_hold_as_often_as_they_say_on_people_never_seen(asked: float) -> None:
    learned, fresh = people(seed=0), people(seed=1)
    assert coverage(fresh, table_of(learned), asked) == pytest.approx(asked, abs=0.025)


def test_intervals_hold_in_every_band_of_age() -> None:
    learned, fresh = people(seed=0), people(4000, seed=1)
    table = table_of(learned)
    for start, end in zip(BAND_STARTS, (*BAND_STARTS[1:], 100.0), strict=True):
        band = fresh.some(np.flatnonzero((fresh.ages >= start) & (fresh.ages < end)))
        assert coverage(band, table) == pytest.approx(0.9, abs=0.05)


def test_intervals_are_as_wide_as_the_errors() -> None:
    learned, fresh = people(seed=0), people(seed=1)
    ages = judge(fresh, table_of(learned)).ages
    widths = np.array([age.high - age.low for age in ages])
    for start, end in ((20, 28), (35, 45), (60, 70)):
        chosen = (fresh.ages >= start) & (fresh.ages < end)
        assert widths[chosen].mean() == pytest.approx(2 * 1.645 * spread_at(fresh.ages[chosen]).mean(), rel=0.15)


def test_corrected_ages_keep_their_order_whatever_is_learned() -> None:
    """Children seem the older the younger they are: the correction may make them alike, never swap them."""
    evidence = people(4000, oldest=40)
    said = np.where(evidence.ages < 15, 15 - evidence.ages, evidence.ages)
    table = table_of(replace(evidence, age_scores={"age": in_years(said)})).age
    assert np.diff(table.corrected(np.linspace(-5, 120, 2501))).min() > -1e-9
    biased = table_of(people(bias=plus_five_in_the_middle)).age
    assert np.diff(biased.corrected(np.linspace(-5, 120, 2501))).min() > -1e-9


def test_an_age_of_which_there_is_nobody_has_the_intervals_of_all() -> None:
    table = table_of(people(600, youngest=20, oldest=45)).age
    children, young, adults, old = table.quantiles
    assert children == old
    assert adults != children != young
    assert len(table.estimate({"age": in_years(np.array([5.0, 75.0]))}, [1.0, 1.0], 0.9)) == 2


def test_a_conformal_quantile_by_hand() -> None:
    errors = np.array([3.0, 1, 2, 5, 4, 9, 8, 7, 6])
    assert [conformal_quantile(errors, share) for share in (0.5, 0.51, 0.8, 0.9, 0.99)] == [5, 6, 8, 9, 9]


# ── poor pictures ────────────────────────────────────────────────────────────────────────────────


def blurred(evidence: Evidence, factor: float, quality: float = 0.1) -> Evidence:
    """The same people, whose ages are told so much worse."""
    said = evidence.ages + factor * (evidence.age_scores["age"].years[:, 0] - evidence.ages)
    return replace(evidence, qualities=np.full(len(evidence), quality), age_scores={"age": in_years(said)})


def test_intervals_of_poor_pictures_are_widened_by_what_it_takes() -> None:
    evidence = people()
    small = blurred(evidence, 3.0)
    plain, table = table_of(evidence), table_of(evidence, small)
    assert table.age.poor_factor > 1.5
    assert (plain.age.poor_factor, table.age.poor_below) == (1.0, POOR_BELOW)
    assert replace(table.age, poor_factor=1.0) == plain.age
    assert coverage(small, plain) < 0.7
    assert coverage(small, table) == pytest.approx(0.9, abs=0.02)
    assert coverage(evidence, table) == coverage(evidence, plain)


@pytest.mark.parametrize(
    ("count", "quality", "factor"),
    [(MIN_FACES - 1, 0.1, 3.0), (3000, POOR_BELOW, 3.0), (3000, 0.1, 0.1)],
    ids=["too few", "not poor", "no worse"],
)
def test_nothing_else_widens_an_interval(count: int, quality: float, factor: float) -> None:
    evidence = people()
    small = blurred(evidence, factor, quality).some(np.arange(count))
    assert table_of(evidence, small).age.poor_factor == 1.0


# ── genders ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sureness", [1.0, 2.0, 4.0])
def test_a_network_that_is_too_sure_is_believed_less(sureness: float) -> None:
    # beyond its limit certainty counts no more, which is soon reached by a network that is four times too sure
    weight = table_of(people(sureness=sureness)).gender.sources["gender"]
    assert weight == pytest.approx(1 / sureness, rel=0.1 if sureness < 4 else 0.25)


def test_faces_of_children_tell_less() -> None:
    table = table_of(people(6000, oldest=40, child_sureness=0.4)).gender
    assert table.young_factor == pytest.approx(0.4, abs=0.15)
    assert table.sources["gender"] == pytest.approx(0.5, abs=0.06)
    assert table_of(people(6000, oldest=40)).gender.young_factor >= 0.85


def test_a_gender_is_learned_beside_the_age_of_its_own_face() -> None:
    evidence = people(8000, oldest=40, child_sureness=0.4)
    genders = np.where(np.arange(8000) < 2000, np.nan, evidence.genders)
    table = table_of(replace(evidence, genders=genders)).gender
    assert table.young_factor == pytest.approx(0.4, abs=0.15)


def test_probabilities_mean_what_they_say() -> None:
    fresh = people(seed=1)
    female = judge(fresh, table_of(people(seed=0))).female
    for low in (0.1, 0.3, 0.5, 0.7):
        chosen = (female >= low) & (female < low + 0.2)
        assert fresh.genders[chosen].mean() == pytest.approx(female[chosen].mean(), abs=0.06)


def answered(evidence: Evidence, table: Calibration) -> float:
    female = judge(evidence, table).female
    return float((np.maximum(female, 1 - female) >= table.gender.decision).mean())


def test_genders_are_given_from_where_seven_of_ten_are_right() -> None:
    """Of honest probabilities from 0.65 to 0.75, 70 % are right; so few are below that nearly all are answered."""
    evidence = people(8000, shown=6.0)
    table = table_of(evidence)
    assert table.gender.decision == pytest.approx(0.65, abs=0.04)
    assert answered(evidence, table) > MIN_ANSWERED


def test_most_genders_are_given_however_hard_they_are_to_tell() -> None:
    evidence = people(4000, shown=1.0)
    table = table_of(evidence)
    assert 0.5 < table.gender.decision < 0.6
    assert answered(evidence, table) == pytest.approx(MIN_ANSWERED, abs=0.04)


def test_a_network_that_is_right_by_chance_is_not_believed() -> None:
    """However sure it is: from far away, whole steps of Newton's method lead astray."""
    evidence = people(shown=4.0)
    coins = np.random.default_rng(5).integers(0, 2, len(evidence)).astype(np.float64)
    table = table_of(replace(evidence, genders=coins)).gender
    assert abs(table.sources["gender"]) < 0.05
    assert 0.5 <= table.decision < 0.55


# ── the table itself ─────────────────────────────────────────────────────────────────────────────


def test_the_table_survives_json_and_is_the_same_every_time() -> None:
    evidence = people(800, useless=True)
    small = replace(blurred(people(800), 2.0), age_scores=evidence.age_scores)
    data = fit(evidence, small)
    again = json.loads(json.dumps(data, allow_nan=False))
    assert again == data == fit(evidence, small)
    assert Calibration.from_dict(again) == Calibration.from_dict(data)
    assert (data["age"]["faces"], data["gender"]["faces"]) == (800, 800)
    assert tuple(data["age"]["coverages"]) == COVERAGES
    assert tuple(data["age"]["knots"]) == KNOTS


def test_quantiles_rise_with_coverage() -> None:
    for band in table_of(people(800)).age.quantiles:
        assert list(band) == sorted(band)
        assert band[0] > 0


def test_each_attribute_is_learned_from_those_of_whom_it_is_known() -> None:
    whole = people(1000)
    ages, genders = whole.ages.copy(), whole.genders.copy()
    ages[::4], genders[1::4] = np.nan, np.nan
    partly = replace(whole, ages=ages, genders=genders)
    data = fit(partly)
    assert (data["age"]["faces"], data["gender"]["faces"]) == (750, 750)
    kept = fit(whole.some(np.flatnonzero(np.isfinite(ages))))
    assert data["age"] == kept["age"]
    json.dumps(data, allow_nan=False)


def test_too_few_faces_are_refused_with_how_many_it_takes() -> None:
    assert fit(people(ENOUGH))["age"]["faces"] == ENOUGH
    with pytest.raises(MalformedInputError, match=f"{ENOUGH - 1} exact ages.*{ENOUGH} of each"):
        fit(people(ENOUGH - 1))
    nobody = replace(people(1000), genders=np.full(1000, np.nan))
    with pytest.raises(MalformedInputError, match="1000 exact ages and 0 genders"):
        fit(nobody)


def test_as_the_articles_do_it_only_the_intervals_are_fitted() -> None:
    rng = np.random.default_rng(0)
    evidence = people(1000, bias=plus_five_in_the_middle)
    said = np.clip(evidence.age_scores["age"].years[:, 0].round(), 0, 100)
    # the likeliest year leads by little, and a second bump far away would draw the mean
    shares = 0.4 * np.exp(-((YEARS - said[:, None]) ** 2) / 8) + 0.3 * np.exp(
        -((YEARS - rng.integers(0, 100, (1000, 1))) ** 2) / 8
    )
    likeliest = YEARS[shares.argmax(axis=1)]
    evidence = replace(evidence, age_scores={"age": AgeScores((shares / shares.sum(1, keepdims=True)), YEARS)})
    table = table_of(evidence, article=True)
    assert table.age.shifts == (0.0,) * len(KNOTS)
    assert values(evidence, table) == pytest.approx(likeliest, abs=0.3)
    assert np.abs(values(evidence, table_of(evidence)) - likeliest).mean() > 2
    assert (table.gender.sources, table.gender.young_factor, table.gender.decision) == ({"gender": 1.0}, 1.0, 0.5)
    assert judge(evidence, table).female == pytest.approx(np.clip(evidence.female["gender"], 1e-4, 1 - 1e-4))
    assert coverage(evidence, table) == pytest.approx(0.9, abs=0.02)


# ── on others ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("splits", [by_tenths, by_source])
def test_splits_hold_everybody_out_once(splits: Splits) -> None:
    evidence = people(997)
    parts = [(set(training.tolist()), set(held_out.tolist())) for training, held_out in splits(evidence)]
    assert all(training | held_out == set(range(997)) for training, held_out in parts)
    assert not any(training & held_out for training, held_out in parts)
    assert sum(len(held_out) for _, held_out in parts) == len(set().union(*(held_out for _, held_out in parts))) == 997
    if splits is by_source:
        assert [set(evidence.sources[list(held_out)]) for _, held_out in parts] == [{"a"}, {"b"}, {"c"}]
    else:
        assert {len(held_out) for _, held_out in parts} == {99, 100}


@pytest.mark.parametrize("splits", [by_tenths, by_source])
def test_nobody_is_judged_by_tables_that_saw_them(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither as they are nor in a smaller picture; nor does another face of a picture tell of them."""
    seen: list[set[str]] = []
    judged: list[set[str]] = []

    def fit_spied(evidence: Evidence, small: Evidence | None = None, **options: Any) -> dict[str, Any]:
        assert small is not None
        seen.append(set(small.files.tolist()) | {*evidence.files.tolist()})
        in_smaller.append(set(small.files.tolist()))
        return fit(evidence, small, **options)

    def judge_spied(evidence: Evidence, *rest: Any) -> Any:
        judged.append(set(evidence.files.tolist()))
        return judge(evidence, *rest)

    in_smaller: list[set[str]] = []
    monkeypatch.setattr(fitting, "fit", fit_spied)
    monkeypatch.setattr(fitting, "judge", judge_spied)
    evidence = people(400)
    cross_validate(evidence, splits, blurred(evidence, 2.0))
    assert len(seen) == len(judged) == (10 if splits is by_tenths else 3)
    assert not any(learned & told for learned, told in zip(seen, judged, strict=True))
    assert set().union(*judged) == set(evidence.files.tolist())
    # now with two people in each picture
    in_smaller.clear()
    judged.clear()
    pairs = replace(evidence, files=np.repeat(evidence.files[::2], 2))
    cross_validate(pairs, splits, blurred(pairs, 2.0))
    assert not any(learned & told for learned, told in zip(in_smaller, judged, strict=True))
    assert all(in_smaller)


def test_a_label_says_nothing_of_its_own_judgement() -> None:
    evidence = people(400)
    ages, genders = evidence.ages.copy(), evidence.genders.copy()
    ages[17], genders[17] = 80 - ages[17], 1 - genders[17]
    before, _ = cross_validate(evidence, by_tenths)
    after, _ = cross_validate(replace(evidence, ages=ages, genders=genders), by_tenths)
    assert before.ages[17] == after.ages[17]
    assert before.female[17] == after.female[17]
    assert before.ages != after.ages


def test_judgements_are_in_the_order_of_the_faces_and_the_same_every_time() -> None:
    evidence = people(600)
    judgement, decisions = cross_validate(evidence, by_source)
    assert len(judgement.ages) == len(judgement.female) == len(decisions) == 600
    for training, held_out in by_source(evidence):
        table = table_of(evidence.some(training))
        alone = judge(evidence.some(held_out), table)
        assert [judgement.ages[index] for index in held_out] == list(alone.ages)
        assert judgement.female[held_out].tolist() == alone.female.tolist()
        assert set(decisions[held_out]) == {table.gender.decision}
    again, _ = cross_validate(evidence, by_source)
    assert again.ages == judgement.ages
    assert again.female.tolist() == judgement.female.tolist()


def test_intervals_hold_on_people_held_out() -> None:
    evidence = people(1500)
    judgement, _ = cross_validate(evidence, by_tenths)
    holds = [age.low <= true <= age.high for age, true in zip(judgement.ages, evidence.ages, strict=True)]
    assert np.mean(holds) == pytest.approx(0.9, abs=0.025)


def test_what_was_told_by_article_is_held_out_by_article() -> None:
    evidence = people(400, bias=plus_five_in_the_middle)
    judgement, decisions = cross_validate(evidence, by_tenths, article=True)
    said = np.clip(evidence.age_scores["age"].years[:, 0], 0, 100)
    assert [age.value for age in judgement.ages] == pytest.approx(said.tolist())
    assert set(decisions) == {0.5}


# ── evidence ─────────────────────────────────────────────────────────────────────────────────────


def said(age: float, female: float) -> dict[str, AttributeScores]:
    return {
        "years": AttributeScores(in_years(np.array([age])), None),
        "classes": AttributeScores(AgeScores(np.eye(101, dtype=np.float32)[[round(age)]], YEARS), np.array([female])),
    }


def test_subjects_become_evidence_row_by_row() -> None:
    known = face(box(0, 0, 9))
    evidence = collect(
        [
            subject(picture("a", person(age=30, gender="female"), source="x"), known, said(31, 0.9)),
            subject(picture("b", person(age=20, oldest=29, gender="male"), source="y"), known, said(25, 0.2)),
            subject(picture("c", person(age=7), source="x"), known, said(8, 0.6)),
        ]
    )
    assert np.array_equal(evidence.ages, [30, np.nan, 7], equal_nan=True)
    assert np.array_equal(evidence.genders, [1, 0, np.nan], equal_nan=True)
    assert (evidence.files.tolist(), evidence.sources.tolist()) == (["a", "b", "c"], ["x", "y", "x"])
    assert evidence.qualities.tolist() == [0.7] * 3
    assert list(evidence.female) == ["classes"]
    assert evidence.female["classes"].tolist() == [0.9, 0.2, 0.6]
    assert evidence.age_scores["years"].years.tolist() == [[31], [25], [8]]
    assert evidence.age_scores["classes"].probabilities.argmax(axis=1).tolist() == [31, 25, 8]
    part = evidence.some(np.array([2, 0]))
    assert part.files.tolist() == ["c", "a"]
    assert part.age_scores["years"].years.tolist() == [[8], [31]]
    assert part.age_scores["classes"].years.tolist() == YEARS.tolist()


def test_only_found_faces_of_trusted_pictures_are_learned_from() -> None:
    kinds = ("face_crop", "face_context", "photo", "detect_photo")
    there = [subject(picture(kind, person(age=30), kind=kind), face(box(0, 0, 9))) for kind in kinds]
    gone = subject(picture("gone", person(age=30), kind="face_crop"), None)
    assert fit_to_learn_from([*there, gone]) == there[:2]
    with pytest.raises(MalformedInputError, match="face_crop, face_context"):
        collect([])
