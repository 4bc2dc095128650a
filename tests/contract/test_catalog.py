"""What every row of the catalog must hold; a new row is tested by being there."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from tests.fakes import FakeSession

from dulian.calibration import Calibration
from dulian.errors import UnknownNameError
from dulian.factory import check_profile, load_calibration, make_detector, make_estimator
from dulian.models.catalog import PROFILES, SAMPLES, all_rows, find_profile
from dulian.models.classifier import Classifier
from dulian.models.networks import DLIB_AGE, DLIB_GENDER
from dulian.models.rows import ModelRow, Package, SquareCrop, WeightsFile
from dulian.runtimes import find_runtime, load_runtime
from dulian.store import ModelStore

ROWS = {row.name: row for row in all_rows()}
FETCHED = {file.name: file for row in ROWS.values() for file in row.files} | {file.name: file for file in SAMPLES}
PACKAGES: dict[str, Package] = {
    source.package.requirement: source.package for file in FETCHED.values() for source in file.sources
}


@pytest.mark.parametrize("file", FETCHED.values(), ids=FETCHED)
def test_every_fetched_file_has_a_hash_a_size_and_a_source(file: WeightsFile) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
    assert file.size > 0
    assert file.sources


@pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)
def test_every_package_is_pinned(package: Package) -> None:
    spelled = {"pypi": r"[a-z0-9-]+==[0-9.]+", "npm": r"@[a-z0-9-]+/[a-z0-9-]+@[0-9.]+"}
    assert re.fullmatch(spelled[package.registry], package.requirement)
    assert re.fullmatch(r"[0-9a-f]{64}", package.sha256)
    assert package.archive_bytes > 0
    assert package.licence


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_row_is_complete(row: ModelRow) -> None:
    assert row.provides
    assert re.fullmatch(r"[0-9a-f]{64}", row.weights.sha256)
    assert bool(row.recipe) == bool(row.originals)
    assert all([row.licence_code, row.licence_weights, row.trained_on, row.origin])
    if row.provides != {"detection"}:
        assert row.crop is not None
        assert row.input_wh == (row.crop.side, row.crop.side)
        assert row.age_output or not row.age_years
        assert bool(row.gender_output) == bool(row.gender_labels)


def test_names_and_aliases_are_used_once() -> None:
    names = [name for file in FETCHED.values() for name in (file.name, *file.aliases)]
    assert len(set(names)) == len(names)


@pytest.mark.weights
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_row_loads_and_answers_in_its_own_shape(model_store: ModelStore, row: ModelRow) -> None:
    runtime = find_runtime("onnxruntime")
    session = load_runtime(runtime).open_weights(model_store.load(row), threads=1).new_session()
    image = np.random.default_rng(0).integers(0, 255, (227, 227, 3), np.uint8)
    if row.provides == {"detection"}:
        profile = next(profile for profile in PROFILES.values() if profile.detector == row)
        outcome = make_detector(profile, session).detect(image, min_confidence=0.99)
        assert outcome.detections == ()
        return
    estimator = make_estimator(row, session)
    crops = [np.full((estimator.crop.side, estimator.crop.side, 3), shade, np.uint8) for shade in range(0, 250, 25)]
    scores = estimator.estimate(crops)
    if row.age_output:
        assert scores.age is not None
        assert scores.age.probabilities.shape == (10, len(row.age_years) or 1)
        np.testing.assert_allclose(scores.age.probabilities.sum(axis=1), 1, atol=1e-4)
    if row.gender_output:
        assert scores.female is not None
        assert scores.female.shape == (10,)
        assert ((scores.female >= 0) & (scores.female <= 1)).all()


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_profile_is_whole_and_calibrated(profile) -> None:  # type: ignore[no-untyped-def]
    check_profile(profile, Calibration.from_dict(load_calibration(profile)))
    assert frozenset().union(*(row.provides for row in profile.rows)) == {"detection", "age", "gender"}
    coverages = load_calibration(profile)["age"]["coverages"]
    assert coverages[0] <= 0.5
    assert coverages[-1] >= 0.99


@pytest.mark.parametrize(
    ("estimators", "told"),
    [
        (
            (DLIB_AGE, DLIB_GENDER, replace(DLIB_AGE, name="another")),
            "the age table and the networks differ in another",
        ),
        (
            (DLIB_AGE, replace(DLIB_GENDER, name="other")),
            "the gender table and the networks differ in dlib_gender, other",
        ),
        ((DLIB_AGE, DLIB_GENDER, DLIB_AGE), "two networks of the same name"),
    ],
)
def test_networks_that_no_table_knows_are_refused(estimators: tuple[ModelRow, ...], told: str) -> None:
    standard = PROFILES["standard"]
    with pytest.raises(UnknownNameError, match=told):
        check_profile(replace(standard, estimators=estimators), Calibration.from_dict(load_calibration(standard)))


def test_an_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="choose from standard, accurate, classic, classic-article"):
        find_profile("best")


def test_only_networks_that_are_always_fed_alike_keep_their_buffers() -> None:
    assert {row.name for profile in PROFILES.values() for row in profile.rows if row.one_shape} == {
        *("res10_ssd", "age_net", "gender_net", "age_net_bare", "gender_net_bare")
    }


def test_a_joint_net_is_just_a_row_that_provides_both() -> None:
    row = ModelRow(
        name="joint",
        family="classifier",
        weights=DLIB_AGE.weights,
        input_wh=(8, 8),
        colour_order="bgr",
        crop=SquareCrop(margin=0.1, side=8),
        age_output="age",
        age_years=(10.0, 30.0),
        gender_output="gender",
        gender_labels=("male", "female"),
        licence_code="-",
        licence_weights="-",
        trained_on="-",
        origin="-",
    )
    session = FakeSession(age=np.float32([[0.25, 0.75]]), gender=np.float32([[0.9, 0.1]]))
    joint = Classifier(row, session)
    assert row.provides == joint.provides == {"age", "gender"}
    scores = joint.estimate([np.zeros((8, 8, 3), np.uint8)])
    assert scores.age is not None
    assert scores.age.probabilities.tolist() == [[0.25, 0.75]]
    assert scores.female == pytest.approx([0.1])
    assert len(session.seen) == 1
