"""
Reading a worker's answer to a WebSocket handshake.

Pure: bytes go in, and a head and body parts come out. Where they come from is not known here.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from twisted.web.http_headers import Headers

_LARGEST_HEAD = 1 << 16


class NotAnAnswer(Exception):
    """What came is no HTTP, or no answer to a handshake."""


@define(eq=False)
class AnswerReader:
    """
    Reads one answer; interim ones (100, 103) are passed over.

    Attributes:
        phrase: Reason phrase.
        headers: Without those that say how long the body is.
        length: ``Content-Length`` (bytes); None without one.
        begun: The head is complete.
        ended: So is the answer. What is behind it belongs to the tunnel, if it is a 101.
    """

    phrase: bytes = b""
    headers: Headers = field(factory=Headers)
    length: int | None = None
    begun: bool = False
    ended: bool = False
    _parser: Any = field(init=False)
    _chunked: bool = False
    _head_size: int = 0
    _parts: list[bytes] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self._parser = HttpResponseParser(self)

    @property
    def code(self) -> int:
        """Status code of an answer that has begun."""
        code: int = self._parser.get_status_code()
        return code

    @property
    def opens(self) -> bool:
        """Whether it is a whole 101."""
        return self.ended and self.code == 101

    @property
    def until_close(self) -> bool:
        """Whether nothing but the end of the connection tells where the body ends."""
        return self.length is None and not self._chunked

    def feed(self, data: bytes) -> bytes:
        """
        What of *data* lies behind a 101.

        Raises:
            NotAnAnswer: As it says.
        """
        if not self.begun:
            self._head_size += len(data)
        behind, sound = self._parse(data)
        if self.begun and not self._expected():
            raise NotAnAnswer(f"answered with status {self.code} to a WebSocket handshake")
        if not (sound or self.ended):  # what follows a whole answer is not wanted
            raise NotAnAnswer("the answer is not HTTP")
        if not self.begun and self._head_size > _LARGEST_HEAD:
            raise NotAnAnswer(f"the answer's head is larger than {_LARGEST_HEAD} bytes")
        return behind

    def taken(self) -> list[bytes]:
        """
        The parts of the body that have come since the last call.
        """
        parts, self._parts = self._parts, []
        return parts

    def _parse(self, data: bytes) -> tuple[bytes, bool]:
        """
        What lies behind a 101, and whether all before it is HTTP.
        """
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as switched:
            return data[switched.args[0] :], True
        except HttpParserError:
            return b"", False
        return b"", True

    def _expected(self) -> bool:
        if self.code != 101:
            return self.code <= 599
        chosen = self.headers.getRawHeaders(b"upgrade", [])
        return [each.lower() for each in chosen] == [b"websocket"]

    # From the parser.

    def on_message_begin(self) -> None:
        if not self.begun:
            self.phrase, self.headers, self.length, self._chunked = b"", Headers(), None, False

    def on_status(self, phrase: bytes) -> None:
        if not self.begun:
            self.phrase += phrase  # in pieces, as it came

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.begun:
            return  # a trailer
        lower, value = name.lower(), value.strip(b" \t")
        if lower == b"content-length":
            self.length = int(value)
        elif lower == b"transfer-encoding":
            self._chunked = value.lower().endswith(b"chunked")
        else:
            self.headers.addRawHeader(name, value)

    def on_headers_complete(self) -> None:
        self.begun = self.begun or self.code == 101 or self.code >= 200

    def on_body(self, data: bytes) -> None:
        if not self.ended:
            self._parts.append(data)

    def on_message_complete(self) -> None:
        self.ended = self.begun
