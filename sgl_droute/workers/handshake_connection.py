"""
A connection to a worker for one WebSocket handshake, and for what comes of it.

Who is asked for what, and what a tunnel is for, is not known here.
"""

from __future__ import annotations

from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse
from zope.interface import implementer

from sgl_droute.errors import Disconnected, NotConnected, WorkerFailed
from sgl_droute.workers.handshake_answer import AnswerReader, NotAnAnswer


@implementer(IResponse)
@define(eq=False)
class HandshakeAnswer:
    """
    A worker's answer to a handshake: a 101, which opens a tunnel, or any other, with a body.
    """

    connection: HandshakeConnection
    code: int
    phrase: bytes
    headers: Headers
    length: Any
    version: tuple[bytes, int, int] = (b"HTTP", 1, 1)
    request: Any = None
    previousResponse: Any = None

    @property
    def opens(self) -> bool:
        """Whether it opens a tunnel."""
        return self.code == 101

    def deliverBody(self, protocol: IProtocol) -> None:
        self.connection.deliver(protocol)

    def setPreviousResponse(self, response: object) -> None:
        """There is none: redirects are the client's business."""


@implementer(IHalfCloseableProtocol)
class HandshakeConnection(Protocol):
    """
    A connection to a worker: one request, its answer, then the answer's body or a tunnel.

    To whoever takes the body it is the transport.
    """

    transport: Any

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._answered: Deferred[HandshakeAnswer] | None = None
        self._reader = AnswerReader()
        self._behind = b""
        self._body: Any = None
        self._end: Any = None
        self._lost: Failure | None = None

    def ask(self, request: bytes) -> Deferred[HandshakeAnswer]:
        """
        Fires with the answer to *request*. Nothing more is read until somebody takes what follows.
        """
        if self._lost is not None:
            return fail(NotConnected(self._worker, _told(self._lost)))
        self._answered = Deferred(lambda _: self.abortConnection())
        self.transport.write(request)
        return self._answered

    def attach(self, end: Protocol) -> None:
        """
        Make *end* the protocol of this connection; it hears nothing before `release`.
        """
        self._end = end
        end.makeConnection(self.transport)

    def release(self) -> None:
        """
        Give the attached end what has come behind the answer, and then all that comes.
        """
        behind, self._behind = self._behind, b""
        if behind:
            self._end.dataReceived(behind)

    def deliver(self, body: IProtocol) -> None:
        """
        Give *body* the answer's body in parts, and its end.
        """
        self._body = body
        body.makeConnection(self)  # type: ignore[arg-type]
        self.resumeProducing()
        self._pass_on()

    # From the transport.

    def dataReceived(self, data: bytes) -> None:
        if self._reader.opens and (self._end is None or self._behind):
            self._behind += data  # TLS gives all that it has, paused or not
        elif self._end is not None:
            self._end.dataReceived(data)
        elif not self._reader.ended:
            self._read(data)

    def readConnectionLost(self) -> None:
        if self._end is not None:
            self._end.readConnectionLost()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """The worker may have more to say."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = reason
        if self._end is not None:
            self._end.connectionLost(reason)
        elif self._body is not None:
            self._pass_on()
        elif self._answered is not None:
            self._fail(Disconnected(self._worker, _told(reason)))

    # The answer.

    def _read(self, data: bytes) -> None:
        try:
            self._behind = self._reader.feed(data)
        except NotAnAnswer as problem:
            self._fail(WorkerFailed(self._worker, str(problem)))
            return
        if self._body is not None:
            self._pass_on()
        elif self._reader.begun and self._answered is not None and not self._answered.called:
            self.pauseProducing()
            self._answered.callback(self._answer())

    def _answer(self) -> HandshakeAnswer:
        reader = self._reader
        length = UNKNOWN_LENGTH if reader.length is None else reader.length
        return HandshakeAnswer(self, reader.code, reader.phrase, reader.headers, length)

    def _pass_on(self) -> None:
        for part in self._reader.taken():
            self._body.dataReceived(part)
        if self._reader.ended:
            self._end_body(Failure(ResponseDone()))
        elif self._lost is not None:
            whole = self._reader.until_close and self._lost.check(ConnectionDone)
            self._end_body(Failure(ResponseDone()) if whole else self._lost)

    def _end_body(self, how: Failure) -> None:
        body, self._body = self._body, None
        self.abortConnection()
        body.connectionLost(how)

    def _fail(self, problem: WorkerFailed) -> None:
        if self._body is not None:
            self._end_body(Failure(problem))
        elif self._answered is not None and not self._answered.called:
            self.abortConnection()
            self._answered.errback(problem)

    # As the transport of a body.

    def pauseProducing(self) -> None:
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        self.abortConnection()

    def loseConnection(self) -> None:
        self.abortConnection()

    def abortConnection(self) -> None:
        """Cut it at once: closing in order waits over TLS for a farewell that nobody reads."""
        self.transport.abortConnection()


@implementer(IHandshakeListener)
class SecureConnection(HandshakeConnection):
    """
    A connection over TLS, which is not open before its own handshake is done.
    """

    def __init__(self, worker: str) -> None:
        super().__init__(worker)
        self._shaken = False
        self._secured: Deferred[None] | None = None

    def secured(self) -> Deferred[None]:
        """
        Fires when the TLS handshake is done.
        """
        self._secured = Deferred(lambda _: self.abortConnection())
        if self._shaken:
            self._secured.callback(None)
        elif self._lost is not None:
            self._secured.errback(self._lost)
        return self._secured

    def handshakeCompleted(self) -> None:
        self._shaken = True
        if self._secured is not None and not self._secured.called:
            self._secured.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if self._secured is not None and not self._secured.called:
            self._secured.errback(reason)


def _told(reason: Failure) -> str:
    return str(reason.value).rstrip(".") or type(reason.value).__name__
