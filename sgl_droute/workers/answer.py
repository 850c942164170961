"""
An answer, read from a worker's bytes.

A C parser reads the head and undoes chunks; a body that is sent as it is passes by without being
looked at or copied. Stricter than RFC 9112 allows where two readers could see two different
answers. Pure: it knows no connection.
"""

from __future__ import annotations

import re
from typing import Any

from attrs import define, field, frozen
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

# Bytes of all heads of one answer, interim ones included, and headers in one; also bytes of a
# chunked body that bring none of it (extensions, trailers).
MAX_HEAD = 1 << 16
MAX_HEADERS = 500

_BEGINNING = b"HTTP/1."
_BARE_LF = re.compile(rb"(?<!\r)\n")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NO_BODY = frozenset({204, 304})


class BadAnswer(Exception):
    """Bytes that are no sound answer."""


@frozen(eq=False)
class AnswerHead:
    """
    An answer as far as its head tells.

    Attributes:
        minor: 1 for HTTP/1.1, 0 for HTTP/1.0.
        code: 200 to 599, or 101.
        phrase: Without control characters.
        fields: Headers in order, names as they came, values without the white space around them;
            not those that ``Connection`` names.
        length: Bytes of the body; None where the head does not tell.
        chunked: Whether the body comes in chunks; without a length it ends with its connection
            otherwise.
        persistent: Whether the connection may serve another request (RFC 9112 9.3).
    """

    minor: int
    code: int
    phrase: bytes
    fields: list[tuple[bytes, bytes]]
    length: int | None
    chunked: bool
    persistent: bool


@define(eq=False)
class AnswerReader:
    """
    Puts one answer together from bytes as they arrive, passing over interim ones (100, 103).

    Args:
        bodiless: Whether the answer has no body whatever it says, as those to HEAD.
        may_switch: Whether a 101 to ``websocket`` is an answer; as its body passes, unread, all
            that comes behind it.

    Attributes:
        head: None until it is complete.
        ended: Whether the answer is complete; one until the connection closes never is.
        surplus: Whether something came behind it.
    """

    bodiless: bool = False
    may_switch: bool = False
    head: AnswerHead | None = field(default=None, init=False)
    ended: bool = field(default=False, init=False)
    surplus: bool = field(default=False, init=False)
    _unread: bytes = field(default=b"", init=False)
    _size: int = field(default=0, init=False)
    _missing: int | None = field(default=None, init=False)
    _parser: Any = field(default=None, init=False)
    _found: _Found | None = field(default=None, init=False)
    _fruitless: int = field(default=0, init=False)

    @property
    def until_close(self) -> bool:
        """Whether the body ends with its connection."""
        return self.head is not None and self._missing is None and self._found is None

    def feed(self, data: bytes) -> bytes:
        """
        The bytes of the body in *data*; not to be called once the answer has ended.

        Raises:
            BadAnswer: This is no answer; nothing more can be read.
        """
        if self.head is None:
            behind = self._read_heads(data)
            if behind is None:
                return b""
            data = behind
        if self._found is not None:
            return self._read_chunks(self._found, data) if data else b""
        missing = self._missing
        if missing is None:
            return data
        if len(data) < missing:
            self._missing = missing - len(data)
            return data
        self.ended = True
        self.surplus = len(data) > missing
        return data[:missing] if self.surplus else data

    def _read_heads(self, data: bytes) -> bytes | None:
        """
        What follows the head of the answer; None while that is not complete.
        """
        looked = max(0, len(self._unread) - 3)
        if self._unread:
            data = self._unread + data
        while (end := data.find(b"\r\n\r\n", looked) + 4) > 3:
            self._grow(end)
            head, data, looked = data[:end], data[end:], 0
            if self._read_head(head):
                self._unread = b""
                return data
        self._unread = data
        # What cannot become a head is not waited for.
        if data[:7] != _BEGINNING[: len(data)] or _BARE_LF.search(data):
            raise BadAnswer("it does not begin as an answer does")
        if self._size + len(data) > MAX_HEAD:
            self._grow(len(data))
        return None

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > MAX_HEAD:
            raise BadAnswer(f"its headers are more than {MAX_HEAD} bytes")

    def _read_head(self, head: bytes) -> bool:
        """
        Whether *head* is that of the answer, and not of an interim one.
        """
        found = _Found()
        parser = HttpResponseParser(found)
        if not head.startswith(_BEGINNING):
            raise BadAnswer("it does not begin as an answer does")
        try:
            parser.feed_data(head)
        except HttpParserError as problem:
            raise BadAnswer(str(problem)) from problem
        except HttpParserUpgrade as problem:
            if not (self.may_switch and _to_websocket(found)):
                raise BadAnswer("it leaves HTTP") from problem
        code: int = parser.get_status_code()
        if 100 <= code < 200 and code != 101:
            return False
        self.head = _head(code, int(head[7:8]), found)
        if code == 101:
            return True  # no body, whatever it says: the rest is no HTTP
        if self.bodiless or code in _NO_BODY:
            self._missing = 0
        elif self.head.chunked:
            self._parser, self._found = parser, found
        else:
            self._missing = self.head.length
        return True

    def _read_chunks(self, found: _Found, data: bytes) -> bytes:
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as problem:
            if not found.ended:
                raise BadAnswer(str(problem)) from problem
            self.surplus = True
        parts = found.parts
        found.parts = []
        self._fruitless = 0 if parts else self._fruitless + len(data)
        if self._fruitless > MAX_HEAD:
            raise BadAnswer(f"more than {MAX_HEAD} bytes between chunks")
        if found.ended:
            self.ended = True
            self.surplus = self.surplus or found.messages > 1
        return parts[0] if len(parts) == 1 else b"".join(parts)


