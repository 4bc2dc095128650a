from __future__ import annotations

import re

import pytest
from tests.docs.pages import rows, text_of

from dulian import errors
from dulian.errors import DulianError
from dulian.service.status import INTERNAL, ROUTING, STATUSES, http_status, told


def all_errors(base: type[DulianError] = DulianError) -> list[type[DulianError]]:
    kinds = [base, *(kind for child in base.__subclasses__() for kind in all_errors(child))]
    return [kind for kind in kinds if kind.__module__.startswith("dulian")]


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.code)
def test_every_error_is_mapped_by_itself_or_an_ancestor_of_its_own(kind: type[DulianError]) -> None:
    mapped = [ancestor for ancestor in kind.__mro__ if ancestor in STATUSES]
    assert kind is DulianError or mapped[0] is not DulianError
    assert http_status(kind("")) == STATUSES[mapped[0]]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.MalformedInputError, 400),
        (errors.AccessError, 401),
        (errors.InputNotFoundError, 404),
        (errors.SlowClientError, 408),
        (errors.InputTooLargeError, 413),
        (errors.UnsupportedImageError, 415),
        (errors.UnsupportedMediaError, 415),
        (errors.ImageTruncatedError, 422),
        (errors.SharedSessionError, 500),
        (errors.WeightsError, 503),
        (errors.DrainingError, 503),
        (errors.DeadlineError, 504),
        (errors.DulianError, INTERNAL),
    ],
)
def test_statuses_are_those_of_the_contract(kind: type[DulianError], status: int) -> None:
    assert http_status(kind("")) == status


def test_what_is_ours_to_mend_is_not_told() -> None:
    assert "/secret" not in told(errors.WeightsError("/secret/net.onnx is damaged"))
    assert "(3, 4)" not in told(errors.InferenceError("shape (3, 4)"))
    assert told(errors.MalformedInputError("max_faces 0 is too few")) == "max_faces 0 is too few"
    assert told(errors.DeadlineError()) == "deadline_exceeded"


def test_the_documented_statuses_are_those_of_the_code() -> None:
    section = text_of("errors.md").split("## Over HTTP")[1]
    documented = {int(row[0]): set(re.findall(r"`([a-z_]+)`", row[1])) for row in rows(section) if row[0].isdigit()}
    mapped: dict[int, set[str]] = {status: {code} for status, (code, _) in ROUTING.items()}
    for kind in all_errors():
        mapped.setdefault(http_status(kind("")), set()).add(kind.code)
    assert documented == mapped
