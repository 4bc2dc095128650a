from __future__ import annotations

import base64
import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dulian.errors import DulianError, InputTooLargeError, MalformedInputError, UnsupportedMediaError
from dulian.service.envelope import find_envelope, open_envelope, read_form
from dulian.service.limits import ServiceLimits

LIMITS = ServiceLimits()
PICTURE = b"\xff\xd8 not really \r\n--a picture\r\n\xff\xd9"
FORM = "multipart/form-data; boundary=xyz"


def part(name: str = "image", data: bytes = PICTURE, *, filename: str | None = "a.jpg", more: str = "") -> bytes:
    disposition = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename is not None else "")
    return f"--xyz\r\nContent-Disposition: {disposition}\r\n{more}\r\n".encode() + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--xyz--\r\n"


def in_json(data: bytes = PICTURE) -> bytes:
    return json.dumps({"image": base64.b64encode(data).decode()}).encode()


def test_every_envelope_holds_the_same_picture() -> None:
    assert open_envelope(PICTURE, "image/jpeg", LIMITS) == PICTURE
    assert open_envelope(bytearray(PICTURE), "application/octet-stream", LIMITS) == PICTURE
    assert open_envelope(form(part()), FORM, LIMITS) == PICTURE
    assert open_envelope(bytearray(form(part())), FORM, LIMITS) == PICTURE
    assert open_envelope(in_json(), "application/json; charset=utf-8", LIMITS) == PICTURE


@pytest.mark.parametrize(
    ("content_type", "envelope"),
    [
        ("", "raw"),
        ("image/heic", "raw"),
        ("Image/JPEG; q=1", "raw"),
        ("application/x-www-form-urlencoded", "raw"),
        ("APPLICATION/JSON", "json"),
        ('multipart/form-data; boundary="a b"', "multipart"),
    ],
)
def test_content_types(content_type: str, envelope: str) -> None:
    assert find_envelope(content_type) == envelope


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "multipart/mixed; boundary=a", "nonsense"])
def test_other_content_types_are_refused(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaError, match="is not accepted; send the picture itself"):
        find_envelope(content_type)


# ── multipart ────────────────────────────────────────────────────────────────────────────────────


def test_forms_as_clients_write_them() -> None:
    request = httpx.Request(
        "POST", "http://a", files={"image": ("日本 \"'.png", PICTURE, "image/png")}, data={"a": "b"}
    )
    assert open_envelope(request.read(), request.headers["content-type"], LIMITS) == PICTURE
    browser = form(part("other", b"ignored"), part(more="Content-Type: image/jpeg\r\n"), part("x", b"", filename=None))
    assert open_envelope(browser, FORM, LIMITS) == PICTURE
    blob = form(part(filename=None, more="Content-Type: image/jpeg\r\n"))
    assert open_envelope(blob, FORM, LIMITS) == PICTURE
    assert open_envelope(form(part(data=b"")), FORM, LIMITS) == b""
    assert open_envelope(form(part()) + b"an epilogue", FORM, LIMITS) == PICTURE


@pytest.mark.parametrize(
    ("body", "content_type", "said"),
    [
        (form(part("photo")), FORM, "no file field 'image'"),
        (form(part(filename=None)), FORM, "no file field 'image'"),
        (form(), FORM, "no file field 'image'"),
        (form(part(), part()), FORM, "more than one file field 'image'"),
        (form(*[part("a", b"")] * 20, part()), FORM, "more than 20 parts"),
        (form(*[part("a", b"")] * 500, part()), FORM, "more than 20 parts"),
        (part(), FORM, "ends before its last boundary"),
        (form(part())[:60], FORM, "ends before its last boundary"),
        (b"\r\n", FORM, "ends before its last boundary"),
        (PICTURE, FORM, "broken"),
        (form(part()), "multipart/form-data", "without a boundary"),
        (form(part()), "multipart/form-data; boundary=", "without a boundary"),
        (form(part()), "multipart/form-data; boundary=" + "x" * 300, "broken"),
        (form(part()), "multipart/form-data; boundary=abc", "broken"),
        (form(part(more=f"X: {'y' * 8192}\r\n")), FORM, "broken"),
        (form(part(more=f"X: {'y' * 4000}\r\n" * 3)), FORM, "headers exceed 8,192 bytes"),
        (form(part(more="X: y\r\n" * 20)), FORM, "broken"),
        (form(part(more="X\x00: y\r\n")), FORM, "broken"),
        (part() + b"--xyz" + b" " * 100_000 + b"\r\n", FORM, "blanks after a multipart boundary"),
    ],
)
def test_broken_forms_are_refused(body: bytes, content_type: str, said: str) -> None:
    with pytest.raises(MalformedInputError) as caught:
        open_envelope(body, content_type, LIMITS)
    assert said in str(caught.value)


