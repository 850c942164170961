"""
A WebSocket handshake with a worker, over a connection of its own.

It is the one request that does not go through treq, to which a 101 is no answer. What is said in
the tunnel that it opens is the business of `sgl_droute.workers.tunnel`.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse
from zope.interface import implementer

from sgl_droute.errors import WorkerTimeout
from sgl_droute.workers.client import Call
from sgl_droute.workers.connecting import Terms, connected
from sgl_droute.workers.connection import WorkerConnection
from sgl_droute.workers.request import WorkerRequest


@define(eq=False)
class Handshakes:
    """
    Sends WebSocket handshakes.

    Args:
        reactor: Provides TCP, time and a name resolver.
        connect_timeout: Seconds to open a connection, the TLS handshake included.
        timeout: Seconds that a worker may take to answer.
        terms: On which terms it connects.
    """

    reactor: Any
    connect_timeout: float
    timeout: float
    terms: Terms = field(factory=Terms)

    async def send(self, call: Call) -> Handshake:
        """
        *call* with ``Upgrade: websocket``, answered; the caller hands it over or reads its answer.

        Raises:
            NotConnected: The worker has seen nothing of the handshake.
            WorkerTimeout: No answer in time.
            WorkerFailed: The connection broke, or what came was no answer to a handshake.
            BadRequest: This cannot be sent.
        """
        base = call.worker.encode("ascii")
        request = _upgrading(base, call)
        handshake = await connected(
            self.reactor, call.worker, self.connect_timeout, lambda: Handshake(base), self.terms
        )

        def too_late(_: object, seconds: float) -> Failure:
            return Failure(WorkerTimeout(call.worker, f"no response within {seconds:g} s"))

        answering = handshake.send(request)
        answering.addTimeout(self.timeout, self.reactor, onTimeoutCancel=too_late)
        handshake.answer = await answering
        return handshake


@implementer(IHalfCloseableProtocol)
class Handshake(WorkerConnection):
    """
    A connection for one handshake, and for the tunnel that it may open.

    Attributes:
        answer: The worker's answer: a 101, or any other, with a body.
    """

    answer: IResponse

    _may_switch = True

    def __init__(self, base: bytes) -> None:
        super().__init__(base, freed=WorkerConnection.close, lost=lambda _: None)
        self._successor: Any = None

    @property
    def accepted(self) -> bool:
        """Whether the worker has opened a tunnel."""
        return bool(self.answer.code == 101)

    def hand_over(self, successor: Protocol) -> bytes:
        """
        Let *successor* have the connection of a tunnel; what has already come behind the answer.
        """
        assert self._response is not None
        behind = self._response.detach()
        self._clear()
        self._outlet.release()
        self._successor = successor
        successor.makeConnection(self.transport)
        return behind

    # From the transport.

    def dataReceived(self, data: bytes) -> None:
        if self._successor is not None:
            self._successor.dataReceived(data)
        else:
            super().dataReceived(data)

    def readConnectionLost(self) -> None:
        if self._successor is not None:
            self._successor.readConnectionLost()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """The worker may have more to say."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if self._successor is not None:
            self._successor.connectionLost(reason)


def spelled(head: bytes) -> bytes:
    """
    *head* with names as RFC 6455 spells them: not everybody knows that case is no matter.
    """
    return head.replace(b"\r\nSec-Websocket-", b"\r\nSec-WebSocket-")


def _upgrading(base: bytes, call: Call) -> WorkerRequest:
    headers = call.headers.copy()
    headers.setRawHeaders(b"Connection", [b"Upgrade"])
    headers.setRawHeaders(b"Upgrade", [b"websocket"])
    request = WorkerRequest(call.method, base, call.target, headers)
    request.written = spelled(request.written)
    return request
