"""What answers tell browsers, whose pages may ask, and what keeps pictures in memory from leaving it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse
from tests.service.services import FakeAnalysis, fake_service, served

from dulian.keys import KeysFile
from dulian.service.access import Access
from dulian.service.http import create_app
from dulian.service.security import API_HEADERS, PAGE_HEADERS, host_allowed, origin_allowed

OURS = "https://photos.example"
THEIRS = "https://evil.example"
CORS = "access-control-allow-origin"


# ── headers ──────────────────────────────────────────────────────────────────────────────────────

ALWAYS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
DATA = ALWAYS | {"content-security-policy": "default-src 'none'; frame-ancestors 'none'"}
PAGE = ALWAYS | {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:;"
    " media-src blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "permissions-policy": "camera=(self)",
}


def test_the_headers_are_these() -> None:
    for headers, expected in ((API_HEADERS, DATA), (PAGE_HEADERS, PAGE)):
        assert {name.decode(): value.decode() for name, value in headers} == expected


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """A service with a page of its own, whose analysis fails."""
    with fake_service(FakeAnalysis(error=RuntimeError("a defect")), max_body_bytes=100) as service:
        app = create_app(service)

        async def page(request: Request) -> HTMLResponse:
            return HTMLResponse("<!doctype html>")

        app.add_route("/page", page, methods=["GET"])
        service.draining = True
        with served(app) as url:
            yield url


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/livez", b"", 200),
        ("GET", "/v1/status", b"", 200),
        ("GET", "/openapi.json", b"", 200),
        ("POST", "/v1/analyze", b"", 400),
        ("POST", "/predict", b"", 400),
        ("GET", "/nowhere", b"", 404),
        ("GET", "/images/unknown", b"", 404),
        ("GET", "/v1/analyze", b"", 405),
        ("POST", "/v1/analyze", bytes(101), 413),
        ("POST", "/v1/analyze", b"x", 500),
        ("GET", "/readyz", b"", 503),
    ],
)
def test_every_answer_with_data_may_do_nothing(guarded: str, method: str, path: str, body: bytes, status: int) -> None:
    answer = httpx.request(method, guarded + path, content=body)
    assert answer.status_code == status
    assert {name: answer.headers[name] for name in DATA} == DATA
    assert "permissions-policy" not in answer.headers
    assert CORS not in answer.headers


def test_a_page_may_run_its_own_scripts_and_ask_for_the_camera(guarded: str) -> None:
    answer = httpx.get(f"{guarded}/page")
    assert answer.status_code == 200
    assert {name: answer.headers[name] for name in PAGE} == PAGE
    assert len(answer.headers.get_list("content-security-policy")) == 1


# ── CORS ─────────────────────────────────────────────────────────────────────────────────────────


def preflight(
    origin: str, method: str = "POST", headers: str = "authorization,content-type,x-api-key"
) -> dict[str, Any]:
    asked = {"access-control-request-method": method, "access-control-request-headers": headers}
    return {"method": "OPTIONS", "headers": {"origin": origin, **asked}}


@pytest.fixture
def listed(tmp_path: Any) -> Iterator[tuple[str, str]]:
    """A service that asks for keys and lists one origin; its address and a key."""
    file = KeysFile(tmp_path / "keys.json")
    secret, _ = file.create()
    with fake_service(FakeAnalysis()) as service:
        service.access, service.origins = Access(file), frozenset({OURS})
        with served(create_app(service)) as url:
            yield f"{url}/v1/analyze", secret


def test_a_listed_origin_may_ask_and_read(listed: tuple[str, str]) -> None:
    url, secret = listed
    allowed = httpx.request(url=url, **preflight(OURS))
    assert allowed.status_code == 200
    assert allowed.headers[CORS] == OURS
    assert "access-control-allow-credentials" not in allowed.headers
    assert {"authorization", "x-api-key"} <= set(allowed.headers["access-control-allow-headers"].lower().split(", "))
    answer = httpx.post(url, content=b"x", headers={"origin": OURS, "x-api-key": secret})
    assert (answer.status_code, answer.headers[CORS]) == (200, OURS)
    assert "Origin" in answer.headers["vary"]
    assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()


def test_a_listed_origin_can_read_why_it_is_refused(listed: tuple[str, str]) -> None:
    answer = httpx.post(listed[0], content=b"x", headers={"origin": OURS})
    assert (answer.status_code, answer.headers[CORS]) == (401, OURS)


@pytest.mark.parametrize(
    "origin", [THEIRS, "null", OURS + ":8443", OURS.replace("https", "http"), OURS + ".evil.example"]
)
def test_other_origins_may_not(listed: tuple[str, str], origin: str) -> None:
    url, secret = listed
    refused = httpx.request(url=url, **preflight(origin))
    assert refused.status_code == 400
    answer = httpx.post(url, content=b"x", headers={"origin": origin, "x-api-key": secret})
    for each in (refused, answer):
        assert CORS not in each.headers
        assert {name: each.headers[name] for name in DATA} == DATA


@pytest.mark.parametrize("asked", [{"method": "DELETE"}, {"headers": "cookie"}])
def test_listed_origins_may_not_do_everything(listed: tuple[str, str], asked: dict[str, str]) -> None:
    assert httpx.request(url=listed[0], **preflight(OURS, **asked)).status_code == 400


def test_nothing_is_allowed_to_any_page_unless_one_is_listed() -> None:
    with fake_service(FakeAnalysis()) as service, served(create_app(service)) as url:
        answers = [
            httpx.request(url=f"{url}/v1/analyze", **preflight(OURS)),
            httpx.post(f"{url}/v1/analyze", content=b"x", headers={"origin": OURS}),
        ]
    assert [answer.status_code for answer in answers] == [405, 200]
    assert not any(name.startswith("access-control") for answer in answers for name in answer.headers)


# ── origins of WebSockets, names of hosts ────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "service.example", True),
        (OURS, "service.example", True),
        ("http://service.example", "service.example", True),
        ("https://service.example", "service.example:443", True),
        ("https://service.example:443", "service.example:443", True),
        ("http://localhost:8080", "localhost:8080", True),
        ("http://localhost:8080", "localhost:8081", False),
        ("http://localhost:8080", "127.0.0.1:8080", False),
        ("http://service.example", "service.example:443", False),
        (THEIRS, "service.example", False),
        ("https://service.example.evil.example", "service.example", False),
        ("null", "service.example", False),
        ("null", "", False),
        ("", "", False),
        ("https://", "", False),
        ("ftp://service.example", "service.example", False),
        ("https://serv\xefce.example", "service.example", False),
    ],
)
def test_streams_open_from_pages_of_the_same_host_or_a_listed_origin(
    origin: str | None, host: str, allowed: bool
) -> None:
    headers = {b"host": host.encode()} | ({} if origin is None else {b"origin": origin.encode("latin-1")})
    assert origin_allowed(headers, frozenset({OURS})) is allowed


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        (b"localhost:8080", True),
        (b"LocalHost", True),
        (b"127.0.0.1:8080", True),
        (b"[::1]:8080", True),
        (b"::1", True),
        (b"app.localhost", True),
        (b"photos.example", True),
        (b"Photos.Example.:443", True),
        (b"", True),
        (b"evil.example", False),
        (b"photos.example.evil.example", False),
        (b"evil.example:photos.example", False),
        (b"127.0.0.1.evil.example", False),
        (b"192.168.0.1", False),
        (b"0.0.0.0", False),
        (b"[", False),
        (b":80", False),
        (b"[evil.example]", False),
        (b"\xff", False),
    ],
)
def test_hosts_are_those_of_this_machine_or_listed(host: bytes, allowed: bool) -> None:
    assert host_allowed({b"host": host}, frozenset({"photos.example"})) is allowed
    assert host_allowed({}, frozenset())


# ── memory ───────────────────────────────────────────────────────────────────────────────────────

FORBIDDEN = """
import ctypes, os, resource
from pathlib import Path
from prometheus_client.process_collector import ProcessCollector
from dulian.service.security import forbid_dumps
from dulian.service.traffic import look_at_process

prctl = ctypes.CDLL(None).prctl
if os.geteuid() == 0:
    os.setgid(65534), os.setuid(65534)
prctl(4, 1, 0, 0, 0)
Path("/proc/self/environ").read_bytes()
before = {metric.name for metric in ProcessCollector(registry=None).collect()}
forbid_dumps()
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
assert prctl(3, 0, 0, 0, 0) == 0
try:
    Path("/proc/self/environ").read_bytes()
except PermissionError:
    print("closed")
assert look_at_process()[1] > 1_000_000
assert "process_open_fds" in before
assert {metric.name for metric in ProcessCollector(registry=None).collect()} == before
print("counted")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_memory_is_closed_to_others_and_can_still_be_measured() -> None:
    """As a user without rights: to root all of /proc is open. Coverage could not write its file as one."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", FORBIDDEN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert (done.stdout.split(), done.stderr) == (["closed", "counted"], "")


def test_core_dumps_are_off_where_there_is_a_limit() -> None:
    code = "import resource\nfrom dulian.service.security import forbid_dumps\nforbid_dumps()\n"
    code += "print(resource.getrlimit(resource.RLIMIT_CORE))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "(0, 0)\n"