def test_boundary_lookalikes_do_not_cost_seconds() -> None:
    """Ten megabytes of almost-boundaries are refused by counting, before the parser steps over each of them."""
    with pytest.raises(MalformedInputError, match="more than 20 parts"):
        open_envelope(b"--a\r\n" + b"\r\n--aX" * 1_500_000, "multipart/form-data; boundary=a", LIMITS)


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_several_pictures_come_in_order_and_apart(kind: type[bytes | bytearray]) -> None:
    pictures = [b"one", b"", PICTURE, b"\r\n", b"two"]
    body = kind(form(part("note", b"x"), *(part(data=data) for data in pictures), part("photo", b"y")))
    files = read_form(body, FORM, LIMITS, max_parts=7)
    assert [file.content(body) for file in files] == pictures
    assert [file.name for file in files] == [b"a.jpg"] * 5
    with pytest.raises(MalformedInputError, match="more than 6 parts"):
        read_form(body, FORM, LIMITS, max_parts=6)


def test_a_file_without_a_name_and_one_with_an_empty_one_differ() -> None:
    body = form(part(filename=None, more="Content-Type: image/jpeg\r\n"), part(filename=""))
    assert [file.name for file in read_form(body, FORM, LIMITS, max_parts=2)] == [None, b""]


@given(st.binary(max_size=200))
def test_any_payload_comes_out_as_it_went_in(data: bytes) -> None:
    if b"\r\n--xyz" not in b"\r\n" + data:
        assert open_envelope(form(part("a", b"1"), part(data=data)), FORM, LIMITS) == data


@given(st.binary(max_size=300), st.sampled_from([FORM, "application/json"]))
def test_garbage_is_refused_in_order(data: bytes, content_type: str) -> None:
    for body in (data, form(part())[: len(data)] + data, in_json()[: len(data)] + data):
        try:
            open_envelope(body, content_type, LIMITS)
        except DulianError:
            continue


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "body",
    [
        b' \r\n{ "image"\t: "QUJD" } \n',
        b'{"image":"QUJD"}',
        json.dumps({"image": "QUJD"}, indent=2).encode(),
    ],
)
def test_blanks_do_not_matter(body: bytes) -> None:
    assert open_envelope(body, "application/json", LIMITS) == b"ABC"


def test_escaped_slashes_are_understood() -> None:
    data = b"\xff\xff\xff\xfb\xef"
    plain = base64.b64encode(data).decode()
    assert "/" in plain
    for escaped in (plain.replace("/", "\\/"), plain.replace("/", "\\u002f"), plain.replace("+", "\\u002B")):
        assert open_envelope(b'{"image": "' + escaped.encode() + b'"}', "application/json", LIMITS) == data


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[]",
        b"{}",
        b'"QUJD"',
        b'{"image": null}',
        b'{"image": NaN}',
        b'{"image": 1e999}',
        b'{"image": ["QUJD"]}',
        b'{"img": "QUJD"}',
        b'{"image": "QUJD", "image": "QUJD"}',
        b'{"image": "QUJD", "a": 1}',
        b'{"a": 1, "image": "QUJD"}',
        b'{"image": "QUJD"',
        b'{"image": "QUJD"} {}',
        b'{"image": "}',
        b'{"image": "\\"}',
        b'{"image": "QUJD\\"}',
        b'{"image": "QU\\u00e9D"}',
        b'{"image": "\\ud800"}',
        b"[" * 100_000,
        b'{"image":' * 100_000,
        b"\xef\xbb\xbf" + b'{"image": "QUJD"}',
        '{"image": "QUJD"}'.encode("utf-16"),
    ],
)
def test_other_json_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedInputError):
        open_envelope(body, "application/json", LIMITS)


@pytest.mark.parametrize(
    "text", ["QUJ", "QUJD=", "QUJD====", "QU JD", "QUJD\\n", "data:image/png;base64,QUJD", "QUJ-", "=QUJ", "QQ==QQ=="]
)
def test_loose_base64_is_refused(text: str) -> None:
    with pytest.raises(MalformedInputError, match="no Base64"):
        open_envelope(b'{"image": "' + text.encode() + b'"}', "application/json", LIMITS)


def test_the_decoded_size_is_known_before_decoding() -> None:
    limits = ServiceLimits(max_body_bytes=30)
    assert len(open_envelope(in_json(bytes(30)), "application/json", limits)) == 30
    with pytest.raises(InputTooLargeError, match="the picture has 31 bytes"):
        open_envelope(in_json(bytes(31)), "application/json", limits)
