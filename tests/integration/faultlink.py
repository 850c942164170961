"""
One connection of a `tests.integration.faultproxy`, and what can go wrong with it.

It carries one exchange at a time: bytes of the router behind bytes of the worker begin the next.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.integration.faults import DRIP_BYTES, DRIP_PAUSE, LATENCY, Fault, Moment, Side
from tests.integration.faultway import Way
from tests.integration.sockets import reactor

if TYPE_CHECKING:
    from tests.integration.faultproxy import FaultProxy

_JUNK = b"\0\xff\x01 no HTTP at all\r\n\r\n"
_ID = re.compile(rb"X-Request-Id: ([!-~]+)\r\n", re.IGNORECASE)
_LONGEST_ID_LINE = 100


@define(eq=False)
class Link:
    """
    A connection of the router and, from its first byte on, one to the worker.

    Attributes:
        front: Transport to the router.
        back: Transport to the worker, if there is one.
        traffic: Whether it has carried a client's request.
        broken: Whether it carries nothing any more.
    """

    proxy: FaultProxy
    front: Any = None
    back: Any = None
    traffic: bool = False
    broken: bool = False
    _there: Way = field(factory=lambda: Way(Side.REQUEST))
    _here: Way = field(factory=lambda: Way(Side.ANSWER))
    _due: tuple[Fault, Moment] | None = None
    _connecting: bool = False
    _last: bytes = b""

    def opened(self, front: Any) -> None:
        """
        The router has connected.
        """
        self.front, self._here.write = front, front.write
        self.proxy.links.add(self)
        self.proxy.accepted += 1
        due = self.proxy.due(connecting=True)
        if due is not None:
            self.strike(due[0])

    def asked(self, data: bytes) -> None:
        """
        The router has sent *data*.
        """
        if self._here.size or not self._there.size:
            self._here.begin()
            self._there.begin()
        if self._note_ids(data):
            self.traffic = True
            self._due = self.proxy.due(connecting=False)
        if not self._connecting and not self.broken:
            self._connecting = True
            self._open_back()
        self._carry(self._there, data)

    def answered(self, data: bytes) -> None:
        """
        The worker has sent *data*.
        """
        self._carry(self._here, data)

    def ended(self, transport: Any) -> None:
        """
        One of the two is closed.
        """
        if transport is self.front:
            self._there.stop()
            self._here.stop()
            self.proxy.links.discard(self)
            if self.back is not None:
                self.back.abortConnection()
        elif not self.broken:
            self._here.end(self._close)

    def strike(self, fault: Fault) -> None:
        """
        Let *fault* happen to what comes from now on, in both directions.
        """
        self.proxy.struck += 1
        if fault is Fault.LATENCY:
            self._each_way(lambda way: way.slow(LATENCY))
            return
        if fault is Fault.DRIP:
            self._each_way(lambda way: way.slow(DRIP_PAUSE, DRIP_BYTES))
            return
        self._break()
        if fault is Fault.RESET:
            _when_sent(self.front, lambda: self.tell("abortConnection"))
        elif fault is Fault.CLOSE:
            self.tell("loseConnection")
        elif fault is Fault.HALF_CLOSE:
            self.front.loseWriteConnection()
        elif fault is Fault.STALL:
            self.tell("pauseProducing")
        elif fault is Fault.GARBAGE:
            self.front.write(_JUNK)

    def go_on(self) -> None:
        """
        Let nothing be slow or stalled any more.
        """
        self.tell("resumeProducing")
        self._there.flush()
        self._here.flush()

    def tell(self, what: str) -> None:
        """
        Call that method of both transports.
        """
        for transport in (self.front, self.back):
            if transport is not None:
                getattr(transport, what)()

    def _carry(self, way: Way, data: bytes) -> None:
        fault, moment = self._due or (None, None)
        cut = way.before(moment, data)
        if self.broken:
            return
        if fault is None or cut is None:
            way.pass_on(data)
            return
        self._due = None
        way.pass_on(data[:cut])
        self.strike(fault)
        if not self.broken:
            way.pass_on(data[cut:])

    def _close(self) -> None:
        self._break()
        self.front.loseConnection()

    def _break(self) -> None:
        # A transport does not close while a paused producer may have more for it.
        self.broken = True
        self.tell("unregisterProducer")
        self.tell("resumeProducing")

    def _each_way(self, act: Callable[[Way], None]) -> None:
        act(self._there)
        act(self._here)

    def _note_ids(self, data: bytes) -> list[bytes]:
        known, seen = len(self._last), self._last + data
        ids = [each[1] for each in _ID.finditer(seen) if each.end() > known]
        self.proxy.ids += ids
        self._last = seen[-_LONGEST_ID_LINE:]
        return ids

    def _open_back(self) -> None:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.proxy.target)
        factory = Factory.forProtocol(lambda: _Back(self))
        factory.noisy = False
        endpoint.connect(factory).addErrback(lambda _: self.front.abortConnection())

    def reached(self, back: Any) -> None:
        """
        The worker has been connected to.
        """
        if self not in self.proxy.links:
            back.abortConnection()
            return
        self.back, self._there.write = back, back.write
        back.registerProducer(_Pace(self.front), True)
        self.front.registerProducer(_Pace(back), True)
        self._there.pass_on(b"")


class Front(Protocol):
    """The router's side."""

    transport: Any

    def __init__(self, link: Link) -> None:
        self._link = link

    def connectionMade(self) -> None:
        self._link.opened(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self._link.asked(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._link.ended(self.transport)


class _Back(Front):
    """The worker's side."""

    def connectionMade(self) -> None:
        self._link.reached(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self._link.answered(data)


@implementer(IPushProducer)
@frozen(eq=False)
class _Pace:
    """Reads one side as fast as the other takes; the end of the one is not the other's."""

    transport: Any

    def pauseProducing(self) -> None:
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """`Link.ended` decides."""


@implementer(IPullProducer)
@define(eq=False)
class _Sentinel:
    """Asked for more when all that was written before has left."""

    transport: Any
    then: Callable[[], None]
    _begun: bool = False

    def resumeProducing(self) -> None:
        if not self._begun:
            self._begun = True
            self.transport.startWriting()
            return
        self.transport.unregisterProducer()
        self.then()

    def stopProducing(self) -> None:
        """The connection ended first."""


def _when_sent(transport: Any, then: Callable[[], None]) -> None:
    """
    Call *then* when the kernel has all that was written: an abort drops what it has not.
    """
    transport.registerProducer(_Sentinel(transport, then), False)
