"""What a body is wrapped in: nothing, a multipart form or JSON. Out come the files of pictures, each in one piece."""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from dulian.errors import InputTooLargeError, MalformedInputError, UnsupportedMediaError
from dulian.service.body import Buffer
from dulian.service.limits import ServiceLimits

Envelope = Literal["raw", "multipart", "json"]
FIELD = "image"

FORM_TYPE = "multipart/form-data"
# "curl --data-binary" calls everything a form unless told otherwise; the leading bytes decide what it is.
_RAW = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})

_BLANK = b" \t\r\n"
_JSON_HEAD = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"image"[ \t\r\n]*:[ \t\r\n]*"')


def find_envelope(content_type: str) -> Envelope:
    """Which wrapping a Content-Type names.

    Raises:
        UnsupportedMediaError: One that is not accepted.
    """
    kind = _kind(content_type)
    if kind == FORM_TYPE:
        return "multipart"
    if kind == "application/json":
        return "json"
    if kind in _RAW or kind.startswith("image/"):
        return "raw"
    raise UnsupportedMediaError(
        f"content type {kind[:80]!r} is not accepted; send the picture itself as image/* or application/octet-stream,"
        f" as file field '{FIELD}' of {FORM_TYPE}, or as Base64 in JSON"
    )


def is_form(content_type: str) -> bool:
    """Whether a Content-Type names a form with files."""
    return _kind(content_type) == FORM_TYPE


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def open_envelope(body: Buffer, content_type: str, limits: ServiceLimits) -> bytes:
    """The picture's file out of a body.

    Raises:
        MalformedInputError: The wrapping is broken, or holds no picture, or several.
    """
    envelope = find_envelope(content_type)
    if envelope == "multipart":
        return the_only(read_form(body, content_type, limits, max_parts=limits.max_parts)).content(body)
    return _from_json(body, limits) if envelope == "json" else bytes(body)


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────


def _from_json(body: Buffer, limits: ServiceLimits) -> bytes:
    """Exactly ``{"image": "<Base64>"}``.

    The one accepted shape is recognised from both ends and never parsed as a whole: five million nested or repeated
    things in ten megabytes would become half a gigabyte of objects first.
    """
    head, tail = _JSON_HEAD.match(body), body.rstrip(_BLANK)
    closed = tail[:-1].rstrip(_BLANK) if tail.endswith(b"}") else b""
    if head is None or not closed.endswith(b'"') or len(closed) <= head.end():
        raise MalformedInputError(f'the JSON body must be {{"{FIELD}": "<Base64>"}} and nothing else')
    text = memoryview(closed)[head.end() : -1]
    if b"\\" in closed:
        text = memoryview(_unescaped(bytes(text)))
    return from_base64(text, limits.max_body_bytes)


def _unescaped(text: bytes) -> bytes:
    """A JSON string's content; some encoders put a backslash before each slash."""
    try:
        value: str = json.loads(b'"' + text + b'"')
        return value.encode("ascii")
    except ValueError:
        raise MalformedInputError(f"'{FIELD}' is no JSON string of Base64") from None


def from_base64(text: memoryview, max_bytes: int) -> bytes:
    """What Base64 stands for, its standard alphabet alone.

    Raises:
        InputTooLargeError: It would be more bytes than the limit.
        MalformedInputError: It is no Base64.
    """
    padding = bytes(text[-2:]).count(b"=")
    size = len(text) // 4 * 3 - padding
    if size > max_bytes:
        raise InputTooLargeError(f"the picture has {size:,} bytes; at most {max_bytes:,} are accepted")
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        data = b""
    # Strict as it is, it lets padding pass that nothing asked for.
    if len(text) % 4 or len(data) != size:
        raise MalformedInputError(
            f"'{FIELD}' is no Base64: the standard alphabet, padded, without blanks or a data: prefix, is accepted"
        )
    return data


# ── multipart ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class FormFile:
    """A file of a form: its name, which is None for what a script made up, and where in the body its bytes lie."""

    name: bytes | None
    spans: list[tuple[int, int]] = field(default_factory=list)

    def content(self, body: Buffer) -> bytes:
        """A copy of its bytes out of the body that it came in."""
        view = memoryview(body)
        return b"".join(view[start:end] for start, end in self.spans)


