"""
One client connection: bytes become requests, one after the other, and answers become bytes.

It is never silent: what it refuses is answered with JSON and a status. What a head may look like is
written in `sgl_droute.api.http.head`; what a request means is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet._producer_helpers import _PullToPush
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from sgl_droute.api.http.body import BodyReader
from sgl_droute.api.http.head import Head, HeadReader
from sgl_droute.api.replies import new_id, refusal
from sgl_droute.api.telemetry.account import Account
from sgl_droute.errors import BadRequest, RequestTimeout, RouterError
from sgl_droute.workers.deadlines import Deadline
from sgl_droute.workers.headers import head_of
from sgl_droute.workers.outlet import Outlet
from sgl_droute.workers.unsent import unsent_bytes

log = Logger()

# Seconds that a client's connection may wait for its next request.
KEEP_ALIVE = 75.0
# Requests of one client that are read before others have their turn.
_TURN = 16
# Seconds that a refused client may go on sending in all, and be silent without closing.
_LINGER = 30.0
_LINGER_SILENCE = 2.0
# Bytes read at once: usually, and of a body that is larger.
_READ = 1 << 16
_LARGE_READ = 1 << 18
# Bytes of a body beyond which it is not read for nothing.
_LARGE_BODY = 1 << 16
# Bytes that a client may send behind a request before that is answered.
_BEHIND_AN_ANSWER = 1 << 14


class RouterChannel(Protocol):
    """
    One client connection, for a `sgl_droute.api.http.site.RouterSite`.

    It is what `twisted.web.http.Request` expects of its channel, and `hand_over` besides.
    """

    # A connection is idle, or a head arrives, or a body does, or an answer is due; or it is closing
    # and what still comes is dropped; or it belongs to somebody else.

    transport: Any

    def __init__(self, site: Any) -> None:
        self.site = site
        self.factory = site
        self._phase = "idle"
        self._reader = HeadReader()
        self._request: Request | None = None
        self._request_head: Head | None = None
        self._persistent = True
        self._unread = b""
        self._advancing = False
        self._paused = False
        self._body: BodyReader | None = None
        self._head = b""
        self._deadline: Deadline | None = None
        self._linger: Deadline | None = None
        self._resting: IDelayedCall | None = None
        self._successor: IProtocol | None = None
        self._unsent: int | None = None

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self._secure = bool(ISSLTransport.providedBy(self.transport))
        self._peer = self.transport.getPeer()
        self._host = self.transport.getHost()
        self._outlet = Outlet(self.transport)
        self._outlet.source = self
        self._limit(KEEP_ALIVE, self.loseConnection)
        self.site.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._limit(None)
        self._rest(None)
        if self._linger is not None:
            self._linger.cancel()
        if self._phase == "body":
            self._never_routed(self._id(), None)
        request, self._request = self._request, None
        self._outlet.source = None
        try:
            if self._successor is not None:
                self._successor.connectionLost(reason)
            elif request is not None:
                request.connectionLost(reason)
        finally:
            self.site.closed(self)

    @property
    def handed_over(self) -> bool:
        """Whether somebody else has the connection."""
        return self._successor is not None

    @property
    def idle(self) -> bool:
        """Whether no request has begun."""
        return self._phase == "idle"

    def end(self) -> None:
        """
        Close when the request under way is answered; at once if there is none.
        """
        self._persistent = False
        if self.idle:
            self._close()

    # Bytes from the client.

    def dataReceived(self, data: bytes) -> None:
        if self._successor is not None:
            self._successor.dataReceived(data)
            return
        if self._phase == "closing":
            if self._linger is not None:
                self._limit(_LINGER_SILENCE, self.loseConnection)
            return
        self._unread = self._unread + data if self._unread else data
        self._advance()

    def _advance(self) -> None:
        """
        Read on until an answer is due; requests that are answered at once need no stack.
        """
        if self._advancing:
            return
        self._advancing = True
        self._rest(None)
        try:
            for _ in range(_TURN):
                if not (self._unread and self._phase in _READS) or self._is_behind():
                    break
                data, self._unread = self._unread, b""
                _READS[self._phase](self, data)
            else:
                self._rest(self.site.reactor.callLater(0, self._advance))
        except Exception:
            log.failure("a request could not be read")
            self.refuse(BadRequest("The request could not be read"))
        finally:
            self._advancing = False
        waits = len(self._unread) > _BEHIND_AN_ANSWER
        if waits != self._paused and self._phase != "closing":
            self._paused = waits
            if waits:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    def _is_behind(self) -> bool:
        """Whether the client has yet to take answers before it is to ask for more."""
        return self._phase == "idle" and self._outlet.full

    def _rest(self, call: IDelayedCall | None) -> None:
        if self._resting is not None and self._resting.active():
            self._resting.cancel()
        self._resting = call

    def _read_head(self, data: bytes) -> None:
        try:
            found = self._reader.feed(data)
        except RouterError as error:
            self.refuse(error)
            return
        if found is None:
            if self._phase == "idle" and self._reader.begun:
                self._phase = "headers"
                self._limit(self.site.read_timeout, self._headers_late)
            return
        head, self._unread = found
        self._begin(head)

    def _begin(self, head: Head) -> None:
        self._persistent = head.persistent and self.site.keeps_connections
        request = self._request = self.site.requestFactory(self, False)
        request.began = self.site.reactor.seconds()
        for name, value in head.headers:
            request.requestHeaders.addRawHeader(name, value)
        self._phase = "body"
        request.admitted = True
        self._request_head = head
        request.gotLength(head.length)
        refused = self._refused_early(request, head)
        if refused is not None:
            self.refuse(refused)
        elif head.length == 0:
            self._received_whole()
        elif self._phase == "body":
            self._await_body(head)

    def _refused_early(self, request: Request, head: Head) -> RouterError | None:
        """
        Why a body is not worth reading, where it is a large one.
        """
        large = head.length is None or head.length > _LARGE_BODY
        return self.site.early(request) if large and self.site.early is not None else None

    def _await_body(self, head: Head) -> None:
        assert self._request is not None
        take, patience = self._request.handleContentChunk, self.site.read_timeout
        self._body = BodyReader(head.length, take, self.site.reactor.seconds(), patience)
        self._limit(patience, self._is_body_late)
        if head.length is not None and head.length > _READ:
            self.transport.bufferSize = _LARGE_READ
        if head.expects:
            self._outlet.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _read_body(self, data: bytes) -> None:
        assert self._body is not None
        try:
            rest = self._body.feed(data, self.site.reactor.seconds())
        except RouterError as error:
            self.refuse(error)
            return
        if rest is not None and self._phase == "body":  # it may have been refused
            self._unread = rest
            self._body = None
            self.transport.bufferSize = _READ
            self._received_whole()

    def _received_whole(self) -> None:
        head, self._request_head = self._request_head, None
        assert self._request is not None
        assert head is not None
        self._phase = "answer"
        self._limit(None)
        self._request.requestReceived(head.method, head.target, head.version)

    # The client's own pace, while no answer has a producer.

    def pauseProducing(self) -> None:
        """It takes no more for now: what it has asked is still answered."""

    def resumeProducing(self) -> None:
        """It has taken all: read on."""
        self._advance()

    # What requests ask of their channel.

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """
        Begin an answer; its head goes out with the first bytes behind it, or with `flush`.
        """
        if not self._persistent:
            headers.setRawHeaders(b"Connection", [b"close"])
        self._head = head_of(b"%b %b %b" % (version, code, reason), headers)

    def flush(self) -> None:
        """
        Send the head of an answer without waiting for its body.
        """
        self.write(b"")

    def write(self, data: bytes) -> None:
        """
        Send *data*, bytes of an answer.
        """
        if self._head:
            data, self._head = self._head + data, b""
        self._outlet.write(data)

    def writeSequence(self, parts: Iterable[bytes]) -> None:
        """
        As `write`, of several parts.
        """
        self.write(b"".join(parts))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Let *producer* pause and resume as the client takes bytes.
        """
        if not streaming:
            producer = _PullToPush(producer, self)
            producer.startStreaming()
        self._outlet.source = producer
        if self._outlet.full:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """
        Let the producer be.
        """
        producer, self._outlet.source = self._outlet.source, self
        if isinstance(producer, _PullToPush):
            producer.stopStreaming()

    def requestDone(self, request: Request) -> None:
        """
        Go on with the next request, or close.
        """
        if self._head:
            self.flush()
        self._request = None
        if not (self._persistent and self.site.keeps_connections):
            self._close()
            return
        self._phase = "idle"
        self._limit(KEEP_ALIVE, self.loseConnection)
        self._advance()

    def isSecure(self) -> bool:
        """Whether the client speaks TLS."""
        return self._secure

    def getPeer(self) -> IAddress:
        """The client's address."""
        address: IAddress = self._peer
        return address

    def getHost(self) -> IAddress:
        """The address that the client connected to."""
        address: IAddress = self._host
        return address

    def hand_over(self, successor: IProtocol) -> None:
        """
        Let *successor* have the connection, what has already come behind the request included. The
        request is not to be finished.
        """
        self._limit(None)
        self._phase = "handed over"
        self._request = None
        self._outlet.release()
        self._successor = successor
        successor.makeConnection(self.transport)
        if self._paused:
            self._paused = False
            self.transport.resumeProducing()
        unread, self._unread = self._unread, b""
        if unread:
            successor.dataReceived(unread)

    # Endings.

    def refuse(self, error: RouterError) -> None:
        """
        Answer *error* and close, reading on for a while what the client still sends: closing at
        once would reset the connection, and the reset can overtake the answer (RFC 9112 9.6).
        """
        if self._phase == "closing":
            return
        id = self._id()
        answer = refusal(error, id)
        self._outlet.write(answer)
        self._never_routed(id, error, len(answer.partition(b"\r\n\r\n")[2]))
        self._close_reading()

    def _close(self) -> None:
        if self._unread:
            self._close_reading()  # what it has sent besides would reset the connection
        else:
            self.loseConnection()

    def _close_reading(self) -> None:
        self._phase = "closing"
        self._unread = b""
        self._outlet.release()
        self.transport.resumeProducing()
        self._limit(_LINGER_SILENCE, self.loseConnection)
        self._linger = self.site.deadlines.set(_LINGER, self.loseConnection)
        if ITCPTransport.providedBy(self.transport) and not self._secure:
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()  # TLS reads on by itself until the client closes too

    def loseConnection(self) -> None:
        """
        Close when what is written has left. A client that takes nothing for the abort time does
        not hold its connection.
        """
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self._phase = "closing"
        self._unread = b""
        self._outlet.release()
        self._unsent = unsent_bytes(self.transport)
        # Over TLS closing waits for the client's farewell, and who has had everything may never
        # look again.
        done = self._secure and self._unsent == 0
        self._limit(_LINGER_SILENCE if done else self.site.idle_timeout, self._give_up)
        self.transport.loseConnection()

    def abortConnection(self) -> None:
        """
        Reset the connection.
        """
        self._phase = "closing"
        self.transport.abortConnection()

    def _give_up(self) -> None:
        before, self._unsent = self._unsent, unsent_bytes(self.transport)
        if self._unsent != before:
            self._limit(self.site.idle_timeout, self._give_up)
        else:
            self.transport.abortConnection()

    def _never_routed(self, id: bytes, error: RouterError | None, bytes_out: int = 0) -> None:
        """
        Account for a request that is refused with *error*, or whose client hung up while it sent
        its body.
        """
        head, began = self._request_head, getattr(self._request, "began", None)
        account = Account(
            id=id.decode("latin-1"),
            method="" if head is None else head.method.decode("latin-1"),
            path="" if head is None else head.target.partition(b"?")[0].decode("latin-1"),
            began=self.site.reactor.seconds() if began is None else began,
            address=getattr(self._peer, "host", "") or "",
            bytes_in=getattr(self._request, "received", 0),
            bytes_out=bytes_out,
        )
        if error is None:
            account.client_left()
        else:
            account.failed(error)
            account.status = error.status
        self.site.accounts.close(account)

    def _id(self) -> bytes:
        """The id of the request under way: its client's, or a new one."""
        if self._request is not None:
            values = self._request.requestHeaders.getRawHeaders(b"x-request-id", [])
        else:
            values = [v for name, v in self._reader.headers if name.lower() == b"x-request-id"]
        return values[0] if values and values[0] else new_id()

    # Limits of time.

    def _limit(self, seconds: float | None, passed: Callable[[], None] | None = None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = (
            None if seconds is None or passed is None else self.site.deadlines.set(seconds, passed)
        )

    def _headers_late(self) -> None:
        late = f"The request's headers did not arrive within {self.site.read_timeout:g} s"
        self.refuse(RequestTimeout(late))

    def _is_body_late(self) -> None:
        assert self._body is not None
        try:
            left = self._body.silence_left(self.site.reactor.seconds())
        except RouterError as error:
            self.refuse(error)
        else:
            self._limit(left, self._is_body_late)


_READS: dict[str, Callable[[RouterChannel, bytes], None]] = {
    "idle": RouterChannel._read_head,
    "headers": RouterChannel._read_head,
    "body": RouterChannel._read_body,
}
