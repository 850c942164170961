"""
A whole router in memory with bytes at both ends, on a clock: as `tests.integration.sockets`, but
nothing happens until the test says so.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.web.server import Site
from zope.interface import implementer

from sgl_droute.service import RouterService
from sgl_droute.settings import RouterSettings
from tests.integration.answers import Answer, parse_answers
from tests.integration.sockets import Connection
from tests.integration.strict_worker import StrictWorker

# Bytes that an end takes for the other one before it asks its producer to pause.
_BUFFER = 1 << 16


@implementer(ITCPTransport, IPushProducer, IConsumer)
class End:
    """
    One end of a connection in memory: bytes arrive when the clock moves, by no time at least.
    """

    def __init__(self, clock: Any) -> None:
        self.peer: End
        self.protocol: Protocol
        self.disconnecting = False
        self.gone = False
        self.paused = False
        self._clock = clock
        self._unsent = bytearray()
        self._write_closed = False
        self._producer: Any = None
        self._producer_paused = False

    # What the protocol asks for.

    def write(self, data: bytes) -> None:
        if not (self._write_closed or self.disconnecting or self.gone):
            self._unsent += data
            if self._producer is not None and len(self._unsent) > _BUFFER:
                self._producer_paused = True
                self._producer.pauseProducing()
            self._soon()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseWriteConnection(self) -> None:
        self._write_closed = True
        self._soon()

    def loseConnection(self) -> None:
        self.disconnecting = True
        self._soon()

    def abortConnection(self) -> None:
        self._clock.callLater(0, self._end, ConnectionAborted(), ConnectionLost())

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        self.peer._soon()

    def stopProducing(self) -> None:
        self.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None
        self._soon()

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 2)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 1)

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    def getTcpKeepAlive(self) -> bool:
        return False

    # What happens on the wire.

    def _soon(self) -> None:
        self._clock.callLater(0, self._move)

    def _move(self) -> None:
        if self.gone or self.peer.paused:
            return
        resumed = False
        if self._unsent:
            data = bytes(self._unsent)
            self._unsent.clear()
            resumed = self._resume_producer()
            if not self.peer.disconnecting:
                self.peer.protocol.dataReceived(data)
        # As in a real transport, a producer that was paused comes before the closing.
        if not resumed and not self._unsent and (self.disconnecting or self._write_closed):
            # Nobody here goes on writing once the other end has closed.
            self._end(ConnectionDone(), ConnectionDone())

    def _resume_producer(self) -> bool:
        if self._producer is None or not self._producer_paused:
            return False
        self._producer_paused = False
        self._producer.resumeProducing()
        return True

    def _end(self, here: Exception, there: Exception) -> None:
        for end, reason in ((self, here), (self.peer, there)):
            if not end.gone:
                end.gone = True
                end.protocol.connectionLost(Failure(reason))


def joined(clock: Any, one: Protocol, other: Protocol) -> None:
    """
    Connect two protocols.
    """
    first, second = End(clock), End(clock)
    first.peer, second.peer = second, first
    first.protocol, second.protocol = one, other
    one.makeConnection(first)
    other.makeConnection(second)


class _Reactor(MemoryReactorClock):
    """Connects whoever asks to one worker."""

    def __init__(self, worker: StrictWorker) -> None:
        super().__init__()
        self._worker = worker

    def connectTCP(self, host: str, port: int, factory: Any, *args: Any, **kwargs: Any) -> Any:
        connector = super().connectTCP(host, port, factory, *args, **kwargs)
        address = IPv4Address("TCP", host, port)

        def connect() -> None:
            joined(self, self._worker.buildProtocol(None), factory.buildProtocol(address))

        self.callLater(0, connect)
        return connector


class WiredRouter:
    """
    A router in front of one `StrictWorker`.

    Args:
        options: Fields of `RouterSettings`.
    """

    def __init__(self, worker: StrictWorker | None = None, **options: Any) -> None:
        self.worker = worker or StrictWorker()
        self.clock: Any = _Reactor(self.worker)
        options.setdefault("health_check_interval", 1e9)
        settings = RouterSettings(worker_urls=("http://127.0.0.1:1",), **options)
        self.service = RouterService(self.clock, settings)
        self.service.startService()
        self._site = self.service.site()
        self.settle()

    def connect(self, data: bytes = b"", site: Site | None = None) -> Client:
        """
        A client that has sent *data*, to a site of its own if one is given.
        """
        client = Client(self)
        channel: Any = (site or self._site).buildProtocol(IPv4Address("TCP", "127.0.0.1", 2))
        joined(self.clock, client, channel)
        client.send(data)
        return client

    def settle(self) -> None:
        """
        Let everything happen that needs no time.
        """
        for _ in range(100_000):
            calls = self.clock.getDelayedCalls()
            if not any(call.getTime() <= self.clock.seconds() for call in calls):
                return
            self.clock.advance(0)
        raise AssertionError("it never settles")

    def wait(self, seconds: float, step: float = 1.0) -> None:
        """
        Let time pass.
        """
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
            self.settle()

    def stop(self) -> None:
        """
        Stop the service; nothing may be left that waits for a time, nor be in flight.
        """
        assert [worker.in_flight for worker in self.service.pool] == [0]
        self.service.stopService()
        self.settle()
        assert self.clock.getDelayedCalls() == []


class Client(Connection):
    """
    A client connection of a `WiredRouter`.
    """

    def __init__(self, router: WiredRouter) -> None:
        super().__init__()
        self._router = router

    def send(self, data: bytes) -> None:
        """
        Send *data* and let it arrive.
        """
        self.transport.write(data)
        self._router.settle()

    @property
    def answers(self) -> list[Answer]:
        return parse_answers(self.received)[0]

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers]


def open_files() -> int:
    """
    Temporary files that this process has open (count): they have no name.
    """
    links = [os.path.join("/proc/self/fd", each) for each in os.listdir("/proc/self/fd")]
    return sum(os.readlink(link).endswith("(deleted)") for link in links if os.path.lexists(link))
