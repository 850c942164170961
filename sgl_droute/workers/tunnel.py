"""
Two connections made one: what comes in at one end goes out at the other, until one is closed.

It never looks at the bytes. How the tunnel came about is known to `sgl_droute.workers.handshake`
and `sgl_droute.api.tunnels`.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from sgl_droute.workers.unsent import unsent_bytes

# Looks per idle timeout at whether the peers still take bytes.
_LOOKS = 4


@define(eq=False)
class Tunnel:
    """
    A client's and a worker's connection, joined.

    As long as both are open they may be silent for any time. Whoever is owed something (bytes to
    take, or its side to close after the other has) and does not move is cut.

    Args:
        worker_url: Base URL of the worker, for messages.
        clock: Provides the time.
        idle_timeout: Seconds that a peer which is owed something may be still.

    Attributes:
        client: The protocol for the client's connection.
        worker: The protocol for the worker's connection.
        left: Fires when the worker's connection is gone.
        closed: Fires when both are gone. To cancel either cuts the tunnel.
        broken: Why it ended, in one word; empty when both closed in order.
    """

    worker_url: str
    clock: IReactorTime
    idle_timeout: float
    client: TunnelEnd = field(init=False)
    worker: TunnelEnd = field(init=False)
    left: Deferred[None] = field(init=False)
    closed: Deferred[None] = field(init=False)
    broken: str = field(default="", init=False)
    _look: IDelayedCall | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.client = TunnelEnd(self, "client_gone_reading")
        self.worker = TunnelEnd(self, "worker_reset")
        self.client.other, self.worker.other = self.worker, self.client
        self.left = Deferred(lambda _: self.cut())
        self.closed = Deferred(lambda _: self.cut())

    def begin(self) -> None:
        """
        Let bytes flow; both ends have their connections.
        """
        self.client.begin(self.clock.seconds())
        self.worker.begin(self.clock.seconds())
        if not self.closed.called:
            self._look_later()

    def cut(self, why: str = "stopping") -> None:
        """
        Reset both connections.

        Args:
            why: What `broken` says then, unless it says something already.
        """
        self.broken = self.broken or why
        self.client.abort()
        self.worker.abort()

    def lost(self) -> None:
        """
        To be called by an end that has lost its connection.
        """
        if self.worker.gone and not self.left.called:
            self.left.callback(None)
        if self.worker.gone and self.client.gone and not self.closed.called:
            if self._look is not None:
                self._look.cancel()
                self._look = None
            self.closed.callback(None)

    def _look_later(self) -> None:
        self._look = self.clock.callLater(self.idle_timeout / _LOOKS, self._look_now)

    def _look_now(self) -> None:
        self._look_later()
        now = self.clock.seconds()
        for end, why in ((self.client, "client_too_slow"), (self.worker, "worker_timeout")):
            if end.still_for(now) >= self.idle_timeout:
                self.cut(why)


@implementer(IPushProducer, IHalfCloseableProtocol)
class TunnelEnd(Protocol):
    """
    One end of a tunnel. To the transport of the other end it is the producer.

    Attributes:
        other: The other end.
        gone: Whether the connection is lost.
        sent: Bytes given to it (count).
        received: Bytes that came from it (count).
    """

    other: TunnelEnd
    transport: Any

    def __init__(self, tunnel: Tunnel, broken: str) -> None:
        self.gone = False
        self.sent = 0
        self.received = 0
        self._tunnel = tunnel
        self._broken = broken
        self._full = False
        self._heard_all = False
        self._told_all = False
        self._closing = False
        self._mark = (0, 0)
        self._moved = 0.0

    def begin(self, now: float) -> None:
        """
        From *now* on, read from the other end as fast as this one takes it.
        """
        self._moved = now
        if not (self.gone or self._closing):
            self.transport.registerProducer(self.other, True)
        self.transport.resumeProducing()

    def send(self, data: bytes) -> None:
        """
        Write *data* to the peer.
        """
        self.sent += len(data)
        self.transport.write(data)

    def still_for(self, now: float) -> float:
        """
        Seconds for which the peer has not moved although it is owed something; 0 if it is not.
        """
        unsent = self._unsent()
        # While bytes wait only taking them counts: a peer that talks may read nothing.
        mark = (self.sent - unsent, 0 if unsent else self.received)
        owed = unsent or self._heard_all or self._told_all or self._closing
        if self.gone or not owed or mark != self._mark:
            self._mark, self._moved = mark, now
        return now - self._moved

    def tell_all(self) -> None:
        """
        Tell the peer that nothing more will come, behind all that was written.
        """
        if self.gone or self._closing:
            return
        if self._heard_all or ISSLTransport.providedBy(self.transport):
            self.close()  # TLS knows no half-closed connections
        else:
            self._told_all = True
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()

    def close(self) -> None:
        """
        Close the connection when all that was written has left.
        """
        if self.gone or self._closing:
            return
        self._closing = True
        if not self._told_all:
            self.transport.unregisterProducer()
        self.transport.loseConnection()

    def abort(self) -> None:
        """
        Reset the connection.
        """
        if not self.gone:
            self.transport.abortConnection()

    def _unsent(self) -> int:
        unsent = unsent_bytes(self.transport)
        return int(self._full) if unsent is None else unsent

    # From the connection.

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        if not self.other.gone:
            self.other.send(data)

    def readConnectionLost(self) -> None:
        self._heard_all = True
        self.other.tell_all()
        if self._told_all:
            self.close()

    def writeConnectionLost(self) -> None:
        """The peer may have more to say."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone = True
        if reason.check(ConnectionDone):
            self.other.close()
        else:
            self._tunnel.broken = self._tunnel.broken or self._broken
            self.other.abort()
        self._tunnel.lost()

    # From the transport of the other end.

    def pauseProducing(self) -> None:
        self.other._full = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.other._full = False
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The other end is lost, which it says itself."""
