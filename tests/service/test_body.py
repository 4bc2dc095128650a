from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from dulian.errors import (
    InputTooLargeError,
    MalformedInputError,
    OverloadedError,
    SlowClientError,
    UnsupportedMediaError,
)
from dulian.service.body import Buffer, ClientGone, RequestBody
from dulian.service.limits import ServiceLimits

LIMITS = ServiceLimits(max_body_bytes=100, body_timeout_s=0.05)


class Sender:
    """A client: its pieces, then silence or a hang-up."""

    def __init__(self, pieces: Iterable[bytes], *, ends: bool = True, hangs_up: bool = False) -> None:
        self.pieces = list(pieces)
        self.ends = ends
        self.hangs_up = hangs_up
        self.sent = 0

    async def __call__(self) -> dict[str, Any]:
        if not self.pieces:
            if self.hangs_up:
                return {"type": "http.disconnect"}
            await asyncio.sleep(3600)
        piece = self.pieces.pop(0)
        self.sent += len(piece)
        return {"type": "http.request", "body": piece, "more_body": bool(self.pieces) or not self.ends}


def read(sender: Sender, body: RequestBody | None = None, held: list[int] | None = None) -> Buffer:
    target = body or RequestBody({}, LIMITS)
    return asyncio.run(target.read(sender, hold=(held if held is not None else []).append))


def test_pieces_become_one_buffer_and_each_is_held() -> None:
    held: list[int] = []
    assert read(Sender([b"ab", b"", b"cde", b"f"]), held=held) == b"abcdef"
    assert held == [2, 0, 3, 1]


def test_a_single_piece_is_not_copied() -> None:
    piece = bytes(50)
    assert read(Sender([piece])) is piece


def test_reading_stops_at_the_limit() -> None:
    sender = Sender([bytes(30)] * 1000)
    body = RequestBody({}, LIMITS)
    with pytest.raises(InputTooLargeError, match="larger than 100 bytes"):
        read(sender, body)
    assert sender.sent == 120
    assert body.must_close


def test_a_full_body_of_exactly_the_limit_is_fine() -> None:
    assert len(read(Sender([bytes(60), bytes(40)]))) == 100


@pytest.mark.parametrize("pieces", [[b""], [b"", b""]])
def test_an_empty_body_is_malformed(pieces: list[bytes]) -> None:
    with pytest.raises(MalformedInputError, match="empty"):
        read(Sender(pieces))


def test_a_slow_body_is_given_up() -> None:
    body = RequestBody({b"content-length": b"50"}, LIMITS)
    with pytest.raises(SlowClientError, match=r"within 0\.05 seconds"):
        read(Sender([b"a"], ends=False), body)
    assert body.must_close


def test_a_client_that_hangs_up_is_nobodys_error() -> None:
    with pytest.raises(ClientGone):
        read(Sender([b"a"], ends=False, hangs_up=True))


def test_no_room_stops_the_reading() -> None:
    def refuse(count: int) -> None:
        raise OverloadedError("no")

    sender = Sender([bytes(10)] * 5)
    with pytest.raises(OverloadedError):
        asyncio.run(RequestBody({}, LIMITS).read(sender, hold=refuse))
    assert sender.sent == 10


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"br", b"identity, gzip"])
def test_compressed_bodies_are_refused(encoding: bytes) -> None:
    with pytest.raises(UnsupportedMediaError):
        RequestBody({b"content-encoding": encoding}, LIMITS).check()
    RequestBody({b"content-encoding": b" Identity"}, LIMITS).check()


def test_a_declared_length_is_judged_before_anything_is_read() -> None:
    RequestBody({b"content-length": b"100"}, LIMITS).check()
    with pytest.raises(InputTooLargeError):
        RequestBody({b"content-length": b"101"}, LIMITS).check()


@pytest.mark.parametrize(
    ("headers", "closes"),
    [
        ({b"content-length": b"100"}, False),
        ({b"content-length": b"101"}, True),
        ({b"content-length": b"nonsense"}, True),
        ({}, True),
        ({b"content-length": b"100", b"expect": b"100-continue"}, True),
    ],
)
def test_an_unread_body_that_may_be_long_ends_the_connection(headers: dict[bytes, bytes], closes: bool) -> None:
    assert RequestBody(headers, LIMITS).must_close is closes
