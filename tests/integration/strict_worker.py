"""
A worker that takes nothing for granted: it keeps every byte, and reads requests more strictly than
any worker does, so that what it counts is what was meant.
"""

from __future__ import annotations

import re
from typing import Any

from attrs import define, field, frozen
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (/[!-~]*) HTTP/1\.1")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\t -~\x80-\xff]*)")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,17}")
# What the router asks a worker on its own account.
_OWN = ("/health", "/model_info", "/v1/models", "/server_info")


class Violation(Exception):
    """Bytes that no request of the router may hold."""


@frozen
class Received:
    """
    One request as it came.

    Attributes:
        headers: Lower-case names and values, in order.
    """

    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def __str__(self) -> str:
        return f"{self.method} {self.target}"

    def values(self, name: bytes) -> list[bytes]:
        return [value for each, value in self.headers if each == name]


def parse(data: bytes) -> tuple[Received, bytes] | None:
    """
    The first request in *data* and what follows it; None while it is incomplete.

    Raises:
        Violation: No request begins so.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return None
    line, *lines = head.split(b"\r\n")
    request_line = _REQUEST_LINE.fullmatch(line)
    matches = [_HEADER.fullmatch(each) for each in lines]
    headers = [(match[1].lower(), match[2].strip(b" \t")) for match in matches if match]
    if request_line is None or len(headers) != len(lines):
        raise Violation(head)
    names = [name for name, _ in headers]
    if names.count(b"host") != 1 or names.count(b"content-length") > 1:
        raise Violation(head)
    if {b"transfer-encoding", b"te", b"trailer", b"upgrade", b"expect"} & set(names):
        raise Violation(head)
    length = dict(headers).get(b"content-length", b"0")
    if not _LENGTH.fullmatch(length):
        raise Violation(head)
    if len(rest) < int(length):
        return None
    method, target = request_line[1].decode(), request_line[2].decode()
    body, rest = rest[: int(length)], rest[int(length) :]
    return Received(method, target, headers, body), rest


@define(eq=False)
class StrictWorker(Factory):
    """
    Answers every request with 200 and its number; those of the router's own are not numbered.
    """

    noisy = False
    requests: list[Received] = field(factory=list)
    violations: list[Violation] = field(factory=list)
    connections: list[StrictConnection] = field(factory=list)

    def buildProtocol(self, addr: IAddress | None) -> StrictConnection:
        connection = StrictConnection(self)
        self.connections.append(connection)
        return connection

    @property
    def unread(self) -> bytes:
        """Bytes that came and are no whole request."""
        return b"".join(connection.pending for connection in self.connections)

    def answer(self, request: Received) -> bytes:
        """
        The whole answer to *request*.
        """
        if request.target not in _OWN or request.values(b"x-forwarded-for"):
            self.requests.append(request)
        body = b'{"number":%d}' % len(self.requests)
        head = b"HTTP/1.1 200 OK\r\nServer: strict\r\nContent-Length: %d\r\n\r\n" % len(body)
        return head if request.method == "HEAD" else head + body


class StrictConnection(Protocol):
    """
    One connection from the router.

    Attributes:
        raw: Every byte that came.
    """

    transport: Any

    def __init__(self, worker: StrictWorker) -> None:
        self.raw = b""
        self.pending = b""
        self._worker = worker

    def dataReceived(self, data: bytes) -> None:
        self.raw += data
        self.pending += data
        try:
            while (parsed := parse(self.pending)) is not None:
                request, self.pending = parsed
                self.transport.write(self._worker.answer(request))
        except Violation as violation:
            self._worker.violations.append(violation)
            self.transport.abortConnection()
