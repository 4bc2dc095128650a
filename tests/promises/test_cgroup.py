"""P1 and P18: 512 MB are enough, whatever comes: bombs, and pictures as large as they may just be, many at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import PIL.Image
import pytest

from dulian.store import ModelStore
from tests.pictures import save
from tests.promises import corpus
from tests.promises.cgroup import MemoryGroup, Unavailable, memory_group
from tests.promises.envelopes import FORM, in_form
from tests.promises.harness import Server, closed_loop, comparable, dulian_server, post

pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is bounded and measured as on Linux"),
]

LIMIT_BYTES = 512 * 2**20
CLIENTS = 6
JPEG_CLIENTS = 12


@dataclass
class Outcome:
    """What came of a process that was asked for all of it."""

    statuses: Counter[int]
    same_afterwards: bool
    peak_bytes: int
    exit_code: int
    group_peak_bytes: int | None = None
    kills: int = 0


def anonymous_peak_bytes(server: Server) -> int:
    """What the process had to itself at most; pages of files are given back when memory is short."""
    lines = Path("/proc", str(server.process.pid), "status").read_text().splitlines()
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return (int(fields["VmHWM"][0]) - int(fields["RssFile"][0])) * 1024


def everything(photo: PIL.Image.Image) -> Iterator[tuple[list[bytes], int]]:
    """Requests that go together, and by how many clients they are sent at once."""
    bad = (*corpus.bombs(), *corpus.many_frames(), *corpus.lies(photo), *corpus.polyglots(), *corpus.metadata())
    yield [post("/v1/analyze", one.data) for one in bad], CLIENTS
    large = {one.name: one.data for one in corpus.largest()}
    yield [post("/v1/analyze", data) for data in large.values()], CLIENTS
    drawn = [large[f"largest: {name}"] for name in ("jpeg", "png, 1 bit", "tiff", "jpeg, progressive", "avif")]
    yield [post("/analyze", in_form(data), f"Content-Type: {FORM}") for data in drawn], CLIENTS
    jpeg = large["largest: jpeg"]
    mixed = [post("/v1/analyze", jpeg), post("/predict", in_form(jpeg), f"Content-Type: {FORM}")]
    yield mixed * JPEG_CLIENTS, JPEG_CLIENTS


def ask(server: Server, requests: Sequence[bytes], clients: int) -> Counter[int]:
    replies = asyncio.run(closed_loop(server.port, requests, clients=clients, count=len(requests)))
    return Counter(reply.status for reply in replies)


def answer(server: Server, picture: bytes) -> bytes:
    (reply,) = asyncio.run(closed_loop(server.port, [post("/v1/analyze", picture)], clients=1, count=1))
    assert reply.status == 200
    return comparable(reply.body)


@pytest.fixture(scope="module")
def group() -> Iterator[MemoryGroup | str]:
    """A group of 512 MB, or why there is none."""
    with ExitStack() as stack:
        try:
            made: MemoryGroup | str = stack.enter_context(memory_group(LIMIT_BYTES))
        except Unavailable as error:
            made = str(error)
        yield made


@pytest.fixture(scope="module")
def outcome(group: MemoryGroup | str, model_store: ModelStore, samples: Path) -> Outcome:
    photo = PIL.Image.open(samples / "astronaut.png").convert("RGB")
    good = save(photo, "JPEG", quality=90)
    statuses: Counter[int] = Counter()
    wrapper = group.wrapper if isinstance(group, MemoryGroup) else ()
    # Large pictures wait for each other, for as long as they may: how soon they are answered is not asked here.
    with dulian_server(model_store, wrapper=wrapper, DULIAN_DEADLINE_S="20") as server:
        before = answer(server, good)
        for requests, clients in everything(photo):
            statuses += ask(server, requests, clients)
            assert server.process.poll() is None, f"the process ended: {statuses}"
        same = answer(server, good) == before
        peak = anonymous_peak_bytes(server)
        exit_code = server.stop()
    if isinstance(group, MemoryGroup):
        return Outcome(statuses, same, peak, exit_code, group.peak_bytes, group.kills)
    return Outcome(statuses, same, peak, exit_code)


def test_a_server_with_512_mb_survives(group: MemoryGroup | str, outcome: Outcome) -> None:
    """P1, P18: it answers as before, was not killed, and ends in order."""
    if isinstance(group, str):
        pytest.skip(group)
    assert outcome.kills == 0
    assert outcome.same_afterwards
    assert outcome.exit_code == 0
    assert outcome.group_peak_bytes is None or outcome.group_peak_bytes <= LIMIT_BYTES


def test_a_server_takes_less_than_512_mb(outcome: Outcome) -> None:
    """P1, P18: also where there is nobody to stop it."""
    assert outcome.peak_bytes < LIMIT_BYTES
    assert set(outcome.statuses) <= {200, 413, 415, 422, 503, 504}
    assert outcome.statuses[200] > 50


def test_the_limit_is_a_limit() -> None:
    """P1, P18, negative control: who takes more is killed, and that is noticed."""
    with ExitStack() as stack:
        try:
            group = stack.enter_context(memory_group(64 * 2**20))
        except Unavailable as error:
            pytest.skip(str(error))
        command = [*group.wrapper, sys.executable, "-c", f"len(bytearray(b'x') * {200 * 2**20})"]
        done = subprocess.run(command, check=False, capture_output=True)
        assert done.returncode == -9
        assert group.kills == 1
