from __future__ import annotations

import pytest

from dulian.errors import MalformedInputError
from dulian.origins import is_loopback, parse_host, parse_origin
from dulian.settings import read_settings


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("https://photos.example", "https://photos.example"),
        ("https://photos.example/", "https://photos.example"),
        (" HTTPS://Photos.Example:443 ", "https://photos.example"),
        ("http://photos.example:80", "http://photos.example"),
        ("http://photos.example:443", "http://photos.example:443"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("http://192.0.2.7", "http://192.0.2.7"),
    ],
)
def test_origins_are_spelled_as_browsers_do(text: str, spelled: str) -> None:
    assert parse_origin(text) == spelled


@pytest.mark.parametrize(
    "text",
    [
        *("", "*", "null", "photos.example", "https://", "https://*", "https://*.example", "ftp://photos.example"),
        *("https://photos.example/path", "https://photos.example?x", "https://photos.example#x", "file:///etc"),
        *("https://me@photos.example", "https://photos.example:0", "https://photos.example:99999", "https://a b"),
        *("https://photos.example:port", "https://fotös.example", "https://a\r\nb", "http://[::1"),
    ],
)
def test_what_is_no_origin(text: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        parse_origin(text)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("photos.example", "photos.example"),
        ("Photos.Example.", "photos.example"),
        ("photos.example:8080", "photos.example"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[2001:db8::7]:80", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
    ],
)
def test_hosts_lose_their_port(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize("text", ["", ":80", "*", "*.example", "https://photos.example", "a b", "fotös.example", "[]"])
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(ValueError, match="is no host name"):
        parse_host(text)


@pytest.mark.parametrize("host", ["localhost", "app.localhost", "127.0.0.1", "127.8.0.1", "::1", "0:0:0:0:0:0:0:1"])
def test_this_machine_itself(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "localhost.example", "notlocalhost", "127.0.0.1.example", "0.0.0.0", "192.168.0.1", "::", "2130706433"]
)
def test_other_machines(host: str) -> None:
    assert not is_loopback(host)


# ── as settings ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("https://a.example", ("https://a.example",)),
        (" https://a.example , HTTP://B.example:80/,", ("https://a.example", "http://b.example")),
        ('["https://a.example", "https://A.example"]', ("https://a.example",)),
        ("", ()),
        ("[]", ()),
    ],
)
def test_origins_come_separated_by_commas_or_as_json(
    monkeypatch: pytest.MonkeyPatch, text: str, origins: tuple[str, ...]
) -> None:
    monkeypatch.setenv("DULIAN_CORS_ORIGINS", text)
    assert read_settings().cors_origins == origins


def test_hosts_likewise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DULIAN_ALLOWED_HOSTS", "Photos.example:443, [2001:db8::7]")
    assert read_settings().allowed_hosts == ("photos.example", "2001:db8::7")


@pytest.mark.parametrize("text", ["*", "https://a.example, *", '["https://a.example"', '{"a": 1}', "[1]", "[[]]"])
def test_a_list_with_anything_else_in_it_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("DULIAN_CORS_ORIGINS", text)
    with pytest.raises(MalformedInputError, match="cors_origins"):
        read_settings()
