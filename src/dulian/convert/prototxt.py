"""Reads protobuf text format (.prototxt) into messages with typed getters; no schema is known here.

Which fields mean what is the business of whoever asks for them, hence a getter per kind of value and
the line number in every complaint.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from dulian.errors import ConversionError

# The prototxt of a very deep net has some 200 kB and nests four messages deep.
MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 32
_MAX_NUMBER_LENGTH: Final = 64

# The number is an atomic group: it gives nothing back, so a long run of digits costs linear time.
_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r\f\v]+|\#[^\n]*)
      | (?P<newline>\n)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<number>[-+]?(?>0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?[fF]?)(?![\w.]))
      | (?P<word>[A-Za-z_][\w.]*)
      | (?P<mark>[{}<>\[\]:,;])""",
    re.VERBOSE | re.ASCII,
)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}
_KINDS: Final = ("string", "number", "word", "mark")
_CLOSING: Final = {"{": "}", "<": ">"}
_TRUE: Final = ("true", "True", "t", 1)
_FALSE: Final = ("false", "False", "f", 0)

_Kind = TypeVar("_Kind")


@dataclass(frozen=True, slots=True)
class _Entry:
    value: str | int | float | Message
    line: int


@dataclass(frozen=True, slots=True)
class Message:
    """The fields between two braces. A getter returns the default where the field is absent."""

    line: int = 1
    entries: dict[str, list[_Entry]] = field(default_factory=dict)

    def names(self) -> frozenset[str]:
        """The names of the fields that are present."""
        return frozenset(self.entries)

    def has(self, name: str) -> bool:
        """Whether the field is present."""
        return name in self.entries

    def children(self, name: str) -> tuple[Message, ...]:
        """The messages of a repeated field, in file order."""
        return self._values(name, Message, "a message in braces")

    def child(self, name: str) -> Message:
        """The one message of that name, an empty one if there is none."""
        self._at_most_one(name)
        return next(iter(self.children(name)), Message(self.line))

    def texts(self, name: str) -> tuple[str, ...]:
        """Quoted strings or bare words."""
        return self._values(name, str, "text")

    def text(self, name: str, default: str) -> str:
        """One string or word."""
        self._at_most_one(name)
        return next(iter(self.texts(name)), default)

    def integers(self, name: str) -> tuple[int, ...]:
        """Whole numbers."""
        return self._values(name, int, "a whole number")

    def integer(self, name: str, default: int) -> int:
        """One whole number."""
        self._at_most_one(name)
        return next(iter(self.integers(name)), default)

    def numbers(self, name: str) -> tuple[float, ...]:
        """Finite numbers."""
        return tuple(map(float, self._values(name, (int, float), "a number")))

    def number(self, name: str, default: float) -> float:
        """One finite number."""
        self._at_most_one(name)
        return next(iter(self.numbers(name)), default)

    def flag(self, name: str, default: bool) -> bool:
        """True or false, 1 or 0."""
        self._at_most_one(name)
        for entry in self.entries.get(name, ()):
            if entry.value in _TRUE:
                return True
            if entry.value not in _FALSE:
                raise _error(entry.line, f"{name} must be true or false, not {_shown(entry.value)}")
            return False
        return default

    def choice(self, name: str, default: str, *, numbered: Sequence[str]) -> str:
        """One word of an enumeration; ``numbered[i]`` is the word that the number i stands for."""
        self._at_most_one(name)
        for entry in self.entries.get(name, ()):
            if isinstance(entry.value, int) and 0 <= entry.value < len(numbered):
                return numbered[entry.value]
            if entry.value not in numbered:
                known = ", ".join(word for word in numbered if word)
                raise _error(entry.line, f"{name} is {_shown(entry.value)}; known are {known}")
            return str(entry.value)
        return default

    def _values(self, name: str, kind: type[_Kind] | tuple[type[_Kind], ...], what: str) -> tuple[_Kind, ...]:
        found = []
        for entry in self.entries.get(name, ()):
            if not isinstance(entry.value, kind):
                raise _error(entry.line, f"{name} must be {what}, not {_shown(entry.value)}")
            found.append(entry.value)
        return tuple(found)

    def _at_most_one(self, name: str) -> None:
        entries = self.entries.get(name, ())
        if len(entries) > 1:
            raise _error(entries[1].line, f"{name} is given a second time")


