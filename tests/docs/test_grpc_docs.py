"""docs/grpc.md against the service: its example runs, its statuses, limits and names are those of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.docs.pages import python_blocks, row_of, rows, text_of
from tests.pictures import picture, save
from tests.service.rpcs import calling
from tests.service.services import FakeAnalysis
from tests.service.test_grpc import RESULTS

from dulian.service.limits import GuardLimits, ServiceLimits
from dulian.service.rpc import calls, inference, server, status
from dulian.service.rpc.calls import Reading
from dulian.service.rpc.status import CODES

PAGE = text_of("grpc.md")
FLAT = " ".join(PAGE.split())


def test_the_client_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (example,) = python_blocks(PAGE)
    (tmp_path / "me.jpg").write_bytes(save(picture(), "JPEG"))
    monkeypatch.chdir(tmp_path)
    with calling(FakeAnalysis()) as run:
        image = run.service.analyze(b"x", _options())[1]
        run.service.analyze = lambda data, options: (RESULTS["no gender"], image)
        exec(example.replace("127.0.0.1:50051", run.target), {})
    assert capsys.readouterr().out == "x 26-37\n"


def _options() -> Any:
    from dulian.analyzer import AnalyzeOptions

    return AnalyzeOptions()


def test_statuses_are_described() -> None:
    table = [row for row in rows(PAGE) if re.fullmatch(r"[0-9, ]+", row[1])]
    told = {}
    for codes, numbers, _ in table:
        names, statuses = re.findall(r"`(\w+)`", codes), [int(number) for number in numbers.split(", ")]
        told |= zip(statuses, names if len(names) == len(statuses) else names * len(statuses), strict=True)
    assert told == {number: code.name for number, code in CODES.items()}


def test_metadata_is_described() -> None:
    for key in (status.ERROR_CODE, status.DETAILS, status.REQUEST_ID):
        assert row_of(PAGE, f"`{key}`")[2]
    assert all(f"`{key}" in PAGE for key in calls.KNOWN)
    assert f"`domain` is `{status.DOMAIN}`" in FLAT


def test_limits_are_described() -> None:
    limits, guard = ServiceLimits(), GuardLimits()
    places = Reading(limits).places
    assert f"and {server.MESSAGE_OVERHEAD >> 10} KiB for what is beside" in FLAT
    assert FLAT.count(f": {places} |") == 2
    assert f"{calls.PATIENCE_S:.0f} when another call waits" in FLAT
    assert f"| {server.STREAMS_PER_CONNECTION}; `max_connections` each |" in FLAT
    assert f"closed after {server.IDLE_MS // 60_000} minutes" in FLAT
    assert f"one in {server.MIN_PING_INTERVAL_MS // 1000} seconds" in FLAT
    waits = f"after {server.KEEPALIVE_MS // 1000} silent seconds the service pings, and waits"
    assert f"{waits} {server.KEEPALIVE_TIMEOUT_MS // 1000}" in FLAT
    assert guard.connections == 512


def test_services_and_calls_are_described() -> None:
    assert all(row_of(PAGE, f"`{name}`")[1] for name in server.SERVICES)
    assert all(f"`{method.rpartition('/')[2]}`" in PAGE for method in inference.ANSWERS)
