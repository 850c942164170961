"""
A worker that counts what it does, and answers in every way that a body can be framed in.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, field
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.integration.sockets import eventually, reactor

# One chunk is 1000 bytes with all that belongs to it.
_CHUNK = b"3e1\r\n" + b"x" * 0x3E1 + b"\r\n"

_CHUNKS = 300

SMALL, LARGE, HUGE, CHUNKED, UNTIL_CLOSE = (
    b"/small",
    b"/large",
    b"/huge",
    b"/chunked",
    b"/until-close",
)
# Bytes of the bodies behind these targets; every byte is an x.
SIZES = {
    SMALL: 3000,
    LARGE: 300_000,
    HUGE: 30_000_000,
    CHUNKED: 0x3E1 * _CHUNKS,
    UNTIL_CLOSE: 300_000,
}
_HEAD = b"HTTP/1.1 200 OK\r\nServer: counting\r\n"
_MODELS = b'{"object":"list","data":[{"id":"m","object":"model"}]}'
_OWN = _HEAD + b"Content-Length: %d\r\n\r\n" % len(_MODELS) + _MODELS

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_ID = re.compile(rb"\r\nx-request-id: *([!-~]+)\r\n", re.IGNORECASE)


@define(eq=False)
class CountingWorker(Factory):
    """
    Does a request when all of it has come, and not before.

    Attributes:
        keep_alive: Seconds after which it closes an idle connection; None for never.
        executed: How often each request was done, by ``X-Request-Id``; not what routers ask by
            themselves.
        left: When it had closed a connection because that was idle, by the last id on it (seconds
            of the reactor).
        connections: Those that are open.
    """

    keep_alive: float | None = None
    executed: Counter[bytes] = field(factory=Counter)
    left: dict[bytes, float] = field(factory=dict)
    connections: set[CountingConnection] = field(factory=set)
    noisy = False
    port: Any = None

    @property
    def port_number(self) -> int:
        number: int = self.port.getHost().port
        return number

    def buildProtocol(self, addr: IAddress | None) -> CountingConnection:
        return CountingConnection(self)

    def answer(self, head: bytes) -> bytes:
        """
        The answer to the whole request that begins with *head*.
        """
        target = head.split(b" ", 2)[1]
        if target not in SIZES:
            return _OWN
        self.executed[_id(head)] += 1
        if target == CHUNKED:
            return _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + _CHUNK * _CHUNKS + b"0\r\n\r\n"
        size = SIZES[target]
        framing = b"Connection: close" if target == UNTIL_CLOSE else b"Content-Length: %d" % size
        return _HEAD + framing + b"\r\n\r\n" + b"x" * size


def _id(head: bytes) -> bytes:
    found = _ID.search(head)
    return b"" if found is None else found[1]


class CountingConnection(Protocol):
    """
    One connection to it.
    """

    transport: Any

    def __init__(self, worker: CountingWorker) -> None:
        self._worker = worker
        self._head = b""
        self._missing: int | None = None
        self._idle: Any = None
        self._last = b""
        self._leaving = False

    def connectionMade(self) -> None:
        self._worker.connections.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._worker.connections.discard(self)
        self._busy()
        if self._leaving:
            self._worker.left[self._last] = reactor.seconds()

    def dataReceived(self, data: bytes) -> None:
        self._busy()
        if self._missing is None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = head + b"\r\n"
            length = _LENGTH.search(self._head)
            self._missing = 0 if length is None else int(length[1])
        self._missing -= len(data)
        assert self._missing >= 0, "a request behind an unanswered one"
        if not self._missing:
            self._answer()

    def _answer(self) -> None:
        answer = self._worker.answer(self._head)
        self._last = _id(self._head)
        self._head, self._missing = b"", None
        self.transport.write(answer)
        if b"Connection: close" in answer[:100]:
            self.transport.loseConnection()
        elif self._worker.keep_alive is not None:
            self._idle = reactor.callLater(self._worker.keep_alive, self._leave)

    def _leave(self) -> None:
        self._idle = None
        self._leaving = True
        self.transport.loseConnection()

    def _busy(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None


@asynccontextmanager
async def counting_worker(keep_alive: float | None = None) -> AsyncIterator[CountingWorker]:
    """
    A counting worker on a free port of 127.0.0.1.
    """
    worker = CountingWorker(keep_alive)
    endpoint = TCP4ServerEndpoint(reactor, 0, backlog=1024, interface="127.0.0.1")
    worker.port = await endpoint.listen(worker)
    try:
        yield worker
    finally:
        await worker.port.stopListening()
        for connection in list(worker.connections):
            connection.transport.abortConnection()
        await eventually(lambda: not worker.connections)
