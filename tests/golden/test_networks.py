"""Shipped answers of every network, and what is found by them: engines and machines that compute wrongly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dulian.errors import GoldenError
from dulian.factory import open_profile
from dulian.models.catalog import PROFILES, all_rows
from dulian.models.rows import ModelRow
from dulian.runtimes import RUNTIMES, Precision, Session, Tensor
from dulian.service import golden
from dulian.service.golden import check_factory, check_session, fixed_input, golden_answers, sample
from dulian.store import ModelStore
from tests.contract.test_runtimes import OPENCV_MAJOR
from tests.fakes import FakeSession
from tests.golden.networks import open_session

ROWS = {row.name: row for row in all_rows()}
ENGINES: list[tuple[str, Precision]] = [*((name, "f32") for name in RUNTIMES), ("openvino", "bf16")]

pytestmark = pytest.mark.weights


@pytest.fixture(params=list(ROWS))
def row(request: pytest.FixtureRequest) -> ModelRow:
    return ROWS[request.param]


def test_every_network_has_answers_and_there_are_no_others() -> None:
    originals = {file.sha256 for row in all_rows() for file in row.originals}
    assert set(golden_answers()) - originals == {row.weights.sha256 for row in all_rows()}


@pytest.mark.parametrize(("engine", "precision"), ENGINES)
def test_every_engine_answers_as_it_must(
    model_store: ModelStore, row: ModelRow, engine: str, precision: Precision
) -> None:
    if engine == "opencv-caffe" and (row.recipe != "caffe" or OPENCV_MAJOR >= 5):
        pytest.skip("no Caffe original, or an OpenCV that cannot read it")
    check_session(row, open_session(model_store, row, engine, precision=precision), engine, precision)


def test_the_shipped_answers_are_those_of_the_reference(model_store: ModelStore, row: ModelRow) -> None:
    """After a change of the input or of a network: python -m tests.golden.networks."""
    outputs = open_session(model_store, row, "onnxruntime").run(fixed_input(row))
    shipped = golden_answers()[row.weights.sha256]
    assert set(outputs) == set(shipped)
    for name, output in outputs.items():
        np.testing.assert_allclose(sample(output), shipped[name], rtol=1e-4, atol=1e-4)


class Disturbed(Session):
    """A network with something between it and whoever asks it."""

    def __init__(self, inner: Session, disturb: Callable[[Tensor], Tensor], *, before: bool = False) -> None:
        super().__init__()
        self._inner = inner
        self._disturb = disturb
        self._before = before

    def _run(self, tensor: Tensor) -> dict[str, Tensor]:
        if self._before:
            return self._inner.run(self._disturb(tensor))
        return {name: self._disturb(output) for name, output in self._inner.run(tensor).items()}


DISTURBANCES: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "nothing but zeros": (np.zeros_like, False),
    "no numbers": (lambda output: np.full_like(output, np.nan), False),
    "a hundredth more": (lambda output: output * np.float32(1.01), False),
    "turned round": (lambda output: np.ascontiguousarray(output.reshape(-1)[::-1]), False),
    "colours swapped": (lambda tensor: np.ascontiguousarray(tensor[:, ::-1]), True),
    "in a mirror": (lambda tensor: np.ascontiguousarray(tensor[..., ::-1]), True),
}


@pytest.mark.parametrize("kind", DISTURBANCES)
def test_what_is_wrong_with_an_engine_is_found(model_store: ModelStore, row: ModelRow, kind: str) -> None:
    disturb, before = DISTURBANCES[kind]
    session = Disturbed(open_session(model_store, row, "onnxruntime"), disturb, before=before)
    with pytest.raises(GoldenError, match=f"an-engine computes wrongly on this machine: .* of {row.name} is off by"):
        check_session(row, session, "an-engine", "f32")


def test_other_weights_are_found(model_store: ModelStore) -> None:
    age, gender = ROWS["age_net"], ROWS["gender_net"]
    with pytest.raises(GoldenError, match="inf of its size"):
        check_session(age, open_session(model_store, gender, "onnxruntime"), "onnxruntime", "bf16")


def test_of_a_network_of_ones_own_only_numbers_are_asked() -> None:
    known = ROWS["dlib_gender"]
    own = replace(known, name="own", weights=replace(known.weights, sha256="0" * 64))
    check_session(own, FakeSession(prob=np.float32([[0.5, 0.5]])), "onnxruntime", "f32")
    with pytest.raises(GoldenError, match="with something that is no number"):
        check_session(own, FakeSession(prob=np.float32([[0.5, np.inf]])), "onnxruntime", "f32")


class Broken:
    """A session factory whose sessions answer with zeros."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def new_session(self) -> Session:
        return Disturbed(self._inner.new_session(), np.zeros_like)


@pytest.mark.parametrize("which", ["sessions", "solo_sessions"])
def test_every_network_that_is_open_is_tried_once(
    model_store: ModelStore, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = PROFILES["standard"]
    factory = open_profile(profile, model_store, threads=1, workers=2, solo_threads=2)
    tried: list[str] = []
    monkeypatch.setattr(golden, "check_session", lambda row, *_: tried.append(row.name))
    check_factory(factory, "f32")
    monkeypatch.undo()
    assert sorted(tried) == sorted([*(row.name for row in profile.rows), profile.detector.name])
    for row in profile.rows:
        opened = getattr(factory, which)
        with pytest.raises(GoldenError, match=row.name):
            check_factory(replace(factory, **{which: {**opened, row.name: Broken(opened[row.name])}}), "f32")