def parse_prototxt(data: bytes) -> Message:
    """Parses a whole file; LF, CRLF and a byte order mark are accepted.

    Raises:
        ConversionError: with the line number of what cannot be read.
    """
    if len(data) > MAX_BYTES:
        raise ConversionError(f"prototxt has {len(data)} bytes; at most {MAX_BYTES} are read")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _error(line, "a byte that is no UTF-8 text: is this a prototxt at all?") from None
    return _Parser(_tokens(text)).message()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # one of _KINDS, or "end"
    text: str
    line: int


def _tokens(text: str) -> Iterator[_Token]:
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _error(line, f"unexpected {text[position : position + 12].splitlines()[0]!r}")
        position = match.end()
        kind, found = match.lastgroup, match.group()
        if kind == "newline":
            line += 1
        elif kind in _KINDS:
            yield _Token(kind, found, line)
    yield _Token("end", "end of file", line)


class _Parser:
    """Recursive descent over the tokens, one token ahead."""

    def __init__(self, tokens: Iterator[_Token]) -> None:
        self._tokens = tokens
        self._ahead = next(tokens)

    def message(self, closing: str | None = None, depth: int = 0) -> Message:
        """Fields up to ``closing``, or to the end of the file."""
        message = Message(self._ahead.line)
        while True:
            token = self._take()
            if token.text == closing and token.kind == "mark":
                return message
            if token.kind == "end":
                if closing is None:
                    return message
                raise _error(token.line, f"the {closing!r} for line {message.line} is missing")
            if token.kind != "word":
                raise _error(token.line, f"expected the name of a field, found {token.text!r}")
            message.entries.setdefault(token.text, []).extend(self._values(depth))
            while self._ahead.text in (",", ";") and self._ahead.kind == "mark":
                self._take()

    def _values(self, depth: int) -> Iterator[_Entry]:
        has_colon = self._accept(":")
        if has_colon and self._accept("["):
            while not self._accept("]"):
                yield self._value(self._take(), depth)
                if not self._accept(",") and self._ahead.text != "]":
                    raise _error(self._ahead.line, f"expected ',' or ']', found {self._ahead.text!r}")
            return
        token = self._take()
        if not has_colon and not (token.kind == "mark" and token.text in _CLOSING):
            raise _error(token.line, f"expected ':' or '{{', found {token.text!r}")
        yield self._value(token, depth)

    def _value(self, token: _Token, depth: int) -> _Entry:
        if token.kind == "mark" and token.text in _CLOSING:
            if depth >= MAX_DEPTH:
                raise _error(token.line, f"messages nest deeper than {MAX_DEPTH}")
            return _Entry(self.message(_CLOSING[token.text], depth + 1), token.line)
        if token.kind == "string":
            parts = [_unquoted(token.text)]
            while self._ahead.kind == "string":
                parts.append(_unquoted(self._take().text))
            return _Entry("".join(parts), token.line)
        if token.kind == "number":
            return _Entry(_number(token), token.line)
        if token.kind == "word":
            return _Entry(token.text, token.line)
        raise _error(token.line, f"expected a value, found {token.text!r}")

    def _take(self) -> _Token:
        token = self._ahead
        # The last token says "end" for ever.
        self._ahead = next(self._tokens, token)
        return token

    def _accept(self, mark: str) -> bool:
        if self._ahead.kind != "mark" or self._ahead.text != mark:
            return False
        self._take()
        return True


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text[1:-1])


def _number(token: _Token) -> int | float:
    text = token.text.lower()
    if len(text) > _MAX_NUMBER_LENGTH:
        raise _error(token.line, f"a number of {len(text)} digits")
    if "x" in text:
        return int(text, 16)
    if text.lstrip("+-").isdigit():
        return int(text)
    value = float(text.rstrip("f"))
    if not math.isfinite(value):
        raise _error(token.line, f"{token.text} is too large")
    return value


def _shown(value: str | int | float | Message) -> str:
    return "a message" if isinstance(value, Message) else repr(value)


def _error(line: int, what: str) -> ConversionError:
    return ConversionError(f"prototxt line {line}: {what}")
