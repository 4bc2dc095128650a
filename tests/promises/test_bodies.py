"""P7: bodies that are too long, without an end, of another length than they say, packed, or slow. Raw sockets."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dulian.service import schema
from dulian.service.guard import GuardedProtocol
from tests.promises.envelopes import FORM, JSON, in_form, in_json
from tests.promises.harness import comparable
from tests.service.services import PATIENCE_S, FakeAnalysis, fake_service, wait_until
from tests.service.streams import Running, running

MIB = 2**20
LIMIT = 2 * MIB
# asyncio reads so much at once, and one more is on its way while the first is looked at.
PIECE = 256 * 1024
ROUTES = ("/v1/analyze", "/v1/batch", "/predict", "/api/analyze", "/analyze")
TEXT_ERRORS = ("/predict", "/api/analyze", "/analyze")
PICTURE = b"\xff\xd8\xff a picture, to those who do not look"


@dataclass
class Setup:
    """A server over a fake analysis, and how many bytes it has taken from its sockets."""

    run: Running
    analysis: FakeAnalysis
    read: list[int] = field(default_factory=list)

    def connect(self) -> socket.socket:
        host, _, port = self.run.host.partition(":")
        return socket.create_connection((host, int(port)), timeout=PATIENCE_S)

    def at_rest(self) -> None:
        """Nothing is kept of any request, and a good one is answered."""
        wait_until(lambda: self.run.service.admission.bytes_in_flight == 0 and self.run.service.pool.busy == 0)
        with self.connect() as client:
            client.sendall(head("/v1/analyze", f"Content-Length: {len(PICTURE)}") + PICTURE)
            assert answer(client).status == 200


@contextlib.contextmanager
def serving(**limits: Any) -> Iterator[Setup]:
    analysis = FakeAnalysis()
    with (
        pytest.MonkeyPatch.context() as patch,
        fake_service(analysis, workers=2, max_body_bytes=LIMIT, **limits) as service,
    ):
        read: list[int] = []
        receive = GuardedProtocol.data_received

        def count(self: GuardedProtocol, data: bytes) -> None:
            read.append(len(data))
            receive(self, data)

        patch.setattr(GuardedProtocol, "data_received", count)
        with running(service) as run:
            yield Setup(run, analysis, read)


@pytest.fixture(scope="module")
def shared() -> Iterator[Setup]:
    with serving() as made:
        yield made


@pytest.fixture
def setup(shared: Setup) -> Setup:
    """The server of all, which remembers nothing of those before."""
    shared.at_rest()
    shared.analysis.seen.clear()
    shared.read.clear()
    return shared


def head(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: a", *lines, "", ""]).encode()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def code(self, path: str = "/v1/analyze") -> str | None:
        """The error's code, where the route has codes; its shape is the route's own."""
        if path in TEXT_ERRORS:
            assert schema.TextError.model_validate_json(self.body).error
            return None
        return schema.ErrorAnswer.model_validate_json(self.body).error.code


def answer(client: socket.socket) -> Answer:
    """The next answer on a connection, of which the interim ones are none."""
    with client.makefile("rb") as file:
        status = 100
        while status == 100:
            status = int(file.readline().split()[1])
            headers = {}
            while (line := file.readline()) not in (b"\r\n", b""):
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
        return Answer(status, headers, file.read(int(headers["content-length"])))


def closed(client: socket.socket) -> bool:
    """Whether the server sends nothing more."""
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


# ── too long ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("expect", [(), ("Expect: 100-continue",)], ids=["", "continue"])
def test_a_length_above_the_limit_is_refused_before_the_body(path: str, expect: Sequence[str], setup: Setup) -> None:
    """P7: 413 without a byte of the body, and without an invitation to send it."""
    with setup.connect() as client:
        request = head(path, f"Content-Length: {LIMIT + 1}", f"Content-Type: {FORM}", *expect)
        client.sendall(request)
        refused = answer(client)
        assert (refused.status, refused.code(path)) == (413, None if path in TEXT_ERRORS else "input_too_large")
        assert refused.headers["connection"] == "close"
        assert closed(client)
    assert sum(setup.read) == len(request)
    assert not setup.analysis.seen
    setup.at_rest()


@pytest.mark.parametrize("length", [f"{10**30}", "9" * 300, "-1", "0x10", "1e3", "1_000", " ", "2, 2", "+5"])
def test_a_length_that_is_none_is_refused(length: str, setup: Setup) -> None:
    """P7: by the parser, before anybody reads."""
    with setup.connect() as client:
        client.sendall(head("/v1/analyze", f"Content-Length: {length}") + PICTURE)
        assert answer(client).status == 400
        assert closed(client)
    assert not setup.analysis.seen
    setup.at_rest()


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("piece", [1000, 65_536, LIMIT + 1])
def test_a_body_without_an_end_is_read_no_further_than_the_limit(path: str, piece: int, setup: Setup) -> None:
    """P7: 413, having taken the limit and one piece more."""
    sent = 0
    chunk = f"{piece:x}\r\n".encode() + bytes(piece) + b"\r\n"
    with setup.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        with contextlib.suppress(ConnectionError):
            client.sendall(head(path, "Transfer-Encoding: chunked", f"Content-Type: {FORM}"))
            while sent < 100 * LIMIT:
                client.sendall(chunk)
                sent += piece
    assert sent < 10 * LIMIT  # what two kernels hold was sent, and never read
    overhead = (LIMIT // piece + 2) * (len(chunk) - piece) + 200
    assert LIMIT < sum(setup.read) <= LIMIT + overhead + 2 * PIECE
    assert not setup.analysis.seen
    setup.at_rest()


def test_who_sends_too_much_hears_why(setup: Setup) -> None:
    """P7: if it stops to listen."""
    with setup.connect() as client:
        client.sendall(head("/v1/analyze", "Transfer-Encoding: chunked"))
        client.sendall(f"{LIMIT + 1:x}\r\n".encode() + bytes(LIMIT + 1))
        refused = answer(client)
        assert (refused.status, refused.code()) == (413, "input_too_large")
        assert refused.headers["connection"] == "close"


def test_exactly_the_limit_is_read(setup: Setup) -> None:
    """P7: in one piece and in many."""
    data = random.Random(7).randbytes(LIMIT)
    with setup.connect() as client:
        client.sendall(head("/v1/analyze", f"Content-Length: {LIMIT}") + data)
        assert answer(client).status == 200
        client.sendall(head("/v1/analyze", "Transfer-Encoding: chunked"))
        for start in range(0, LIMIT, 9999):
            piece = data[start : start + 9999]
            client.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        client.sendall(b"0\r\n\r\n")
        assert answer(client).status == 200
    assert [bytes(seen) == data for seen, _ in setup.analysis.seen] == [True, True]


@pytest.mark.parametrize(
    "broken",
    [
        *(b"5;" + b"a" * 100_000 + b"\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n" + b"X: y\r\n" * 20_000 + b"\r\n"),
        *(b"x\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloo\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n"),
        *(b"fffffffffffffffff\r\nhello", b"0x5\r\nhello\r\n0\r\n\r\n", b"\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n"),
    ],
    ids=lambda data: repr(data[:16]),
)
def test_broken_chunks_are_refused(broken: bytes, setup: Setup) -> None:
    """P7: and none of it reaches the analysis."""
    with setup.connect() as client:
        client.sendall(head("/v1/analyze", "Transfer-Encoding: chunked") + broken)
        assert answer(client).status in (400, 431)
        assert closed(client)
    assert not setup.analysis.seen
    setup.at_rest()


# ── of another length than they say ──────────────────────────────────────────────────────────────


def test_what_follows_a_body_is_no_part_of_it(setup: Setup) -> None:
    """P7: more than was said is the next request, or nonsense."""
    said = head("/v1/analyze", f"Content-Length: {len(PICTURE)}") + PICTURE
    with setup.connect() as client:
        client.sendall(said + b"and more of it\r\n\r\n")
        assert answer(client).status == 200
        rest = b""
        with contextlib.suppress(ConnectionError):
            while piece := client.recv(65_536):
                rest += piece
        assert rest == b"" or rest.startswith(b"HTTP/1.1 400 ")
    assert [data for data, _ in setup.analysis.seen] == [PICTURE]
    setup.at_rest()


@pytest.mark.parametrize("path", ROUTES)
def test_a_body_that_ends_early_is_nobodys_picture(path: str, setup: Setup) -> None:
    """P7: a client that hangs up before the end has asked nothing."""
    body = in_form(PICTURE)
    with setup.connect() as client:
        client.sendall(head(path, f"Content-Length: {len(body) + 1}", f"Content-Type: {FORM}") + body)
        wait_until(lambda: setup.run.service.admission.bytes_in_flight == len(body))
        client.shutdown(socket.SHUT_WR)
        assert closed(client)
    setup.at_rest()
    assert [data for data, _ in setup.analysis.seen] == [PICTURE]  # of at_rest


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 5"),
        ("Transfer-Encoding: gzip, chunked, identity",),
        ("Transfer-Encoding: xchunked",),
    ],
)
def test_two_notions_of_a_length_are_refused(lines: Sequence[str], setup: Setup) -> None:
    """P7: so that no proxy in front can be of another opinion."""
    with setup.connect() as client:
        client.sendall(head("/v1/analyze", *lines) + b"5\r\nhello\r\n0\r\n\r\n")
        assert answer(client).status == 400
        assert closed(client)
    assert not setup.analysis.seen


# ── packed, slow ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "identity, gzip", "x"])
def test_a_packed_body_is_refused(path: str, encoding: str, setup: Setup) -> None:
    """P7: 415; whatever it would become is never known."""
    body = gzip.compress(bytes(MIB))
    with setup.connect() as client:
        lines = (f"Content-Length: {len(body)}", f"Content-Encoding: {encoding}", f"Content-Type: {FORM}")
        client.sendall(head(path, *lines) + body)
        refused = answer(client)
        assert (refused.status, refused.code(path)) == (415, None if path in TEXT_ERRORS else "unsupported_media_type")
    assert not setup.analysis.seen
    setup.at_rest()


@pytest.fixture(scope="module")
def impatient() -> Iterator[Setup]:
    with serving(body_timeout_s=0.2) as made:
        made.analysis.seen.clear()  # of the rehearsal
        made.at_rest()
        yield made


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("length", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
def test_a_slow_body_is_given_up(path: str, length: str, impatient: Setup) -> None:
    """P7: each byte in time does not help."""
    with impatient.connect() as client:
        client.sendall(head(path, length, f"Content-Type: {FORM}"))
        piece = b"a" if "Length" in length else b"1\r\na\r\n"
        stop = threading.Event()

        def trickle() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.02):
                    client.sendall(piece)

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            refused = answer(client)
        finally:
            stop.set()
            thread.join()
        assert (refused.status, refused.code(path)) == (408, None if path in TEXT_ERRORS else "slow_client")
        assert refused.headers["connection"] == "close"
    wait_until(lambda: impatient.run.service.admission.bytes_in_flight == 0)
    assert [data for data, _ in impatient.analysis.seen] == [PICTURE]  # of at_rest


def test_who_waits_to_be_asked_is_asked(setup: Setup) -> None:
    """P7: 100 Continue before the body, as HTTP has it."""
    with setup.connect() as client:
        client.sendall(head("/v1/analyze", f"Content-Length: {len(PICTURE)}", "Expect: 100-continue"))
        assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
        client.sendall(PICTURE)
        assert answer(client).status == 200


# ── in pieces ────────────────────────────────────────────────────────────────────────────────────


WRAPPED = {"alone": (PICTURE, "image/jpeg"), "form": (in_form(PICTURE), FORM), "Base64": (in_json(PICTURE), JSON)}


@given(name=st.sampled_from(sorted(WRAPPED)), cuts=st.lists(st.integers(0, 400), max_size=12), chunked=st.booleans())
@settings(max_examples=60)
def test_pieces_make_no_difference(shared: Setup, name: str, cuts: list[int], chunked: bool) -> None:
    """P7, P11: wherever head and body are cut, and whatever frames them, the answer is that to one piece."""
    body, content_type = WRAPPED[name]
    lines = ("Transfer-Encoding: chunked",) if chunked else (f"Content-Length: {len(body)}",)
    opening = head("/v1/analyze", *lines, f"Content-Type: {content_type}")
    pieces = [body[start:end] for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(body)], strict=True)]
    if chunked:
        pieces = [f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces if piece] + [b"0\r\n\r\n"]
    with shared.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in (opening[: len(opening) // 2], opening[len(opening) // 2 :], *pieces):
            client.sendall(piece)
        given_in_pieces = answer(client)
        client.sendall(head("/v1/analyze", f"Content-Length: {len(PICTURE)}") + PICTURE)
        in_one = answer(client)
    assert given_in_pieces.status == 200
    assert json.loads(in_one.body)["faces"] == []
    assert comparable(given_in_pieces.body) == comparable(in_one.body)
