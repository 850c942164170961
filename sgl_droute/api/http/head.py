"""
The head of a request: its first line and its headers, read from bytes.

Stricter than RFC 9112 allows where being lenient would let two readers see two different requests:
lines end in CR LF and hold no control characters, no header is folded, a length is a plain number,
and no length stands beside chunks. Pure: it decides nothing about what the request asks for.
"""

from __future__ import annotations

import re
from typing import NoReturn

from attrs import define, field, frozen

from sgl_droute.api.http.target import admitted
from sgl_droute.errors import BadRequest, BodyTooLarge, HeadersTooLarge, TargetTooLong

# Bytes of a whole head, and lines of headers in it.
MAX_HEAD = 1 << 14
MAX_LINES = 500
_LENGTH_DIGITS = 18

# A name, as a pattern (RFC 9110 5.6.2).
TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(%b) ([!-~]+) (HTTP/1\.[01])" % TOKEN)
_HEADERS = re.compile(rb"(?:%b:[^\r\n]*\r\n)*" % TOKEN)
_BARE_LF = re.compile(rb"(?<!\r)\n")
# A CR at the very end may get its LF with the next bytes.
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?=[^\n])")


@frozen(eq=False)
class Head:
    """
    A request as far as its head tells.

    Attributes:
        method: As it came; any token.
        target: The raw path and query, or ``*``.
        version: ``HTTP/1.0`` or ``HTTP/1.1``.
        headers: Names and values in order, values without the white space around them.
        length: Bytes of the body; None when it comes in chunks.
        persistent: Whether the connection may serve another request.
        expects: Whether the client waits for a ``100 Continue``.
    """

    method: bytes
    target: bytes
    version: bytes
    headers: list[tuple[bytes, bytes]]
    length: int | None
    persistent: bool
    expects: bool


@define(eq=False)
class HeadReader:
    """
    Puts heads together from bytes as they arrive.

    Attributes:
        begun: Whether a part of a head is here.
        headers: Of a head that was refused, as far as they could be read.
    """

    begun: bool = False
    headers: list[tuple[bytes, bytes]] = field(factory=list)
    _buffer: bytes = b""
    _judged: int = 0
    _scanned: int = 0
    _skipped: bool = False

    def feed(self, data: bytes) -> tuple[Head, bytes] | None:
        """
        The head that *data* completes, and what follows it; None while there is more to come.

        Raises:
            RouterError: No good request begins so.
        """
        data = self._buffer + data if self._buffer else data
        if not self._skipped and data[:2] == b"\r\n":
            # Some clients send an empty line behind a body (RFC 9112 2.2): one is passed over.
            self._skipped = True
            data = data[2:]
        end = data.find(b"\r\n\r\n", max(0, len(self._buffer) - 3))
        if 0 <= end <= MAX_HEAD - 4:
            self._buffer = b""
            self._judged = 0
            self.begun = self._skipped = False
            self._scanned = 0
            self.headers = []
            head = self._head(data[:end])
            self.headers = []
            return head, data[end + 4 :]
        self._buffer = data
        self.begun = data not in (b"", b"\r")
        if self.begun:
            self._judge(data)
        return None

    def _head(self, block: bytes) -> Head:
        line, _, rest = block.partition(b"\r\n")
        request = _REQUEST_LINE.fullmatch(line)
        rest = rest + b"\r\n" if rest else rest
        if request is None or _CONTROL.search(rest) or not _HEADERS.fullmatch(rest):
            _refuse(block + b"\r\n")
        method, target, version = request.groups()
        reading = _Reading(version == b"HTTP/1.1", self.headers)
        reading.take(rest.split(b"\r\n")[:-1])
        target = admitted(method, target, version, reading.hosts)
        return Head(
            method,
            target,
            version,
            self.headers,
            None if reading.chunked else (reading.length or 0),
            reading.newer and b"close" not in reading.options,
            reading.newer and reading.expects,
        )

    def _judge(self, data: bytes) -> None:
        """
        Refuse *data*, the beginning of a head, as soon as it cannot become a good one.
        """
        if len(data) >= MAX_HEAD:
            if b"\r\n" in data[:MAX_HEAD]:
                raise _too_large()
            raise TargetTooLong(f"The request line is more than {MAX_HEAD} bytes")
        if self._scanned == 0 and (not data[:1].isascii() or _CONTROL.match(data)):
            raise BadRequest("This is not HTTP (TLS is not served on this port)")
        # From the last byte that was looked at: a CR there gets its LF only now.
        _refuse_characters(data, max(0, self._scanned - 1))
        self._scanned = len(data)
        whole = data.rfind(b"\r\n") + 2
        if whole > max(1, self._judged):
            lines = data[self._judged : whole]
            if not self._judged:
                first, _, lines = lines.partition(b"\r\n")
                if not _REQUEST_LINE.fullmatch(first):
                    _refuse(data[:whole])
            if not _HEADERS.fullmatch(lines):
                _refuse(data[:whole])
            self._judged = whole
        if self._judged and data[self._judged : self._judged + 1] in (b" ", b"\t"):
            _refuse(data[self._judged :])


