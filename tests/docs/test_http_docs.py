"""docs/http.md against the service: its routes, options and limits, and its curl lines as they stand."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.docs.pages import python_blocks, row_of, rows, text_of
from tests.pictures import picture, save
from tests.service.services import FakeAnalysis, client_of, fake_service, served
from tests.service.streams import streaming

from dulian.service import stream, websocket
from dulian.service.articles import API_ANALYZE, PREDICT
from dulian.service.http import create_app
from dulian.service.limits import ServiceLimits
from dulian.service.query import PARAMETERS
from dulian.service.stream import wishes

PAGE = text_of("http.md")
SHELL = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]


def test_every_route_is_described() -> None:
    async def paths() -> set[str]:
        async with client_of(service) as client:
            return set((await client.get("/openapi.json")).json()["paths"])

    with fake_service(FakeAnalysis()) as service:
        known = asyncio.run(paths())
    described = " ".join(cell for row in rows(PAGE) for cell in row[:1])
    assert {path for path in known if path.partition("{")[0] not in described} == set()


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_option_is_described(name: str) -> None:
    assert len(row_of(PAGE, f"`{name}`")) == 4


def test_limits_and_texts_are_described() -> None:
    limits = ServiceLimits()
    page = " ".join(PAGE.split())
    assert f"Up to {limits.max_batch_parts} parts and {limits.max_body_bytes >> 20} MiB in all" in page
    assert f"answers of up to {limits.max_batch_answer_bytes >> 20} MiB" in page
    assert f"kept in memory for {limits.kept_s:.0f} seconds" in page
    assert f"({limits.max_kept_pictures} pictures, {limits.max_kept_bytes >> 20} MiB)" in page
    for text in (PREDICT.missing, API_ANALYZE.missing, API_ANALYZE.not_chosen):
        assert f'{{"error": "{text}"}}' in page


def test_the_limits_of_streams_are_described() -> None:
    limits, page = ServiceLimits(), " ".join(PAGE.split())
    for said in (
        f"of {limits.max_frame_bytes >> 20} MiB at most",
        f"of {limits.max_stream_text_bytes >> 10} KiB at most",
        f"up to {wishes.MAX_ID_CHARS} characters",
        f"503 with {limits.max_streams} streams open",
        f"No frame for {limits.stream_idle_s:.0f} seconds",
        f"more than {stream.MAX_TEXTS} texts without a frame",
        f"a message in more than {websocket.MAX_FRAGMENTS} fragments",
        f"nobody reads for {limits.stream_idle_s:.0f} seconds",
    ):
        assert said in page
    for name, closing in vars(stream).items():
        if isinstance(closing, stream.Closing):
            assert re.search(rf"^\|[^|]*\b{closing.code}\b[^|]*\|", PAGE, re.MULTILINE), name


def test_the_client_of_a_stream_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (example,) = python_blocks(PAGE)
    (tmp_path / "frames").mkdir()
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / "frames" / name).write_bytes(b"picture")
    monkeypatch.chdir(tmp_path)
    with streaming(FakeAnalysis()) as run:
        exec(example.replace("127.0.0.1:8080", run.host), {})
    assert capsys.readouterr().out == "1.jpg []\n2.jpg []\n"


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_lines_of_curl_work(tmp_path: Path) -> None:
    for name in ("me.jpg", "one.jpg", "two.jpg"):
        (tmp_path / name).write_bytes(save(picture(), "JPEG"))
    (tmp_path / "notes.txt").write_text("no picture")
    with fake_service(FakeAnalysis()) as service, served(create_app(service)) as url:
        drawn = httpx.post(f"{url}/predict", files={"image": b"picture"}).json()["output_image"]
        for line in SHELL:
            line = line.replace("http://127.0.0.1:8080", url).replace("curl ", "curl -sS --fail ")
            line = re.sub(r"/images/[\w-]{22}", drawn, line)
            subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True, capture_output=True, timeout=60)
        assert (tmp_path / "drawn.jpg").read_bytes().startswith(b"\xff\xd8\xff")
    assert len(SHELL) >= 9