@define(eq=False)
class _Found:
    """What the parser finds."""

    messages: int = 0
    ended: bool = False
    phrase: bytes = b""
    fields: list[tuple[bytes, bytes]] = field(factory=list)
    parts: list[bytes] = field(factory=list)

    def on_message_begin(self) -> None:
        self.messages += 1

    def on_status(self, phrase: bytes) -> None:
        self.phrase = phrase

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.strip(b" \t")))

    def on_body(self, data: bytes) -> None:
        if not self.ended:  # what comes behind the answer is read on, and is nobody's
            self.parts.append(data)

    def on_message_complete(self) -> None:
        self.ended = True


def _to_websocket(found: _Found) -> bool:
    chosen = [value.lower() for name, value in found.fields if name.lower() == b"upgrade"]
    return chosen == [b"websocket"]


def _head(code: int, minor: int, found: _Found) -> AnswerHead:
    # Trailers are found as headers are: they go into a list that nobody reads.
    fields, found.fields = found.fields, []
    if not 200 <= code <= 599 and code != 101:
        raise BadAnswer(f"status {code}")
    if _CONTROL.search(found.phrase):
        raise BadAnswer("control characters behind the status")
    if len(fields) > MAX_HEADERS:
        raise BadAnswer(f"more than {MAX_HEADERS} headers")
    length: int | None = None
    codings: list[bytes] = []
    options: set[bytes] = set()
    for name, value in fields:
        lower = name.lower()
        if lower == b"content-length":
            length = int(value)
        elif lower == b"transfer-encoding":
            codings.append(value.lower())
        elif lower == b"connection":
            options.update(option.strip().lower() for option in value.split(b","))
    if codings not in ([], [b"chunked"]):
        raise BadAnswer("a Transfer-Encoding other than chunked")
    chunked = bool(codings)
    # An older worker that sends chunks is not to be trusted with a second answer (RFC 9112 6.1).
    persistent = b"close" not in options and (
        minor == 1 or (b"keep-alive" in options and not chunked)
    )
    named = options - {b"close", b"keep-alive"}
    if code in (101, 204):
        named.add(b"content-length")  # they have none (RFC 9110 8.6)
    if named:
        fields = [each for each in fields if each[0].lower() not in named]
    return AnswerHead(minor, code, found.phrase, fields, length, chunked, persistent)