@define(eq=False)
class _Reading:
    """
    What the headers of one request say of its body and its connection.
    """

    newer: bool
    headers: list[tuple[bytes, bytes]]
    length: int | None = None
    chunked: bool = False
    expects: bool = False
    hosts: list[bytes] = field(factory=list)
    options: set[bytes] = field(factory=set)

    def take(self, lines: list[bytes]) -> None:
        for line in lines:
            name, _, value = line.partition(b":")
            value = value.strip(b" \t")
            self.headers.append((name, value))
            read = _READ.get(name.lower())
            if read is not None:
                read(self, value)
        if len(lines) > MAX_LINES:
            raise _too_large()

    def _host(self, value: bytes) -> None:
        self.hosts.append(value)

    def _connection(self, value: bytes) -> None:
        self.options.update(token.strip(b" \t").lower() for token in value.split(b","))

    def _expect(self, value: bytes) -> None:
        self.expects = value.lower() == b"100-continue"

    def _content_length(self, value: bytes) -> None:
        if self.length is not None or self.chunked or not value.isdigit():
            raise BadRequest("Malformed request: Content-Length must be one number")
        if len(value) > _LENGTH_DIGITS:
            raise BodyTooLarge("Content-Length is beyond any limit")
        self.length = int(value)

    def _transfer_encoding(self, value: bytes) -> None:
        if not self.newer or value.lower() != b"chunked":
            raise BadRequest("Transfer-Encoding must be chunked, on HTTP/1.1")
        if self.length is not None or self.chunked:
            raise BadRequest("Malformed request: more than one thing tells the body's length")
        self.chunked = True


_READ = {
    b"host": _Reading._host,
    b"connection": _Reading._connection,
    b"expect": _Reading._expect,
    b"content-length": _Reading._content_length,
    b"transfer-encoding": _Reading._transfer_encoding,
}


def _too_large() -> HeadersTooLarge:
    limits = f"{MAX_HEAD} bytes or {MAX_LINES} lines"
    return HeadersTooLarge(f"The request's headers are more than {limits}")


def _refuse(lines: bytes) -> NoReturn:
    """
    Say what is wrong with *lines*, which are no head.
    """
    _refuse_characters(lines)
    if any(line[:1] in (b" ", b"\t") for line in lines.split(b"\r\n")):
        raise BadRequest("A line must not begin with white space")
    raise BadRequest("Malformed request")


def _refuse_characters(data: bytes, start: int = 0) -> None:
    if _BARE_LF.search(data, start):
        raise BadRequest("A line must end with CR LF")
    if _CONTROL.search(data, start):
        raise BadRequest("A line must not hold control characters")
