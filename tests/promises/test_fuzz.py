"""P2, P5, P9, P11: names, bytes, forms and JSON that nobody thought of, for real networks in a process of their own.

Hypothesis draws the same examples every time where CI is set, and others elsewhere.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dulian.service import schema
from dulian.store import ModelStore
from tests.promises.corpus import MALFORMED, REFUSED, STATUSES, UNKNOWN, files
from tests.promises.envelopes import FORM, JSON, form, part
from tests.promises.harness import PATIENCE_S, Server, comparable, dulian_server

pytestmark = pytest.mark.weights

# It stands in every name, and must stand nowhere else.
SECRET = "gray-heron"


class Asking:
    """One kept connection to a server that has nothing to write to but two empty folders."""

    def __init__(self, server: Server, folders: list[Path]) -> None:
        self.server = server
        self.folders = folders
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)

    def ask(self, path: str, body: bytes, content_type: str) -> tuple[int, bytes, bytes]:
        """Status, head and body of the answer."""
        self.connection.request("POST", path, body, {"Content-Type": content_type})
        answer = self.connection.getresponse()
        head = b"\n".join(f"{name}: {value}".encode() for name, value in answer.getheaders())
        return answer.status, head, answer.read()

    def refusal(self, path: str, body: bytes, content_type: str) -> str | None:
        """The code of an error that has the right status; None for an answer."""
        status, _, said = self.ask(path, body, content_type)
        if status == 200:
            schema.AnalysisResult.model_validate_json(said)
            return None
        code = schema.ErrorAnswer.model_validate_json(said).error.code
        assert STATUSES.get(code) == status, said
        return code

    def logged(self) -> str:
        return json.dumps(self.server.events, ensure_ascii=False)


@pytest.fixture(scope="module")
def asking(model_store: ModelStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    folders = [tmp_path_factory.mktemp(name) for name in ("working", "temporary")]
    wrapper = ("/usr/bin/env", "-C", str(folders[0]))
    with dulian_server(model_store, wrapper=wrapper, TMPDIR=str(folders[1]), HOME=str(folders[1])) as server:
        made = Asking(server, folders)
        yield made
        made.connection.close()
        assert server.stop() == 0
        assert "Traceback" not in made.logged()
        assert not any(event.get("level") == "error" for event in server.events)


# ── names ────────────────────────────────────────────────────────────────────────────────────────

HARMFUL = [
    *(
        "../../../../etc/passwd",
        "..\\..\\..\\boot.ini",
        "/etc/shadow",
        "//host/share/a.jpg",
        "C:\\CON",
        "CON",
        "NUL.jpg",
    ),
    *(
        "CON",
        "a\0.jpg",
        "\u202egpj.exe",
        "a" * 4096,
        ".",
        "..",
        "~root",
        "-rf",
        "$(id)",
        "`id`",
        "|id",
        "%2e%2e%2f",
        "%00",
    ),
    *(
        "a.jpg;type=text/html",
        "<script>alert(1)</script>",
        "{{7*7}}",
        "'; drop table",
        "a\u2028b",
        "\ufeff",
        "😀" * 500,
    ),
]
# Quotes end a name, and line ends its line: what follows may be read in two ways.
PLAIN = st.text(st.characters(blacklist_characters='"\\\r\n', blacklist_categories=["Cs"]), max_size=200)
names = st.sampled_from(HARMFUL).filter(lambda name: "\\" not in name) | PLAIN


def named(name: bytes) -> bytes:
    return form(part(files()["png"], filename=name))


@pytest.mark.parametrize("path", ["/v1/analyze", "/v1/batch", "/api/analyze"])
@given(name=names)
@settings(max_examples=60)
def test_no_name_matters(path: str, asking: Asking, name: str) -> None:
    """P9: the answer is that to a plain name, and the name comes back nowhere."""
    usual = asking.ask(path, named(b"a.jpg"), FORM)
    status, head, body = asking.ask(path, named((name + SECRET).encode()), FORM)
    assert (status, comparable(body)) == (200, comparable(usual[2]))
    assert SECRET.encode() not in head + body


@given(name=st.binary(max_size=300) | st.sampled_from(HARMFUL).map(str.encode))
@example(b'"\r\nX-Evil: 1\r\n\r\nevil')
@example(b'"; name="photo')
@example(b"a.jpg\"; filename*=UTF-8''..%2f..%2fetc%2fpasswd; x=\"")
@example(b"\\")
@settings(max_examples=150)
def test_any_bytes_may_be_a_name(asking: Asking, name: bytes) -> None:
    """P9: what breaks the form is refused as a form; the name comes back nowhere."""
    status, head, body = asking.ask("/v1/analyze", named(SECRET.encode() + name + SECRET.encode()), FORM)
    assert status in (200, 400, 415, 422), body
    assert SECRET.encode() not in head + body
    assert b"evil" not in head.lower()


def test_names_leave_no_trace(asking: Asking) -> None:
    """P9: not in the log, and in no file; nothing is written at all."""
    for name in HARMFUL:
        asking.ask("/v1/analyze", named((SECRET + name).encode()), FORM)
        asking.ask("/predict", form(part(b"no picture", filename=(SECRET + name).encode())), FORM)
    assert SECRET not in asking.logged()
    assert [list(folder.rglob("*")) for folder in asking.folders] == [[], []]


def test_copies_of_harmful_names_stay_where_they_belong(model_store: ModelStore, tmp_path: Path) -> None:
    """P9: the command line writes below its folder, one line for each file, whatever that is called."""
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    odd = {name.replace("/", "_").replace("\0", "_")[:60] for name in HARMFUL} | {"a\nb", "a\x1b[2Jb", "..."}
    kept = {unicodedata.normalize("NFC", name) + ".jpg" for name in odd}
    raw = {os.fsencode(name) for name in kept} | {b"\xff\xfe.jpg"}
    pictures.mkdir()
    for name in raw:
        Path(os.fsdecode(os.fsencode(pictures) + b"/" + name)).write_bytes(files()["jpeg baseline"])
    (pictures / "link.jpg").symlink_to("/etc/passwd")
    (pictures / "folder").symlink_to("/etc")
    os.mkfifo(pictures / "pipe.jpg")
    environment = {**os.environ, "DULIAN_MODEL_DIR": str(model_store.write_dir), "DULIAN_OFFLINE": "1"}
    command = [sys.executable, "-m", "dulian", "analyze", "--json", "--output", str(out), str(pictures)]
    done = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path, timeout=PATIENCE_S, check=False)
    assert done.returncode == 2, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    visible = [name for name in raw if not name.startswith(b".")]
    assert len(lines) == len(visible) + 2
    assert sorted(line["error"]["code"] for line in lines if "error" in line) == ["input_not_found", UNKNOWN]
    written = [path for path in out.rglob("*") if path.is_file()]
    assert len(written) == len(visible)
    assert all(path.resolve().is_relative_to(out.resolve()) for path in written)
    assert sorted(os.listdir(tmp_path)) == ["out", "pictures"]


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────

MAGICS = sorted({data[:length] for data in files().values() for length in (4, 12, 32)})


@given(magic=st.sampled_from(MAGICS), noise=st.binary(max_size=400))
@settings(max_examples=150)
def test_random_bytes_after_any_signature(asking: Asking, magic: bytes, noise: bytes) -> None:
    """P2, P5."""
    assert asking.refusal("/v1/analyze", magic + noise, "image/png") in {None, *REFUSED}


@given(name=st.sampled_from(sorted(files())), data=st.data())
@settings(max_examples=150)
def test_changed_files(asking: Asking, name: str, data: st.DataObject) -> None:
    """P2, P3: bytes changed, left out, put in."""
    file = bytearray(files()[name])
    near = st.integers(0, min(400, len(file) - 1))
    place = near | st.integers(0, len(file) - 1)
    for at, value in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), max_size=8)):
        file[at] = value
    start, length, noise = data.draw(st.tuples(place, st.integers(0, 200), st.binary(max_size=40)))
    changed = bytes(file[:start]) + noise + bytes(file[start + length :])
    assert asking.refusal("/v1/analyze", changed, "application/octet-stream") in {None, *REFUSED}


# ── forms and JSON ───────────────────────────────────────────────────────────────────────────────

fields = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["image", "image", "photo", "", "Image", "image[]"]),
        "filename": st.sampled_from([None, b"", b"a.jpg"]),
        "more": st.sampled_from([b"", b"Content-Type: image/png\r\n", b"X-Y: z\r\n", b"Content-Type: text/html\r\n"]),
    }
)


@given(parts=st.lists(fields, max_size=24))
@settings(max_examples=100)
def test_forms_of_any_parts(asking: Asking, parts: list[dict[str, Any]]) -> None:
    """P7, P11: answered if there is exactly one file in field image, among twenty parts at most."""
    body = form(*(part(files()["png"], **one) for one in parts))
    pictures = [one for one in parts if one["name"] == "image" and is_file(one)]
    expected = None if len(pictures) == 1 and len(parts) <= 20 else MALFORMED
    assert asking.refusal("/v1/analyze", body, FORM) == expected


def is_file(one: dict[str, Any]) -> bool:
    return one["filename"] is not None or b"Content-Type" in one["more"]


@given(start=st.integers(0, 400), noise=st.binary(max_size=60), length=st.integers(0, 100))
@settings(max_examples=100)
def test_damaged_forms(asking: Asking, start: int, noise: bytes, length: int) -> None:
    """P7, P11."""
    body = form(part(b"1", name="a", filename=None), part(files()["png"][:200]))
    damaged = body[:start] + noise + body[start + length :]
    assert asking.refusal("/v1/analyze", damaged, FORM) in REFUSED


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.just("image"), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(value=values, indent=st.sampled_from([None, 0, 3]))
@settings(max_examples=100)
def test_any_json(asking: Asking, value: Any, indent: int | None) -> None:
    """P11: nothing but one name and Base64 is taken, and short Base64 is no picture."""
    body = json.dumps(value, indent=indent).encode()
    assert asking.refusal("/v1/analyze", body, JSON) in (MALFORMED, UNKNOWN)


@given(name=st.text(max_size=30), value=st.text(max_size=30))
@settings(max_examples=60)
def test_any_wish(asking: Asking, name: str, value: str) -> None:
    """P11: refused, or one that is known."""
    path = f"/v1/analyze?{quote(name, errors='replace')}={quote(value, errors='replace')}"
    status, _, body = asking.ask(path, files()["png"], "image/png")
    assert status == 400, body


@pytest.mark.parametrize("path", ["/v1/analyze", "/v1/batch", "/predict", "/api/analyze", "/analyze"])
@given(content_type=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
@settings(max_examples=40)
def test_any_content_type(path: str, asking: Asking, content_type: str) -> None:
    """P11: what is in it is judged by the bytes, and what wraps it by this alone."""
    status, _, _ = asking.ask(path, b"no picture", content_type)
    assert status in (400, 415)
