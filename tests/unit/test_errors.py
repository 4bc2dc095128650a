from __future__ import annotations

import re

from dulian import errors
from dulian.cli.app import exit_code
from dulian.errors import DulianError


def all_errors(base: type[DulianError] = DulianError) -> set[type[DulianError]]:
    return {base}.union(*(all_errors(kind) for kind in base.__subclasses__()))


def test_every_error_has_a_code_of_its_own() -> None:
    kinds = {kind for kind in all_errors() if kind.__module__.startswith("dulian")}
    codes = [kind.__dict__.get("code") for kind in kinds]
    assert None not in codes
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or "")) | {"DulianError"}
    assert drawn == {kind.__name__ for kind in all_errors() if kind.__module__ == "dulian.errors"}


def test_every_error_has_an_exit_code() -> None:
    assert {exit_code(kind("")) for kind in all_errors()} <= {1, 2, 3, 4}
    assert exit_code(errors.ImageTruncatedError("")) == 2
    assert exit_code(errors.WeightsError("")) == 3
    assert exit_code(errors.OverloadedError("")) == 4
    assert exit_code(errors.SharedSessionError("")) == 1