def read_form(body: Buffer, content_type: str, limits: ServiceLimits, *, max_parts: int) -> list[FormFile]:
    """The files in a form's field for pictures, in order; all other fields are passed over. Nothing is copied.

    Raises:
        MalformedInputError: The form is broken, or has too many parts, or too long heads of them.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise MalformedInputError(f"{FORM_TYPE} without a boundary")
    _check_delimiters(body, b"\r\n--" + boundary, max_parts)
    parts = _Parts(max_parts, limits.max_part_head_bytes)
    try:
        parser = MultipartParser(boundary, cast(Any, parts.callbacks()), max_header_size=limits.max_part_head_bytes)
        parser.write(cast(bytes, body))  # it searches bytes and bytearrays alike; its hints name only one of them
    except FormParserError:
        raise MalformedInputError("the multipart body is broken") from None
    if not parts.ended:
        raise MalformedInputError("the multipart body ends before its last boundary")
    return parts.pictures


def at_least_one(pictures: list[FormFile]) -> list[FormFile]:
    """The pictures of a form.

    Raises:
        MalformedInputError: There is none.
    """
    if not pictures:
        raise MalformedInputError(f"no file field '{FIELD}' in the form")
    return pictures


def the_only(pictures: list[FormFile]) -> FormFile:
    """The picture of a form that has but one.

    Raises:
        MalformedInputError: There is none, or there are several.
    """
    if len(at_least_one(pictures)) > 1:
        raise MalformedInputError(f"more than one file field '{FIELD}'")
    return pictures[0]


def _check_delimiters(body: Buffer, delimiter: bytes, max_parts: int) -> None:
    """Refuse bodies over which the parser would take byte-sized steps: it is Python, and 10 MB of them are seconds."""
    found = 0
    at = body.find(delimiter)
    while at >= 0:
        found += 1
        at += len(delimiter)
        if found > max_parts + 1:
            raise _too_many_parts(max_parts)
        if body[at : at + 1] in (b" ", b"\t"):
            raise MalformedInputError("blanks after a multipart boundary are not accepted")
        at = body.find(delimiter, at)


def _too_many_parts(max_parts: int) -> MalformedInputError:
    return MalformedInputError(f"the form has more than {max_parts} parts")


class _Parts:
    """Listens to the parser: where the pictures lie in the body, and whether all of it is within the limits."""

    def __init__(self, max_parts: int, max_head_bytes: int) -> None:
        self._max_parts = max_parts
        self._max_head_bytes = max_head_bytes
        self._parts = 0
        self._head_bytes = 0
        self._name = b""
        self._headers: dict[bytes, bytes] = {}
        self._picture: FormFile | None = None
        self.pictures: list[FormFile] = []
        self.ended = False

    def callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._field,
            "on_header_value": self._value,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > self._max_parts:
            raise _too_many_parts(self._max_parts)
        self._head_bytes = 0
        self._headers = {}
        self._picture = None

    def _field(self, data: Buffer, start: int, end: int) -> None:
        self._name = self._piece(data, start, end).lower()

    def _value(self, data: Buffer, start: int, end: int) -> None:
        self._headers[self._name] = self._piece(data, start, end)

    def _piece(self, data: Buffer, start: int, end: int) -> bytes:
        self._head_bytes += end - start
        if self._head_bytes > self._max_head_bytes:
            raise MalformedInputError(f"a part's headers exceed {self._max_head_bytes:,} bytes")
        return bytes(data[start:end])

    def _headers_finished(self) -> None:
        disposition = parse_options_header(self._headers.get(b"content-disposition", b""))[1]
        is_file = b"filename" in disposition or b"content-type" in self._headers
        if is_file and disposition.get(b"name") == FIELD.encode():
            self._picture = FormFile(disposition.get(b"filename"))
            self.pictures.append(self._picture)

    def _data(self, data: Buffer, start: int, end: int) -> None:
        if self._picture is not None:
            self._picture.spans.append((start, end))

    def _end(self) -> None:
        self.ended = True
