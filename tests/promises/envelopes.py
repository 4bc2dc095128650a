"""What pictures are wrapped in, as it should be and as it should not; and wishes that make no sense."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from tests.promises.corpus import ANSWERED, MALFORMED, UNKNOWN

BOUNDARY = "a-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
JSON = "application/json"
_DELIMITER = f"--{BOUNDARY}".encode()
_MANY = 10_000_000


def part(data: bytes, *, name: str = "image", filename: bytes | None = b"a.jpg", more: bytes = b"") -> bytes:
    """One part of a form, with its delimiter before it; ``more`` are further header lines, each with its end."""
    disposition = f'form-data; name="{name}"'.encode()
    if filename is not None:
        disposition += b'; filename="' + filename + b'"'
    return b"%b\r\nContent-Disposition: %b\r\n%b\r\n%b\r\n" % (_DELIMITER, disposition, more, data)


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + _DELIMITER + b"--\r\n"


def in_form(*pictures: bytes) -> bytes:
    return form(*map(part, pictures))


def in_json(data: bytes) -> bytes:
    return json.dumps({"image": base64.b64encode(data).decode()}).encode()


@dataclass(frozen=True, slots=True)
class Body:
    """A request body with its Content-Type, and what may come of it."""

    name: str
    content_type: str
    data: bytes
    outcomes: frozenset[str]


# ── forms ────────────────────────────────────────────────────────────────────────────────────────


def forms(good: bytes) -> Iterator[Body]:
    """Forms as no browser writes them, round a good picture."""
    for name, data in _broken_forms(good):
        yield Body(f"form: {name}", FORM, data, frozenset({MALFORMED}))
    for name, data, outcomes in _odd_forms(good):
        yield Body(f"form: {name}", FORM, data, outcomes)
    for name, boundary in _BROKEN_BOUNDARIES.items():
        content_type = "multipart/form-data" + boundary
        yield Body(f"boundary: {name}", content_type, in_form(good), frozenset({MALFORMED}))


_BROKEN_BOUNDARIES = {
    "none": "",
    "an empty one": "; boundary=",
    "another one": "; boundary=another",
    "one of 8000 letters": "; boundary=" + "x" * 8_000,
    "one with quotes in it": '; boundary="a-\\"boundary"',
    "a pattern": "; boundary=a.*",
    "blanks": '; boundary="   "',
    "dashes": "; boundary=----",
    "with a zero byte in it": "; boundary*=utf-8''a%00boundary",
}


def _broken_forms(good: bytes) -> Iterator[tuple[str, bytes]]:
    whole, nothing = part(good), part(b"", name="a", filename=None)
    yield "1001 parts", form(*[nothing] * 1000, whole)
    yield "100,000 fields", form(*[nothing] * 100_000)
    yield "100,000 boundaries", (_DELIMITER + b"\r\n") * 100_000
    yield "10 MB of boundaries, nearly", _DELIMITER + b"\r\n" + (b"\r\n" + _DELIMITER + b"X") * 600_000
    yield "10 MB of dashes", b"-" * _MANY
    yield "10 MB of line ends", b"\r\n" * (_MANY // 2)
    yield "10 MB in another field", form(part(bytes(_MANY), name="a"))
    yield "no end", whole
    yield "half an end", whole + _DELIMITER + b"-"
    yield "an end within the picture", whole[: len(whole) // 2]
    yield "nothing but an end", form()
    yield "nothing", b"\r\n"
    yield "blanks after a boundary", whole + _DELIMITER + b" " * 100_000 + b"\r\n"
    yield "line feeds alone", form(whole).replace(b"\r\n", b"\n")
    yield "the picture as a field", form(part(good, filename=None))
    yield "another name", form(part(good, name="photo"))
    yield "an empty name", form(part(good, name=""))
    yield "no disposition", form(_DELIMITER + b"\r\n\r\n" + good + b"\r\n")
    yield "a head of 1 MB", form(part(good, more=b"X: " + b"y" * 1_000_000 + b"\r\n"))
    yield "a head of 10,000 lines", form(part(good, more=b"X: y\r\n" * 10_000))
    yield "a head with a zero byte", form(part(good, more=b"X\0: y\r\n"))
    yield "a head without an end", _DELIMITER + b"\r\nContent-Disposition: form-data" + b"; a" * 1_000_000
    yield "a name of 4 KB, twice", form(part(good, filename=b"a" * 4096 + b'"; filename*="' + b"b" * 4096))
    yield "json", in_json(good)


def _odd_forms(good: bytes) -> Iterator[tuple[str, bytes, frozenset[str]]]:
    """What may be read in two ways, or is no broken form but holds something else than a picture."""
    inner = in_form(good).replace(BOUNDARY.encode(), b"b-oundary")
    base64_part = b"Content-Transfer-Encoding: base64\r\n"
    either = frozenset({ANSWERED, MALFORMED})
    yield "a form in a form", form(part(inner)), frozenset({UNKNOWN})
    yield "Base64 in a form", form(part(base64.b64encode(good), more=base64_part)), frozenset({UNKNOWN})
    deflated = part(zlib.compress(good), more=b"Content-Encoding: deflate\r\n")
    yield "a compressed part", form(deflated), frozenset({UNKNOWN})
    yield "said to be Base64", form(part(good, more=base64_part)), frozenset({ANSWERED})
    mixed = part(good, more=b"Content-Type: multipart/mixed; boundary=b\r\n")
    yield "said to be many", form(mixed), frozenset({ANSWERED})
    field = part(b"x", filename=None)
    yield "a field of the same name", form(field, part(good)), frozenset({ANSWERED})
    yield "two names", form(part(good).replace(b"name=", b'name="photo"; name=', 1)), either
    yield "1000 parameters", form(part(good, filename=b'a"' + b'; a="b"' * 1_000 + b'; c="')), either
    yield "another disposition", form(part(good).replace(b"form-data", b"attachment")), either
    yield "a folded line", form(part(good, more=b"X: y\r\n z\r\n")), either


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────


def json_bodies(good: bytes) -> Iterator[Body]:
    """JSON that is not exactly ``{"image": "<Base64>"}``, or whose Base64 holds no picture."""
    for name, data in _broken_json(base64.b64encode(good)):
        yield Body(f"json: {name}", JSON, data, frozenset({MALFORMED}))
    for name, value in _no_base64(base64.b64encode(good)).items():
        yield Body(f"json: image is {name}", JSON, b'{"image": ' + value + b"}", frozenset({MALFORMED}))
    other = frozenset({UNKNOWN})
    yield Body("json: another type", JSON, in_json(b"no picture"), other)
    yield Body("json: 10 MB of blanks before it", JSON, b" " * _MANY + in_json(b"no picture"), other)
    yield Body("json: 10 MB of escapes", JSON, b'{"image": "' + b"\\u0041" * 1_600_000 + b'"}', other)


def _broken_json(text: bytes) -> Iterator[tuple[str, bytes]]:
    yield "10 MB of backslashes", b'{"image": "' + b"\\" * _MANY + b'"}'
    yield "10 MB of blanks", b" " * _MANY
    yield "10 MB of brackets", b"[" * _MANY
    yield "10 MB of objects", b'{"image":' * (_MANY // 9)
    yield "100,000 names", b"{" + b",".join(b'"%d":1' % number for number in range(100_000)) + b"}"
    yield "a name twice", b'{"image": "' + text + b'", "image": "' + text + b'"}'
    yield "a name beside it", b'{"image": "' + text + b'", "a": 1}'
    yield "another name", b'{"img": "' + text + b'"}'
    yield "an escaped name", b'{"im\\u0061ge": "' + text + b'"}'
    yield "a prototype", b'{"__proto__": {"image": "' + text + b'"}}'
    yield "no end", b'{"image": "' + text + b'"'
    yield "more after the end", b'{"image": "' + text + b'"}{}'
    yield "a comma too many", b'{"image": "' + text + b'",}'
    yield "single quotes", b"{'image': '" + text + b"'}"
    yield "a byte order mark", b"\xef\xbb\xbf" + b'{"image": "' + text + b'"}'
    yield "UTF-16", ('{"image": "' + text.decode() + '"}').encode("utf-16")
    yield "a zero byte", b"\0"
    yield "a list", b"[]"
    yield "a form", form(part(b"x"))


def _no_base64(text: bytes) -> dict[str, bytes]:
    """Values in place of the picture's Base64."""
    return {
        "null": b"null",
        "true": b"true",
        "NaN": b"NaN",
        "-Infinity": b"-Infinity",
        "1e999": b"1e999",
        "a number of a million digits": b"9" * 1_000_000,
        "an object": b'{"image":"' + text + b'"}',
        "a list": b'["' + text + b'"]',
        "empty": b'""',
        "a text": b'"no picture"',
        "with a blank in it": b'"' + text[:40] + b" " + text[40:] + b'"',
        "with a line end in it": b'"' + text[:40] + b"\\n" + text[40:] + b'"',
        "a letter short": b'"' + text[:-1] + b'"',
        "with padding that nothing asks for": b'"' + text + b'===="',
        "with padding in it": b'"QQ==' + text + b'"',
        "with letters for addresses": b'"_-_-"',
        "a data: address": b'"data:image/jpeg;base64,' + text + b'"',
        "an address": b'"http://169.254.169.254/latest/meta-data/"',
        "a path": b'"/etc/passwd"',
        "half a character": b'"\\ud800"',
        "with a zero byte": b'"QUJD\\u0000"',
    }


# ── wishes ───────────────────────────────────────────────────────────────────────────────────────

# All of them are refused, by every route that takes a picture.
QUERIES = (
    *("max_faces=0", "max_faces=51", "max_faces=-1", "max_faces=1e1", "max_faces=", "max_faces=1&max_faces=2"),
    *("max_faces=%D9%A3", "max_faces=0x1", "max_faces=1.0", "max_faces=%00", "max_faces=+1", "max_faces[]=1"),
    *("min_confidence=0", "min_confidence=1.1", "min_confidence=nan", "min_confidence=inf", "min_confidence=1e999"),
    *("min_confidence=1e-999", "min_confidence=--1", "coverage=0", "coverage=1", "coverage=NaN", "order=random"),
    *("max_ms=0", "max_ms=-5", "max_ms=soon", "max_ms=1.5", "max_ms=99999999999999999999", "order=", "order=size%00"),
    *("attributes=race", "attributes=age&attributes=race", "nonsense=1", "Max_faces=1", "=", "=1", "%ff=1", "%00=%00"),
    "max_faces=" + "9" * 5_000,
    "a" * 9_000,
    "&".join(f"a{number}=1" for number in range(21)),
    "&".join(["attributes=age"] * 2_000),
)
